"""The section about the whole second moment of the gradient: what the optimiser feels, and what follows from it."""

from __future__ import annotations

from viprl.analysis.curves import estimates, estimates_by_step
from viprl.metrics import PREFIX, ROLLOUT_NOISE
from viprl.report import figures
from viprl.report.findings import UNIFORM, Measured, second_moments
from viprl.report.page import Drawing, Section
from viprl.report.view import View
from viprl.report.words import interval, num
from viprl.runs.reader import Run


def second_moment(view: View) -> Section | None:
    """R of every strategy, its parts with uniform counts, and the estimate of the training log."""
    drawings, words = [], []
    measured = [second_moments(run) for run in view.runs]
    if rows := view.rows(measured, without=UNIFORM):
        figure = figures.interval_dots(rows, "second moment relative to uniform", (1.0, UNIFORM))
        caption = "Dot: mean. Bar: 95 % interval of the mean. Lower is better."
        drawings.append(Drawing("second_moment", "At the same budget", figure, caption))
    by_step = [(run, estimates_by_step(run, "second_moment_ratio").items()) for run in view.runs]
    series = [(view.style(run, s), points) for run, steps in by_step for s, points in steps if s != UNIFORM]
    if series:
        figure = figures.estimates_by_step(series, "second moment relative to uniform", (1.0, UNIFORM))
        caption = "Mean over batches and its 95 % interval at each measured step. Lower is better."
        drawings.append(Drawing("second_moment_by_step", "During training", figure, caption))
    if lines := view.lines(PREFIX + ROLLOUT_NOISE):
        figure = figures.curves(lines, "training step", "share of the rollouts' noise", percent=True)
        caption = "Estimated from micro-batches, over the last 20 steps or so: what counts can lower."
        drawings.append(Drawing("rollout_noise", "The rollouts' share", figure, caption))
    for run, one in zip(view.runs, measured, strict=True):
        words += [view.titled(run, sentence) for sentence in _sentences(run, one)]
    lead = (
        "An optimiser feels the whole second moment of the batch gradient, E|G|²: its mean, the noise from which "
        "prompts are in the batch, and the noise of their rollouts. Counts lower the last part alone."
    )
    return Section("Second moment of the gradient", [lead, *words], drawings) if drawings else None


def _sentences(run: Run, measured: Measured) -> list[str]:
    parts, sentences = estimates(run, "second_moment"), []
    if parts.keys() >= {"signal", "prompts", "rollouts"}:
        shares = {name: f"{num(100 * e.mean, 0)} %" for name, e in parts.items()}
        sentences.append(
            f"With uniform counts, {shares['rollouts']} come from the rollouts, {shares['prompts']} from the choice of "
            f"prompts, {shares['signal']} from the mean gradient."
        )
    if (name := measured.subject) is None or name == UNIFORM:
        return sentences
    ratio = measured.estimates[name]
    evidence = f" ({interval(ratio).removeprefix('; ')})" if ratio.interval else ""
    text = f"With the {name} allocation, the second moment is R = {num(ratio.mean)} times that with uniform{evidence}."
    if ratio.against(1.0) == "lower":
        text += (
            f" In experiments with Adam at a fixed learning rate, training sped up by about R^(−1/2), which is "
            f"{num(ratio.mean**-0.5)} here; with SGD at a small rate it did not."
        )
    elif ratio.against(1.0) == "within noise":
        text += " That is within noise of 1: no faster learning is to be expected."
    return [*sentences, text]
