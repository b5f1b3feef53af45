"""How long the state of `viprl.VIP` takes to save, and what a step notices of it.

usage: python benchmarks/state_saving.py [--prompts 10000,100000,1000000] [--repeats 5] [--folder FOLDER] [--json OUT]

A VIP sees so many prompts once, 8 rollouts each, without features. Then, in turns:

    VIP.save        copies the state and writes the file, until it is on the disk
    beside a step   the trainers of TRL and verl copy the state, and a thread writes it (`viprl.engines.state_writer`)
                    while they do something else. Here the main thread goes on with steps of 512 prompts until the file
                    is complete: the longest of them, and the median of steps beside which nothing is written.

--folder is on the disk to write to (default: the system's temporary folder). Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import stream
from pool import filled

from viprl import VIP
from viprl.engines.state_writer import StateWriter

Q = 512


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def step(vip: VIP, pool: int, rng: np.random.Generator) -> float:
    """Seconds of `allocate` and `observe`."""
    numbers = rng.choice(pool, min(Q, pool), replace=False)
    asked = stream.prompts(numbers)
    began = time.perf_counter()
    plan = vip.allocate(asked, budget=8 * len(numbers))
    planned = time.perf_counter() - began
    answers = stream.rewards(numbers, plan.counts, rng)
    return planned + seconds(lambda: vip.observe(asked, answers))


def measured(pool: int, repeats: int, folder: Path) -> dict[str, Any]:
    vip, rng, path = VIP(features=None, min_rollouts=2, max_rollouts=48), np.random.default_rng(0), folder / "state"
    filled(vip, pool, rng)
    writer = StateWriter(vip)
    found: dict[str, Any] = {"prompts": pool, "save": [], "save_processor": [], "copy": [], "beside": [], "alone": []}
    for _ in range(repeats):
        began = time.process_time()
        found["save"].append(seconds(lambda: vip.save(path)))
        found["save_processor"].append(time.process_time() - began)
        found["alone"].append(statistics.median(step(vip, pool, rng) for _ in range(10)))
        found["copy"].append(seconds(lambda: writer.start(path)))
        steps = [step(vip, pool, rng)]
        while not writer.written:
            steps.append(step(vip, pool, rng))
        writer.finish()
        found["beside"].append(max(steps))
    found["megabytes"] = path.stat().st_size / 1e6
    return found


def cell(times: list[float]) -> str:
    low, middle, high = 1e3 * np.percentile(times, [0, 50, 100])
    return f"{middle:,.0f} ms ({low:,.0f} to {high:,.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", default="10000,100000,1000000")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}. Medians of {arguments.repeats} (least to most).\n")
    print("| prompts seen | file | `VIP.save` | its processor time | copy | longest step beside | step alone |")
    print("|---|---|---|---|---|---|---|")
    rows = []
    for pool in map(int, arguments.prompts.split(",")):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            rows.append(row := measured(pool, arguments.repeats, Path(folder)))
        cells = [cell(row[name]) for name in ("save", "save_processor", "copy", "beside", "alone")]
        print(f"| {pool:,} | {row['megabytes']:,.1f} MB | {' | '.join(cells)} |", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
