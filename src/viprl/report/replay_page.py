"""The page of a replay: curves, calibration, tables and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from viprl.analysis.protocol import Protocol
from viprl.analysis.replay import PHASES, SCORES, Phase
from viprl.analysis.spending_scores import PER_TOKEN, ROLLOUTS, SPENDING_SCORES, TOKENS, TRUE_RATIO
from viprl.analysis.statistics import Estimate
from viprl.report.canvas import Style, save, styles
from viprl.report.figures import GUIDE, Line, curves
from viprl.report.page import INTERVAL, Drawing, Section, page, references, table
from viprl.utils.files import write_text
from viprl.utils.words import count

Results = Mapping[str, Sequence[Phase]]
"""The phases of each strategy, from `viprl.analysis.replay.replay`."""

PAGE_FILE = "replay.html"

_GLOSSARY = (
    (
        "Capture",
        "share of the possible reduction of the gradient variance. 1: as with known reward variances (oracle). "
        "0: no better than uniform allocation. Negative: worse than uniform.",
    ),
    (
        "Log loss, Brier",
        "errors of the predicted success probabilities, made before the outcomes were observed. Lower is better.",
    ),
    INTERVAL,
)
_SPENT = "1: as uniform counts with the whole budget."
_FIGURES = (
    (ROLLOUTS, "Rollouts spent by visit", f"Lower is better. {_SPENT}"),
    (TOKENS, "Tokens spent by visit", f"Lower is better. {_SPENT}"),
    (TRUE_RATIO, "Gradient variance with what was spent, by visit", f"At most 1 is wanted. {_SPENT}"),
    (PER_TOKEN, "Variance times tokens, by visit", f"Lower is better. {_SPENT}"),
    ("capture", "Capture by visit", "Higher is better. 0: uniform allocation."),
    ("log_loss", "Log loss by visit", "Errors of the predicted success probabilities. Lower is better."),
)


def write_replay_page(
    results: Results, folder: Path, protocol: Protocol, settings: Mapping[str, object], notes: Sequence[str] = ()
) -> Path:
    """Write replay.html and its figures as SVG and PNG.

    Args:
        results: what was replayed.
        folder: where the files are written.
        protocol: how it was replayed.
        settings: shown as a table.
        notes: why values are missing, and cautions.

    Returns: the path of the page.
    """
    every = [phase for phases in results.values() for phase in phases]
    logged = [figure for figure in _FIGURES if any(phase.scores.get(figure[0]) for phase in every)]
    drawings = [_by_phase(results, *figure) for figure in logged]
    if any(phase.calibration for phases in results.values() for phase in phases):
        drawings.append(_calibration(results))
    for drawing in drawings:
        save(drawing.figure, folder, drawing.name)
    tables = "".join(_table(results, *title) for title in titles(results).items())
    rows = [(name.replace("_", " "), str(value)) for name, value in settings.items()]
    differ = "the order of the prompts" + (" and the outcomes drawn" if protocol.closed else "")
    lead = [
        "The logged outcomes of a run were replayed with each strategy: it predicted, allocated and observed each "
        "batch, as in training.",
        f"Bands: 95 % interval over seeds, which differ in {differ}. Other runs may differ more.",
    ]
    sections = [
        Section("Results by visit", [*lead, *notes], drawings),
        Section("All numbers", ["Mean ± standard deviation over seeds, by visit."], html=tables),
        Section("Settings", html=table(("setting", "value"), rows)),
    ]
    path = folder / PAGE_FILE
    write_text(
        path, page("Replay of a logged run", described(protocol), [], sections, [*_GLOSSARY, *references(results)])
    )
    return path


def described(protocol: Protocol) -> str:
    """The protocol in one line."""
    spent = ""
    if protocol.spend == "match":
        spent = f", spending until the variance is {protocol.variance_target:g} times uniform's"
    spent += ", tokens count" if protocol.cost == "tokens" else ""
    loop = "closed loop: only allocated rollouts" if protocol.closed else "open loop: all outcomes"
    return (
        f"{count(protocol.visits, 'visit')}, batches of {count(protocol.batch_size, 'prompt')}, "
        f"{protocol.rollouts} rollouts per prompt "
        f"({protocol.min_rollouts} to {protocol.max_rollouts}), {count(protocol.seeds, 'seed')}, {loop} are "
        f"observed{spent}"
    )


def labels(results: Results) -> list[str]:
    """The labels of the phases in the results."""
    reached = {phase.visits for phases in results.values() for phase in phases}
    return [label for label, *_ in PHASES if label in reached]


def mean_words(estimate: Estimate | None) -> str:
    """The mean with three digits; a dash if undefined."""
    return "–" if estimate is None else f"{estimate.mean:.3f}"


def _by_phase(results: Results, score: str, title: str, caption: str) -> Drawing:
    lines = []
    for style, phases in _styled(results):
        estimates = [phase.scores[score] or Estimate(np.nan, 0) for phase in phases]
        mean = np.array([e.mean for e in estimates])
        low, high = np.array([e.interval or (e.mean, e.mean) for e in estimates]).T
        lines.append(Line(style, np.arange(len(mean), dtype=float), mean, low, high))
    figure = curves(lines, "visit of a prompt", score.replace("_", " "))
    names = labels(results)
    figure.axes[0].set_xticks(range(len(names)), names)
    return Drawing(f"replay_{score}", title, figure, caption)


def _calibration(results: Results) -> Drawing:
    """Logged rate against predicted probability, for all phases but the first together."""
    lines = []
    for style, phases in _styled(results):
        points = [point for phase in phases[1:] or phases for point in phase.calibration]
        bins = np.array([min(int(10 * point["predicted"]), 9) for point in points])
        values = np.array([[point["predicted"], point["observed"], point["count"]] for point in points])
        means = [np.average(values[bins == b, :2], axis=0, weights=values[bins == b, 2]) for b in np.unique(bins)]
        x, y = np.array(means).T
        lines.append(Line(style, x, y))
    figure = curves(lines, "predicted success probability", "logged success rate")
    figure.axes[0].plot([0, 1], [0, 1], **GUIDE)
    caption = "Mean of each tenth of the predictions, from the second visit on. Dashed: perfect predictions."
    return Drawing("replay_calibration", "Calibration of the predictions", figure, caption)


def titles(results: Results) -> dict[str, str]:
    """The scores in the results, and what each is."""
    found = {score for phases in results.values() for phase in phases for score in phase.scores}
    return {score: summary for score, summary in (SPENDING_SCORES | SCORES).items() if score in found}


def _table(results: Results, score: str, summary: str) -> str:
    rows = [[name, *(_spread(phase.scores[score]) for phase in phases)] for name, phases in results.items()]
    return table(("strategy", *labels(results)), rows, f"{score.replace('_', ' ')}: {summary}")


def _styled(results: Results) -> list[tuple[Style, Sequence[Phase]]]:
    found = styles([("replay", name) for name in results])
    return [(found["replay", name], phases) for name, phases in results.items()]


def _spread(estimate: Estimate | None) -> str:
    sd = f" ± {estimate.sd:.3f}" if estimate is not None and estimate.sd is not None else ""
    return mean_words(estimate) + sd
