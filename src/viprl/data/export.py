"""Parquet files as verl reads them, from rows of `prompt` and `solution`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def to_verl_rows(
    records: Iterable[Mapping[str, Any]], *, data_source: str = "math_dapo", ability: str = "math"
) -> list[dict[str, Any]]:
    """Rows of verl's data format.

    Args:
        records: mappings with `prompt` (a text, or chat messages) and `solution` (the reference answer).
        data_source: the name by which verl chooses its reward function ("math_dapo" reads a last line `Answer: ...`,
            "lighteval/MATH" a boxed answer), and under which it reports validation.
        ability: verl's column of that name.

    Returns: one row a record with `data_source`, `prompt` (messages), `ability`, `reward_model` {style, ground_truth}
    and `extra_info` {index}, index counted from 0: a name for the prompt that `id_key=extra_info.index` can use.

    Raises ValueError that names the record which lacks something.
    """
    rows = []
    for index, record in enumerate(records):
        for name in ("prompt", "solution"):
            if record.get(name) is None:
                raise ValueError(f"record {index} has {', '.join(record)}; it needs a `prompt` and a `solution`")
        prompt = record["prompt"]
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(m) for m in prompt]
        rows.append(
            {
                "data_source": data_source,
                "prompt": messages,
                "ability": ability,
                "reward_model": {"style": "rule", "ground_truth": str(record["solution"])},
                "extra_info": {"index": index},
            }
        )
    if not rows:
        raise ValueError("there are no records to write")
    return rows


def write_parquet(path: str | Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows to one parquet file; returns its path."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(f'parquet is written with pyarrow: pip install "viprl[verl]" ({error})') from error
    path = Path(path).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path
