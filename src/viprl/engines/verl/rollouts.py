"""Rows of verl's queue -> rollouts of the planned prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from viprl.advantages import RewardPrior
from viprl.engines.planned_batch import PlannedBatch
from viprl.utils.arrays import FloatArray

ROLLOUTS = "__rollout_n__"
"""Key of a prompt from which verl's agent loop (AgentLoopWorkerTQ._run_prompt) reads its number of rollouts."""
SECOND_WAVE = "#2"
"""End of the uid under which a prompt is sampled a second time in a step: an agent loop counts its sessions from 0, so
that under the same uid its rows would replace those of the first wave."""


def prompt_of(uid: str) -> str:
    """verl's name of the prompt of a row, the same in both waves."""
    return uid.removesuffix(SECOND_WAVE)


@dataclass(frozen=True, eq=False)
class PlannedStep(PlannedBatch):
    """The plan of a step of verl."""

    uids: tuple[str, ...]
    """[Q] verl's name of each prompt in this step."""

    def of_groups(self, uids: Sequence[str]) -> tuple[FloatArray, RewardPrior | None]:
        """Weight and prior of groups by their names. Padding rows, which are in no plan, have weight 0."""
        position = {uid: q for q, uid in enumerate(self.uids)}
        rows = [position.get(uid, -1) for uid in uids]  # -1: what is appended
        prior = self.prior
        if prior is not None:
            prior = RewardPrior(np.append(prior.mean, 0.0)[rows], np.append(prior.rollouts, 0.0)[rows])
        return np.append(self.weights, 0.0)[rows], prior

    def of_rows(self, rewards: FloatArray, uids: Sequence[str]) -> FloatArray:
        """[rows] `advantages` of rows in any order, by the names of their prompts; 0 for padding rows."""
        position = {uid: q for q, uid in enumerate(self.uids)}
        prompts = np.array([position.get(uid, len(position)) for uid in uids])
        order = np.argsort(prompts, kind="stable")[: int((prompts < len(position)).sum())]
        found = np.zeros(len(rewards))
        found[order] = self.advantages(np.asarray(rewards)[order])
        return found


class Outcomes(NamedTuple):
    """What [C] rollouts of a step showed, prompt by prompt."""

    rewards: FloatArray
    deciding: list[float | None]
    """What decides about success: the reward, or the field that `success` names."""
    logprobs: FloatArray | None
    """Log probability of the tokens of the policy; None without `use_logprobs`."""
    lengths: FloatArray
    """Tokens of the response, those of tools included."""
    fields: tuple[str, ...] = ()
    """What the reward function returned beside its score; read only if `success` names such a field."""

    @classmethod
    def joined(cls, parts: Sequence[Outcomes]) -> Outcomes:
        """The outcomes of several parts of a step, in their order."""
        logprobs = [part.logprobs for part in parts if part.logprobs is not None]
        return cls(
            np.concatenate([part.rewards for part in parts]),
            [value for part in parts for value in part.deciding],
            np.concatenate(logprobs) if logprobs else None,
            np.concatenate([part.lengths for part in parts]),
            tuple(dict.fromkeys(name for part in parts for name in part.fields)),
        )


def row_lengths(values: Any) -> FloatArray:
    """[rows] length of each row of a ragged (jagged nested) tensor."""
    return values.offsets().diff().cpu().numpy().astype(float)


def row_sums(values: Any, mask: Any = None) -> FloatArray:
    """[rows] sum of each row of a ragged (jagged nested) tensor, over the tokens of `mask` of the same shape."""
    flat = values.values().double()
    if mask is not None:
        flat = flat * mask.values()
    lengths = values.offsets().diff().cpu().numpy()
    row = np.repeat(np.arange(len(lengths)), lengths)
    return np.bincount(row, weights=flat.cpu().numpy(), minlength=len(lengths)).astype(float)


def prompt_order(keys: Sequence[str], plan: PlannedStep) -> list[int]:
    """[C] positions of the rollouts among verl's row keys UID_SESSION_OUTPUT, in the order of the planned prompts; of
    both waves as far as they were sampled.

    Raises RuntimeError unless every prompt has exactly its planned number of rollouts, one row each.
    """
    rows: dict[str, list[int]] = {uid: [] for uid in plan.uids}
    sessions = set()
    for position, key in enumerate(keys):
        uid, session, _ = key.rsplit("_", 2)
        if (uid, session) in sessions:
            raise RuntimeError(
                f"rollout {session} of prompt {uid} has several outputs, which variable rollout counts do not support; "
                "let the agent loop return one output for each rollout (a response mask hides tool turns)"
            )
        sessions.add((uid, session))
        if prompt_of(uid) not in rows:
            raise RuntimeError(f"verl returned rollouts of prompt {uid}, which is not in the plan of this step")
        rows[prompt_of(uid)].append(position)
    received = np.array([len(positions) for positions in rows.values()])
    wrong = np.flatnonzero(received != plan.counts)
    if len(wrong):
        q = wrong[0]
        raise RuntimeError(
            f"{len(wrong)} of {len(rows)} prompts have another number of rollouts than planned: {plan.uids[q]} has "
            f"{received[q]}, planned {plan.counts[q]}; received {received.sum()} of {plan.counts.sum()} rollouts. "
            f"Either rollouts failed (see the errors of the agent loop above), or the agent loop ignores {ROLLOUTS!r}. "
            "Fix the cause and resume from the last checkpoint"
        )
    return [position for positions in rows.values() for position in positions]
