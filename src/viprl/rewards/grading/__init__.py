"""Whether a final answer is right: find it in the completion, and compare it with the reference answer.

extract.py         completion -> final answer (boxed, last number, the whole text)
solutions.py       solution, of any type -> reference answer
notation.py        what people write in several ways -> one notation
quick_verdict.py   comparisons that need no computer algebra: same text, same number, same words
rationals.py       texts that are numbers, read exactly
inequalities.py    solved inequalities as intervals
verifier.py        all others: math-verify in processes that may hang or crash without harm
worker.py          the program that these processes run
answers.py         the parts together: rewards, and classes of equivalent answers for majority votes
"""
