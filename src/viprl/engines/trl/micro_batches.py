"""Micro-batches of a generation batch with fewer rollouts than its budget.

TRL splits the C/P rows of each of P processes into S = `steps_per_generation` micro-batches of equal size. If VIP
spends N < C rollouts, the micro-batches get smaller instead: the N/P rollouts of a process are spread over them as
evenly as possible, with the same sizes on every process. The loss of micro-batch s, with b_s rollouts, is multiplied by
its share, b_s over the mean N/(P S). A mean over the rows of each micro-batch then becomes the mean over all N
rollouts, for every loss type, and also for a KL term or an entropy bonus. Loss types that divide by the tokens of the
whole batch are given the share of these tokens, so that the factor cancels.

A process with fewer rollouts than micro-batches has micro-batches without any. Each must still pass through the model,
because the processes wait for each other there. It has one empty row, which is masked and cut to a few tokens; its
share is 0, and it is left out of TRL's metrics.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from trl.trainer.utils import split_pixel_values_by_grid, unsplit_pixel_values_by_grid

from viprl.errors import InputError

Rows = dict[str, Any]
"""What TRL keeps of the rollouts of a process: a tensor or list with an entry for each row, or a scalar."""

ROLLOUT, SHARE = "vip_rollout", "vip_share"
"""Fields that are added: [rows] whether a row is a rollout; the share of a micro-batch."""

EMPTY = {
    "advantages": 0,
    "completion_mask": 0,
    "old_logps": 0,
    "old_per_token_logps": 0,
    "ref_per_token_logps": 0,
    "sampling_per_token_logps": 0,
    "importance_sampling_ratio": 1,
}
"""Values of an empty row, with which its loss is finite. Its other fields are those of a rollout."""
COMPLETION = (
    "completion_ids",
    "completion_mask",
    "tool_mask",
    "old_per_token_logps",
    "ref_per_token_logps",
    "sampling_per_token_logps",
    "importance_sampling_ratio",
)
"""Fields with a column for each token of the completion (or one for all of them)."""
WHOLE = ("token_type_ids", "mm_token_type_ids")
"""Fields with a column for each token of the prompt and the completion."""
COPIED = (
    "prompt_ids",
    "prompt_mask",
    "num_images",
    "num_tiles",
    "pixel_values",
    "image_grid_thw",
    "pixel_attention_mask",
    "spatial_shapes",
    "image_sizes",
    "image_position_ids",
)
KNOWN = {*EMPTY, *COMPLETION, *WHOLE, *COPIED, "num_items_in_batch"}

_Host: Any = object  # for a type checker: a trainer, whose attributes are not declared


class UnevenMicroBatches(_Host):
    """Mixin to place before a TRL trainer, which makes the micro-batches of generation batches from `completed`."""

    _buffered_inputs: Any
    _metrics: Any
    _vip_rows = 0
    """Rollouts of the last micro-batch."""

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        inputs = super()._prepare_inputs(generation_batch)
        if ROLLOUT not in inputs:
            return inputs
        self._buffered_inputs = dealt(self._buffered_inputs, getattr(self, "pad_to_multiple_of", None) or 1)
        return self._buffered_inputs[self._step % len(self._buffered_inputs)]

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        share = inputs.get(SHARE, 1)
        self._vip_rows = len(inputs["advantages"]) if share else 0
        if share == 1:
            return super().compute_loss(model, inputs, *args, **kwargs)
        if share:
            return super().compute_loss(model, inputs, *args, **kwargs) * share
        metrics, self._metrics = self._metrics, {"train": defaultdict(list)}
        try:
            return super().compute_loss(model, inputs, *args, **kwargs) * 0
        finally:
            self._metrics = metrics


def completed(output: Mapping[str, Any], budget: int, parts: int) -> Rows:
    """The rows of a process, marked, with so many empty ones that TRL can split them into `parts` equal parts.

    Args:
        output: of `_generate_and_score_completions`, which is returned as it is if nothing was saved.
        budget: C/P, the most rollouts of a process.
        parts: S, `steps_per_generation`.

    Raises InputError if TRL returns something of which it is unknown what an empty row of it is.
    """
    unknown = [name for name in output if name not in KNOWN]
    if unknown:
        raise InputError(
            f"the trainer returns {', '.join(map(repr, unknown))} of each rollout, which a batch with fewer rollouts "
            "cannot have; set vip_spend='budget' and vip_cost='rollouts', or install a version of TRL that is supported"
        )
    rows = len(output["advantages"])
    if rows == budget:
        return dict(output)
    missing = -rows % parts
    index = torch.cat([torch.arange(rows), torch.full((missing,), _smallest(output.get("num_images")))])
    found = _rows(split_pixel_values_by_grid(dict(output)), index)
    for name, value in EMPTY.items():
        if found.get(name) is not None:
            found[name][rows:] = value
    return {**unsplit_pixel_values_by_grid(found), ROLLOUT: torch.arange(rows + missing) < rows}


def _smallest(pictures: Sequence[int] | None) -> int:
    """A row to copy: where there are pictures, one with the fewest, but not without any, which some models refuse."""
    return 0 if pictures is None else min(range(len(pictures)), key=lambda row: pictures[row] or float("inf"))


def dealt(parts: Sequence[Rows], multiple: int) -> list[Rows]:
    """Micro-batches with the rollouts of those that TRL has split, in their order, spread evenly.

    Args:
        parts: of `completed` rows.
        multiple: padding is cut to a multiple of it, TRL's `pad_to_multiple_of`.
    """
    whole = _joined([split_pixel_values_by_grid(part) for part in parts])
    is_rollout = whole.pop(ROLLOUT)
    rollouts, empty = is_rollout.nonzero()[:, 0], (~is_rollout).nonzero()[:, 0]
    ends = [len(rollouts) * s // len(parts) for s in range(len(parts) + 1)]
    found = []
    for start, end in pairwise(ends):
        part = unsplit_pixel_values_by_grid(_rows(whole, rollouts[start:end] if start < end else empty[:1]))
        share = (end - start) * len(parts) / len(rollouts)
        if part.get("num_items_in_batch") is not None:
            part["num_items_in_batch"] = part["num_items_in_batch"] * share
        found.append({**_cut(part, multiple, prompt=start == end), SHARE: share})
    return found


def _cut(part: Rows, multiple: int, *, prompt: bool) -> Rows:
    """Without the padding behind the longest completion, and without all but the end of prompts if `prompt`.

    Two tokens of a completion remain at least, because TRL takes a single column for a value of the whole sequence.
    """
    columns, before = part["completion_mask"].shape[1], part["prompt_ids"].shape[1]
    used = part["completion_mask"].any(0).nonzero()
    last = max(2, int(used[-1, 0]) + 1 if len(used) else 0)
    width = min(columns, -(-last // multiple) * multiple)
    pictures = part.get("num_images") is not None  # they need their places in the prompt
    start = max(0, before - multiple) if prompt and not pictures else 0
    cut = {name: slice(width) for name in COMPLETION} | {name: slice(start, before + width) for name in WHOLE}
    cut |= {name: slice(start, None) for name in ("prompt_ids", "prompt_mask")}
    return {name: value[:, cut[name]] if name in cut and value is not None else value for name, value in part.items()}


def _rows(rows: Mapping[str, Any], index: torch.Tensor) -> Rows:
    """The rows at `index` of everything that has rows."""

    def chosen(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value[index.to(value.device)] if value.ndim else value
        return value if value is None else [value[i] for i in index.tolist()]

    return {name: chosen(value) for name, value in rows.items()}


def _joined(parts: Sequence[Mapping[str, Any]]) -> Rows:
    """All rows of the parts."""

    def together(values: list[Any]) -> Any:
        if isinstance(values[0], torch.Tensor):
            return torch.cat(values) if values[0].ndim else values[0]
        return values[0] if values[0] is None else [one for value in values for one in value]

    return {name: together([part[name] for part in parts]) for name in parts[0]}
