"""The prompt of a row of a data set, with the id that a column of the row holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from viprl.errors import InputError
from viprl.prompts import Prompt


def identified(prompt: Prompt, row: Mapping[str, Any], id_column: str | None, option: str) -> Prompt:
    """The prompt with its id, or as it is without an `id_column`.

    Args:
        prompt: text or chat messages.
        row: column -> value.
        id_column: name of a column; dots reach inside: "extra_info.index".
        option: how the engine spells the option, for errors.

    Raises InputError if the row does not have the column.
    """
    if id_column is None:
        return prompt
    value: Any = row
    for part in [id_column] if id_column in row else id_column.split("."):
        if not isinstance(value, Mapping) or part not in value:
            held = ", ".join(map(str, value)) if isinstance(value, Mapping) else repr(value)
            raise InputError(f"{option} is {id_column!r}, but {part!r} was not found; there is {held}")
        value = value[part]
    return {"prompt": prompt, "id": value.item() if isinstance(value, np.generic) else value}
