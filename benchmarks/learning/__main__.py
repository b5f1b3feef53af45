"""usage: python -m learning [--arms NAMES] [--seeds 0-7] [--regimes late,live,dead,sgd,new,text] [--out runs/learning]

Without options: the main comparison on eight seeds, then `live`, `dead` and `sgd` with fewer arms and three seeds. Runs
that are in the folder are not repeated, so that an interrupted command continues.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # one process a core
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

MEASURED, MEASURED_SEEDS = (30, 60), range(2)
PROBED = ("counts", "selection", "expected", "size mean", "size root", "size skip")
"""Arms whose second moment is measured, after these steps and with these seeds."""
ELSEWHERE = ("uniform", "counts", "expected")
"""Arms in the regimes other than the first."""


def main() -> None:
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    from learning.arms import ARMS, MAIN
    from learning.experiment import REGIMES, Job, run_all
    from learning.report import SHORT_HEAD, matched_arms, matched_sentences, results, sentences, write_report

    parser = argparse.ArgumentParser(prog="learning", description=__doc__.split("\n\n")[1])
    parser.add_argument("--arms", help=f"names, separated by commas, of {', '.join(ARMS)}; 'all' for all")
    parser.add_argument("--seeds", help="such as 0-7 or 1,5")
    parser.add_argument("--regimes", default="late,live,dead,sgd")
    parser.add_argument("--lr", type=float, help="learning rate of all arms; default: the best of each")
    parser.add_argument("--out", type=Path, default=Path("runs/learning"))
    given = parser.parse_args()
    regimes = given.regimes.split(",")
    jobs = []
    for position, regime in enumerate(regimes):
        main_table = position == 0 and regime == "late"
        arms = list(ARMS) if given.arms == "all" else given.arms.split(",") if given.arms else []
        arms = arms or list(MAIN if main_table else ELSEWHERE)
        for seed in _numbers(given.seeds) if given.seeds else range(8 if main_table else 3):
            measured = MEASURED if main_table and seed in MEASURED_SEEDS else ()
            jobs += [Job(arm, seed, regime, given.lr, measured=measured if arm in PROBED else ()) for arm in arms]
    rows = list(track(run_all(jobs, given.out), "training", total=len(jobs)))
    console = Console()
    for regime in regimes:
        found = results(rows, regime)
        shown = Table(*SHORT_HEAD, title=REGIMES[regime].title)
        for result in found:
            shown.add_row(*result.short_cells())
        console.print(shown)
        for line in [*sentences(found), *matched_sentences(matched_arms(rows, regime))]:
            console.print(f"- {line}", highlight=False)
    console.print(f"report: {write_report(rows, given.out)}")


def _numbers(text: str) -> list[int]:
    """Whole numbers from "0-3,8"."""
    parts = (part.partition("-") for part in text.split(","))
    return [number for first, dash, last in parts for number in range(int(first), int(last if dash else first) + 1)]


if __name__ == "__main__":
    main()
