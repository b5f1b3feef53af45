"""The sections of the report of one run or several: what each draws and says.

A section appears only if its data exists. `viprl.report.findings` has the statements, `viprl.report.figures` the
figures, and `viprl.report.page` the document.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from viprl.analysis.curves import curve, estimates_by_step, mapping
from viprl.metrics import (
    BRIER,
    EQUAL_REWARD_GROUPS,
    EVALUATION_REWARD,
    HELD_OUT_SUCCESS,
    LOG_LOSS,
    OVERHEAD,
    POOL_SUCCESS,
    PREDICTED_RATIO,
    PREFIX,
    PROMPT_REWARD,
    REWARD,
    REWARD_VARIANCE,
    SUCCESS_RATE,
    shadow_ratio,
)
from viprl.report import canvas, figures
from viprl.report.chosen_prompts import chosen_prompts
from viprl.report.findings import (
    REALISED,
    UNIFORM,
    WASTED,
    Measured,
    between_series,
    final_accuracy,
    learning,
    others,
    prediction_error,
    second_moments,
    variance_ratios,
    wasted_rollouts,
)
from viprl.report.page import Drawing, Section, table
from viprl.report.uniform_steps import uniform_steps
from viprl.report.view import View, count_lines, line, strategies
from viprl.report.words import VERDICTS, cell, num
from viprl.runs.reader import PromptTotal, Run
from viprl.utils.numerics import number


class Chart(NamedTuple):
    """One metric over training."""

    metric: str
    name: str
    title: str
    ylabel: str
    caption: str
    """What one value is a mean of, and what to know about it."""


_REFERENCE = (1.0, UNIFORM)
_RATIO = "variance relative to uniform"
_FAR = "An arrow at the edge marks a larger value."


def variance(view: View) -> Section | None:
    """Measured gradient variance relative to uniform."""
    drawings = []
    measured = [variance_ratios(run) for run in view.runs]
    if rows := view.rows(measured, without=UNIFORM):
        figure = figures.interval_dots(rows, f"gradient {_RATIO}", _REFERENCE)
        drawings.append(Drawing("variance_ratio", "At the same budget", figure, f"{_dots(measured)} {_FAR}"))
    by_step = [(run, estimates_by_step(run, "variance_ratio").items()) for run in view.runs]
    series = [(view.style(run, s), points) for run, found in by_step for s, points in found if s != UNIFORM]
    if series:
        figure = figures.estimates_by_step(series, _RATIO, _REFERENCE)
        caption = f"Mean over batches and its 95 % interval at each measured step. Lower is better. {_FAR}"
        drawings.append(Drawing("variance_ratio_by_step", "During training", figure, caption))
    lead = (
        "The trace of the covariance of the gradient, at a fixed policy. All allocations have the same budget and are "
        "evaluated on the same rollouts. The oracle knows the true success probabilities. Random splits the budget at "
        f"random, which shows the cost of unequal counts. {_independence(measured)}"
    )
    words = [view.titled(run, sentence) for run in view.runs if (sentence := others(run, strategies(run)))]
    return Section("Gradient variance", [lead, *words], drawings) if drawings else None


def waste(view: View) -> Section | None:
    """Share of rollouts in groups with equal rewards."""
    drawings = []
    measured = [wasted_rollouts(run) for run in view.runs]
    if rows := view.rows(measured):
        figure = figures.interval_dots(rows, "rollouts without a gradient (%)", percent=True)
        drawings.append(Drawing("zero_advantage_rollouts", "At the same budget", figure, _dots(measured)))
    what, metric = ("rollouts", WASTED) if view.curves(WASTED) else ("groups", EQUAL_REWARD_GROUPS)
    if lines := view.lines(metric):
        figure = figures.curves(lines, "training step", f"{what} without a gradient", percent=True)
        caption = f"{_smoothed(view, metric)} Each strategy is shown for the policy that it trained itself."
        drawings.append(Drawing("zero_advantage_by_step", "During training", figure, caption))
    lead = (
        "If all rewards of a group are equal, all its advantages are zero, and its rollouts contribute nothing to the "
        "gradient."
    )
    return Section("Rollouts without a gradient", [lead], drawings) if drawings else None


_LEARNING = (
    Chart(POOL_SUCCESS, "pool_success", "Success on training prompts", "mean success probability", ""),
    Chart(HELD_OUT_SUCCESS, "held_out_success", "Success on held-out prompts", "mean success probability", ""),
    Chart(
        EVALUATION_REWARD,
        "evaluation_reward",
        "Evaluation reward",
        "mean reward of the evaluation",
        "Mean over the completions of the evaluation prompts, each with the same number.",
    ),
    Chart(
        PREFIX + SUCCESS_RATE,
        "success_rate",
        "Success rate in training, each prompt counted once",
        "success rate of the step",
        "Mean over the prompts of a step of the share of their rollouts that succeeded. The allocation does not change "
        "it, but the prompts differ from step to step and are trained on: compare evaluations.",
    ),
    Chart(
        PREFIX + PROMPT_REWARD,
        "prompt_reward",
        "Training reward, each prompt counted once",
        "mean reward of the step",
        "Mean over the prompts of a step of the mean reward of their rollouts.",
    ),
    Chart(
        PREFIX + REWARD_VARIANCE,
        "reward_variance",
        "Reward variance in training, each prompt counted once",
        "reward variance of the step",
        "Mean over the prompts of a step of the sample variance of their rewards.",
    ),
    Chart(
        REWARD,
        "training_reward",
        "Training reward (depends on the allocation: no measure of learning)",
        "mean reward of the step",
        "Mean over the rollouts of a step. An allocation that gives prompts of some difficulty more rollouts changes "
        "this mean by itself. Compare evaluations, or the means over prompts.",
    ),
)


def accuracy(view: View) -> Section | None:
    """Held-out accuracy, and the rewards of evaluations and of the training."""
    drawings = []
    rated = len(view.curves(PREFIX + SUCCESS_RATE)) == len(view.curves(PREFIX + REWARD_VARIANCE))
    for chart in _LEARNING:
        if chart.metric == PREFIX + REWARD_VARIANCE and rated:  # the success rate says it
            continue
        over_rollouts = all(np.isfinite(one.rollouts).all() for _, _, one in view.curves(chart.metric))
        evaluated = chart.metric in (HELD_OUT_SUCCESS, POOL_SUCCESS, EVALUATION_REWARD)
        if lines := view.lines(chart.metric, over_rollouts=over_rollouts, smoothed=not evaluated):
            xlabel = "rollouts so far" if over_rollouts else "training step"
            how = _over_seeds(view, chart.metric) if evaluated else _smoothed(view, chart.metric)
            caption = " ".join(part for part in (chart.caption, how) if part)
            drawings.append(Drawing(chart.name, chart.title, figures.curves(lines, xlabel, chart.ylabel), caption))
    words = [view.titled(run, found.sentence) for run in view.runs if (found := learning(run))]
    if len(view.runs) > 1:
        ends = [(view.style(run, s).label, s, one.last()) for run, s, one in view.curves(HELD_OUT_SUCCESS)]
        words += between_series(ends)
    return Section("Learning", words, drawings) if drawings else None


def predictions(view: View) -> Section | None:
    """Predicted success probabilities: calibration and scores."""
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
        words.append(view.titled(run, f"mean absolute error of the predicted probability: {', '.join(parts)}."))
        figure = figures.calibration(predicted, true, seen, canvas.colour_of("default"))
        which = "Filled: prompts seen before. Rings: new prompts." if not seen.all() else "A point for each prompt."
        caption = (
            f"{which} Dots with bars: mean of each tenth with at least {figures.FEWEST_OF_A_MEAN} points, and its "
            "95 % interval. Dashed: perfect predictions."
        )
        title = view.titled(run, "predicted and true success probability")
        drawings.append(Drawing(f"calibration_{index}", title, figure, caption))
    for metric, name, title in ((BRIER, "brier", "Brier score"), (LOG_LOSS, "log_loss", "Log loss")):
        enough = metric == LOG_LOSS and len(drawings) > 1  # both show the same; next to a calibration, one is enough
        if not enough and (lines := view.lines(PREFIX + metric)):
            figure = figures.curves(lines, "training step", title + (" (nats)" if metric == LOG_LOSS else ""))
            caption = f"{_smoothed(view, PREFIX + metric)} Uniform predicts the same success rate for all prompts."
            drawings.append(Drawing(name, f"{title} (lower is better)", figure, caption))
    return Section("Predictions of success", words, drawings) if drawings else None


def counts(view: View) -> Section | None:
    """Rollouts by difficulty and over training, and the prompts with the most rollouts."""
    drawings, tables = [], ""
    tenths = f"Line: mean of each tenth with at least {figures.FEWEST_OF_A_MEAN} points."
    for index, run in enumerate(view.runs):
        points, prompts, title = run.calibration(), run.prompts(), "rollouts by difficulty"
        if points is not None and np.isfinite(points["count"]).any():
            known = np.isfinite(points["count"])
            probability, counts, xlabel = points["true"][known], points["count"][known], "true success probability"
            which = "A point for each prompt and measured step."
        elif prompts:
            totals = np.array([[p.visits, p.rollouts, p.reward_mean, p.reward_variance] for p in prompts])
            probability, counts = totals[:, 2], totals[:, 1] / totals[:, 0]
            xlabel, which = "observed success rate", "A point for each prompt: mean rollouts of its visits."
            if run.rewarded:
                deviation = np.sqrt(totals[:, 3])
                known = np.isfinite(deviation)
                if not known.any():
                    continue
                largest = float(deviation[known].max(initial=0.0)) or 1.0
                probability, counts = deviation[known] / largest, counts[known]
                title = "rollouts by reward variance"
                xlabel = f"standard deviation of the reward, relative to the largest ({largest:.3g})"
        else:
            continue
        figure = figures.counts_by_probability(probability, counts, even(run), canvas.colour_of("default"), xlabel)
        drawings.append(Drawing(f"counts_{index}", view.titled(run, title), figure, f"{which} {tenths}"))
    if lines := count_lines(view):
        figure = figures.curves(lines, "training step", "rollouts of a prompt")
        caption = "Line: mean over the prompts of a step. Band: from the fewest to the most. Moving means."
        drawings.append(Drawing("counts_by_step", "Rollouts of a prompt during training", figure, caption))
    for run in view.runs:
        most = run.prompts()[:6]
        rows = [(_short(p.text), f"{p.visits}", f"{p.rollouts}", *_outcome(p, run.rewarded)) for p in most]
        last = ("mean reward", "reward variance") if run.rewarded else ("success rate",)
        head = ("prompts with the most rollouts", "visits", "rollouts", *last)
        tables += table(head, rows, run.name if len(view.runs) > 1 else "") if rows else ""
    return Section("Rollouts per prompt", (), drawings, tables) if drawings or tables else None


def trust(view: View) -> Section | None:
    """Predicted and realised variance of the training log, shadow strategies, and the time of the allocation."""
    drawings, words = [], []
    for index, (run, name) in enumerate((r, s) for r in view.runs for s in r.strategies):
        style, who = view.style(run, name), f"{run.name} · {name}" if len(view.runs) > 1 else name.capitalize()
        predicted, realised = curve(run, name, PREFIX + PREDICTED_RATIO), curve(run, name, REALISED)
        if name != UNIFORM and (predicted is not None or realised is not None):
            named = ((predicted, canvas.Style("predicted", canvas.INK)), (realised, replace(style, label="realised")))
            lines = [line(how, one) for one, how in named if one is not None]
            figure = figures.curves(lines, "training step", _RATIO, _REFERENCE)
            title = f"{who}: predicted and realised"
            drawings.append(Drawing(f"trust_{index}", title, figure, _smoothed(view, REALISED)))
        if predicted is not None and realised is not None and name != UNIFORM:
            words.append(f"{who}: {prediction_error(predicted, realised)}")
        if name != UNIFORM and (why := uniform_steps(run, name)):
            words.append(f"{who}: {why}")
        words += [f"{who}: {sentence}" for sentence in chosen_prompts(run, name)]
        shadows = [(s, curve(run, name, PREFIX + shadow_ratio(s))) for s in run.shadows(name)]
        lines = [line(replace(view.style(run, s), label=s), one) for s, one in shadows if one is not None]
        if any(drawn.style.label != "random" for drawn in lines):
            figure = figures.curves(lines, "training step", _RATIO, _REFERENCE)
            caption = (
                "The realised variance that other strategies would have had in this run: they saw the same outcomes, "
                f"but did not act. {_smoothed(view, REALISED)}"
            )
            drawings.append(Drawing(f"shadow_{index}", f"{who}: shadow strategies", figure, caption))
        seconds = curve(run, name, PREFIX + OVERHEAD)
        if seconds is not None and name != UNIFORM:
            median, total = float(np.nanmedian(seconds.values)), float(np.nansum(seconds.values))
            words.append(
                f"{who}: the allocation took {num(median, 3)} s per step (median), {num(total, 1)} s in total."
            )
    lead = [
        "Realised: estimated from the rewards of the training batches. This is unbiased but noisy for a single step."
    ]
    return Section("Predicted and realised variance", lead + words, drawings) if drawings or words else None


def numbers(view: View) -> Section | None:
    """All estimates in one table."""
    rows = []
    for run in view.runs:
        ratios, shares, final = variance_ratios(run), wasted_rollouts(run), final_accuracy(run)
        moments = second_moments(run).estimates
        for name in strategies(run):
            ratio, share = ratios.estimates.get(name), shares.estimates.get(name)
            cells = (
                "1 by definition" if ratio and name == UNIFORM else cell(ratio, 2, ratios.basis),
                "" if ratio is None or name == UNIFORM else VERDICTS[ratio.against(1.0)],
                "1 by definition" if name == UNIFORM and moments else cell(moments.get(name), 2, ratios.basis),
                cell(None if share is None else share.scaled(100), 1, shares.basis),
                cell(final.get(name), 3, "seeds"),
            )
            if any(cells):
                rows.append((view.style(run, name).label, *cells))
    wasted = "rollouts without a gradient,\u00a0%"
    head = (
        "strategy",
        "variance ratio",
        "compared with uniform",
        "second moment",
        wasted,
        "success on held-out prompts",
    )
    lead = "Mean ± standard deviation (95 % interval of the mean), and the number of values."
    return Section("All numbers", [lead], (), table(head, rows)) if rows else None


def notes(view: View) -> Section | None:
    """What could not be read."""
    found = [f"{run.name}: {note}" for run in view.runs for note in run.notes]
    return Section("Notes on the data", found) if found else None


def _outcome(prompt: PromptTotal, rewarded: bool) -> tuple[str, ...]:
    """The cells of a prompt that say how it was answered."""
    values = (prompt.reward_mean, prompt.reward_variance) if rewarded else (prompt.reward_mean,)
    return tuple(num(value) if np.isfinite(value) else "–" for value in values)


def even(run: Run) -> float | None:
    """Rollouts of every prompt with uniform allocation."""
    settings = mapping(run.summary.get("settings"))
    share = number(settings.get("budget")) / (number(settings.get("prompts")) or np.nan)
    return share if np.isfinite(share) else None


# --- captions ---------------------------------------------------------------------------------------------------------


def _dots(measured: Sequence[Measured]) -> str:
    basis = " or ".join(dict.fromkeys(m.basis for m in measured if m.basis != "blocks"))
    return f"Dot: mean over {basis}. Bar: 95 % interval of the mean. Lower is better."


def _independence(measured: Sequence[Measured]) -> str:
    if any(m.basis == "batches" for m in measured):
        return (
            "The intervals treat batches as independent. But batches of one seed share a policy, so the true intervals "
            "are probably wider. Train several seeds to get intervals over seeds."
        )
    return "The intervals are over the means of the seeds, which are independent."


def _over_seeds(view: View, metric: str) -> str:
    most = max((len(one.seeds) for _, _, one in view.curves(metric)), default=0)
    if most > 1:
        return "Mean over seeds, with a band of one standard deviation."
    return "One seed, so the difference between seeds is unknown."


def _smoothed(view: View, metric: str) -> str:
    most = max(run.logging_steps for run in view.runs)
    each = "each step" if most == 1 else f"each logged value, a mean over {most} steps (logging_steps)"
    return f"Faint: {each}. Line: moving mean. {_over_seeds(view, metric)}"


def _short(text: str, most: int = 90) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"
