"""Data files for tests."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa

from viprl.data.named import DAPO_WRAPPER

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}<go>{% endif %}"
)


def lines(path: Path, rows: list) -> str:
    """Write JSON lines (a text is written as it is) and return the name of the file."""
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def dapo_rows(pairs: list[tuple[str, str]]) -> pa.Table:
    """Rows with the columns of DAPO's file on the hub."""
    before, after = DAPO_WRAPPER
    return pa.table(
        {
            "data_source": ["math_dapo"] * len(pairs),
            "prompt": [[{"content": before + q + after, "role": "user"}] for q, _ in pairs],
            "reward_model": [{"ground_truth": a, "style": "rule"} for _, a in pairs],
            "extra_info": [{"index": str(i)} for i in range(len(pairs))],
        }
    )
