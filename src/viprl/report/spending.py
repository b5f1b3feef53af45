"""The section about what a run spent of its budget."""

from __future__ import annotations

from viprl.metrics import PREFIX, SAVED_ROLLOUTS, SAVED_TOKENS
from viprl.report import figures
from viprl.report.page import Drawing, Section
from viprl.report.spent import UNITS, spent
from viprl.report.view import View

_LEAD = (
    "With spend='match' a step spends the least with which the predicted gradient variance is that of uniform counts "
    "with the whole budget, and more if the realised variance of recent steps says so. With cost='tokens' tokens "
    "count. The first epoch spends everything."
)


def spending(view: View) -> Section | None:
    """Shares of the budget that were saved, over training and in total; None for a run that spends all of it."""
    if not view.lines(PREFIX + SAVED_ROLLOUTS):
        return None
    drawings = []
    for unit, metric in (("rollouts", SAVED_ROLLOUTS), ("tokens", SAVED_TOKENS)):
        if lines := view.lines(PREFIX + metric):
            figure = figures.curves(lines, "training step", f"{unit} saved", percent=True)
            caption = (
                f"Share of what uniform counts would have spent. Faint: each step. Line: moving mean. {_BASIS[unit]}"
            )
            drawings.append(Drawing(f"{unit}_saved", f"{unit.capitalize()} saved", figure, caption))
    found = [(run, spent(run, name, unit)) for run in view.runs for name in run.strategies for unit in UNITS]
    words = [view.titled(run, f"{one.strategy}: {one.words}.") for run, one in found if one is not None]
    return Section("Spending", [_LEAD, *words], drawings) if drawings else None


_BASIS = {
    "rollouts": "Uniform counts spend the budget.",
    "tokens": "With the mean lengths that the prompts of the step showed.",
}
