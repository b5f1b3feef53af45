"""Is a final answer right? Finding it in a completion, and comparing it with the reference.

extract.py   completion -> final answer (boxed, last number, the whole text); solution -> reference answer
plain.py     cheap verdicts without computer algebra: same text, same number, same words
guard.py     everything else: math-verify in guarded processes that may hang or die without harm
worker.py    the program that those processes run
score.py     the three together: rewards, and classes of equivalent answers for majority votes
"""
