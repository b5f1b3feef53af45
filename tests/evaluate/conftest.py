"""The tests of this folder are collected if their packages are installed: pip install "viprl[trl,eval]"."""

from importlib.util import find_spec

collect_ignore_glob = [] if all(map(find_spec, ("datasets", "transformers", "math_verify"))) else ["test_*.py"]
