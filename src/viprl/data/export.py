"""Parquet files for verl, from rows of `prompt` and `solution`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from viprl.data.answer import read_answer
from viprl.data.question import read_question
from viprl.data.values import column_of, for_datasets
from viprl.errors import DataError
from viprl.runs.parquet import write_table
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

    Raises DataError, with the row number, for a record without a prompt or a solution that can be used.
    """
    rows = []
    for index, record in enumerate(records):
        for name in ("prompt", "solution"):
            if record.get(name) is None:
                raise DataError(f"row {index + 1} has no `{name}`; its columns are {', '.join(record)}")
        try:
            prompt, solution = read_question(record["prompt"]), read_answer(record["solution"])
        except DataError as error:
            raise DataError(f"row {index + 1}: {error}") from error
        rows.append(
            {
                "data_source": data_source,
                "prompt": [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt,
                "ability": "math",
                "reward_model": {"style": "rule", "ground_truth": solution},
                "extra_info": {"index": index},
            }
        )
    if not rows:
        raise DataError("there are no rows to write")
    return rows


def write_parquet(path: str | Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows to one parquet file and return its path.

    A column whose values differ in type or keys, such as messages with calls of different tools, is of the JSON type
    that `datasets` 4.7 and later decode, and with them verl.
    """
    path = Path(path).expanduser()
    make_folder(path.parent)
    columns = {name: pa.chunked_array([column_of([row.get(name) for row in rows])]) for name in rows[0]}
    kept = {name: for_datasets(column, name, range(len(rows))) for name, column in columns.items()}
    write_table(path, pa.table(kept))
    return path
