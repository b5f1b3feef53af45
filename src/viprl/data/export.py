"""Parquet files for verl, from rows of `prompt` and `solution`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from viprl.errors import DataError
from viprl.utils.files import make_folder


def to_verl_rows(records: Iterable[Mapping[str, Any]], data_source: str = "math_dapo") -> list[dict[str, Any]]:
    """Rows in verl's data format.

    Args:
        records: mappings with `prompt` (a text or chat messages) and `solution` (the reference answer).
        data_source: name by which verl chooses its reward function ("math_dapo" reads a last line `Answer: ...`,
            "lighteval/MATH" a boxed answer), and under which it reports validation.

    Returns: for each record a row with `data_source`, `prompt` (messages), `ability`, `reward_model` {style,
    ground_truth} and `extra_info` {index}. The index counts from 0; `id_key=extra_info.index` identifies the prompt by
    it.

    Raises DataError, with the row number, for a record without a prompt or a solution.
    """
    rows = []
    for index, record in enumerate(records):
        for name in ("prompt", "solution"):
            if record.get(name) is None:
                raise DataError(f"row {index + 1} has no `{name}`; its columns are {', '.join(record)}")
        prompt = record["prompt"]
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(m) for m in prompt]
        rows.append(
            {
                "data_source": data_source,
                "prompt": messages,
                "ability": "math",
                "reward_model": {"style": "rule", "ground_truth": str(record["solution"])},
                "extra_info": {"index": index},
            }
        )
    if not rows:
        raise DataError("there are no rows to write")
    return rows


def write_parquet(path: str | Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows to one parquet file and return its path."""
    path = Path(path).expanduser()
    make_folder(path.parent)
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path
