"""Training data with a prompt and a solution, from a file, a folder or the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from viprl.prompts import identity

READERS = {".jsonl": "json", ".json": "json", ".gz": "json", ".parquet": "parquet"}


def load_prompts(
    source: str, *, split: str = "train", subset: str | None = None, prompt_column: str, solution_column: str
) -> Any:
    """A `datasets.Dataset` whose columns are called `prompt` and `solution`; further columns are kept.

    Raises ValueError for a missing file or column, an empty dataset, and rows whose prompt is not usable, by number.
    """
    dataset = _read(source, split, subset)
    for column, role in ((prompt_column, "prompt"), (solution_column, "solution")):
        if column not in dataset.column_names:
            raise ValueError(
                f"{source} has the columns {', '.join(dataset.column_names)}, but no `{column}`; "
                f"set `{role}_column` to the one that holds the {role}"
            )
    if len(dataset) == 0:
        raise ValueError(f"{source} holds no rows")
    for column, role in ((prompt_column, "prompt"), (solution_column, "solution")):
        if column != role:
            if role in dataset.column_names:
                dataset = dataset.remove_columns(role)
            dataset = dataset.rename_column(column, role)
    for row, prompt in enumerate(dataset["prompt"]):
        try:
            identity(prompt)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{source}, row {row}: {error}") from error
    return dataset


def _read(source: str, split: str, subset: str | None) -> Any:
    from datasets import Dataset, DatasetDict, load_dataset, load_from_disk

    path = Path(source).expanduser()
    if path.is_dir():
        found = load_from_disk(str(path))
        return found[split] if isinstance(found, DatasetDict) else found
    if path.suffix in READERS:
        if not path.is_file():
            raise ValueError(f"{source}: no such file")
        reader: Any = Dataset.from_parquet if READERS[path.suffix] == "parquet" else Dataset.from_json
        try:
            return reader(str(path))
        except Exception as error:  # the reader's own message names neither file nor line
            raise ValueError(f"{source} cannot be read: {_first_bad_line(path) or error}") from error
    try:
        return load_dataset(source, subset, split=split)
    except Exception as error:  # the hub fails in many ways; the mend is the same
        raise ValueError(
            f"{source!r} is neither a file (.jsonl, .json, .parquet, .jsonl.gz), a folder, nor a dataset that the hub "
            f"gives out ({type(error).__name__}: {error})"
        ) from error


def _first_bad_line(path: Path) -> str | None:
    """Which line of a JSON-lines file is no JSON object, None where that is not the trouble."""
    if path.suffix not in (".jsonl", ".json"):
        return None
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            try:
                if line.strip() and not isinstance(json.loads(line), dict):
                    return f"line {number} is no JSON object"
            except ValueError as error:
                return f"line {number} is not valid JSON ({error})"
    return None
