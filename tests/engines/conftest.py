"""The tests of an engine need its package. verl has an environment of its own: `make test-verl`, `make test-tinker`."""

from importlib import metadata


def installed(distribution):
    try:
        return bool(metadata.version(distribution))
    except metadata.PackageNotFoundError:
        return False


collect_ignore_glob = [
    f"{folder}/test_*.py"
    for folder, distribution in {"trl": "trl", "verl": "verl", "tinker": "tinker-cookbook"}.items()
    if not installed(distribution)
]
