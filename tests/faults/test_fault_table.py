"""The tables of docs/faults.md."""

from __future__ import annotations

import re
from pathlib import Path


def test_every_test_that_the_page_names_exists() -> None:
    here = Path(__file__).parents[1]
    named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", (here.parent / "docs" / "faults.md").read_text(encoding="utf-8"))
    assert len(named) > 60
    for file, test in named:
        assert f"def {test}" in (here / file).read_text(encoding="utf-8"), f"{file}::{test}"
