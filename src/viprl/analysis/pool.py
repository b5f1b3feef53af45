"""The prompts of a replay: what was logged, what counts as the truth, and what a strategy observes of a batch.

symbol  meaning                                                                              shape
x       position of a logged reward in the range of the log: 0 or 1 for two values           [n]
k, n    sum of the positions (the successes) and number of logged rollouts, at each visit    [N, T]
s2      sample variance of the logged rewards of a visit, unbiased                           [N, T]
p       true mean position: mean of k/n over visits t-4 to t+4                               [N, T]
a       true reward variance. Two values: p(1-p). More: mean of s2 over visits t-4 to t+4,   [N, T]
        weighted by n-1
l       true mean length: mean of the logged lengths of visits t-4 to t+4                    [N, T]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from viprl.analysis.lengths import Lengths, Shown
from viprl.analysis.protocol import Protocol, around
from viprl.errors import InputError
from viprl.prompts import text
from viprl.reward_groups import GroupOutcomes, RewardGroups, RewardScale
from viprl.runs.history import PromptHistory, all_of_one_kind
from viprl.utils.arrays import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Pool:
    """The prompts of a replay and their logged outcomes."""

    keys: tuple[str, ...]
    texts: tuple[str, ...]
    successes: FloatArray
    """[N, T] k."""
    rollouts: FloatArray
    """[N, T] n."""
    truth: FloatArray
    """[N, T] p."""
    variance: FloatArray
    """[N, T] a; of more than two values in the unit of `RewardScale`."""
    rewards: tuple[tuple[FloatArray, ...], ...] | None = None
    """[N] all logged visits of each prompt, [n] rewards each; None if the rewards have two values."""
    lengths: Lengths | None = None
    """None if the log has no lengths."""

    @classmethod
    def of(cls, histories: Sequence[PromptHistory], protocol: Protocol) -> Pool:
        """The first visits of the prompts that have enough. Raises InputError if they do not fill one batch."""
        t, size = protocol.visits, protocol.batch_size
        kept = [history for history in all_of_one_kind(histories) if len(history.rollouts) >= t]
        if len(kept) < size:
            raise InputError(
                f"{len(kept)} of {len(histories)} prompts have at least {t} visits, but a batch has {size}; "
                f"{_smaller(histories, len(kept), size)}"
            )
        rewards = [history.rewards for history in kept if history.rewards is not None]
        scale = RewardScale()
        if rewards:
            scale.observe(RewardGroups.of_rewards([visit for history in rewards for visit in history]))
            successes = [np.array([scale.position(visit).sum() for visit in history]) for history in rewards]
        else:
            successes = [history.successes for history in kept]
        truth = np.array([smoothed(k / h.rollouts)[:t] for k, h in zip(successes, kept, strict=True)])
        graded = bool(rewards) and not scale.binary
        return cls(
            tuple(history.id for history in kept),
            tuple(text(history.prompt) for history in kept),
            np.array([k[:t] for k in successes]),
            np.array([history.rollouts[:t] for history in kept]),
            truth,
            _true_variances(rewards, scale)[:, :t] if graded else truth * (1 - truth),
            tuple(rewards) if graded else None,
            Lengths.of(kept, scale, t),
        )

    def logged(self, at: IntArray, visit: int, scale: RewardScale) -> GroupOutcomes:
        """What the prompts `at` [Q] showed at a visit; `scale` is that of the strategy that observes it."""
        if self.rewards is None:
            return GroupOutcomes.of_counts(self.successes[at, visit], self.rollouts[at, visit])
        return _outcomes([self.rewards[i][visit] for i in at], scale)

    def drawn(self, at: IntArray, visit: int, scale: RewardScale, draws: FloatArray, counts: IntArray) -> GroupOutcomes:
        """What `counts` [Q] rollouts show, drawn by the uniform `draws` [Q, U].

        Two values: successes with probability p. More: logged rewards of the visits t-4 to t+4, with replacement.
        """
        if self.rewards is None:
            return GroupOutcomes.of_counts(drawn(draws, self.truth[at, visit], counts), counts.astype(float))
        nearby = [np.concatenate(self.rewards[i][around(visit)]) for i in at]
        chosen = [values[(len(values) * u[:n]).astype(int)] for values, u, n in zip(nearby, draws, counts, strict=True)]
        return _outcomes(chosen, scale)

    def shown_lengths(self, at: IntArray, visit: int, draws: FloatArray | None, counts: IntArray) -> Shown | None:
        """The lengths of the outcomes that `logged` gives or, with `draws`, `drawn`; None if the log has none."""
        if self.lengths is None:
            return None
        if draws is None:
            return self.lengths.shown(at, visit)
        p = self.truth[at, visit] if self.rewards is None else None
        return self.lengths.drawn(at, visit, draws, counts, p)


def drawn(draws: FloatArray, p: FloatArray, counts: IntArray) -> FloatArray:
    """[Q] successes among the first `counts` of the uniform `draws` [Q, U]; a draw below p is a success."""
    taken = np.arange(draws.shape[1]) < counts[:, None]
    return ((draws < p[:, None]) & taken).sum(axis=1).astype(float)


def smoothed(rates: FloatArray) -> FloatArray:
    """[T] mean of the rates over the visits t-4 to t+4, fewer at the ends."""
    return np.array([rates[around(t)].mean() for t in range(len(rates))])


def _outcomes(rewards: Sequence[FloatArray], scale: RewardScale) -> GroupOutcomes:
    groups = RewardGroups.of_rewards(rewards)
    scale.observe(groups)
    return GroupOutcomes.of(groups, scale)


def _true_variances(rewards: Sequence[Sequence[FloatArray]], scale: RewardScale) -> FloatArray:
    """[N, T] a, over the visits that all prompts have; the mean of all prompts where no visit has two rewards."""
    most = min(map(len, rewards))
    found = np.array([_smoothed_variance(history)[:most] for history in rewards]) / scale.unit_variance
    unknown = np.isnan(found)
    return np.where(unknown, 0.0 if unknown.all() else np.nanmean(found), found)


def _smoothed_variance(visits: Sequence[FloatArray]) -> FloatArray:
    """[T] mean of s2 over the visits t-4 to t+4, weighted by n-1; NaN if none of them has two rewards."""
    groups = RewardGroups.of_rewards(visits)
    freedom = np.maximum(groups.rollouts - 1, 0)
    sums = np.where(freedom > 0, groups.sum(groups.squares), 0.0)
    spans = list(map(around, range(len(visits))))
    weights = np.array([freedom[span].sum() for span in spans])
    return np.where(weights > 0, [sums[span].sum() for span in spans], np.nan) / np.maximum(weights, 1)


def _smaller(histories: Sequence[PromptHistory], kept: int, size: int) -> str:
    """What to set so that the prompts fill one batch."""
    visits = sorted((len(history.rollouts) for history in histories), reverse=True)
    if len(visits) >= size:
        return f"set visits to {visits[size - 1]} (--visits {visits[size - 1]})"
    if kept:
        return f"set batch_size to {kept} (--batch-size {kept})"
    return (
        f"set visits to {visits[-1]} and batch_size to {len(visits)} (--visits {visits[-1]} --batch-size {len(visits)})"
    )
