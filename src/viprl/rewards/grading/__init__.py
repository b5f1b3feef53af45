"""Whether a final answer is right: find it in the completion, and compare it with the reference answer.

extract.py         completion -> final answer (boxed, last number, the whole text); solution -> reference answer
quick_verdict.py   comparisons that need no computer algebra: same text, same number, same words
verifier.py        all others: math-verify in processes that may hang or crash without harm
worker.py          the program that these processes run
answers.py         the parts together: rewards, and classes of equivalent answers for majority votes
"""
