"""These tests need verl, which cannot share an environment with TRL: `make test-verl` builds one and runs them."""

from importlib import metadata

try:
    metadata.version("verl")
except metadata.PackageNotFoundError:
    collect_ignore_glob = ["test_*.py"]
