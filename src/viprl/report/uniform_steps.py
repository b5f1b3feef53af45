"""Why the allocation of a run was uniform in some of its steps, so that their variance ratio is 1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from viprl.metrics import (
    BAD_PREDICTIONS,
    COUNTS_MAX,
    COUNTS_MEAN,
    COUNTS_MIN,
    EPOCH,
    PREFIX,
    SQUARED_WEIGHTS,
    TRUST,
)
from viprl.runs.reader import Run
from viprl.utils.numerics import number

ONE_PROMPT = "a batch had one prompt, so that there was nothing to distribute"
BOUNDS = "the bounds gave every prompt the same number"
GUARD = "the guard judged that the predictions did harm"
BAD = "the predictions could not be used"
FIRST_EPOCH = "the prompts of the first epoch were new and their texts said little about their rewards"
EQUAL = "the predictions differed too little"

_ADVICE = {
    ONE_PROMPT: "put several prompts into a batch (TRL: generation_batch_size above num_generations; verl: "
    "data.train_batch_size above 1)",
    BAD: "correct the predictor that the warnings of the run name",
    BOUNDS: "lower min_rollouts or raise max_rollouts",
    FIRST_EPOCH: "train for more epochs, start warm from the log of an earlier run, or use features",
    EQUAL: "use prompts of different difficulty; no allocation helps where all are equally hard",
}


def uniform_steps(run: Run, strategy: str) -> str:
    """`uniform_steps_and_advice` as one text."""
    sentence, advice = uniform_steps_and_advice(run, strategy)
    return f"{sentence} To change that: {advice}." if advice else sentence


def uniform_steps_and_advice(run: Run, strategy: str) -> tuple[str, str]:
    """A sentence about the steps in which all prompts got the same number of rollouts, empty if there are none; and
    what to do if these are most of the steps, unless the prompts were chosen from several candidates: then equal counts
    are no fault."""
    rows = list(_rows_with_counts(run, strategy))
    reasons = [_reason(run, row, prompts) for row, prompts in rows]
    found = Counter(reason for reason in reasons if reason)
    if not found:
        return "", ""
    total = len(reasons)
    if any(PREFIX + SQUARED_WEIGHTS in row for row, _ in rows):
        share = _share(sum(found.values()), total)
        return f"The chosen prompts had equal counts in {share} of the steps.", ""
    parts = [f"{_share(times, total)} because {reason}" for reason, times in found.most_common()]
    main, times = found.most_common(1)[0]
    sentence = (
        f"The allocation was uniform, so that the variance ratio is 1, in {_share(sum(found.values()), total)} of the "
        f"steps: {', '.join(parts)}."
    )
    return sentence, _ADVICE.get(main, "") if 2 * times > total else ""


def _share(part: int, total: int) -> str:
    return f"{100 * part / total:.0f}\u00a0%"


def _rows_with_counts(run: Run, strategy: str) -> list[tuple[Mapping[str, Any], float]]:
    """The training rows of a strategy that have counts, and the prompts of their batches (NaN if unknown)."""
    found, before, steps = [], 0.0, run.logging_steps
    for row in run.rows_of(strategy):
        mean, rollouts = number(row.get(PREFIX + COUNTS_MEAN)), number(row.get("rollouts"))
        if mean > 0:  # not NaN
            found.append((row, (rollouts - before) / (mean * steps)))
            before = rollouts
    return found


def _reason(run: Run, row: Mapping[str, Any], prompts: float) -> str | None:
    """Why the step of a row was uniform; None if it was not."""
    low, mean, high, trust = (number(row.get(PREFIX + name)) for name in (COUNTS_MIN, COUNTS_MEAN, COUNTS_MAX, TRUST))
    if not high - low < 1:
        return None
    if number(row.get(PREFIX + BAD_PREDICTIONS)) > 0:
        return BAD
    if round(prompts, 6) == 1:
        return ONE_PROMPT
    if mean in (number(run.settings.get("vip_min_rollouts")), number(run.settings.get("vip_max_rollouts"))):
        return BOUNDS
    if trust == 0:
        return GUARD
    return FIRST_EPOCH if number(row.get(EPOCH)) <= 1 else EQUAL
