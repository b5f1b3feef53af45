"""The stages of the quickstart: pretrain a tiny language model, train it with each strategy, measure, report.

Each stage writes its result to the run folder and is skipped if the result exists, so that an interrupted quickstart
continues where it stopped.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from threadpoolctl import threadpool_limits

from viprl.engines.vip_builder import check_training_strategy
from viprl.errors import MissingPackageError, TrainingFailedError
from viprl.metrics import HELD_OUT_SUCCESS, POOL_SUCCESS
from viprl.quickstart.experiment import ARMS, Experiment
from viprl.quickstart.measure import measure_success, measure_variance
from viprl.quickstart.summary import in_words, summarise
from viprl.runs.files import HISTORY_FILE, METRICS_FILE, OUTCOMES_FILE, SUMMARY_FILE
from viprl.runs.history import history_of_outcomes, save_history
from viprl.train.processes import ONE_THREAD, Training, end_with_parent, run_trainings
from viprl.utils.claim import claim
from viprl.utils.files import make_folder, write_text, writing
from viprl.utils.json_lines import log_rows, write_json_lines
from viprl.utils.progress import progress_bars

NEEDS = (("trl", "trl"), ("sentence_transformers", "minilm"), ("matplotlib", "report"))
"""Packages and the extras that install them."""

Tasks = dict[str, tuple[Callable[..., dict[str, Any]], Sequence[Any]]]
"""Name of a measurement -> function and arguments."""


class Folder:
    """The paths in the run folder `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.model = root / "model"
        """The pretrained model."""
        self.pool = root / "pool.jsonl"
        """The training prompts."""
        self.held_out = root / "held_out.jsonl"
        """The held-out prompts."""

    def arm(self, strategy: str, seed: int) -> Path:
        """The run folder of a training."""
        return self.root / "arms" / f"{strategy}-seed{seed}"

    def weights(self, strategy: str, seed: int, step: int) -> Path:
        """The model of a training after a step."""
        return self.arm(strategy, seed) / f"checkpoint-{step}" if step else self.model

    def measured(self, name: str) -> Path:
        """The result of a measurement."""
        return self.root / "measured" / f"{name}.json"


def run(out: Path, *, seeds: int = 1, jobs: int = 2, experiment: Experiment | None = None) -> Path:
    """Run all stages.

    Args:
        out: the run folder.
        seeds: number of repetitions.
        jobs: processes at the same time, each on one core.
        experiment: the settings.

    Returns: the path of the report.

    Raises InputError for unknown strategies, StateError if the folder has a quickstart with other settings, FileError,
    MissingPackageError, and TrainingFailedError with the end of the log of a training that failed.
    """
    for module, extra in NEEDS:
        if importlib.util.find_spec(module) is None:
            raise MissingPackageError(f'the quickstart needs {module}: pip install "viprl[{extra}]"')
    experiment, folder, console = experiment or Experiment(), Folder(out), Console(soft_wrap=True)
    for name in experiment.shadow:
        check_training_strategy(name)
    began = time.monotonic()
    make_folder(out)
    claim(out / "settings.json", asdict(experiment))
    runs = f"{seeds} seeds" if seeds > 1 else "1 seed"
    console.print(
        f"[bold]viprl quickstart[/bold]: train a tiny language model on letter puzzles with RLOO, once with adaptive "
        f"and once with uniform allocation ({runs}). Each of {experiment.steps} steps samples {experiment.budget} "
        f"rollouts: uniform of {experiment.prompts} prompts, adaptive of {experiment.default_prompts} that are chosen "
        f"from {experiment.candidates * experiment.default_prompts}. Results go to {out}/."
    )
    with progress_bars(console) as progress:
        _pretrain(folder, experiment, progress)
        _train(folder, experiment, seeds, jobs, progress)
        variance, success = _measure(folder, experiment, seeds, jobs, progress)
    summary = summarise(variance, success, experiment, seeds)
    _collect(folder, success, summary, seeds)
    from viprl.report.run_report import write_report

    report = write_report([out], out / "report.html", plots_dir=out / "plots")
    for line in in_words(summary):
        console.print(line, highlight=False)
    console.print(f"\n{(time.monotonic() - began) / 60:.1f} minutes. Open [bold]{report}[/bold] in a browser.")
    return report


def _pretrain(folder: Folder, experiment: Experiment, progress: Progress) -> None:
    """Write the prompts and the pretrained model."""
    if folder.model.is_dir():
        return
    import numpy as np
    import torch
    from transformers.utils import logging

    from viprl.quickstart.model import build_model, build_tokenizer, pretrain
    from viprl.quickstart.tasks import late_rl_pool

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seed = experiment.pretraining_seed
    pool, held_out = late_rl_pool(np.random.default_rng(seed), experiment.pool, experiment.held_out)
    for path, problems in ((folder.pool, pool), (folder.held_out, held_out)):
        write_json_lines(path, map(asdict, problems))
    bar = progress.add_task("pretraining the tiny language model", total=experiment.pretraining_steps)
    model, tokenizer = build_model(seed), build_tokenizer()
    steps = experiment.pretraining_steps
    pretrain(model, tokenizer, seed=seed, steps=steps, progress=lambda step, _: progress.update(bar, completed=step))
    logging.disable_progress_bar()
    part = folder.root / ".model"
    with writing(folder.model):
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        part.rename(folder.model)
    torch.set_num_threads(threads)


def _train(folder: Folder, experiment: Experiment, seeds: int, jobs: int, progress: Progress) -> None:
    """Run the trainings that are not finished."""
    trainings = []
    for seed in range(seeds):
        for strategy in ARMS:
            place = folder.arm(strategy, seed)
            paths = {"model": str(folder.model), "dataset": str(folder.pool), "output_dir": str(place)}
            settings = experiment.config(**paths, strategy=strategy, seed=seed)
            trainings.append(Training(f"training with {strategy} allocation, seed {seed}", place, settings))
    waiting = [training for training in trainings if not training.finished()]
    with contextlib.closing(run_trainings(waiting, progress, jobs=jobs, environment=ONE_THREAD)) as ended:
        for training, failure in ended:
            if failure is not None:
                raise TrainingFailedError(f"{training.name}: {failure.details}")


def _measure(
    folder: Folder, experiment: Experiment, seeds: int, jobs: int, progress: Progress
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Gradient variance at checkpoints of the default run, and success at checkpoints of all runs."""
    end, every = experiment.steps + 1, experiment.measure_every
    variance: Tasks = {
        f"variance-seed{seed}-step{step}": (
            measure_variance, (str(folder.arm("default", seed)), str(folder.pool), step, seed, experiment)
        )
        for seed in range(seeds) for step in range(every, end, every)
    }  # fmt: skip
    success: Tasks = {
        f"success-{strategy}-seed{seed}-step{step}": (
            measure_success,
            (str(folder.weights(strategy, seed, step)), str(folder.pool), str(folder.held_out), strategy, step, seed),
        )
        for seed in range(seeds) for strategy in ARMS for step in range(0, end, experiment.checkpoint_every)
    }  # fmt: skip
    done = _results(folder, {**variance, **success}, jobs, progress)
    return [done[name] for name in variance], [done[name] for name in success]


def _results(folder: Folder, tasks: Tasks, jobs: int, progress: Progress) -> dict[str, Any]:
    """The result of each task, computed if its file does not exist."""
    files = {name: folder.measured(name) for name in tasks}
    done = {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.exists()}
    waiting = {name: task for name, task in tasks.items() if name not in done}
    if not waiting:
        return done
    bar = progress.add_task("measuring gradient variance and success", total=len(tasks), completed=len(done))
    make_folder(folder.measured("").parent)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawn, initializer=_on_one_core) as pool:
        names = {pool.submit(function, *arguments): name for name, (function, arguments) in waiting.items()}
        for future in as_completed(names):
            name = names[future]
            done[name] = future.result()
            write_text(files[name], json.dumps(done[name]))
            progress.advance(bar)
    return done


def _on_one_core() -> None:
    """Start a process for measurements: it uses one core and ends with this one."""
    end_with_parent()
    os.environ.update(ONE_THREAD)
    threadpool_limits(1)


def _collect(folder: Folder, success: Sequence[dict[str, Any]], summary: dict[str, Any], seeds: int) -> None:
    """Write the metrics, the history and the summary of the whole quickstart."""
    rows = [row for seed in range(seeds) for arm in ARMS for row in log_rows(folder.arm(arm, seed) / METRICS_FILE)]
    budget = summary["settings"]["budget"]
    for result in success:
        row = {key: result[key] for key in ("strategy", "seed", "step")} | {"rollouts": result["step"] * budget}
        means = {name: sum(result[name]) / len(result[name]) for name in ("held_out", "pool")}
        rows.append({**row, HELD_OUT_SUCCESS: means["held_out"], POOL_SUCCESS: means["pool"]})
    write_json_lines(folder.root / METRICS_FILE, rows)
    prompts = {f"id:{row['id']}": row["prompt"] for row in log_rows(folder.pool)}
    outcomes = folder.arm("default", 0) / OUTCOMES_FILE
    save_history(folder.root / HISTORY_FILE, history_of_outcomes([outcomes], prompts))
    write_text(folder.root / SUMMARY_FILE, json.dumps(summary, indent=1))
