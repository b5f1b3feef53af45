"""How long `import viprl` takes, in fresh processes.

usage: python benchmarks/import_time.py [--repeats 5]

Prints one JSON object: milliseconds from start to end of the import, without the start of Python.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

CODE = "import time; start = time.perf_counter(); import viprl; print(1e3 * (time.perf_counter() - start))"


def milliseconds() -> float:
    """One import in a process of its own."""
    return float(subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    times = sorted(milliseconds() for _ in range(parser.parse_args().repeats))
    print(json.dumps({"median": statistics.median(times), "min": times[0], "max": times[-1], "repeats": len(times)}))


if __name__ == "__main__":
    main()
