"""Why the tables of a replay have empty cells, and what to change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from viprl.allocation.budget import default_max_rollouts
from viprl.analysis.pool import Pool
from viprl.analysis.protocol import Protocol
from viprl.analysis.replay import PHASES, Phase
from viprl.utils.words import count

FEW_PROMPTS = 64
"""With fewer prompts, a caution is shown."""


def empty_cells(results: Mapping[str, Sequence[Phase]], pool: Pool, protocol: Protocol) -> list[str]:
    """A sentence for each reason why a capture is undefined ("–")."""
    labels = [p.visits for phases in results.values() for p in phases if p.scores["capture"] is None]
    found: dict[str, list[str]] = {}
    for label, first, end in PHASES:
        if label in labels:
            found.setdefault(no_capture(pool, slice(first, end), protocol), []).append(label)
    notes = [f"– at visit {', '.join(labels)}: {reason}" for reason, labels in found.items()]
    if pool.rewards is not None:
        notes.append(
            "Rewards have more than two values, so that the capture is that of their variance, and there is no success "
            "probability: log loss, Brier score, mean absolute error and calibration are left out (–). With --success "
            "the successes are replayed instead."
        )
    return notes


def no_capture(pool: Pool, visits: slice, protocol: Protocol) -> str:
    """Why no allocation would reduce the variance of a batch at these visits by 1 %."""
    truth, variance = pool.truth[:, visits], pool.variance[:, visits]
    size, rollouts, least, most = protocol.batch_size, protocol.rollouts, protocol.min_rollouts, protocol.max_rollouts
    opening = "no allocation could reduce the variance of a batch by 1 %, because"
    if size == 1:
        wider = f"; replay with larger batches: --batch-size {min(8, len(truth))}" if len(truth) > 1 else ""
        return f"{opening} a batch has one prompt, so that there is nothing to distribute{wider}"
    if rollouts in (least, most):
        more = f"--max-rollouts {default_max_rollouts(1, rollouts, least)}" if rollouts == most else ""
        if rollouts == least:
            more = "--min-rollouts 2" if least > 2 else "--rollouts 4"
            more += f" --max-rollouts {default_max_rollouts(1, max(rollouts, 4), 2)}" if rollouts == most else ""
        return f"{opening} the bounds give every prompt {rollouts} rollouts; set {more}"
    varied = float(np.mean(variance > 0))
    if pool.rewards is not None:
        if varied == 0:
            return f"{opening} the rewards of no prompt differed at any visit; choose another reward (--reward)"
        return f"{opening} the prompts hardly differ in reward variance ({100 * varied:.0f} % had different rewards)"
    if varied == 0:
        return (
            f"{opening} no prompt had both successes and failures (success rate {truth.mean():.2f}). Such a log cannot "
            "show differences between strategies; check what counts as success (--success, --reward)"
        )
    return (
        f"{opening} the prompts hardly differ in difficulty ({100 * varied:.0f} % had both successes and failures, "
        f"success rate {truth.mean():.2f})"
    )


def cautions(pool: Pool, protocol: Protocol) -> list[str]:
    """What to know about a replay of few visits, few prompts or one seed."""
    found = []
    if protocol.visits == 1:
        found.append(
            "Every prompt is replayed at one visit. Strategies that learn from its outcomes cannot show what they "
            "learned; only predictions from the text can differ. Replay a log with at least 2 visits of a prompt."
        )
    if len(pool.keys) < FEW_PROMPTS:
        found.append(f"{count(len(pool.keys), 'prompt')}: small differences between strategies are noise.")
    if protocol.seeds == 1:
        found.append("One seed has no standard deviation (sd); repeat with --seeds 3.")
    return found
