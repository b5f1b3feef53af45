"""What a run's numbers say, in sentences: every statement carries its 95 % interval and what the interval rests on.

An interval that includes "no difference" makes the statement say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from viprl.analysis.run_reader import Curve, Run
from viprl.analysis.statistics import Array, Estimate, difference, over_blocks, paired_difference

PREDICTED, REALISED = "vip/variance_ratio/predicted", "vip/variance_ratio/realised"
WASTED, EVAL = "vip/zero_advantage_rollouts", "eval/mean_at_8"
VERDICTS = {"lower": "lower", "higher": "higher", "within noise": "within noise", "unknown": "noise unknown"}
_PLURALS = {"batches": ("batch", "batches"), "blocks": ("block of steps", "blocks of steps"), "seeds": ("seed",)}


@dataclass(frozen=True)
class Finding:
    """One statement: a number for the eye, its meaning, the whole sentence and the verdict on its noise."""

    value: str
    label: str
    sentence: str
    verdict: str = ""
    """What `Estimate.against` says of the number and "no difference"; empty where there is nothing to compare."""
    better: str = "lower"
    rest: str = ""
    """The interval and what it rests on, in few words."""


@dataclass(frozen=True)
class Measured:
    """One quantity of every strategy: estimates, and what one value of them is ("seeds", "batches" or "blocks")."""

    estimates: Mapping[str, Estimate]
    basis: str
    by_seed: Mapping[str, Mapping[int, float]] = field(default_factory=dict)

    @property
    def subject(self) -> str | None:
        """The strategy that the headline is about: the default, else the first that is more than a yardstick."""
        return _subject(self.estimates)

    def less(self, name: str, other: str) -> Estimate:
        """`name` minus `other`, paired by seed where the estimates rest on seeds."""
        if self.basis == "seeds" and (gap := paired_difference(self.by_seed[name], self.by_seed[other])) is not None:
            return gap
        return difference(self.estimates[name], self.estimates[other])


def variance_ratios(run: Run) -> Measured:
    """Gradient variance over uniform's: as measured, else as the training log realised it."""
    return _measured(run, "variance_ratio", REALISED)


def wasted_rollouts(run: Run) -> Measured:
    """Share of rollouts without a gradient: as measured, else as logged."""
    return _measured(run, "zero_advantage_rollouts", WASTED)


def final_accuracy(run: Run) -> dict[str, Estimate]:
    """Each strategy's last held-out accuracy over seeds: the summary's, else the log's."""
    learning = mapping(run.summary.get("learning"))
    given = {name: Estimate.read(mapping(entry).get("final_eval")) for name, entry in learning.items()}
    logged = {name: Estimate.of(list(_ends(run, name).values())) for name in run.strategies}
    merged = logged | {name: estimate for name, estimate in given.items() if estimate is not None}
    return {name: estimate for name, estimate in merged.items() if estimate is not None}


def findings(run: Run) -> list[Finding]:
    """The run's headlines: variance, rollouts without a gradient, learning; each only where its data is."""
    found = (_variance(run), _waste(run), learning(run))
    return [finding for finding in found if finding is not None]


def _variance(run: Run) -> Finding | None:
    ratios = variance_ratios(run)
    opening, has = "Judged by its own training rewards, a noisy measure,", "has"
    if ratios.basis != "blocks":
        opening = "At the same budget"
    elif ratios.subject in (None, "uniform") and (shadows := _shadow_ratios(run)):
        ratios, opening, has = (
            Measured(shadows, "blocks"),
            "Judged by the outcomes of this uniform run,",
            "would have had",
        )
    if (name := ratios.subject) is None or name == "uniform":
        return None
    ratio = ratios.estimates[name]
    verdict = ratio.against(1.0)
    closing = {
        "within noise": " The interval includes 1: within noise of uniform.",
        "higher": " That is worse than uniform.",
        "unknown": " One value has no spread, so its noise is unknown.",
    }.get(verdict, "")
    if ratios.basis == "batches" and verdict != "unknown":
        closing += (
            " Batches of one seed share a policy, so they are not independent and the true interval is likely wider."
        )
    sentence = (
        f"{opening} the {name} allocation {has} {num(ratio.mean)} times the gradient variance of uniform "
        f"({_basis(run, ratio, ratios.basis)}).{closing}"
    )
    rest = _rest(ratio, ratios.basis)
    return Finding(f"{num(ratio.mean)}×", "gradient variance (uniform: 1)", sentence, verdict, rest=rest)


def _waste(run: Run) -> Finding | None:
    shares = wasted_rollouts(run)
    if (name := shares.subject) is None:
        return None
    share = shares.estimates[name].scaled(100)
    value = f"{num(share.mean, 0)}\u00a0%"
    sentence = (
        f"{value} of the {name} allocation’s rollouts went to groups whose rewards were all equal and give "
        f"no gradient ({_basis(run, share, shares.basis, digits=1)})"
    )
    if name == "uniform" or "uniform" not in shares.estimates:
        return Finding(value, "of rollouts gave no gradient", f"{sentence}.")
    uniform = f"{num(100 * shares.estimates['uniform'].mean, 0)}\u00a0%"
    gap = shares.less(name, "uniform").scaled(100)
    sentence += (
        f"; with uniform it was {uniform} (difference {num(gap.mean, 1, signed=True)} percentage points"
        f"{interval(gap, 1, signed=True)}).{_closing(gap)}"
    )
    rest = _rest(gap, shares.basis, digits=1, signed=True, unit=" points against uniform")
    return Finding(value, f"of rollouts gave no gradient (uniform: {uniform})", sentence, gap.against(0.0), rest=rest)


def learning(run: Run) -> Finding | None:
    """Held-out accuracy at the end and, where both trained, its difference from uniform's."""
    final, gap, basis = final_accuracy(run), None, ""
    if (name := _subject(final)) is None:
        return None
    if name != "uniform" and "uniform" in final:
        entry = mapping(mapping(run.summary.get("learning")).get("paired_difference"))
        gap, basis = Estimate.read(entry), str(entry.get("basis") or "")
        if gap is None:
            gap, basis = paired_difference(_ends(run, name), _ends(run, "uniform")), ""
    value, opening = num(final[name].mean, 3), "Held-out accuracy (mean of 8 answers) ended at"
    if gap is None:
        sentence = f"{opening} {value} with {name} ({count(final[name].n, 'seed')}{interval(final[name], 3)})."
        return Finding(value, "held-out accuracy at the end", sentence)
    sentence = (
        f"{opening} {value} with {name} and at {num(final['uniform'].mean, 3)} with uniform: "
        f"a paired difference of {_gap_words(gap, basis)}"
    )
    label = f"held-out accuracy against uniform ({value} at the end)"
    rest = _rest(gap, basis or "seeds", digits=3, signed=True)
    return Finding(num(gap.mean, 3, signed=True), label, sentence, gap.against(0.0), "higher", rest)


def others(run: Run, names: Sequence[str]) -> str:
    """The measured variance ratios of those among `names` that the headline is not about, in one sentence."""
    ratios = variance_ratios(run)
    if ratios.basis == "blocks":
        return ""
    parts = [
        f"{name} {num(ratio.mean)} ({VERDICTS[ratio.against(1.0)]}{interval(ratio)})"
        for name in names
        if (ratio := ratios.estimates.get(name)) and name not in (ratios.subject, "uniform")
    ]
    return f"in the same measurement, against uniform: {', '.join(parts)}." if parts else ""


def between_series(ends: Sequence[tuple[str, str, Mapping[int, float]]]) -> list[str]:
    """The final held-out accuracy of every (label, strategy, {seed: value}) against the uniform one or the first."""
    if len(ends) < 2:
        return []
    base = next((end for end in ends if end[1] == "uniform"), ends[0])
    gaps = [(label, paired_difference(last, base[2])) for label, strategy, last in ends if label != base[0]]
    opening = "Held-out accuracy at the end,"
    return [f"{opening} {name} against {base[0]}: {_gap_words(gap)}" for name, gap in gaps if gap is not None]


def trust(predicted: Curve, realised: Curve) -> str:
    """Whether the predictor's own expectation of the variance ratio is kept."""
    both = np.intersect1d(predicted.steps, realised.steps)
    gap = over_blocks((_at(realised, both) - _at(predicted, both))[None])
    if gap is None:
        return "predicted and realised ratios were never logged together."
    verdict = {
        "higher": "the predictor is too optimistic.",
        "lower": "the predictor is too cautious.",
        "within noise": "the prediction is right on average, within noise.",
    }.get(gap.against(0.0), "the noise of this is unknown.")
    return f"realised minus predicted ratio {num(gap.mean, 2, signed=True)}{interval(gap, 2, signed=True)}: {verdict}"


# --- what a statement rests on ----------------------------------------------------------------------------------------


def _measured(run: Run, key: str, logged: str) -> Measured:
    """The summary's measurement by seed where it has several, else by batch; else blocks of the training log.

    Batches of one seed share a policy and a predictor, so with several seeds only the seeds count as repetitions.
    """
    by_seed = run.means_by_seed(key)
    if max((len(means) for means in by_seed.values()), default=0) > 1:
        means = {name: Estimate.of(list(values.values())) for name, values in by_seed.items()}
        return Measured({name: mean for name, mean in means.items() if mean is not None}, "seeds", by_seed)
    if estimates := run.estimates(key):
        return Measured(estimates, "batches")
    return Measured(_over_blocks({name: run.curve(name, logged) for name in run.strategies}), "blocks")


def _shadow_ratios(run: Run) -> dict[str, Estimate]:
    """What the strategies in the shadow of a uniform run would have done."""
    names = run.shadows("uniform")
    return _over_blocks({name: run.curve("uniform", f"vip/shadow/{name}/variance_ratio") for name in names})


def _over_blocks(curves: Mapping[str, Curve | None]) -> dict[str, Estimate]:
    blocks = {name: over_blocks(curve.values) for name, curve in curves.items() if curve is not None}
    return {name: estimate for name, estimate in blocks.items() if estimate is not None}


def _ends(run: Run, strategy: str) -> dict[int, float]:
    curve = run.curve(strategy, EVAL)
    return {} if curve is None else curve.last()


def _subject(estimates: Mapping[str, Estimate]) -> str | None:
    names = sorted(estimates, key=lambda name: (name != "default", name == "uniform", name in ("oracle", "random")))
    return names[0] if names else None


def _at(curve: Curve, steps: Array) -> Array:
    return curve.mean[np.searchsorted(curve.steps, steps)]


def mapping(value: object) -> Mapping[str, Any]:
    """`value` where it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


# --- words ------------------------------------------------------------------------------------------------------------


def _gap_words(gap: Estimate, basis: str = "") -> str:
    within = basis not in ("", "seeds")
    n = f"{gap.n} {basis}" if within else count(gap.n, "seed")
    caution = " The interval is that of one pair of trainings; how seeds differ is unknown." if within else ""
    return f"{num(gap.mean, 3, signed=True)} (n = {n}{interval(gap, 3, signed=True)}).{_closing(gap)}{caution}"


def _closing(gap: Estimate) -> str:
    return {
        "within noise": " The interval includes 0, so the difference is within noise.",
        "unknown": " Without repetitions the noise of this difference is unknown.",
    }.get(gap.against(0.0), "")


def _basis(run: Run, estimate: Estimate, basis: str, digits: int = 2) -> str:
    """What an estimate rests on: sd, n, interval."""
    sd = "" if estimate.sd is None else f"sd {num(estimate.sd, digits)}, "
    n = f"n = {count(estimate.n, *_PLURALS[basis])}"
    if basis == "batches":
        seeds = mapping(run.summary.get("settings")).get("seeds")
        seeds = len(seeds) if isinstance(seeds, list) else seeds or len({row.get("seed") for row in run.rows})
        n += f" from {count(seeds, 'seed')}" if seeds else ""
    return sd + n + interval(estimate, digits)


def _rest(estimate: Estimate, basis: str, digits: int = 2, signed: bool = False, unit: str = "") -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    n = count(estimate.n, *_PLURALS.get(basis, (basis, basis)))
    dependent = ", not independent" if basis == "batches" else ""
    return (
        f"95\u00a0%: {num(estimate.low, digits, signed)} to {num(estimate.high, digits, signed)}{unit}; {n}{dependent}"
    )


def cell(estimate: Estimate | None, digits: int, basis: str) -> str:
    """An estimate in a table's cell: mean ± sd (interval), n = ..."""
    if estimate is None:
        return ""
    n = f"n = {count(estimate.n, *_PLURALS[basis])}"
    spread = "" if estimate.sd is None else f" ± {num(estimate.sd, digits)}"
    known = estimate.low is not None and estimate.high is not None
    ends = f" ({num(estimate.low, digits)} to {num(estimate.high, digits)})" if known else ""
    return f"{num(estimate.mean, digits)}{spread}{ends}, " + n.replace(" ", "\u00a0")


def interval(estimate: Estimate, digits: int = 2, signed: bool = False) -> str:
    """The 95 % interval as the tail of a bracket, empty where it is unknown."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"; 95 % interval {num(estimate.low, digits, signed)} to {num(estimate.high, digits, signed)}"


def num(value: float | None, digits: int = 2, signed: bool = False) -> str:
    """A number with a true minus sign."""
    if value is None:
        return "unknown"
    return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "−")


def count(n: object, one: str, many: str = "") -> str:
    """ "1 seed", "3 seeds", "2 batches"."""
    return f"{n} {one if n == 1 else many or one + 's'}"
