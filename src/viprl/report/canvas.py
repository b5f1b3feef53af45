"""The common parts of all figures: colours and dashes, axes, labels of lines, and output as SVG and PNG.

Figures are built without pyplot, so there is no global state. They are narrow with large type, because a page shows two
of them side by side on a screen and one on a phone.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from viprl.errors import MissingPackageError
from viprl.utils.arrays import FloatArray
from viprl.utils.files import make_folder, write_bytes, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1f2328", "#66707b", "#e4e7eb"
WIDTH, HEIGHT = 4.2, 2.8

# The colour-blind safe palette of Okabe and Ito; grey is uniform, the reference.
_STRATEGY_COLOURS = {
    "default": "#0072b2",
    "uniform": "#7b848e",
    "paper": "#d55e00",
    "oracle": "#009e73",
    "random": "#cc79a7",
}
_OTHER_COLOURS = ("#e69f00", "#56b4e9", "#8c6d31", "#6a51a3", "#a50f15")
_RUN_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", *_OTHER_COLOURS)
_DASHES = ("-", (0, (5, 2)), (0, (1.2, 1.6)), (0, (6, 2, 1.2, 2)))

Dash = str | tuple[int, tuple[float, ...]]


@dataclass(frozen=True)
class Style:
    """Label, colour and dash of one series."""

    label: str
    colour: str
    dash: Dash = "-"


def styles(trained: Sequence[tuple[str, str]], others: Sequence[tuple[str, str]] = ()) -> dict[tuple[str, str], Style]:
    """A style for each (run, strategy).

    The colour depends on the strategy, and the dash differs between the runs of one strategy. If all runs trained the
    same single strategy, the colour depends on the run instead. With several runs, labels are "RUN · STRATEGY", or RUN
    if each run trained one strategy.

    Args:
        trained: the strategies that trained.
        others: strategies that were measured or in shadow.
    """
    every = list(dict.fromkeys([*trained, *others]))
    runs = list(dict.fromkeys(run for run, _ in every))
    single = len({run for run, _ in trained}) == len(trained)
    by_run = len(runs) > 1 and single and len({strategy for _, strategy in trained}) == 1
    spare = list(dict.fromkeys(strategy for _, strategy in every if strategy not in _STRATEGY_COLOURS))
    found = {}
    for run, strategy in every:
        alone = single and (run, strategy) in trained
        label = strategy if len(runs) == 1 else run if alone else f"{run} · {strategy}"
        if by_run and alone:
            found[run, strategy] = Style(label, _RUN_COLOURS[runs.index(run) % len(_RUN_COLOURS)])
            continue
        same = [name for name, other in every if other == strategy]
        colour = _STRATEGY_COLOURS.get(strategy) or _OTHER_COLOURS[spare.index(strategy) % len(_OTHER_COLOURS)]
        found[run, strategy] = Style(label, colour, _DASHES[same.index(run) % len(_DASHES)])
    return found


def colour_of(strategy: str) -> str:
    """The colour of a strategy; unknown ones share a colour."""
    return _STRATEGY_COLOURS.get(strategy, _OTHER_COLOURS[0])


def inline_svg(figure: Figure, prefix: str) -> str:
    """The figure as an `<svg>` element for a page, without external references; `prefix` makes ids unique.

    The colours of text and grid become the CSS variables --ink, --muted and --grid, so that a page can change them.
    """
    text = _svg(figure)
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    opening, body = text.split(">", maxsplit=1)
    opening = re.sub(r'\s(?:xmlns(?::\w+)?|width|height|version)="[^"]*"', "", opening)
    body = re.sub(r'\bid="', f'id="{prefix}-', body)
    body = body.replace("url(#", f"url(#{prefix}-").replace('xlink:href="#', f'href="#{prefix}-')
    for colour, name in ((INK, "ink"), (MUTED, "muted"), (GRID, "grid")):
        body = body.replace(colour, f"var(--{name})")
    return f"{opening}>{body}".strip()


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write `name`.svg and `name`.png, the latter on white, into the folder."""
    make_folder(folder)
    write_text(folder / f"{name}.svg", _svg(figure))
    with io.BytesIO() as buffer:
        figure.savefig(buffer, format="png", dpi=180, facecolor="white")
        write_bytes(folder / f"{name}.png", buffer.getvalue())


def canvas(height: float = HEIGHT) -> tuple[Figure, Axes]:
    """An empty figure. Raises MissingPackageError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingPackageError('reports need matplotlib: pip install "viprl[report]"') from None
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.patch.set_alpha(0.0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0.0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRID)
    axes.tick_params(colors=MUTED, labelsize=9, length=3, color=GRID)
    axes.set_axisbelow(True)
    return figure, axes


def finish(figure: Figure, axes: Axes, xlabel: str, ylabel: str) -> Figure:
    """Add the grid and the labels of the axes."""
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_xlabel(xlabel, color=MUTED, fontsize=9.5, parse_math=False)
    axes.set_ylabel(ylabel, color=MUTED, fontsize=9.5, parse_math=False)
    return figure


def write(axes: Axes, x: float, y: float, text: str, *, axes_x: bool = False, **look: Any) -> None:
    """Write text (never a formula) at (x, y) in data coordinates; with `axes_x`, x is from 0 to 1."""
    transform = axes.get_yaxis_transform() if axes_x else axes.transData
    look = {"color": INK, "va": "center"} | look
    axes.text(x, y, text, transform=transform, fontsize=9.5, parse_math=False, **look)


def name_ends(axes: Axes, ends: Sequence[tuple[Style, float]], reference: tuple[float, str] | None = None) -> None:
    """Write the label of each line to the right of the axes, at the height of its end, without overlaps.

    A line that ends above the axes is labelled at the top, with an arrow and its value.
    """
    above = axes.get_ylim()[1]
    names = [(fitting(style.label) + (f" ↑ {y:.1f}" if y > above else ""), style.colour, y) for style, y in ends]
    if reference is not None:
        names.append((reference[1], MUTED, reference[0]))
    low, high = axes.get_ylim()
    heights = spread_labels([min(max(y, low), high) for *_, y in names], gap=0.075 * (high - low))
    for (name, colour, _), y in zip(names, heights, strict=True):
        write(axes, 1.02, y, name, axes_x=True, color=colour, weight="normal" if colour == MUTED else "bold")


def spread_labels(heights: Sequence[float], gap: float) -> FloatArray:
    """Move heights apart until neighbours have a distance of `gap`; order and centre stay the same.

    Overlapping labels form a block around their mean, and overlapping blocks are joined (the pool-adjacent-violators
    algorithm of isotonic regression).
    """
    order, steps = np.argsort(heights, kind="stable"), gap * np.arange(len(heights))
    placed, blocks = np.array(heights, dtype=float), []
    for height in placed[order] - steps:
        blocks.append([height])
        while len(blocks) > 1 and np.mean(blocks[-1]) < np.mean(blocks[-2]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    placed[order] = [np.mean(block) for block in blocks for _ in block] + steps
    return placed


def fitting(label: str, most: int = 18) -> str:
    """A label of at most `most` characters, shortened in the middle, because names often differ at both ends."""
    return label if len(label) <= most else f"{label[: most // 2 - 1]}…{label[-most // 2 :]}"


def _svg(figure: Figure) -> str:
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "viprl"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
