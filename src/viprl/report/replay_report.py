"""From a file of trajectories to what a replay shows: tables in the terminal, JSON, and a page with figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from viprl.analysis.replay import PHASES, SCORES, Phase, Protocol, as_json, replay
from viprl.analysis.statistics import Estimate
from viprl.features.encoders import FeatureChoice
from viprl.outcomes import Success
from viprl.report.canvas import MUTED, Style, canvas, save, styles
from viprl.report.figures import Line, curves
from viprl.report.page import Drawing, Section, page, table
from viprl.runs.engine_logs import read_history
from viprl.runs.history import PromptHistory
from viprl.utils.files import write_text

Results = Mapping[str, Sequence[Phase]]

_FIGURES = (
    ("capture", "Capture by visits", "1: all of the possible saving, 0: no better than uniform, below: harm."),
    ("log_loss", "Log loss by visits", "Against the logged outcomes. Lower is better."),
)


def run(
    file: Path,
    strategies: Sequence[str],
    protocol: Protocol,
    *,
    features: FeatureChoice = "auto",
    reward: str | None = None,
    success: Success = None,
    json_file: Path | None = None,
    report: Path | None = None,
    console: Console | None = None,
) -> dict[str, list[Phase]]:
    """Replay `file`, print the tables, and write the JSON file and the folder of the report where asked to.

    Raises what `read_history` and `replay` raise; ImportError for a report without matplotlib.
    """
    if report is not None:
        canvas()  # a missing matplotlib shows now, not after the replay
    trajectories = read_history(file, reward=reward, success=success)
    results = _with_progress(trajectories, strategies, protocol, features)
    console = Console() if console is None else console
    enough = sum(len(trajectory.successes) >= protocol.visits for trajectory in trajectories)
    console.print(f"{enough} of {len(trajectories)} prompts, {described(protocol)}", highlight=False, soft_wrap=True)
    for score in ("capture", "log_loss"):
        console.print(score_table(results, score))
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        write_text(json_file, json.dumps(as_json(results), indent=1, allow_nan=False) + "\n")
        console.print(f"numbers: {json_file}", highlight=False)
    if report is not None:
        settings = {"file": str(file), "prompts": enough, "features": str(features)} | asdict(protocol)
        console.print(f"report: {write_replay_report(results, report, protocol, settings)}", highlight=False)
    return results


def _with_progress(
    trajectories: Sequence[PromptHistory], strategies: Sequence[str], protocol: Protocol, features: FeatureChoice
) -> dict[str, list[Phase]]:
    """`replay` with a bar, which starts with the first visit: before that the encoder may show its own."""
    errors = Console(stderr=True)
    columns = (TextColumn("Replaying"), BarColumn(), TextColumn("{task.percentage:.0f} %"), TimeRemainingColumn())
    progress = Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal)
    task = progress.add_task("", total=len(dict.fromkeys(strategies)) * protocol.seeds * protocol.visits)

    def tick() -> None:
        progress.start()
        progress.advance(task)

    try:
        return replay(trajectories, strategies, protocol, features=features, tick=tick)
    finally:
        progress.stop()


def described(protocol: Protocol) -> str:
    """The protocol in one line."""
    loop = "closed loop (only allocated rollouts are seen)" if protocol.closed else "open loop (all outcomes are seen)"
    return (
        f"{protocol.visits} visits, batches of {protocol.batch_size}, {protocol.rollouts} rollouts each within "
        f"[{protocol.min_rollouts}, {protocol.max_rollouts}], {protocol.seeds} seed{'s' if protocol.seeds > 1 else ''}, {loop}"
    )


def score_table(results: Results, score: str) -> Table:
    """Strategies as rows, phases as columns; the last column is the largest sd over seeds."""
    labels = _labels(results)
    title = score.replace("_", " ")
    found = Table(
        title=f"[bold]{title}[/bold]: {SCORES[score]}",
        box=SIMPLE_HEAD,
        pad_edge=False,
        title_justify="left",
        title_style="",
    )
    found.add_column("visits", no_wrap=True)
    for label in [*labels, "sd ≤"]:
        found.add_column(label, justify="right")
    for name, phases in results.items():
        estimates = [phase.scores[score] for phase in phases]
        spread = [e.sd for e in estimates if e is not None and e.sd is not None]
        found.add_row(name, *map(_mean, estimates), f"{max(spread):.3f}" if spread else "–")
    return found


def write_replay_report(
    results: Results, folder: Path, protocol: Protocol, settings: Mapping[str, object]
) -> Path:  # fmt: skip
    """Write replay.html and its figures as SVG and PNG into `folder`; returns the page's path."""
    drawings = [_by_phase(results, *figure) for figure in _FIGURES] + [_calibration(results)]
    for drawing in drawings:
        save(drawing.figure, folder, drawing.name)
    numbers = "".join(_html_table(results, score) for score in SCORES)
    rows = [(name.replace("_", " "), str(value)) for name, value in settings.items()]
    sections = [
        Section(
            "What each strategy would have bought",
            [
                "Logged outcomes were replayed: predicted, allocated and observed as in training. Capture is "
                "(uniform's variance - its own) / (uniform's - that with known success probabilities).",
                "Bands: 95 % interval over seeds, which differ by the order of the prompts"
                + (" and the outcomes drawn" if protocol.closed else "")
                + "; they do not speak for other runs.",
            ],
            drawings,
        ),
        Section("All numbers", ["Mean ± sd over seeds."], html=numbers),
        Section("Settings", html=table(("setting", "value"), rows)),
    ]
    path = folder / "replay.html"
    write_text(path, page("Replay", described(protocol), [], sections))
    return path


def _by_phase(results: Results, score: str, title: str, caption: str) -> Drawing:
    lines = []
    for style, phases in _styled(results):
        estimates = [phase.scores[score] or Estimate(np.nan, 0) for phase in phases]
        y = np.array([e.mean for e in estimates])
        low, high = (np.array([e.mean if end is None else end for e, end in zip(estimates, ends, strict=True)])
                     for ends in ([e.low for e in estimates], [e.high for e in estimates]))  # fmt: skip
        lines.append(Line(style, np.arange(len(y), dtype=float), y, low, high))
    figure = curves(lines, "visits of a prompt", score.replace("_", " "))
    labels = _labels(results)
    figure.axes[0].set_xticks(range(len(labels)), labels)
    return Drawing(f"replay_{score}", title, figure, caption)


def _calibration(results: Results) -> Drawing:
    """Logged rate against predicted probability, visits of all phases but the first together."""
    lines = []
    for style, phases in _styled(results):
        tenths = [tenth for phase in phases[1:] or phases for tenth in phase.calibration]
        bins = np.array([min(int(10 * tenth["predicted"]), 9) for tenth in tenths])
        values = np.array([[tenth["predicted"], tenth["observed"], tenth["count"]] for tenth in tenths])
        means = [np.average(values[bins == b, :2], axis=0, weights=values[bins == b, 2]) for b in np.unique(bins)]
        x, y = np.array(means).T
        lines.append(Line(style, x, y))
    figure = curves(lines, "predicted success probability", "logged success rate")
    axes = figure.axes[0]
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    caption = "Means by tenth of the prediction, from the second visit on. Dashed: perfectly calibrated."
    return Drawing("replay_calibration", "Calibration", figure, caption)


def _html_table(results: Results, score: str) -> str:
    rows = [[name, *(_spread(phase.scores[score]) for phase in phases)] for name, phases in results.items()]
    return table(("strategy", *_labels(results)), rows, f"{score.replace('_', ' ')}: {SCORES[score]}")


def _styled(results: Results) -> list[tuple[Style, Sequence[Phase]]]:
    found = styles([("replay", name) for name in results])
    return [(found["replay", name], phases) for name, phases in results.items()]


def _labels(results: Results) -> list[str]:
    reached = {phase.visits for phases in results.values() for phase in phases}
    return [label for label, *_ in PHASES if label in reached]


def _mean(estimate: Estimate | None) -> str:
    return "–" if estimate is None else f"{estimate.mean:.3f}"


def _spread(estimate: Estimate | None) -> str:
    return _mean(estimate) + (f" ± {estimate.sd:.3f}" if estimate is not None and estimate.sd is not None else "")
