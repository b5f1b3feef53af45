"""JSON files that hold one object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from viprl.errors import DataError
from viprl.utils.json_lines import parse_json
from viprl.utils.read_files import read_text


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file, read as `viprl.utils.read_files.read_text` reads.

    Raises DataError for anything else, FileError for a file that cannot be opened.
    """
    try:
        value = parse_json(read_text(path))
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); was the file cut short?") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} is a JSON {type(value).__name__}; expected an object")
    return value
