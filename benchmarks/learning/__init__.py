"""The learning curve: how many rollouts a policy needs for the same success, by who is sampled and how often.

A loop of its own, without a trainer, for the quickstart's tiny language model, whose success probabilities are exact.
`make learning` runs it; results and command are in docs/results/learning.
"""
