"""The tables of docs/faults.md."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "faults.md").read_text(encoding="utf-8")


def rows() -> list[list[str]]:
    lines = [line.strip() for line in PAGE.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))] for line in lines]
    return [row for row in cells if set(row[0]) != {"-"} and row[-1] != "test"]


def test_every_row_names_its_tests_or_says_why_there_is_none() -> None:
    assert len(rows()) > 70
    for row in rows():
        assert len(row) == 3, row
        named = re.sub(r"`[\w/]+\.py(::\w+)?`", "", row[2])
        assert named.strip(", ") == "" or re.fullmatch(r"none: .+", row[2]), row


def test_every_test_that_the_page_names_exists() -> None:
    named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", PAGE)
    assert len(named) > 90
    for file, test in named:
        assert f"def {test}" in (TESTS / file).read_text(encoding="utf-8"), f"{file}::{test}"
