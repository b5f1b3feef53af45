"""The report of one run or several, as one HTML file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from viprl.analysis.curves import mapping, seed_of
from viprl.errors import InputError
from viprl.report import canvas, sections
from viprl.report.findings import findings
from viprl.report.page import INTERVAL, Section, page, references, table
from viprl.report.second_moment import second_moment
from viprl.report.spending import spending
from viprl.report.view import View, strategies
from viprl.report.waves import waves
from viprl.runs.files import REPORT_FILE
from viprl.runs.reader import Run, load_runs
from viprl.utils.files import make_folder, write_text
from viprl.utils.numerics import number
from viprl.utils.words import count

_SECTIONS = (
    sections.variance,
    second_moment,
    spending,
    waves,
    sections.waste,
    sections.accuracy,
    sections.predictions,
    sections.counts,
    sections.trust,
    sections.numbers,
)
_GLOSSARY = (
    (
        "Variance ratio",
        "gradient variance with an allocation, divided by that with uniform allocation at the same budget. Lower is "
        "better.",
    ),
    (
        "Second moment",
        "mean squared norm of the batch gradient, E|G|². R is that with an allocation, divided by that with uniform "
        "allocation at the same budget. Lower is better.",
    ),
    ("Without a gradient", "rollouts in groups whose rewards are all equal: every advantage is zero. Lower is better."),
    INTERVAL,
)
_SETTING_NAMES = {
    "prompts": "prompts of a step with uniform allocation",
    "default_prompts": "prompts of a step with the default strategy",
    "candidates": "candidates for each of them",
    "budget": "rollouts of a step (budget)",
    "pool": "training prompts",
    "held_out": "held-out prompts",
    "pretraining_steps": "steps of supervised training before",
    "checkpoint_every": "steps between checkpoints",
    "measure_every": "steps between measurements of the variance",
    "batches": "batches of a measurement",
    "rollouts": "rollouts of a prompt in a measurement",
    "truth": "rollouts of a prompt for its true success probability",
    "max_tokens": "most tokens of an answer",
}


def write_report(
    run_dirs: Sequence[Path | str],
    out: Path | str,
    plots_dir: Path | str | None = None,
    extra: Sequence[Section] = (),
    sweep: tuple[str, int] | None = None,
) -> Path:
    """Write the report of run folders as one HTML file, which needs no other file and no network.

    Args:
        run_dirs: the run folders; several are shown side by side.
        out: the HTML file, or a folder for report.html.
        plots_dir: every figure is also written into this folder, as SVG and PNG.
        extra: sections before those of the runs.
        sweep: name and number of runs of a sweep, whose runs are the strategies and seeds of a single folder.

    Returns: the path of the page.

    Raises InputError without a run folder, MissingPackageError without matplotlib, and what
    `viprl.runs.reader.load_run` raises.
    """
    if not run_dirs:
        raise InputError("no run folder was given; give at least one, as in `viprl report runs/mine`")
    runs = load_runs(run_dirs)
    view = View.of(runs)
    made = [*extra, *(make(view) for make in _SECTIONS), _settings(view), sections.notes(view)]
    shown = [section for section in made if section is not None]
    headlines = [(run.name if len(runs) > 1 else "", findings(run)) for run in runs]
    name, number_of_runs = sweep or (", ".join(run.name for run in runs), len(runs))
    target = Path(out) / REPORT_FILE if Path(out).is_dir() else Path(out)
    make_folder(target.parent)
    terms = [*_GLOSSARY, *references({name for run in runs for name in strategies(run)})]
    write_text(target, page(f"Rollout allocation: {name}", _subtitle(view, number_of_runs), headlines, shown, terms))
    if plots_dir is not None:
        for drawing in (drawing for section in shown for drawing in section.drawings):
            canvas.save(drawing.figure, Path(plots_dir), drawing.name)
    return target


def _subtitle(view: View, runs: int) -> str:
    settings = mapping(view.runs[0].summary.get("settings")) if len(view.runs) == 1 else {}
    words = {"estimator": "", "prompts": " prompts per step", "budget": " rollouts per step", "steps": " steps"}
    shown = [f"{settings[key]}{unit}" for key, unit in words.items() if key in settings]
    return " · ".join(["viprl report", count(runs, "run"), *shown])


def _settings(view: View) -> Section | None:
    columns = [_settings_of(run) for run in view.runs]
    keys = list(dict.fromkeys(key for column in columns for key in column))
    rows = [
        (_SETTING_NAMES.get(key, key.replace("_", " ")), *(column.get(key, "") for column in columns)) for key in keys
    ]
    head = ("setting", *(run.name for run in view.runs))
    return Section("Settings", (), (), table(head, rows)) if rows else None


def _settings_of(run: Run) -> dict[str, str]:
    given = {str(k): v for k, v in mapping(run.summary.get("settings")).items() if v is not None}
    steps, rollouts = ([n for row in run.rows if np.isfinite(n := number(row.get(k)))] for k in ("step", "rollouts"))
    logged: dict[str, object] = {"strategies trained": ", ".join(run.strategies)} if run.rows else {}
    logged |= {"seeds": len({seed_of(row) for row in run.rows})} if run.rows else {}
    logged |= {"last step": int(max(steps))} if steps else {}
    logged |= {"rollouts of one strategy and seed": f"{max(rollouts):,.0f}"} if rollouts else {}
    return {key: v if isinstance(v, str) else json.dumps(v) for key, v in (logged | given).items()}
