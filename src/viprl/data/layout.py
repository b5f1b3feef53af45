"""The columns of the prompt and of the answer: as configured, or by the known layouts; and copies of rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from viprl.data.values import field_of, is_json, json_texts
from viprl.errors import DataError
from viprl.utils.words import did_you_mean


@dataclass(frozen=True)
class Layout:
    """The columns of a table. A dot selects a field of a struct: `reward_model.ground_truth`."""

    prompt: str
    solution: str
    name: str = "as configured"


KNOWN = (
    Layout("prompt", "reward_model.ground_truth", "DAPO, verl"),
    Layout("problem", "answer", "AIME, MATH"),
    Layout("question", "answer", "GSM8K"),
    Layout("prompt", "solution", "viprl, TRL"),
    Layout("prompt", "answer", "prompt and answer"),
)


def find_layout(table: pa.Table, source: str, prompt: str | None, solution: str | None) -> Layout:
    """The columns of prompt and answer.

    Args:
        table: the rows.
        source: name of the data set, for errors.
        prompt, solution: the columns as configured; None: by the known layouts.

    Raises DataError if a column is missing or if several layouts fit.
    """
    for column, role in ((prompt, "prompt"), (solution, "solution")):
        if column and not has_column(table, column):
            hint = did_you_mean(column, table.column_names, n=1)
            raise _missing(table, source, f"`{column}`{hint and f' ({hint})'}", role)
    configured = bool(prompt or solution)
    named = {
        (prompt or known.prompt, solution or known.solution): "as configured" if configured else known.name
        for known in KNOWN
    }
    fits = [pair for pair in named if all(has_column(table, column) for column in pair)]
    if len(fits) > 1:
        choices = " or ".join(sorted(f"{p} and {s}" for p, s in fits))
        raise DataError(
            f"{source}: prompt and answer are ambiguous ({choices}); set `prompt_column` and `solution_column`"
        )
    if not fits:
        role = "solution" if any(has_column(table, column) for column, _ in named) else "prompt"
        raise _missing(table, source, "known layout", role)
    return Layout(*fits[0], named[fits[0]])


def _missing(table: pa.Table, source: str, what: str, role: str) -> DataError:
    chats = [name for name in ("messages", "conversations") if name in table.column_names]
    advice = ""
    if chats:
        advice = (
            f". `{chats[0]}` holds whole chats, which end with the answer: write a column `prompt` with the messages "
            "before it, and a column `solution` with the final answer alone"
        )
    elif role == "solution" and "prompt" in table.column_names and not pa.types.is_string(table["prompt"].type):
        advice = ". If the answer stands in the last message of a chat, write it into a column `solution`"
    return DataError(
        f"{source} has the columns {', '.join(table.column_names) or '-'}, but no {what}; set `{role}_column` to the "
        f"column of the {'prompt' if role == 'prompt' else 'answer'}{advice}"
    )


def has_column(table: pa.Table, path: str) -> bool:
    """Whether the table has the column or the field of a struct."""
    try:
        column_at(table, path)
    except KeyError:
        return False
    return True


def column_at(table: pa.Table, path: str) -> pa.ChunkedArray:
    """The column `path`, or the field of a struct, of JSON objects or of texts that hold them.

    Raises KeyError if there is none.
    """
    if path in table.column_names:
        return table.column(path)
    name, _, rest = path.partition(".")
    if not rest:
        raise KeyError(path)
    column = table.column(name)
    for field in rest.split("."):
        if is_json(column.type) or pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = field_of(column, field)
        elif isinstance(column.type, pa.StructType) and column.type.get_field_index(field) >= 0:
            column = pc.struct_field(column, [field])
        else:
            raise KeyError(path)
    return column


def equal_values(column: pa.ChunkedArray) -> np.ndarray:
    """[n] int64, equal for equal values; null equals null.

    Vectorised for texts, numbers and chats of one message, which large files hold.
    """
    if is_json(column.type):
        column = json_texts(column)
    kind = column.type
    if _one_message_each(column):
        flat = [chunk.flatten() for chunk in column.chunks]
        fields = [pa.chunked_array([pc.struct_field(c, [f.name]) for c in flat]) for f in kind.value_type]
        return _joined([equal_values(field) for field in fields])
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_primitive(kind)):
        column = pa.chunked_array([pa.array([repr(value) for value in column.to_pylist()], pa.string())])
    if len(column) == 0:
        return np.zeros(0, np.int64)
    if pa.types.is_float16(kind):  # which Arrow before 26 cannot encode
        column = column.cast(pa.float32())
    encoded = pc.dictionary_encode(column, null_encoding="encode")
    return np.concatenate([chunk.indices.to_numpy(zero_copy_only=False) for chunk in encoded.chunks]).astype(np.int64)


def _one_message_each(column: pa.ChunkedArray) -> bool:
    """Whether every row is a list of one struct with fields."""
    kind = column.type
    if not (pa.types.is_list(kind) and pa.types.is_struct(kind.value_type) and kind.value_type.num_fields):
        return False
    return bool(pc.all(pc.equal(pc.fill_null(pc.list_value_length(column), 0), 1)).as_py())


def first_copies(columns: list[pa.ChunkedArray]) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows of n rows; rows that are equal in all columns are copies.

    Returns: [u] index of the first copy of each distinct row, ascending; [n] index of each row among the u.
    """
    codes = _joined([equal_values(column) for column in columns])
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return first[order], rank[inverse]


def _joined(codes: list[np.ndarray]) -> np.ndarray:
    """[n] one number for each combination of numbers."""
    joined = codes[0]
    for more in codes[1:]:
        _, compact = np.unique(joined, return_inverse=True)
        joined = compact.astype(np.int64) * (int(more.max(initial=0)) + 1) + more
    return joined
