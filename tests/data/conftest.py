"""The tests of this folder are collected if their packages are installed: pip install "viprl[trl]"."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("datasets") and find_spec("transformers") else ["test_*.py"]
