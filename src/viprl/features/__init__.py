"""Features of prompts: texts to vectors.

encoders.py     encoders, and the encoder of each choice of features
cache.py        vectors computed once for each distinct text
vector_file.py  the files of the cache
"""
