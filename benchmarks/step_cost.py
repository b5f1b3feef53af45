"""The cost of a step of `viprl.VIP` at Q = 512 and C = 8Q, by the number of prompts seen so far.

usage: python benchmarks/step_cost.py [--pools 1000,10000,100000,1000000] [--options candidates,match,expected,waves]
                                      [--steps 40] [--rivals 1000,2000,10000] [--stability 10000] [--json OUT]

Measures the import of the package, the step, with other options of VIP at the largest pool, the default predictor
against Gaussian processes (the published recursion, scikit-learn, GPyTorch), and rounding errors after many steps.
Prompts, embeddings and outcomes are synthetic; the embeddings are in a memory-mapped float16 file, like real ones. An
empty list or 0 leaves a part out. On a busy machine, compare processor times instead of wall-clock times. Prints tables
in Markdown.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import measure
from rich import box
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

HERE = Path(__file__).parent
console = Console(width=None if sys.stdout.isatty() else 160)  # a pipe has no width


def worker(script: str, *arguments: object) -> dict[str, Any]:
    """The JSON that a script prints. Each script has its own process, so that memory and threads are separate."""
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]}
    return json.loads(done.stdout.splitlines()[-1])


def spread(times: dict[str, float]) -> list[str]:
    """The cells of a row of times."""
    return [
        f"{times['median']:.1f}  ({times['q25']:.1f} to {times['q75']:.1f})",
        f"{times['min']:.1f}",
        f"{times['cpu_median']:.1f}",
        f"{times['cpu_min']:.1f}",
    ]


def table(title: str, *columns: str) -> Table:
    made = Table(title=title, title_justify="left", box=box.MARKDOWN)
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index == 0 else "right")
    return made


def show_noise(noise: dict[str, float]) -> None:
    console.print(
        f"Machine: {noise['cores']:.0f} cores, load {noise['load']:.1f}. A fixed piece of work, 400 times: "
        f"minimum {noise['min']:.2f} ms, median {noise['median']:.2f} ms, 90 % below {noise['p90']:.2f} ms."
    )


def show_import(times: dict[str, Any]) -> None:
    if "failed" in times:
        console.print("import viprl:", *times["failed"])
        return
    console.print(
        f"import viprl: median of {times['repeats']} fresh processes {times['median']:.0f} ms "
        f"({times['min']:.0f} to {times['max']:.0f})"
    )


def show_pools(rows: list[dict[str, Any]]) -> None:
    found = table(
        "viprl.VIP, strategy default, milliseconds per step",
        "prompts seen", "median (quartiles)", "minimum", "processor: median", "minimum",
        "allocate", "observe", "memory MB", "of which prompts",
    )  # fmt: skip
    for row in rows:
        if "failed" in row:
            found.add_row(row["label"], *row["failed"])
            continue
        memory = row["megabytes"]
        found.add_row(
            row["label"],
            *spread(row["milliseconds"]),
            f"{row['halves']['allocate']:.1f}",
            f"{row['halves']['observe']:.1f}",
            f"{memory['peak']:.0f}",
            f"{memory['peak'] - memory['start']:.0f}",
        )
    console.print(found)
    whole = [row for row in rows if "parts" in row and "," not in row["label"].replace(f"{row['pool']:,}", "")]
    if whole:
        row = whole[min(1, len(whole) - 1)]
        total = sum(row["parts"].values())
        shares = table(f"Where the time goes, {row['label']} prompts", "part", "share")
        for part, value in sorted(row["parts"].items(), key=lambda item: -item[1]):
            shares.add_row(part, f"{value / total:.0%}")
        console.print(shares)


def show_rivals(found: list[dict[str, Any]]) -> None:
    rivals = table(
        "Prediction and learning only, milliseconds per step",
        "prompts seen, method", "median (quartiles)", "minimum", "processor: median", "minimum",
        "relative to default (processor, minimum)",
    )  # fmt: skip
    for result in found:
        if "failed" in result:
            rivals.add_row(*result["failed"])
            continue
        ours = result["rivals"]["default"]["cpu_min"]
        for name, times in result["rivals"].items():
            label = f"{result['pool']:,}  {name}"
            if isinstance(times, str):
                rivals.add_row(label, times)
            else:
                rivals.add_row(label, *spread(times), f"{times['cpu_min'] / ours:.1f}")
    console.print(rivals)


def show_stability(found: dict[str, Any]) -> None:
    if "failed" in found:
        console.print("stability:", *found["failed"])
        return
    health = table(
        f"After many steps of {found['batch']} prompts out of {found['pool']:,}",
        "steps", "variant", "asymmetry", "smallest eigenvalue", "condition", "error of belief sums",
        "error of histogram", "smallest weight", "largest difference of weights",
    )  # fmt: skip
    for step, variants in found["at"].items():
        for name, row in variants.items():
            health.add_row(
                f"{int(step):,}", name, f"{row['asymmetry']:.0e}", f"{row['smallest_eigenvalue']:.4f}",
                f"{row['condition']:.0f}", f"{row['belief_sum_error']:.0e}", f"{row['histogram_error']:.0e}",
                f"{row['smallest_weight']:.1e}", f"{row['apart']:.1e}",
            )  # fmt: skip
    console.print(health)


def numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


def names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pools", type=numbers, default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--options", type=names, default=["candidates", "match", "expected", "waves"])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rivals", type=numbers, default=[1_000, 2_000, 10_000])
    parser.add_argument("--stability", type=int, default=10_000)
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    arguments = parser.parse_args()
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    results: dict[str, Any] = {"noise": measure.noise(), "pools": [], "rivals": [], "stability": None}
    show_noise(results["noise"])
    results["import"] = worker("import_time.py")
    show_import(results["import"])
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("")
        for pool in arguments.pools:
            progress.update(task, description=f"a pool of {pool:,} prompts")
            with tempfile.TemporaryDirectory() as folder:  # of a state that is filled once
                for option in ["plain", *(arguments.options if pool == max(arguments.pools) else [])]:
                    row = worker("pool.py", pool, "--steps", arguments.steps, "--options", option, "--folder", folder)
                    label = f"{pool:,}" if option == "plain" else f"{pool:,}, {option}"
                    results["pools"].append(row | {"label": label})
        if arguments.pools:
            pool = arguments.pools[min(1, len(arguments.pools) - 1)]
            row = worker("pool.py", pool, "--steps", arguments.steps, "--free-threads")
            results["pools"].append(row | {"label": f"{pool:,}, algebra on all cores"})
            show_pools(results["pools"])
        for pool in arguments.rivals:
            progress.update(task, description=f"other methods, {pool:,} prompts")
            results["rivals"].append(worker("rivals.py", pool))
        if arguments.rivals:
            show_rivals(results["rivals"])
        if arguments.stability:
            progress.update(task, description=f"{arguments.stability:,} steps")
            results["stability"] = worker("stability.py", "--steps", arguments.stability)
            show_stability(results["stability"])
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
