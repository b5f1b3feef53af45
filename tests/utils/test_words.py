"""Words for messages."""

from __future__ import annotations

import pytest

from viprl.utils.words import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("größe\u00a0→ 日本 👩\u200d🔬", "größe\u00a0→ 日本 👩\u200d🔬"),
        ("a\x1b[2Jb\rc\x9b", "a\\x1b[2Jb\\rc\\x9b"),
        ("a\u202eb\u2028c", "a\\u202eb\\u2028c"),
        ("\ud800", "\\ud800"),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert visible(text) == visible(text, keep="") == shown


def test_what_is_kept() -> None:
    assert visible("a\tb\nc") == "a\tb\nc"
    assert visible("a\tb\nc", keep="") == "a\\tb\\nc"
