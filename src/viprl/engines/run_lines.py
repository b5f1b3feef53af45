"""One line at the start of a run and one at its end: what VIP does, whether it helped, and what to do next."""

from __future__ import annotations

import logging
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from viprl.allocation.budget import default_max_rollouts
from viprl.allocation.variance_models import get_variance_model
from viprl.metrics import (
    BAD_PREDICTIONS,
    SAVED_ROLLOUTS,
    SAVED_TOKENS,
    SECOND_WAVE,
    SPENT_TOKENS,
    TRUST,
    UNSCORABLE,
    ZERO_ADVANTAGE,
    ratio,
)
from viprl.settings import Settings
from viprl.utils.arrays import IntArray
from viprl.utils.words import count
from viprl.vip import VIP, Observation

logger = logging.getLogger(__name__)
_PACKAGE = logging.getLogger("viprl")

ONE_PROMPT, GUARD, BOUNDS = "one prompt in the batch", "guard", "bounds"
NEW_PROMPTS, EQUAL, BAD = "new prompts", "equal predictions", "bad predictions"
"""Why the allocation of a step was uniform."""
ENOUGH = 10
"""Batches from which the standard error of the variance ratio can be trusted."""


def announce(line: str) -> None:
    """Log a line at level INFO; print it to stderr if nothing has configured logging, where INFO would be invisible.

    `logging.getLogger("viprl").setLevel("WARNING")` silences it.
    """
    if logger.isEnabledFor(logging.INFO):
        logger.info(line)
    elif _PACKAGE.level == logging.NOTSET and not logger.hasHandlers():
        print(line, file=sys.stderr, flush=True)


def start_line(
    vip: VIP,
    success: Any,
    *,
    prompts: int,
    rollouts: int,
    resumed: str | None = None,
    candidates: int = 1,
    unbiased: bool = True,
    baseline: str = "group",
    waves: int = 1,
) -> str:
    """What a run is about to do.

    Args:
        success: what counts as success, as text or a `SuccessCriterion`.
        prompts, rollouts: Q and C of a batch.
        resumed: where the run was resumed from; None for a new one.
        candidates, unbiased, baseline, waves: the options of the engine.
    """
    name, strategy = next(iter(vip.strategies.items()))
    least = get_variance_model("rloo" if vip.estimator == "auto" else vip.estimator).min_rollouts
    least = least if vip.min_rollouts is None else vip.min_rollouts
    most = default_max_rollouts(prompts, rollouts, least) if vip.max_rollouts is None else vip.max_rollouts
    auto = isinstance(vip.features, str) and vip.features == "auto"
    shrunk = "" if baseline == "group" else f"baseline: {baseline}; "
    chosen = f" (chosen from {candidates * prompts}{'' if unbiased else ', uncorrected'})" if candidates > 1 else ""
    saves = "".join(f"{option}: {getattr(vip, option)}; " for option in ("spend", "cost") if _changed(vip, option))
    in_waves = " in up to two waves" if waves > 1 else ""
    most_spent = f"{'at most ' if saves else ''}{rollouts} rollouts"
    return (
        f"viprl: strategy {name}; success: {success}; {most_spent} of {count(prompts, 'prompt')}{chosen} "
        f"in a batch{in_waves}, {least} to {most} of each prompt; {saves}{shrunk}features: "
        f"{_feature_name(strategy.predictor.features) + ' (auto)' if auto else _feature_name(vip.features)}; "
        f"{'from the start' if resumed is None else f'resumed from {resumed}'}"
    )


def _changed(vip: VIP, option: str) -> bool:
    return getattr(vip, option) != getattr(Settings, option)


def _feature_name(choice: Any) -> str:
    if choice is None:
        return "none"
    return str(choice) if isinstance(choice, str | Path) else getattr(choice, "name", "") or type(choice).__name__


def uniform_reason(
    counts: Sequence[int],
    keys: Sequence[str],
    trust: float | None,
    bounds: tuple[int, float] | None = None,
    new: bool = False,
    bad: bool = False,
) -> str | None:
    """Why all prompts of a step have the same number of rollouts, up to a remainder; None if they have not.

    Args:
        counts: [Q] rollouts.
        keys: [Q] identities.
        trust: of the guard, None without one.
        bounds: fewest and most rollouts of a prompt, if known.
        new: whether most of the prompts had not been seen before.
        bad: whether the predictions could not be used.
    """
    if max(counts) - min(counts) > 1:
        return None
    if bad:
        return BAD
    if len(set(keys)) == 1:
        return ONE_PROMPT
    if trust == 0:
        return GUARD
    if bounds is not None and sum(counts) / len(counts) in bounds:
        return BOUNDS
    return NEW_PROMPTS if new else EQUAL


class RunSummary:
    """Sums over the steps of a run (since it was started or resumed) for the line at its end.

    Args:
        resumed: whether the run was resumed. Its prompts have been seen before then.
        selects: whether prompts are chosen from several candidates, also where their counts are equal.
        settings: of VIP, which say whether the run spends all of its budget, and for which variance.
    """

    def __init__(self, resumed: bool = False, selects: bool = False, settings: Settings | None = None) -> None:
        self.selects = selects
        self.target = None if settings is None else settings.aims_at
        self.saves = settings is not None and not settings.spends_all
        self._seen: set[str] | None = None if resumed else set()
        self.steps = 0
        self.uniform: Counter[str] = Counter()
        """Steps with uniform counts, by reason."""
        self.rollouts = 0
        self.budget = 0.0
        """Rollouts that could have been spent."""
        self._tokens = np.zeros(2)  # spent, of uniform counts
        self._variances: list[tuple[float, float]] = []
        self._shares = np.zeros(2)  # rollouts with zero advantage, unscorable rollouts
        self._seconds: list[float] = []  # share of the second wave, of batches for which two were asked

    def add(
        self,
        counts: Sequence[int] | IntArray,
        observation: Observation,
        metrics: Mapping[str, float],
        bounds: tuple[int, float] | None = None,
    ) -> None:
        """Count a step. `metrics` are those of VIP, with the values that the engine knows better."""
        planned: list[int] = np.asarray(counts).tolist()
        self.steps += 1
        self.rollouts += sum(planned)
        self.budget += sum(planned) / (1 - metrics.get(SAVED_ROLLOUTS, 0.0))
        tokens = metrics.get(SPENT_TOKENS, 0.0)
        self._tokens += tokens, tokens / (1 - np.nan_to_num(metrics.get(SAVED_TOKENS, 0.0)))
        new = 2 * self._count_new(observation.keys) > len(observation.keys)
        bad = metrics.get(BAD_PREDICTIONS, 0.0) > 0
        reason = uniform_reason(planned, observation.keys, metrics.get(TRUST), bounds, new, bad)
        self.uniform.update([] if reason is None else [reason])
        self._variances += [] if observation.variance is None else [observation.variance]
        shares = np.nan_to_num([metrics.get(ZERO_ADVANTAGE, 0.0), metrics.get(UNSCORABLE, 0.0)])
        self._shares += shares * sum(planned)
        self._seconds += [metrics[SECOND_WAVE]] if SECOND_WAVE in metrics else []

    def _count_new(self, keys: Sequence[str]) -> int:
        """How many of the prompts were not in an earlier step."""
        if self._seen is None:
            return 0
        unseen = sum(key not in self._seen for key in keys)
        self._seen.update(keys)
        return unseen

    @property
    def variance_ratio(self) -> tuple[float, float]:
        """Realised gradient variance of the run relative to uniform, and its standard error (delta method); NaN where
        it cannot be estimated."""
        if not self._variances:
            return math.nan, math.nan
        own, even = np.array(self._variances).T
        value = ratio(own.sum(), even.sum())
        if not (even > 0).sum() >= 2:
            return value, math.nan
        n = len(own)
        return value, float(np.sqrt(n / (n - 1) * ((own - value * even) ** 2).sum()) / even.sum())

    def line(self, strategy: str, advice: Sequence[str] = ()) -> str:
        """What came of the run.

        Args:
            strategy: name of the strategy.
            advice: what to do next, for a run in which nothing stands out.
        """
        if not self.steps:
            return "viprl: no step was made"
        zero, unscorable = self._shares / max(self.rollouts, 1)
        saved = [] if self.rollouts >= round(self.budget) else [f"{1 - self.rollouts / self.budget:.0%} saved"]
        if self.saves and self._tokens[1] > 0:
            saved.append(f"{1 - self._tokens[0] / self._tokens[1]:.0%} of the tokens saved")
        spent = f" ({', '.join(saved)})" if saved else ""
        parts = [
            f"{count(self.steps, 'batch', 'batches')} with {self.rollouts} rollouts{spent}",
            self._verdict(strategy),
        ]
        if strategy != "uniform":
            parts.append(self._uniform_steps())
        if self._seconds:
            two = [share for share in self._seconds if share > 0]
            second = f", {np.mean(two):.0%} of their rollouts in the second" if two else ""
            parts.append(f"two waves in {count(len(two), 'batch', 'batches')}{second}")
        parts.append(f"{zero:.0%} of the rollouts had zero advantage")
        if unscorable > 0:
            parts.append(f"{unscorable:.0%} were unscorable")
        found = self._remedies(strategy, unscorable)
        return f"viprl: {'; '.join(parts)}. Next: {'; '.join([*found, *advice][:2]) or 'nothing'}"

    def _verdict(self, strategy: str) -> str:
        value, error = self.variance_ratio
        if math.isnan(value):
            return "no group had rewards that differ, so the gradient variance is unknown"
        if strategy == "uniform":
            return "uniform allocation, as without VIP"
        known = "" if math.isnan(error) else f" ± {error:.2f}"
        if len(self._variances) < ENOUGH:
            verdict = "too few batches to judge"
        elif self.target is not None:
            above = not math.isnan(error) and value - self.target > 2 * error
            verdict = f"{'above the' if above else 'the'} target is {self.target:g}"
        elif math.isnan(error) or abs(value - 1) <= 2 * error:
            verdict = "no clear difference"
        else:
            verdict = "VIP helped" if value < 1 else "VIP did harm"
        return f"gradient variance {value:.2f}{known} of uniform allocation ({verdict})"

    def _uniform_steps(self) -> str:
        total = sum(self.uniform.values())
        why = ", ".join(f"{reason}: {times}" for reason, times in self.uniform.most_common())
        what = "equal counts" if self.selects else "uniform"
        return f"{what} in {count(total, 'batch', 'batches')}" + (f" ({why})" if total else "")

    def _remedies(self, strategy: str, unscorable: float) -> list[str]:
        """What to do about what stands out most."""
        found = []
        adaptive, most = strategy != "uniform", self.steps / 2
        counts_alone = adaptive and not self.selects  # equal counts are no fault where prompts are chosen
        if counts_alone and self.uniform[ONE_PROMPT] > most:
            found.append("put several different prompts into a batch")
        if self.uniform[BAD]:
            found.append("correct the predictor that the warnings name")
        if unscorable > 0.5:
            found.append("check what the reward functions return")
        if math.isnan(self.variance_ratio[0]):
            found.append("check the rewards, and whether the prompts are too hard or too easy")
        elif counts_alone and self.uniform[BOUNDS] > most:
            found.append("lower min_rollouts or raise max_rollouts")
        elif adaptive and self.uniform[NEW_PROMPTS] > most:
            found.append("train for more than one epoch, start warm from the log of an earlier run, or use features")
        elif counts_alone and self.uniform[EQUAL] > most:
            found.append("use prompts of different difficulty; no allocation helps where all are equally hard")
        return found
