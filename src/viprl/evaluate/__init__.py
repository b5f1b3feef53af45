"""Pass@k, Mean@k and Maj@k of a model, or of completions that exist already (`viprl evaluate`).

problems.py     questions with their answers, and as tokens for a model
sampling.py     n completions for each problem, by vLLM or transformers
nucleus.py      sampling a token by a given random number
generations.py  the file of completions, to which sampling appends
graded.py       which completions are right, and which give the same answer
pass_at_k.py    the estimators and their intervals
scores.py       the metrics of all problems
results.py      metrics.json, the table of problems, and the table in the terminal
evaluation.py   all steps in order
"""
