"""A batch that is sampled in two waves: from the plan of the first to the advantages of the pooled groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from viprl.advantages import group_advantages
from viprl.allocation.budget import Budget
from viprl.allocation.waves.estimator import FirstLook, first_wave_mean, group_weight, wave_advantages
from viprl.allocation.waves.look_plan import LookPlan
from viprl.allocation.waves.second_wave import second_counts
from viprl.errors import InputError, InputTypeError
from viprl.outcomes import check_group_sizes, reward_values
from viprl.utils.arrays import FloatArray, IntArray
from viprl.utils.sequences import listed, short
from viprl.weights.surprisal import Surprisal

if TYPE_CHECKING:
    from viprl.allocation.optimum import Allocation


@dataclass(frozen=True)
class Waves:
    """The two waves of a batch of Q prompts."""

    plan: LookPlan
    budget: Budget
    """Of both waves."""
    threshold: float
    """Rewards above it are marked; fixed before sampling."""
    mean: FloatArray
    """[Q] mu, the expected reward."""
    seed: int
    alone: IntArray
    """[Q] rollouts in one wave, with which the two are compared."""
    labels: tuple[FirstLook, ...] | None = None
    """[Q] what the first wave showed; None before."""
    counts: IntArray | None = None
    """[Q] rollouts of both waves; None before the first one was seen."""

    def after(self, rewards: Sequence[FloatArray]) -> tuple[Waves, IntArray]:
        """With the second wave that follows from the rewards [Q][w] of the first; and [Q] the rollouts of both.

        Raises InputError for other numbers of rewards.
        """
        check_group_sizes(rewards, self.plan.first)
        marked = np.array([int((group > self.threshold).sum()) for group in rewards])  # NaN is not
        counts = second_counts(self.plan, marked, self.budget, np.random.default_rng(self.seed))
        return replace(self, labels=tuple(self.plan.labels(marked)), counts=counts), counts

    def check(self, rewards: Sequence[FloatArray]) -> None:
        """Raise InputError for rewards [Q][n] of both waves that the first one cannot be a part of. Groups without a
        scorable reward were lost, which is no contradiction."""
        for q in np.flatnonzero(self.plan.looks).tolist():
            look, group = self.seen_labels[q], rewards[q]
            k = int((group > self.threshold).sum())
            if not np.isnan(group).all() and not look.can_lead_to(k, len(group)):
                raise InputError(
                    f"the rewards of prompt {q} contradict those of its first wave: {k} of {len(group)} are above "
                    f"{self.threshold:g}, but in the first {look.size} there were {sorted(look.marked)}; give the "
                    "rewards that `next` was given, and those of the second wave after them"
                )

    def advantages(self, rewards: Sequence[FloatArray]) -> list[FloatArray]:
        """[Q][n] advantages A of the pooled groups, for the gradient (1/n) sum_i A_i Z_i of each prompt."""
        labels, shares = self.seen_labels, self.plan.shares(self.both_counts)
        groups = zip(rewards, labels, shares.tolist(), self.mean.tolist(), strict=True)
        return [
            wave_advantages(group, look, group > self.threshold, share=share, mean=mean)
            for group, look, share, mean in groups
        ]

    def means(self, values: Sequence[FloatArray], rewards: Sequence[FloatArray]) -> FloatArray:
        """[Q] means of `values` [Q][n] that are unbiased, as those of groups of a fixed size are; NaN without any.

        Args:
            values: of each rollout, NaN where unknown: the rewards, or whether it succeeded.
            rewards: [Q][n], which decide the marks.
        """
        groups = zip(values, rewards, self.seen_labels, strict=True)
        return np.array([first_wave_mean(own, look, group > self.threshold) for own, group, look in groups])

    def variance_factors(self, rewards: Sequence[FloatArray]) -> FloatArray:
        """[Q] by which the sample variance of a pooled group must be multiplied to be an unbiased estimate, as that of
        a group of a fixed size is. 1 for prompts without a look."""
        labels = self.seen_labels
        factors = np.ones(len(labels))
        for q in np.flatnonzero(self.plan.looks).tolist():
            n, k = len(rewards[q]), int((rewards[q] > self.threshold).sum())
            factors[q] = group_weight(labels[q], k, n) * n * (n - 1) / (k * (n - k)) if 0 < k < n else 0.0
        return factors

    def realised_variance(
        self, rewards: Sequence[FloatArray], halves: Sequence[FloatArray], surprisal: Surprisal | None
    ) -> FloatArray:
        """[Q] what each group showed of its own variance: sum_i A_i^2 s_i / n^2, up to the size of the scores.

        Args:
            rewards, halves: [Q][n], as for `viprl.shrinkage.realised_variance`.
            surprisal: of the groups, in units; None for s = 1.
        """
        shown = []
        for q, (a, half) in enumerate(zip(self.advantages(rewards), halves, strict=True)):
            size = 1.0 if surprisal is None else np.where(half == 1, surprisal.right[q], surprisal.wrong[q])
            shown.append(float(np.sum(np.where(a == 0, 0.0, a**2 * size))) / len(a) ** 2)
        return np.array(shown)

    @property
    def both_counts(self) -> IntArray:
        """[Q] rollouts of both waves. Raises InputError before the first one was seen."""
        if self.counts is None:
            raise InputError("the first wave was not seen yet; call `vip.next(plan, rewards)` with its rewards")
        return self.counts

    @property
    def seen_labels(self) -> tuple[FirstLook, ...]:
        """[Q] what the first wave showed. Raises InputError before it was seen."""
        if self.labels is None:
            raise InputError("the first wave was not seen yet; call `vip.next(plan, rewards)` with its rewards")
        return self.labels


def pooled_advantages(rewards: Sequence[Sequence[Any]], plan: Allocation) -> FloatArray:
    """Advantages of groups that were sampled in two waves, with the gradient of each prompt exactly unbiased.

    Args:
        rewards: [Q][n] of both waves, None or NaN where unscorable.
        plan: from `VIP.next`. A plan that needed no second wave gives `viprl.group_advantages`.

    Returns: [C] in the order of the prompts, for the mean over the n rollouts of each prompt; weigh them by
    `viprl.rollout_weights` with the sizes of the groups.

    Raises InputError for groups of other sizes, and for a plan whose first wave was not seen.
    """
    waves = getattr(plan, "waves", ...)
    if waves is ...:
        raise InputTypeError(
            f"plan is {short(plan)}; expected what `vip.next` returned (of a selection give `selection.allocation` to "
            "`vip.next`)"
        )
    groups = [reward_values(group) for group in listed("rewards", rewards, "with one list for each prompt")]
    if waves is None:
        sizes = [len(group) for group in groups]
        return group_advantages(np.concatenate([np.empty(0), *groups]), sizes, prior=plan.prior)
    check_group_sizes(groups, waves.both_counts)
    return np.concatenate(waves.advantages(groups))
