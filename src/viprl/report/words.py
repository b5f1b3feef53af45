"""Numbers, intervals and verdicts as text."""

from __future__ import annotations

from viprl.analysis.statistics import Estimate
from viprl.utils.words import count

PLURALS = {"batches": ("batch", "batches"), "blocks": ("block of steps", "blocks of steps"), "seeds": ("seed",)}
"""What one value of an estimate is, in singular and plural."""
VERDICTS = {"lower": "lower", "higher": "higher", "within noise": "within noise", "unknown": "noise unknown"}
"""The words for a result of `Estimate.against`."""


def num(value: float | None, digits: int = 2, signed: bool = False) -> str:
    """A number with a true minus sign. What rounds to 0 has none."""
    if value is None:
        return "unknown"
    return f"{value:{'+' if signed else ''}z.{digits}f}".replace("-", "−")


def ends(estimate: Estimate, digits: int = 2, signed: bool = False) -> str:
    """The 95 % interval, "0.63 to 0.79"; empty if it is unknown."""
    return " to ".join(num(end, digits, signed) for end in estimate.interval or ())


def size(estimate: Estimate, basis: str) -> str:
    """The number of values, "3 seeds"."""
    return count(estimate.n, *PLURALS.get(basis, (basis, basis)))


def interval(estimate: Estimate, digits: int = 2, signed: bool = False) -> str:
    """The 95 % interval as the end of a bracket; empty if it is unknown."""
    found = ends(estimate, digits, signed)
    return f"; 95 % interval {found}" if found else ""


def closing(gap: Estimate) -> str:
    """A sentence about a difference that is within noise or of unknown noise; empty for a clear one."""
    return {
        "within noise": " The interval includes 0, so the difference is within noise.",
        "unknown": " Without repetitions, the noise of this difference is unknown.",
    }.get(gap.against(0.0), "")


def short_basis(estimate: Estimate, basis: str, digits: int = 2, signed: bool = False, unit: str = "") -> str:
    """The 95 % interval and the number of values, in short; empty if the interval is unknown."""
    found, dependent = ends(estimate, digits, signed), ", not independent" if basis == "batches" else ""
    return f"95\u00a0% interval {found}{unit}; {size(estimate, basis)}{dependent}" if found else ""


def cell(estimate: Estimate | None, digits: int, basis: str) -> str:
    """An estimate in a cell of a table: mean ± sd (interval), n = ..."""
    if estimate is None:
        return ""
    spread = "" if estimate.sd is None else f" ± {num(estimate.sd, digits)}"
    bounds = f" ({found})" if (found := ends(estimate, digits)) else ""
    return f"{num(estimate.mean, digits)}{spread}{bounds}, " + f"n = {size(estimate, basis)}".replace(" ", "\u00a0")
