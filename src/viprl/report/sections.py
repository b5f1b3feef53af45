"""The report of one run or several: which sections there are, what each draws and says.

Every section appears only where its data is. The statements are made in `findings`, the figures in `plots`, the
document in `page`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from viprl.analysis.run_reader import Run, load_runs
from viprl.analysis.statistics import number
from viprl.report import canvas
from viprl.report import figures as plots
from viprl.report.findings import (
    EVAL,
    PREDICTED,
    REALISED,
    VERDICTS,
    WASTED,
    Measured,
    between_series,
    cell,
    final_accuracy,
    findings,
    learning,
    mapping,
    num,
    others,
    trust,
    variance_ratios,
    wasted_rollouts,
)
from viprl.report.page import Drawing, Section, page, table
from viprl.report.view import View, count_lines, line, strategies

_UNIFORM = (1.0, "uniform")
_RATIO = "variance / that of uniform"
_FAR = "Arrow at the edge: it goes on beyond."
_SETTING_NAMES = {
    "prompts": "prompts a step",
    "budget": "rollouts a step (budget)",
    "low": "fewest rollouts of a prompt (low)",
    "high": "most rollouts of a prompt (high)",
    "pool": "prompts to train on",
    "held_out": "held-out prompts",
    "learning_rate": "learning rate",
    "warmup_steps": "steps of warm-up",
    "pretraining_steps": "steps of supervised training before",
    "pretraining_seed": "seed of the supervised training",
    "checkpoint_every": "steps between checkpoints",
    "measure_every": "steps between measurements of the variance",
    "batches": "batches of a measurement",
    "rollouts": "rollouts of a prompt in a measurement",
    "truth": "rollouts of a prompt behind its true success probability",
    "answers": "answers to a held-out prompt",
    "max_tokens": "most tokens of an answer",
}


def write_report(
    run_dirs: Sequence[Path | str],
    out: Path | str,
    plots_dir: Path | str | None = None,
    sections: Sequence[Section] = (),
) -> Path:
    """Write the report of the run folders into the HTML file `out` and return its path.

    Where `out` is a folder the page is `out`/report.html.

    `sections` come before those of the runs. The page needs no other file and no network. With `plots_dir`
    every figure is also written there as SVG and PNG.
    Raises ValueError without a run folder, what `viprl.analysis.run_reader.load_run` raises for a folder that is none, and
    ImportError where matplotlib is missing.
    """
    if not run_dirs:
        raise ValueError("No run folder was given. Name at least one: viprl report RUN_DIR...")
    runs = load_runs(run_dirs)
    view = View.of(runs)
    makers = (_variance, _waste, _learning, _predictions, _counts, _trust, _numbers, _settings, _notes)
    sections = [*sections, *(section for make in makers if (section := make(view)) is not None)]
    target = Path(out) / "report.html" if Path(out).is_dir() else Path(out)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    headlines = [(run.name if len(runs) > 1 else "", findings(run)) for run in runs]
    names = ", ".join(run.name for run in runs)
    part.write_text(page(names, _subtitle(view), headlines, sections), encoding="utf-8")
    part.replace(target)
    if plots_dir is not None:
        for drawing in (drawing for section in sections for drawing in section.drawings):
            canvas.save(drawing.figure, Path(plots_dir), drawing.name)
    return target


# --- sections: None where their data is missing -----------------------------------------------------------------------


def _variance(view: View) -> Section | None:
    drawings = []
    measured = [variance_ratios(run) for run in view.runs]
    if rows := view.rows(measured, without="uniform"):
        figure = plots.interval_dots(rows, f"gradient {_RATIO}", _UNIFORM)
        drawings.append(Drawing("variance_ratio", "At the same budget", figure, f"{_dots(measured)} {_FAR}"))
    by_step = [(run, run.estimates_by_step("variance_ratio").items()) for run in view.runs]
    series = [(view.style(run, s), points) for run, found in by_step for s, points in found if s != "uniform"]
    if series:
        figure = plots.estimates_by_step(series, _RATIO, _UNIFORM)
        caption = f"Mean over batches and its 95 % interval at each measured step. Lower is better. {_FAR}"
        drawings.append(Drawing("variance_ratio_by_step", "As training goes on", figure, caption))
    lead = (
        "Trace of the gradient’s covariance at a fixed policy; all allocations have the same budget and are judged on "
        "the same rollouts. Oracle is told the true success probabilities and shows what can be reached; random shows "
        f"what unequal counts cost by themselves. {_independence(measured)}"
    )
    words = [view.titled(run, sentence) for run in view.runs if (sentence := others(run, strategies(run)))]
    return Section("Gradient variance", [lead, *words], drawings) if drawings else None


def _waste(view: View) -> Section | None:
    drawings = []
    measured = [wasted_rollouts(run) for run in view.runs]
    if rows := view.rows(measured):
        figure = plots.interval_dots(rows, "rollouts without a gradient (%)", percent=True)
        drawings.append(Drawing("zero_advantage_rollouts", "At the same budget", figure, _dots(measured)))
    share, key = ("rollouts", WASTED) if view.curves(WASTED) else ("groups", "frac_reward_zero_std")
    if lines := view.lines(key):
        figure = plots.curves(lines, "training step", f"{share} without a gradient", percent=True)
        caption = f"{_smoothed(view, key)} Each strategy on the policy that it trained itself."
        drawings.append(Drawing("zero_advantage_by_step", "While training", figure, caption))
    lead = "A group whose rewards are all equal has advantage zero: its rollouts cost time and teach nothing."
    return Section("Rollouts without a signal", [lead], drawings) if drawings else None


def _learning(view: View) -> Section | None:
    drawings = []
    caution = (
        f"{_smoothed(view, 'reward')} Not a measure of learning: an allocation that takes rollouts away from solved or "
        "hopeless prompts moves this mean by itself. Compare by held-out accuracy."
    )
    for key, name, title, ylabel, caption in (
        (EVAL, "heldout_accuracy", "Held-out accuracy", "accuracy (mean of 8 answers)", _over_seeds(view, EVAL)),
        ("reward", "training_reward", "Training reward", "mean reward of the step", caution),
    ):
        spent = all(np.isfinite(curve.rollouts).all() for _, _, curve in view.curves(key))
        if lines := view.lines(key, over_rollouts=spent, smoothed=key != EVAL):
            xlabel = "rollouts spent" if spent else "training step"
            drawings.append(Drawing(name, title, plots.curves(lines, xlabel, ylabel), caption))
    words = [view.titled(run, found.sentence) for run in view.runs if (found := learning(run))]
    if len(view.runs) > 1:
        words += between_series([(view.style(run, s).label, s, curve.last()) for run, s, curve in view.curves(EVAL)])
    return Section("Learning", words, drawings) if drawings else None


def _predictions(view: View) -> Section | None:
    drawings, words = [], []
    for index, (run, points) in enumerate((run, run.calibration()) for run in view.runs):
        if points is None:
            continue
        predicted, true, seen = points["predicted"], points["true"], ~(points["visits"] <= 0)
        parts = [
            f"{num(float(np.mean(np.abs(predicted - true)[at])), 3)} for {who} (n = {int(at.sum())})"
            for at, who in ((seen, "prompts seen before"), (~seen, "new prompts"))
            if at.any()
        ]
        words.append(view.titled(run, f"mean distance of predicted and true probability: {', '.join(parts)}."))
        figure = plots.calibration(predicted, true, seen, canvas.colour_of("default"))
        rings = "Filled: prompts seen before; rings: new ones." if not seen.all() else "One point a prompt and step."
        caption = f"{rings} Bold: mean of each tenth with {plots.FEWEST_OF_A_MEAN} points or more, 95 % interval."
        title = view.titled(run, "predicted against true")
        drawings.append(Drawing(f"calibration_{index}", title, figure, caption))
    for key, name, title in (("vip/brier", "brier", "Brier score"), ("vip/log_loss", "log_loss", "Log loss")):
        enough = name == "log_loss" and len(drawings) > 1  # both say the same: beside a calibration one will do
        if not enough and (lines := view.lines(key)):
            figure = plots.curves(lines, "training step", title + (" (nats)" if name == "log_loss" else ""))
            caption = f"{_smoothed(view, key)} Uniform predicts one success rate for all prompts."
            drawings.append(Drawing(name, f"{title} (lower is better)", figure, caption))
    return Section("Predicted success", words, drawings) if drawings else None


def _counts(view: View) -> Section | None:
    drawings, tables = [], ""
    for index, run in enumerate(view.runs):
        points, prompts = run.calibration(), run.prompts()
        if points is not None and np.isfinite(points["count"]).any():
            known = np.isfinite(points["count"])
            probability, counts, xlabel = points["true"][known], points["count"][known], "true success probability"
            which = "One point a prompt and measured step"
        elif prompts:
            visited = np.array([[visits, spent, right] for _, visits, spent, right in prompts], dtype=np.float64)
            probability, counts = visited[:, 2] / visited[:, 1], visited[:, 1] / visited[:, 0]
            xlabel, which = "observed success rate", "One point a prompt, mean over its visits"
        else:
            continue
        figure = plots.counts_by_probability(probability, counts, _even_share(run), canvas.colour_of("default"), xlabel)
        caption = f"{which}; bold: mean of each tenth with {plots.FEWEST_OF_A_MEAN} or more."
        drawings.append(Drawing(f"counts_{index}", view.titled(run, "rollouts by difficulty"), figure, caption))
    if lines := count_lines(view):
        figure = plots.curves(lines, "training step", "rollouts of a prompt")
        caption = "Line: mean over the prompts of a step; band: from the fewest to the most, as moving means."
        drawings.append(Drawing("counts_by_step", "Rollouts of a prompt while training", figure, caption))
    for run in view.runs:
        rows = [
            (_short(text), f"{visits}", f"{spent}", num(right / spent))
            for text, visits, spent, right in run.prompts()[:6]
        ]
        head = ("prompts with the most rollouts", "visits", "rollouts", "success rate")
        tables += table(head, rows, run.name if len(view.runs) > 1 else "") if rows else ""
    return Section("Where the rollouts went", (), drawings, tables) if drawings or tables else None


def _trust(view: View) -> Section | None:
    drawings, words = [], []
    for index, (run, name) in enumerate((r, s) for r in view.runs for s in r.strategies):
        style, who = view.style(run, name), f"{run.name} · {name}" if len(view.runs) > 1 else name.capitalize()
        predicted, realised = run.curve(name, PREDICTED), run.curve(name, REALISED)
        if name != "uniform" and (predicted is not None or realised is not None):
            named = ((predicted, canvas.Style("predicted", canvas.INK)), (realised, replace(style, label="realised")))
            lines = [line(how, curve) for curve, how in named if curve is not None]
            figure = plots.curves(lines, "training step", _RATIO, _UNIFORM)
            caption = _smoothed(view, REALISED)
            drawings.append(Drawing(f"trust_{index}", f"{who}: predicted and realised", figure, caption))
        if predicted is not None and realised is not None and name != "uniform":
            words.append(f"{who}: {trust(predicted, realised)}")
        shadows = [(s, run.curve(name, f"vip/shadow/{s}/variance_ratio")) for s in run.shadows(name)]
        lines = [line(replace(view.style(run, s), label=s), curve) for s, curve in shadows if curve is not None]
        if any(drawn.style.label != "random" for drawn in lines):
            figure = plots.curves(lines, "training step", _RATIO, _UNIFORM)
            caption = "What other strategies would have done on this run’s outcomes. Faint: step by step."
            drawings.append(Drawing(f"shadow_{index}", f"{who}: strategies in its shadow", figure, caption))
        seconds = run.curve(name, "vip/overhead_seconds")
        if seconds is not None and name != "uniform":
            middle, total = float(np.nanmedian(seconds.values)), float(np.nansum(seconds.values))
            words.append(f"{who}: allocating took {num(middle, 3)} s a step (median), {num(total, 1)} s in all.")
    return Section("Predicted and realised variance", words, drawings) if drawings or words else None


def _numbers(view: View) -> Section | None:
    rows = []
    for run in view.runs:
        ratios, shares, final = variance_ratios(run), wasted_rollouts(run), final_accuracy(run)
        for name in strategies(run):
            ratio, share = ratios.estimates.get(name), shares.estimates.get(name)
            cells = (
                "1 by definition" if ratio and name == "uniform" else cell(ratio, 2, ratios.basis),
                "" if ratio is None or name == "uniform" else VERDICTS[ratio.against(1.0)],
                cell(None if share is None else share.scaled(100), 1, shares.basis),
                cell(final.get(name), 3, "seeds"),
            )
            if any(cells):
                rows.append((view.style(run, name).label, *cells))
    wasted = "rollouts without gradient,\u00a0%"
    head = ("strategy", "variance ratio", "against uniform", wasted, "final held-out accuracy")
    lead = "Mean ± sd (95 % interval of the mean), and the number of values."
    return Section("All numbers", [lead], (), table(head, rows)) if rows else None


def _settings(view: View) -> Section | None:
    columns = [_settings_of(run) for run in view.runs]
    keys = list(dict.fromkeys(key for column in columns for key in column))
    rows = [(_SETTING_NAMES.get(key, key), *(column.get(key, "") for column in columns)) for key in keys]
    head = ("setting", *(run.name for run in view.runs))
    return Section("Settings", (), (), table(head, rows)) if rows else None


def _notes(view: View) -> Section | None:
    notes = [f"{run.name}: {note}" for run in view.runs for note in run.notes]
    return Section("Notes on the data", notes) if notes else None


# --- captions ---------------------------------------------------------------------------------------------------------


def _dots(measured: Sequence[Measured]) -> str:
    basis = " or ".join(dict.fromkeys(m.basis for m in measured if m.basis != "blocks"))
    return f"Dot: mean over {basis}. Bar: 95 % interval of the mean. Further left is better."


def _independence(measured: Sequence[Measured]) -> str:
    if any(m.basis == "batches" for m in measured):
        return (
            "The intervals take batches as independent, which they are not: batches of one seed share a policy, so the "
            "true intervals are likely wider. Train several seeds to have intervals over seeds."
        )
    return "The intervals rest on the means of the seeds, which are independent; batches within a seed are not."


def _over_seeds(view: View, key: str) -> str:
    most = max((len(curve.seeds) for _, _, curve in view.curves(key)), default=0)
    return "Mean over seeds; band: one sd over seeds." if most > 1 else "One seed: how seeds differ is unknown."


def _smoothed(view: View, key: str) -> str:
    return f"Step by step (faint) and as a moving mean. {_over_seeds(view, key)}"


def _subtitle(view: View) -> str:
    names = ("run " if len(view.runs) == 1 else "runs ") + ", ".join(run.name for run in view.runs)
    settings = mapping(view.runs[0].summary.get("settings")) if len(view.runs) == 1 else {}
    words = (
        ("estimator", "{}"),
        ("prompts", "{} prompts a step"),
        ("budget", "{} rollouts a step"),
        ("steps", "{} steps"),
    )
    return " · ".join([f"viprl, {names}", *(form.format(settings[key]) for key, form in words if key in settings)])


def _short(text: str, most: int = 90) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


# --- settings ---------------------------------------------------------------------------------------------------------


def _even_share(run: Run) -> float | None:
    """Rollouts of every prompt under uniform."""
    settings = mapping(run.summary.get("settings"))
    share = number(settings.get("budget")) / (number(settings.get("prompts")) or np.nan)
    return share if np.isfinite(share) else None


def _settings_of(run: Run) -> dict[str, str]:
    given = {str(k): v for k, v in mapping(run.summary.get("settings")).items() if v is not None}
    steps, rollouts = ([n for row in run.rows if np.isfinite(n := number(row.get(k)))] for k in ("step", "rollouts"))
    logged: dict[str, object] = {"strategies trained": ", ".join(run.strategies)} if run.rows else {}
    logged |= {"seeds": len({row.get("seed") for row in run.rows})} if run.rows else {}
    logged |= {"last step": int(max(steps))} if steps else {}
    logged |= {"rollouts spent by one strategy and seed": f"{max(rollouts):,.0f}"} if rollouts else {}
    return {key: v if isinstance(v, str) else json.dumps(v) for key, v in (logged | given).items()}
