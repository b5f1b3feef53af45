"""JSON files that hold one object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from viprl.errors import DataError, FileError
from viprl.utils.words import first_line


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file in UTF-8, with or without a byte order mark.

    Raises DataError for anything else, FileError for a file that cannot be opened.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({first_line(error)}); was the file cut short?") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} is a JSON {type(value).__name__}; expected an object")
    return value
