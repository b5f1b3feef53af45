"""The quickstart: a tiny language model, trained with adaptive and with uniform allocation, measured and reported.

Every stage leaves its result in the run folder and is skipped when it is there, so an interrupted run goes on where it
stopped. The trainings are plain `viprl train` runs in processes of their own, exactly what a user would start.
"""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from viprl.quickstart.measure import measure_accuracy, measure_variance, read_result
from viprl.quickstart.scale import Settings
from viprl.quickstart.summary import summarise
from viprl.runs.files import HISTORY_FILE
from viprl.runs.history import history_of_outcomes, save_history
from viprl.utils.files import write_text
from viprl.utils.json_lines import log_rows

console = Console(soft_wrap=True)
ARMS = ("default", "uniform")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


class TrainingFailed(ValueError):
    """One of the trainings ended with an error; the message holds the end of its log."""


@dataclass(frozen=True)
class Place:
    """Where things lie in the run folder."""

    root: Path

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def pool(self) -> Path:
        return self.root / "pool.jsonl"

    @property
    def held_out(self) -> Path:
        return self.root / "held_out.jsonl"

    def arm(self, strategy: str, seed: int) -> Path:
        return self.root / "arms" / f"{strategy}-seed{seed}"

    def measured(self, name: str) -> Path:
        return self.root / "measured" / f"{name}.json"


def run(out: Path, *, seeds: int = 1, jobs: int = 2, settings: Settings | None = None) -> Path:
    """All stages; returns the path of the report. Raises ValueError where the folder holds another run."""
    for module, extra in (("trl", "trl"), ("sentence_transformers", "minilm"), ("matplotlib", "report")):
        if importlib.util.find_spec(module) is None:
            raise ImportError(f'the quickstart needs {module}: pip install "viprl[{extra}]"')
    settings = settings or Settings()
    place = Place(out)
    began = time.monotonic()
    _claim(place, settings)
    console.print(
        f"[bold]viprl quickstart[/bold]: a small language model learns letter puzzles; {settings.steps} steps of RLOO, "
        f"{settings.budget} rollouts for {settings.prompts} prompts a step, once with adaptive and once with uniform "
        f"allocation ({seeds} seed{'s' if seeds > 1 else ''}). Results go to {out}/."
    )
    with _progress() as progress:
        _pretrain(place, settings, progress)
        _train(place, settings, seeds, jobs, progress)
        variance, accuracy = _measure(place, settings, seeds, jobs, progress)
    summary = summarise(variance, accuracy, settings, seeds)
    _collect(place, accuracy, summary, seeds)
    from viprl.report.run_report import write_report

    report = write_report([out], out / "report.html", plots_dir=out / "plots")
    _say(summary, settings, report, seeds, time.monotonic() - began)
    return report


def _claim(place: Place, settings: Settings) -> None:
    place.root.mkdir(parents=True, exist_ok=True)
    file = place.root / "settings.json"
    now = json.loads(json.dumps(asdict(settings)))
    if file.exists():
        earlier = json.loads(file.read_text(encoding="utf-8"))
        if earlier != now:
            changed = ", ".join(key for key in now if earlier.get(key) != now[key])
            raise ValueError(
                f"{place.root} holds a quickstart with other settings ({changed}); give another folder with --out, or "
                "delete that one"
            )
    write_text(file, json.dumps(now, indent=1))


def _pretrain(place: Place, settings: Settings, progress: Progress) -> None:
    """The supervised start, and the prompts."""
    if place.model.is_dir():
        return
    import numpy as np
    import torch
    from transformers.utils import logging

    from viprl.quickstart.model import build_model, build_tokenizer, pretrain
    from viprl.quickstart.tasks import late_rl_pool

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seed = settings.pretraining_seed
    pool, held_out = late_rl_pool(np.random.default_rng(seed), settings.pool, settings.held_out)
    for path, problems in ((place.pool, pool), (place.held_out, held_out)):
        write_text(path, "".join(json.dumps(asdict(problem)) + "\n" for problem in problems))
    bar = progress.add_task("pretraining the tiny language model", total=settings.pretraining_steps)
    model, tokenizer = build_model(seed), build_tokenizer()

    def advance(step: int, loss: float) -> None:
        progress.update(bar, completed=step)

    pretrain(model, tokenizer, seed=seed, steps=settings.pretraining_steps, progress=advance)
    logging.disable_progress_bar()
    part = place.root / ".model"
    model.save_pretrained(part)
    tokenizer.save_pretrained(part)
    part.rename(place.model)
    torch.set_num_threads(threads)


def _train(place: Place, settings: Settings, seeds: int, jobs: int, progress: Progress) -> None:
    """The trainings, `jobs` at a time, each a `viprl train` process whose log says how far it is."""
    arms = [(strategy, seed) for seed in range(seeds) for strategy in ARMS]
    waiting = [arm for arm in arms if not (place.arm(*arm) / "final" / "config.json").exists()]
    running: dict[tuple[str, int], tuple[subprocess.Popen[bytes], Any]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                arm = waiting.pop(0)
                bar = progress.add_task(f"training with {arm[0]} allocation, seed {arm[1]}", total=settings.steps)
                running[arm] = (_start(place, settings, *arm), bar)
            time.sleep(0.5)
            for arm, (process, bar) in list(running.items()):
                progress.update(bar, completed=_last_step(place.arm(*arm) / "metrics.jsonl"))
                if process.poll() is not None:
                    del running[arm]
                    if process.returncode != 0:
                        raise TrainingFailed(_failure(place.arm(*arm), process.returncode))
                    progress.update(bar, completed=settings.steps)
    finally:
        for process, _ in running.values():
            process.terminate()


def _start(place: Place, settings: Settings, strategy: str, seed: int) -> subprocess.Popen[bytes]:
    folder = place.arm(strategy, seed)
    config = settings.arm(
        model=str(place.model), dataset=str(place.pool), output_dir=str(folder), strategy=strategy, seed=seed
    )
    file = folder.with_suffix(".yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, yaml.safe_dump(config, sort_keys=False))
    with folder.with_suffix(".log").open("ab") as log:
        command = [sys.executable, "-m", "viprl", "train", "--config", str(file)]
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **ONE_THREAD})


def _last_step(metrics: Path) -> int:
    return max((row["step"] for row in log_rows(metrics)), default=0) if metrics.exists() else 0


def _failure(folder: Path, code: int) -> str:
    log = folder.with_suffix(".log")
    tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
    return f"the training in {folder} ended with exit status {code}; the end of {log}:\n{tail}"


def _measure(
    place: Place, settings: Settings, seeds: int, jobs: int, progress: Progress
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Gradient variance at checkpoints of the default run, held-out accuracy of both."""
    variance = {
        f"variance-seed{seed}-step{step}": (
            measure_variance, (str(place.arm("default", seed)), str(place.pool), step, seed, settings)
        )
        for seed in range(seeds) for step in settings.measured_steps()
    }  # fmt: skip
    accuracy = {
        f"accuracy-{strategy}-seed{seed}-step{step}": (
            measure_accuracy,
            (_weights(place, strategy, seed, step), str(place.held_out), strategy, step, seed, settings),
        )
        for seed in range(seeds) for strategy in ARMS for step in settings.evaluated_steps()
    }  # fmt: skip
    done = _results(place, {**variance, **accuracy}, jobs, progress)
    return [done[name] for name in variance], [done[name] for name in accuracy]


def _weights(place: Place, strategy: str, seed: int, step: int) -> str:
    return str(place.arm(strategy, seed) / f"checkpoint-{step}") if step else str(place.model)


def _results(
    place: Place, tasks: dict[str, tuple[Callable[..., Any], Sequence[Any]]], jobs: int, progress: Progress
) -> dict[str, Any]:
    done = {name: result for name in tasks if (result := read_result(place.measured(name))) is not None}
    todo = {name: task for name, task in tasks.items() if name not in done}
    if not todo:
        return done
    bar = progress.add_task("measuring gradient variance and accuracy", total=len(tasks), completed=len(done))
    place.measured("x").parent.mkdir(exist_ok=True)
    with _one_thread(), ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        names = {pool.submit(function, *arguments): name for name, (function, arguments) in todo.items()}
        for future in as_completed(names):
            name = names[future]
            done[name] = future.result()
            write_text(place.measured(name), json.dumps(done[name]))
            progress.advance(bar)
    return done


@contextmanager
def _one_thread() -> Iterator[None]:
    """Processes started here use one thread each."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _collect(place: Place, accuracy: Sequence[dict[str, Any]], summary: dict[str, Any], seeds: int) -> None:
    """metrics.jsonl, history.jsonl.gz and summary.json of the whole quickstart."""
    rows = [row for seed in range(seeds) for arm in ARMS for row in log_rows(place.arm(arm, seed) / "metrics.jsonl")]
    budget = summary["settings"]["budget"]
    for result in accuracy:
        mean = sum(result["scores"]) / len(result["scores"])
        row = {key: result[key] for key in ("strategy", "seed", "step")}
        rows.append({**row, "rollouts": result["step"] * budget, "eval/mean_at_8": mean})
    write_text(place.root / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    prompts = {f"id:{row['id']}": row["prompt"] for row in log_rows(place.pool)}
    save_history(place.root / HISTORY_FILE, history_of_outcomes([place.arm("default", 0) / "outcomes.jsonl"], prompts))
    write_text(place.root / "summary.json", json.dumps(summary, indent=1))


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console)


def _say(summary: dict[str, Any], settings: Settings, report: Path, seeds: int, seconds: float) -> None:
    """The outcome in plain words."""
    console.print("\n[bold]What the allocation bought[/bold] (same budget, measured on common rollouts)")
    words = {"default": "default allocation", "oracle": "with the true probabilities", "paper": "VIP as published"}
    for name in ("default", "oracle", "paper", "random", "uniform", *settings.also):
        mean, spread = summary["variance_ratio"][name]["mean"], _spread(summary, name, seeds)
        wasted = summary["zero_advantage_rollouts"][name]["mean"]
        console.print(
            f"  {words.get(name, name):<28} {mean:.2f} ± {spread:.2f} times the gradient variance of uniform; "
            f"{wasted:.0%} of the rollouts in groups that teach nothing",
            highlight=False,
        )
    over = f"{seeds} seeds (means of each)" if seeds > 1 else f"the {summary['variance_ratio']['default']['n']} batches"
    console.print(f"  (±: standard deviation over {over})", highlight=False)
    gap = summary["learning"].get("paired_difference")
    if gap is not None:
        noise = gap["low"] is None or gap["low"] <= 0 <= gap["high"]
        interval = "" if gap["low"] is None else f" [{gap['low']:+.3f}, {gap['high']:+.3f}]"
        console.print(
            f"  held-out accuracy, default minus uniform: {gap['mean']:+.3f}{interval} over {gap['n']} {gap['basis']}"
            f"{': within noise' if noise else ''}",
            highlight=False,
        )
    console.print(f"\n{seconds / 60:.1f} minutes. Open [bold]{report}[/bold] in a browser.")


def _spread(summary: dict[str, Any], name: str, seeds: int) -> float:
    """Standard deviation of the variance ratio: over the means of the seeds, or over the batches of the only one."""
    if seeds == 1:
        return summary["variance_ratio"][name]["sd"] or 0.0
    return statistics.stdev(entry["variance_ratio"][name]["mean"] for entry in summary["by_seed"].values())
