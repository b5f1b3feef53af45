"""Draws a snapshot of a run in a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from viprl.report.diagnosis import GOOD, NOTE, PROBLEM, Diagnosis
from viprl.report.snapshot import Gauge, Snapshot
from viprl.utils.arrays import FloatArray
from viprl.utils.words import count, duration, visible

BLOCKS, ASCII_BLOCKS = "▁▂▃▄▅▆▇█", "_.-=+*%#"
WIDE = 80
"""Columns from which the details are shown."""
SPARKLINE = (8, 30)
"""Fewest and most characters of a sparkline."""
PATIENCE = 60.0, 600.0
"""Seconds without a new row after which a run counts as stale: the least, and where the time of a step is unknown."""
STYLES = {PROBLEM: "bold red", NOTE: "yellow", GOOD: "green"}
_COLUMNS: tuple[Literal["left", "right"], ...] = ("left", "right", "left", "left")
_ASCII = str.maketrans({"×": "x", "·": "-", "–": "-", "−": "-", "…": "...", "±": "+-", "\u00a0": " "})


def sparkline(values: FloatArray, width: int, blocks: str = BLOCKS) -> str:
    """The last `width` values as characters of different height, from their smallest to their largest."""
    shown = values[-width:] if width > 0 else values[:0]
    if not len(shown):
        return ""
    shown = shown / 2  # so that no difference overflows
    low, span = float(shown.min()), float(np.ptp(shown))
    heights = (shown - low) / span if span > 0 else np.full(len(shown), 0.5)
    return "".join(blocks[int(height)] for height in np.rint((len(blocks) - 1) * heights))


@dataclass(frozen=True)
class View:
    """A snapshot at a moment, for a terminal of any width.

    Where the terminal cannot show Unicode, all characters are ASCII.
    """

    snapshot: Snapshot
    age: float
    """Seconds since the log was written."""
    finished: bool
    at_checkpoints: bool = False
    """Whether the log is written with checkpoints alone, so that its age says nothing."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        shot, plain, width = self.snapshot, options.ascii_only, options.max_width
        title = _text(f"{shot.name} · {shot.trained}", plain, "bold")
        for level in (PROBLEM, NOTE):
            if found := sum(one.level == level for one in shot.findings):
                title += _text(f" · {count(found, level)}", plain, STYLES[level])
        yield title
        yield _text(*self._state(plain))
        if shot.steps is not None:
            yield ProgressBar(total=max(shot.steps, 1), completed=shot.step, width=min(width, 60))
        yield Text()
        yield _table(shot.gauges, width, plain)
        if shot.findings:
            yield Text()
            yield _findings(shot.findings, plain)

    def _state(self, plain: bool) -> tuple[str, bool, str]:
        """Where the run is, in words, and their style."""
        shot = self.snapshot
        of = "" if shot.steps is None else f" of {shot.steps}"
        words = [f"step {shot.step}{of}"]
        if shot.seconds > 0:
            words.append(f"{duration(shot.seconds)}, {shot.step_seconds:.2g} s a step")
        if self.finished:
            return " · ".join([*words, "finished"]), plain, "green"
        slow = 5 * shot.row_seconds
        if self.at_checkpoints:
            return " · ".join([*words, f"last checkpoint {duration(self.age)} ago"]), plain, "green"
        if self.age > max(PATIENCE[0], slow if math.isfinite(slow) else PATIENCE[1]):
            return " · ".join([*words, f"no new step for {duration(self.age)}"]), plain, "bold yellow"
        if math.isfinite(shot.seconds_left):
            words.append(f"{duration(shot.seconds_left)} left")
        return " · ".join([*words, f"last step {duration(self.age)} ago"]), plain, "green"


def waiting(reason: str, ascii_only: bool = False) -> Text:
    """What is shown as long as there is no step."""
    return _text(f"waiting: {reason}", ascii_only, "yellow")


def _text(words: str, ascii_only: bool, style: str = "") -> Text:
    words = visible(words, keep="")
    return Text(words.translate(_ASCII).encode("ascii", "replace").decode() if ascii_only else words, style)


def _table(gauges: Sequence[Gauge], width: int, ascii_only: bool) -> Table:
    """Name, value and sparkline of each gauge, and its detail if there is space."""
    taken = sum(max((len(getattr(gauge, part)) for gauge in gauges), default=0) for part in ("name", "value"))
    fewest, most = SPARKLINE
    detailed = width >= WIDE
    length = min(most, width // 4) if detailed else min(most, max(fewest, width - taken - 4))
    blocks = ASCII_BLOCKS if ascii_only else BLOCKS
    space = width - taken - length - 6  # beside three columns and the gaps between them
    overflow: Literal["crop", "ellipsis"] = "crop" if ascii_only else "ellipsis"
    table = Table.grid(padding=(0, 2, 0, 0))
    for justify in _COLUMNS[: 4 if detailed else 3]:
        table.add_column(justify=justify, no_wrap=True, overflow=overflow)
    for gauge in gauges:
        line = [_text(gauge.name, ascii_only, "dim"), _text(gauge.value, ascii_only, "bold")]
        line += [Text(sparkline(gauge.series, length, blocks), "cyan"), _text(gauge.detail, ascii_only, "dim")]
        line[-1].truncate(max(space, 0), overflow=overflow)
        table.add_row(*line[: len(table.columns)])
    return table


def _findings(findings: Sequence[Diagnosis], ascii_only: bool) -> Table:
    """Level, sentence and remedy of each finding."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for one in findings:
        table.add_row(_text(one.level, ascii_only, STYLES[one.level]), _text(f"{one.name}: {one.sentence}", ascii_only))
        if one.remedy:
            table.add_row("", _text(f"-> {one.remedy}", ascii_only, "dim"))
    return table
