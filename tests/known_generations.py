"""Completions whose metrics are known.

By hand. a: 2 right, 1 wrong, 1 without an answer. b: 1 right, wrong classes of 2 and 1. c: nothing right.
Pass@1: 1/2, 1/4, 0; Pass@2: 5/6, 1/2, 0; Pass@4: 1, 1, 0. Mean: 1/2, 1/4, 0.
Maj@1 as Pass@1. Maj@2: a: pairs rr 1; rw 1/2, twice; r- 1, twice; w- 0: (1+1+2)/6 = 2/3; b: r with each of three
others, always a tie: 3/2 / 6 = 1/4. Maj@4: a: 2 against 1: 1; b: 1 against 2: 0.
"""

from __future__ import annotations

from pathlib import Path

from viprl.utils.json_lines import write_json_lines

KNOWN = [
    {"id": "a", "answer": "1/2", "completions": [r"\boxed{0.5}", r"\boxed{\frac12}", r"\boxed{2}", "dunno"]},
    {"id": "b", "answer": 7, "completions": [r"\boxed{x+1}", r"\boxed{1+x}", r"\boxed{7}", r"\boxed{8}"]},
    {"id": "c", "answer": "3", "completions": [r"\boxed{4}"] * 4},
]


def known_file(folder: Path) -> Path:
    write_json_lines(folder / "known.jsonl", KNOWN)
    return folder / "known.jsonl"
