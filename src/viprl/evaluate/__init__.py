"""`viprl evaluate`: Pass@k, Mean@k and Maj@k of a model, or of completions that are already there.

problems.py     the questions and their answers
sampling.py     n completions a question, by vLLM or transformers
generations.py  the file that holds them, appended to while they are made
grading.py      which completions are right, and which say the same
metrics.py      the estimators and their intervals
run.py          all of it in order
"""
