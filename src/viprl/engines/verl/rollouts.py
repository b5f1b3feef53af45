"""verl's rows and the plan: which rollouts came for which prompt, and what a batch of verl says of its prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from viprl.prompts import Prompt
from viprl.utils.arrays import FloatArray, IntArray

ROLLOUTS = "__rollout_n__"
"""Key of a prompt under which verl's agent loop (AgentLoopWorkerTQ._run_prompt) looks for its number of rollouts."""


@dataclass(frozen=True)
class Round:
    """What was planned for one step."""

    uids: tuple[str, ...]
    """[Q] verl's name of each prompt in this step."""
    prompts: list[Prompt]
    """[Q] in the same order."""
    counts: IntArray
    """[Q] planned rollouts."""


def prompt_of(row: Mapping[str, Any], id_key: str | None) -> Prompt:
    """The prompt of a row of verl's dataset, with the id under `id_key` where one is named.

    Raises ValueError for a key that the row does not have.
    """
    if id_key is None:
        return row["raw_prompt"]
    value: Any = row
    for part in id_key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            held = ", ".join(map(str, value)) if isinstance(value, Mapping) else repr(value)
            raise ValueError(f"id_key is {id_key!r}, but there is no {part!r} among {held}")
        value = value[part]
    return {"prompt": row["raw_prompt"], "id": value.item() if isinstance(value, np.generic) else value}


def row_sums(values: Any, mask: Any = None) -> FloatArray:
    """[rows] sum of each row of a ragged (jagged nested) tensor, over the tokens of `mask` of the same shape."""
    flat = values.values().double()
    if mask is not None:
        flat = flat * mask.values()
    lengths = values.offsets().diff().cpu().numpy()
    row = np.repeat(np.arange(len(lengths)), lengths)
    return np.bincount(row, weights=flat.cpu().numpy(), minlength=len(lengths)).astype(float)


def place(keys: Sequence[str], planned: Round) -> list[list[int]]:
    """[Q] positions of each prompt's rollouts among verl's row keys UID_SESSION_OUTPUT.

    Raises RuntimeError unless every prompt has exactly its planned number of rollouts, one row each.
    """
    rows: dict[str, list[int]] = {uid: [] for uid in planned.uids}
    sessions = set()
    for position, key in enumerate(keys):
        uid, session, _ = key.rsplit("_", 2)
        if (uid, session) in sessions:
            raise RuntimeError(
                f"rollout {session} of prompt {uid} has several outputs; advantages of such agent loops are not "
                "supported with variable counts: let the loop return one output (a response mask hides tool turns)"
            )
        sessions.add((uid, session))
        if uid not in rows:
            raise RuntimeError(f"verl returned rollouts of prompt {uid}, which is not in the step's plan")
        rows[uid].append(position)
    placed = [rows[uid] for uid in planned.uids]
    received = [len(positions) for positions in placed]
    wrong = np.flatnonzero(np.array(received) != planned.counts)
    if len(wrong):
        q = wrong[0]
        raise RuntimeError(
            f"{len(wrong)} of {len(placed)} prompts have other numbers of rollouts than planned: {planned.uids[q]} has "
            f"{received[q]}, planned {planned.counts[q]}; in all {sum(received)} of {int(planned.counts.sum())} came. "
            f"Either rollouts failed (see the agent loop's errors above) or the agent loop does not read {ROLLOUTS!r}. "
            "Resume from the last checkpoint once that is mended"
        )
    return placed
