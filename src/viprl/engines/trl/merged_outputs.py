"""What TRL returns of the rollouts of two waves, merged into what it returns of one call.

Each wave is padded to its own longest prompt and completion: prompts on the left, completions on the right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from viprl.engines.trl.micro_batches import COMPLETION, COPIED, KNOWN, WHOLE, Rows
from viprl.errors import InputError

PROMPT = ("prompt_ids", "prompt_mask")
"""Fields with a column for each token of the prompt."""
LISTS = ("num_images", "num_tiles")
"""Numbers of pictures of each row; lists."""
PICTURES = tuple(name for name in COPIED if name not in (*PROMPT, *LISTS))
"""Fields with an entry for each picture, or for each part of one."""
PADDING = {"tool_mask": 1, "importance_sampling_ratio": 1, "ref_per_token_logps": -1e4}
"""Where it is not 0. It is masked, but must leave the loss finite: exp(ref - logp) of a KL term is infinite for 0 and a
padding token with the log probability -100."""


def merged(waves: Sequence[Rows], pad_token: int) -> Rows:
    """The rows of this process, the first wave first.

    Args:
        waves: what `_generate_and_score_completions` returned of each wave.
        pad_token: id of the token that pads.

    Raises InputError, with the name of the field, for one that is unknown or that the waves do not share.
    """
    if len(waves) == 1:
        return dict(waves[0])
    for wave in waves:
        check_fields(wave)
    waves = _all_with_pictures(waves)
    names = dict.fromkeys(name for wave in waves for name in wave)
    return {name: _field(name, waves, pad_token) for name in names}


def check_fields(output: Rows) -> None:
    """Raise InputError for fields that cannot be merged."""
    unknown = [name for name in output if name not in KNOWN]
    if unknown:
        raise InputError(
            f"the trainer returns {', '.join(map(repr, unknown))} of each rollout, which two waves cannot be merged "
            "by; set vip_waves=1, or install a version of TRL that is supported"
        )


def _field(name: str, waves: Sequence[Rows], pad_token: int) -> Any:
    values: list[Any] = [wave.get(name) for wave in waves]
    if all(value is None for value in values):
        return None
    if any(value is None for value in values):
        raise InputError(f"one of the two waves of a batch has no {name!r}; set vip_waves=1")
    if name in LISTS:
        return [one for value in values for one in value]
    if name == "num_items_in_batch":  # the tokens of all processes
        return sum(values)
    if name in PROMPT or name in WHOLE:
        values = _widened(values, waves, "prompt_ids", pad_token if name == "prompt_ids" else 0, left=True)
    if name in WHOLE:
        values = _widened(values, waves, "completion_ids", 0)
    if name in COMPLETION and len({value.shape[1] for value in values}) > 1:  # one column: of the whole sequence
        fill = pad_token if name == "completion_ids" else PADDING.get(name, 0)
        values = _widened(values, waves, "completion_ids", fill)
    if len({value.shape[1:] for value in values}) > 1:
        raise InputError(
            f"the two waves of a batch have {name!r} of the shapes {[tuple(value.shape) for value in values]}, which "
            "cannot be merged; give pictures of one size, or set vip_waves=1"
        )
    return torch.cat(values)


def _widened(
    values: Sequence[torch.Tensor], waves: Sequence[Rows], like: str, fill: float, *, left: bool = False
) -> list[torch.Tensor]:
    """With as many more columns as the field `like` of each wave lacks to that of the widest."""
    widths = [wave[like].shape[1] for wave in waves]
    found = []
    for value, width in zip(values, widths, strict=True):
        missing = max(widths) - width
        more = (missing, 0) if left else (0, missing)
        found.append(torch.nn.functional.pad(value, more, value=fill))
    return found


def _all_with_pictures(waves: Sequence[Rows]) -> list[Rows]:
    """With the fields of pictures in a wave whose prompts have none, if the other wave has some."""
    shown = next((wave for wave in waves if "num_images" in wave), None)
    return [wave if shown is None or "num_images" in wave else _without_pictures(wave, shown) for wave in waves]


def _without_pictures(wave: Rows, shown: Rows) -> Rows:
    """A wave without pictures, with the fields of another one that has some."""
    rows, pictures = len(wave["prompt_ids"]), sum(shown["num_images"] or [])
    found = {name: [0] * rows for name in LISTS if shown.get(name) is not None}
    by_picture = (
        any(name in shown for name in ("image_grid_thw", "num_tiles")) or len(shown["pixel_values"]) == pictures
    )
    if by_picture:  # otherwise they are padded to one entry for each row
        found |= {name: shown[name][:0] for name in PICTURES if shown.get(name) is not None}
    width = wave["prompt_ids"].shape[1] + wave["completion_ids"].shape[1]
    found |= {name: shown[name].new_zeros((rows, width)) for name in WHOLE if shown.get(name) is not None}
    return {**wave, **found}
