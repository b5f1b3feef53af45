"""What the numbers of a run say, as sentences. Each gives its 95 % interval and the number of values behind it.

If an interval includes "no difference", the sentence says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from viprl.analysis.curves import Curve, curve, estimates, mapping, means_by_seed, seed_of
from viprl.analysis.statistics import Estimate, difference, known, over_blocks, paired_difference
from viprl.metrics import EQUAL_REWARD_GROUPS, HELD_OUT_SUCCESS, PREFIX, REALISED_RATIO, ZERO_ADVANTAGE, shadow_ratio
from viprl.report.spent import spent
from viprl.report.uniform_steps import uniform_steps
from viprl.report.words import VERDICTS, closing, interval, num, short_basis, size
from viprl.runs.reader import Run
from viprl.utils.arrays import FloatArray
from viprl.utils.numerics import number
from viprl.utils.words import count

REALISED, WASTED = PREFIX + REALISED_RATIO, PREFIX + ZERO_ADVANTAGE
UNIFORM = "uniform"


@dataclass(frozen=True)
class Finding:
    """One result: a number, its label and the full sentence."""

    value: str
    label: str
    sentence: str
    verdict: str = ""
    """The result of `Estimate.against` for "no difference"; empty if there is nothing to compare with."""
    better: str = "lower"
    """The verdict that is good."""
    basis: str = ""
    """The interval and the number of values, in short."""


@dataclass(frozen=True)
class Measured:
    """One quantity of every strategy."""

    estimates: Mapping[str, Estimate]
    basis: str
    """What one value is: "seeds", "batches" or "blocks" of training steps."""
    by_seed: Mapping[str, Mapping[int, float]] = field(default_factory=dict)

    @property
    def subject(self) -> str | None:
        """The strategy that the headline is about: the default if there, else the first that is not a reference."""
        return _subject(self.estimates)

    def less(self, name: str, other: str) -> Estimate:
        """`name` minus `other`, paired by seed if the estimates are over seeds."""
        if self.basis == "seeds" and (gap := paired_difference(self.by_seed[name], self.by_seed[other])) is not None:
            return gap
        return difference(self.estimates[name], self.estimates[other])


def variance_ratios(run: Run) -> Measured:
    """Gradient variance relative to uniform: as measured, otherwise as estimated in the training log."""
    return _measured(run, "variance_ratio", REALISED)


def second_moments(run: Run) -> Measured:
    """Second moment of the gradient relative to uniform, as measured."""
    return _measured(run, "second_moment_ratio", "")


def wasted_rollouts(run: Run) -> Measured:
    """Share of rollouts without a gradient: as measured, otherwise as logged."""
    return _measured(run, "zero_advantage_rollouts", WASTED)


def final_accuracy(run: Run) -> dict[str, Estimate]:
    """The last success on held-out prompts of each strategy over seeds: from the summary, otherwise from the log."""
    learning = mapping(run.summary.get("learning"))
    given = {name: Estimate.read(mapping(entry).get("final_eval")) for name, entry in learning.items()}
    return known({name: Estimate.of(list(_ends(run, name).values())) for name in run.strategies}) | known(given)


def findings(run: Run) -> list[Finding]:
    """The headlines of a run: gradient variance, what was saved, rollouts without a gradient, learning. Missing data:
    no headline."""
    found = (_variance(run), _spending(run), _waste(run), gain(run) or learning(run))
    return [finding for finding in found if finding is not None]


def _variance(run: Run) -> Finding | None:
    ratios, opening, verb = variance_ratios(run), "At the same budget", "is"
    if ratios.basis == "blocks":
        opening, verb = "Estimated from the training rewards, which is noisy", "was"
        if ratios.subject in (None, UNIFORM) and (shadows := _shadow_ratios(run)):
            ratios, verb = Measured(shadows, "blocks"), "would have been"
            opening = "Estimated from the outcomes of this uniform run"
    if (name := ratios.subject) is None or name == UNIFORM:
        return None
    ratio = ratios.estimates[name]
    verdict = ratio.against(1.0)
    if ratios.basis == "blocks" and (saved := spent(run, name, "rollouts")) is not None and saved.saved > 0:
        target = number(run.settings.get("vip_variance_target", 1.0))
        sentence = (
            f"With fewer rollouts, the gradient variance of the {name} allocation was {num(ratio.mean)} times that of "
            f"uniform allocation with the whole budget ({_evidence(run, ratio, ratios.basis)}); the run aimed at "
            f"{num(target)}."
        )
        value, basis = f"{num(ratio.mean)}×", short_basis(ratio, ratios.basis)
        return Finding(value, f"gradient variance with {name} (aim:\u00a0{num(target)})", sentence, basis=basis)
    remark = {
        "within noise": " The interval includes 1, so the difference from uniform is within noise.",
        "higher": " This is worse than uniform.",
        "unknown": " There is only one value, so the noise is unknown.",
    }.get(verdict, "")
    if ratios.basis == "batches" and verdict != "unknown":
        remark += (
            " The batches of one seed share a policy and are not independent, so the true interval is probably wider."
        )
    if ratios.basis == "blocks" and num(ratio.mean) == num(1) and (why := uniform_steps(run, name)):
        remark += f" {why}"
    sentence = (
        f"{opening}, the gradient variance with the {name} allocation {verb} {num(ratio.mean)} times that with uniform "
        f"allocation ({_evidence(run, ratio, ratios.basis)}).{remark}"
    )
    basis = short_basis(ratio, ratios.basis)
    return Finding(
        f"{num(ratio.mean)}×", f"gradient variance with {name} (uniform:\u00a01)", sentence, verdict, basis=basis
    )


def _spending(run: Run) -> Finding | None:
    """What was saved of the budget: tokens where they count, otherwise rollouts."""
    totals = [spent(run, name, "rollouts") for name in run.strategies]
    saved = {one.strategy: one for one in totals if one is not None and one.saved > 0}
    names = sorted(saved, key=lambda name: name != "default")
    if not names:
        return None
    rollouts, tokens = saved[names[0]], spent(run, names[0], "tokens")
    value = f"{num(100 * rollouts.saved, 0)}\u00a0%"
    sentence = f"The {names[0]} allocation spent {rollouts.words}."
    if tokens is not None:
        sentence += f" These were {tokens.total:,.0f} tokens, {num(100 * tokens.saved, 1)}\u00a0% less than uniform."
    return Finding(value, f"of the rollouts saved with {names[0]}", sentence)


def _waste(run: Run) -> Finding | None:
    shares = wasted_rollouts(run)
    if (name := shares.subject) is None:
        return _equal_groups(run)
    share = shares.estimates[name].scaled(100)
    value = f"{num(share.mean, 0)}\u00a0%"
    sentence = (
        f"With the {name} allocation, {value} of the rollouts had advantage zero, because the rewards of their groups "
        f"are all equal, and gave no gradient ({_evidence(run, share, shares.basis, digits=1)})"
    )
    if name == UNIFORM or UNIFORM not in shares.estimates:
        return Finding(value, f"of the rollouts with {name} gave no gradient", f"{sentence}.")
    uniform = f"{num(100 * shares.estimates[UNIFORM].mean, 0)}\u00a0%"
    gap = shares.less(name, UNIFORM).scaled(100)
    sentence += (
        f"; with uniform allocation, {uniform} (difference {num(gap.mean, 1, signed=True)} percentage points"
        f"{interval(gap, 1, signed=True)}).{closing(gap)}"
    )
    basis = short_basis(gap, shares.basis, digits=1, signed=True, unit=" points difference")
    label = f"of the rollouts with {name} gave no gradient (uniform:\u00a0{uniform})"
    return Finding(value, label, sentence, gap.against(0.0), basis=basis)


def _equal_groups(run: Run) -> Finding | None:
    """What a run of TRL logs in the place of the share of rollouts."""
    shares = _over_blocks({name: curve(run, name, EQUAL_REWARD_GROUPS) for name in run.strategies})
    if (name := _subject(shares)) is None:
        return None
    share = shares[name].scaled(100)
    value = f"{num(share.mean, 0)}\u00a0%"
    evidence = _evidence(run, share, "blocks", digits=1)
    sentence = f"{value} of the groups had equal rewards, which give no gradient ({evidence})."
    return Finding(value, f"of the groups with {name} gave no gradient", sentence)


def gain(run: Run) -> Finding | None:
    """Mean gain in success over the run, relative to uniform; None for runs without this measurement."""
    ratios = mapping(mapping(run.summary.get("learning")).get("gain_ratio"))
    pool, held_out = (Estimate.read(ratios.get(name)) for name in ("pool", "held_out"))
    if pool is None or held_out is None:
        return None
    seeds = size(pool, "seeds")
    sentence = (
        f"At the same number of rollouts the mean gain in success over the run was {num(pool.mean)} times that of "
        f"uniform on training prompts ({seeds}{interval(pool)}) and {num(held_out.mean)} times on held-out prompts "
        f"({seeds}{interval(held_out)})."
    )
    label = "mean gain in success over the run, on training prompts (uniform: 1)"
    return Finding(f"{num(pool.mean)}×", label, sentence, pool.against(1.0), "higher", short_basis(pool, "seeds"))


def learning(run: Run) -> Finding | None:
    """Success on held-out prompts at the end and, if uniform trained as well, the difference from it."""
    final, gap, basis = final_accuracy(run), None, "seeds"
    if (name := _subject(final)) is None:
        return None
    if name != UNIFORM and UNIFORM in final:
        entry = mapping(mapping(run.summary.get("learning")).get("paired_difference"))
        gap, basis = Estimate.read(entry), str(entry.get("basis") or basis)
        if gap is None:
            gap, basis = paired_difference(_ends(run, name), _ends(run, UNIFORM)), "seeds"
    value, opening = num(final[name].mean, 3), "Success on held-out prompts at the end:"
    if gap is None:
        sentence = f"{opening} {value} with {name} ({count(final[name].n, 'seed')}{interval(final[name], 3)})."
        return Finding(value, "success on held-out prompts at the end", sentence)
    sentence = (
        f"{opening} {value} with {name}, {num(final[UNIFORM].mean, 3)} with uniform, a paired difference of "
        f"{_difference(gap, basis)}"
    )
    label = f"difference in held-out success from uniform ({value} at the end)"
    rest = short_basis(gap, basis, digits=3, signed=True)
    return Finding(num(gap.mean, 3, signed=True), label, sentence, gap.against(0.0), "higher", rest)


def others(run: Run, names: Sequence[str]) -> str:
    """One sentence with the measured variance ratios of those `names` that are not in the headline."""
    ratios = variance_ratios(run)
    if ratios.basis == "blocks":
        return ""
    parts = [
        f"{name} {num(ratio.mean)} ({VERDICTS[ratio.against(1.0)]}{interval(ratio)})"
        for name in names
        if (ratio := ratios.estimates.get(name)) and name not in (ratios.subject, UNIFORM)
    ]
    return f"variance ratios of the other strategies: {', '.join(parts)}." if parts else ""


def between_series(ends: Sequence[tuple[str, str, Mapping[int, float]]]) -> list[str]:
    """Differences in final success on held-out prompts from the uniform series, or from the first if there is none.

    Args:
        ends: (label, strategy, {seed: accuracy}) of each series.
    """
    if len(ends) < 2:
        return []
    base = next((end for end in ends if end[1] == UNIFORM), ends[0])
    gaps = [(label, paired_difference(last, base[2])) for label, _, last in ends if label != base[0]]
    opening = "Difference in success on held-out prompts at the end,"
    return [f"{opening} {name} minus {base[0]}: {_difference(gap)}" for name, gap in gaps if gap is not None]


def prediction_error(predicted: Curve, realised: Curve) -> str:
    """Whether the predicted variance ratio agrees with the realised one."""
    both = np.intersect1d(predicted.steps, realised.steps)
    gap = over_blocks((_at(realised, both) - _at(predicted, both))[None])
    if gap is None:
        return "predicted and realised ratio were never logged at the same step."
    verdict = {
        "higher": "the predictions are too optimistic.",
        "lower": "the predictions are too pessimistic.",
        "within noise": "the predictions are right on average, within noise.",
    }.get(gap.against(0.0), "the noise of this difference is unknown.")
    words = f"{num(gap.mean, 2, signed=True)}{interval(gap, 2, signed=True)}"
    return f"realised minus predicted variance ratio {words}: {verdict}"


# --- evidence ---------------------------------------------------------------------------------------------------------


def _measured(run: Run, key: str, metric: str) -> Measured:
    """The measurement in the summary, over seeds if there are several, otherwise over batches; without one, the log.

    The batches of one seed share a policy and a predictor. So if there are several seeds, only seeds are repetitions.
    """
    by_seed = means_by_seed(run, key)
    if max((len(means) for means in by_seed.values()), default=0) > 1:
        means = known({name: Estimate.of(list(values.values())) for name, values in by_seed.items()})
        return Measured(means, "seeds", by_seed)
    if measured := estimates(run, key):
        return Measured(measured, "batches")
    return Measured(_over_blocks({name: curve(run, name, metric) for name in run.strategies}), "blocks")


def _shadow_ratios(run: Run) -> dict[str, Estimate]:
    """Variance ratios of the shadow strategies of a uniform run."""
    return _over_blocks({name: curve(run, UNIFORM, PREFIX + shadow_ratio(name)) for name in run.shadows(UNIFORM)})


def _over_blocks(curves: Mapping[str, Curve | None]) -> dict[str, Estimate]:
    return known({name: over_blocks(found.values) for name, found in curves.items() if found is not None})


def _ends(run: Run, strategy: str) -> dict[int, float]:
    accuracy = curve(run, strategy, HELD_OUT_SUCCESS)
    return {} if accuracy is None else accuracy.last()


def _subject(found: Mapping[str, Estimate]) -> str | None:
    names = sorted(found, key=lambda name: (name != "default", name == UNIFORM, name in ("oracle", "random")))
    return names[0] if names else None


def _at(of: Curve, steps: FloatArray) -> FloatArray:
    return of.mean[np.searchsorted(of.steps, steps)]


def _difference(gap: Estimate, basis: str = "seeds") -> str:
    caution = " The interval is for one pair of trainings; the difference between seeds is unknown."
    words = f"{num(gap.mean, 3, signed=True)} (n = {size(gap, basis)}{interval(gap, 3, signed=True)}).{closing(gap)}"
    return words if basis == "seeds" else words + caution


def _evidence(run: Run, estimate: Estimate, basis: str, digits: int = 2) -> str:
    """Standard deviation, number of values and interval of an estimate."""
    sd = "" if estimate.sd is None else f"sd {num(estimate.sd, digits)}, "
    n = f"n = {size(estimate, basis)}"
    if basis == "batches":
        seeds = mapping(run.summary.get("settings")).get("seeds")
        seeds = len(seeds) if isinstance(seeds, list) else seeds or len({seed_of(row) for row in run.rows})
        n += f" from {count(seeds, 'seed')}" if seeds else ""
    return sd + n + interval(estimate, digits)
