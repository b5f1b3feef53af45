"""Numbers, intervals and verdicts as text."""

from __future__ import annotations

from viprl.analysis.statistics import Estimate

PLURALS = {"batches": ("batch", "batches"), "blocks": ("block of steps", "blocks of steps"), "seeds": ("seed",)}
"""What one value of an estimate is, in singular and plural."""
VERDICTS = {"lower": "lower", "higher": "higher", "within noise": "within noise", "unknown": "noise unknown"}
"""The words for a result of `Estimate.against`."""


def num(value: float | None, digits: int = 2, signed: bool = False) -> str:
    """A number with a true minus sign."""
    if value is None:
        return "unknown"
    return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "−")


def count(n: object, one: str, many: str = "") -> str:
    """ "1 seed", "3 seeds", "2 batches"."""
    return f"{n} {one if n == 1 else many or one + 's'}"


def interval(estimate: Estimate, digits: int = 2, signed: bool = False) -> str:
    """The 95 % interval as the end of a bracket; empty if it is unknown."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"; 95 % interval {num(estimate.low, digits, signed)} to {num(estimate.high, digits, signed)}"


def closing(gap: Estimate) -> str:
    """A sentence about a difference that is within noise or of unknown noise; empty for a clear one."""
    return {
        "within noise": " The interval includes 0, so the difference is within noise.",
        "unknown": " Without repetitions, the noise of this difference is unknown.",
    }.get(gap.against(0.0), "")


def short_basis(estimate: Estimate, basis: str, digits: int = 2, signed: bool = False, unit: str = "") -> str:
    """The 95 % interval and the number of values, in short; empty if the interval is unknown."""
    if estimate.low is None or estimate.high is None:
        return ""
    n = count(estimate.n, *PLURALS.get(basis, (basis, basis)))
    dependent = ", not independent" if basis == "batches" else ""
    ends = f"{num(estimate.low, digits, signed)} to {num(estimate.high, digits, signed)}"
    return f"95\u00a0% interval {ends}{unit}; {n}{dependent}"


def cell(estimate: Estimate | None, digits: int, basis: str) -> str:
    """An estimate in a cell of a table: mean ± sd (interval), n = ..."""
    if estimate is None:
        return ""
    n = f"n = {count(estimate.n, *PLURALS[basis])}"
    spread = "" if estimate.sd is None else f" ± {num(estimate.sd, digits)}"
    known = estimate.low is not None and estimate.high is not None
    ends = f" ({num(estimate.low, digits)} to {num(estimate.high, digits)})" if known else ""
    return f"{num(estimate.mean, digits)}{spread}{ends}, " + n.replace(" ", "\u00a0")
