"""Columns that give every value back as it was.

Arrow has one type for a column: where rows differ it adds the keys of other rows as nulls, turns whole numbers into
fractions, or refuses. Such a column is kept as JSON, the type `datasets.Json`, which `datasets` decodes when a row is
read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa

from viprl.errors import DataError, MissingPackageError
from viprl.utils.json_lines import parse_json

SCALARS: tuple[set[type], ...] = ({str}, {int}, {float}, {bool}, set())

DEEPEST = 50
"""Levels of a type of Arrow, which cannot exchange more than 64."""


@dataclass(frozen=True)
class Unreadable:
    """A value of a file that cannot be decoded."""

    reason: str


def exact_float(text: str) -> float | Decimal:
    """A JSON number: a float if that has its value (or is the usual reading of it), a Decimal otherwise."""
    number = float(text)
    if len(text) <= 16 and 0 < abs(number) < math.inf:  # at most 15 digits: no float rounds them
        return number
    try:
        exact = Decimal(text)
    except ArithmeticError:  # an exponent beyond all limits
        return number
    return number if exact == Decimal(repr(number)) else exact


def column_of(values: Sequence[Any]) -> pa.Array:
    """A column of JSON values: of Arrow's own type if that gives every value back as it was, otherwise JSON."""
    kinds = {type(value) for value in values} - {type(None)}
    try:
        if kinds in SCALARS:
            return pa.array(values)
        if kinds <= {list, dict}:
            column = pa.array(values)
            if str(column.type).count("<") < DEEPEST and json.dumps(column.to_pylist()) == json.dumps(values):
                return column
    # mixed types, more than 64 bits, half a surrogate pair, a Decimal; RecursionError is raised again below
    except (pa.ArrowException, TypeError, ValueError, OverflowError, RecursionError):
        pass
    return pa.array([None if value is None else _encoded(value) for value in values], pa.json_())


def is_json(kind: pa.DataType) -> bool:
    """Whether a column is JSON."""
    return isinstance(kind, pa.JsonType)


def json_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The texts of a JSON column."""
    return pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)


def values_of(column: pa.ChunkedArray) -> list[Any]:
    """The values of a column, without the keys that are null in a row because other rows have them.

    JSON is decoded; float32 keeps its own digits. A value that cannot be decoded becomes `Unreadable`.
    """
    decode = _decoder(column.type)
    try:
        values = column.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException):
        values = [_python(scalar) for scalar in column]
    return values if decode is None else [value if isinstance(value, Unreadable) else decode(value) for value in values]


def field_of(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """A field of the objects of a JSON column, or of a column of JSON texts. Raises KeyError if no row has it."""
    rows = [decoded(value) if isinstance(value, str) else value for value in values_of(column)]
    values = [row.get(name, _ABSENT) if isinstance(row, Mapping) else _ABSENT for row in rows]
    if all(value is _ABSENT for value in values):
        raise KeyError(name)
    return pa.chunked_array([column_of([None if value is _ABSENT else value for value in values])])


def decoded(text: str | None) -> Any:
    """The value of a JSON text; a text that is not JSON is returned as it is, as `datasets` does."""
    if text is None:
        return None
    try:
        return parse_json(text, exact_float)
    except ValueError:
        return text


def for_datasets(column: pa.ChunkedArray, name: str, rows: Iterable[int]) -> pa.ChunkedArray:
    """A JSON column that `datasets`, whose reader of JSON rounds some numbers, reads as it is. Others are unchanged.

    Raises DataError, with column and row, for a value that it cannot read. `rows` has the index of each row.
    """
    if not is_json(column.type):
        return column
    read = _json_feature().decode_example
    texts = []
    for row, text in zip(rows, json_texts(column).to_pylist(), strict=True):
        for spelling in (None,) if text is None else (text, _encoded(decoded(text), _spelled(read))):
            if spelling is None or _same(read, spelling):
                texts.append(spelling)
                break
        else:
            raise DataError(
                f"row {row + 1}: the column {name} has values of several types, and `datasets` cannot keep the one in "
                f"this row ({text[:60]}): an integer beyond 64 bits, half a surrogate pair or too deep nesting; write "
                "it as a text, or remove the column"
            )
    return pa.chunked_array([pa.array(texts, pa.json_())])


_ABSENT = object()


def _json_feature() -> Any:
    try:
        from datasets import Json
    except ImportError as error:
        raise MissingPackageError(
            "a column has values of several types, which needs datasets 4.7 or later: pip install -U datasets"
        ) from error
    return Json()


def _same(read: Callable[[str], Any], text: str) -> bool:
    """Whether `datasets` reads a JSON text as Python does."""
    try:
        return json.dumps(read(text)) == json.dumps(json.loads(text))
    except (ValueError, OverflowError, RecursionError):
        return False


def _spelled(read: Callable[[str], Any]) -> Callable[[float], str]:
    """Writes a float so that `read` gives it back: the decimal point is moved until it does."""

    def spell(number: float) -> str:
        sign, digits, exponent = Decimal(repr(number)).as_tuple()
        figures, minus = "".join(map(str, digits)), "-" if sign else ""
        for at in range(1, len(figures) + 1):
            text = f"{minus}{figures[:at]}.{figures[at:] or '0'}e{int(exponent) + len(figures) - at}"
            if read(text) == number:
                return text
        return repr(number)

    return spell


def _encoded(value: Any, spell: Callable[[float], str] | None = None) -> str:
    """The JSON text of a value. NaN becomes null, as everywhere in JSON."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(key)}: {_encoded(item, spell)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(_encoded(item, spell) for item in value)}]"
    if isinstance(value, float | Decimal):
        if value != value:
            return "null"
        if spell is not None and math.isfinite(value):
            return spell(float(value))
        return str(value) if isinstance(value, Decimal) else json.dumps(value)
    return json.dumps(value)


def _decoder(kind: pa.DataType) -> Callable[[Any], Any] | None:
    """What remains to be done with the Python values of a column; None: nothing."""
    if is_json(kind):
        return decoded
    if pa.types.is_dictionary(kind):
        return _decoder(kind.value_type)
    if pa.types.is_float32(kind) or pa.types.is_float16(kind):
        dtype = kind.to_pandas_dtype()
        return lambda value: None if value is None else dtype(value)
    if pa.types.is_map(kind):
        return lambda pairs: None if pairs is None else dict(pairs)
    if isinstance(kind, pa.StructType):
        fields = {field.name: _decoder(field.type) or _as_it_is for field in kind}
        return lambda row: row and {name: fields[name](item) for name, item in row.items() if item is not None}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = _decoder(kind.value_type)
        return inner and (lambda items: items and [inner(item) for item in items])
    return None


def _as_it_is(value: Any) -> Any:
    return value


def _python(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError, pa.ArrowException) as error:
        return Unreadable(str(error))
