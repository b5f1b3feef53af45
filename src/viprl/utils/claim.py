"""The settings of the results in a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from viprl.errors import DataError, StateError
from viprl.utils.files import write_text
from viprl.utils.json_files import read_json_object


def claim(file: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of new results, or check that they are those of earlier ones.

    Raises StateError if the file has other settings.
    """
    new = json.loads(json.dumps(settings))
    if not file.exists():
        write_text(file, json.dumps(new, indent=1) + "\n")
        return
    try:
        earlier = read_json_object(file)
    except DataError as error:
        raise StateError(f"{error}; choose another --out, or delete the folder") from error
    if changed := [key for key in earlier | new if earlier.get(key) != new.get(key)]:
        raise StateError(
            f"{file.parent} has results with other settings ({', '.join(changed)}); choose another --out, or delete "
            "the folder"
        )
