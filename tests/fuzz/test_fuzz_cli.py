"""Commands on files of any content: an exit code, or an error that names what to fix; and no control characters."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from fuzzing import fuzz, json_values, mutated
from hypothesis import strategies as st
from test_fuzz_files import (
    HISTORY,
    METRICS,
    OUTCOMES,
    PROMPTS,
    SUMMARY,
    TRAINER,
    VERL,
    content,
    document,
    folder,
    packed,
)
from typer.testing import CliRunner

from viprl.cli import app
from viprl.errors import ViprlError

pytest.importorskip("datasets")

EVIL = "[/red] [bold]x[/bold] \x1b]0;title\x07\x1b[31m\x9b2J $\\frac$ \u202e<evil>"
"""Markup of rich, escapes of terminals, markup of matplotlib, and HTML."""
CONTROL = re.compile("[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f\u202e]|\x1b[^\\[]|\x1b\\[[^m]*[^0-9;m]")
"""What a terminal obeys; colours are allowed."""
leaves = st.just(EVIL) | json_values
GENERATIONS = [
    {"id": EVIL, "answer": "4", "completions": [EVIL, "\\boxed{4}"], "truncated": 1},
    {"id": 2, "answer": 0.5, "completions": ["\\boxed{1/2}", "x"]},
]
ROWS = [{"prompt": EVIL, "solution": "4"}, {"prompt": "b", "solution": EVIL}, {"prompt": "c", "solution": 1}]


def run(place: Path, *words: str) -> str:
    """The output of a command. The errors of `viprl.errors` pass, others do not."""
    with warnings.catch_warnings(action="ignore"):
        result = CliRunner().invoke(app, [word.replace("PLACE", str(place)) for word in words], color=True)
    if result.exception is not None and not isinstance(result.exception, SystemExit | ViprlError):
        raise result.exception
    assert result.exit_code in (0, 1, 2)
    found = CONTROL.search(result.output)
    assert found is None, (found, result.output[max(0, found.start() - 80) : found.end() + 20])
    return result.output


RUN = {
    "metrics.jsonl": content([{**row, "strategy": EVIL} for row in METRICS]) | content(METRICS),
    "summary.json": st.none() | content(SUMMARY, document),
    "history.jsonl.gz": st.none() | content(HISTORY, packed),
    "outcomes.jsonl": st.none() | content(OUTCOMES),
    "prompts.jsonl": st.none() | content(PROMPTS),
}


@fuzz(0.04, files=st.fixed_dictionaries(RUN), state=st.none() | content(TRAINER, document))
def test_run_folders(tmp_path_factory: pytest.TempPathFactory, files: dict[str, Any], state: bytes | None) -> None:
    pytest.importorskip("matplotlib")
    place = folder(tmp_path_factory, files | {"trainer_state.json": state})
    run(place, "doctor", "PLACE")
    run(place, "report", "PLACE")
    run(place, "replay", "PLACE", "--seeds", "1", "--features", "none", "--strategies", "default,uniform")


@fuzz(0.1, one=content(VERL), two=content(VERL), history=content(HISTORY))
def test_replays(tmp_path_factory: pytest.TempPathFactory, one: bytes, two: bytes, history: bytes) -> None:
    words = ["--seeds", "1", "--features", "none", "--strategies", "uniform", "--batch-size", "1"]
    run(folder(tmp_path_factory, {"1.jsonl": one, "2.jsonl": two}), "replay", "PLACE", *words)
    run(folder(tmp_path_factory, {"log.jsonl": history}), "replay", "PLACE/log.jsonl", *words)


@fuzz(0.3, rows=mutated(ROWS, leaves, most=3) | st.just(ROWS))
def test_data(tmp_path_factory: pytest.TempPathFactory, rows: Any) -> None:
    rows = rows if isinstance(rows, list) else [rows]
    place = folder(tmp_path_factory, {"d.jsonl": b"".join(json.dumps(row).encode() + b"\n" for row in rows)})
    run(place, "data", "show", "PLACE/d.jsonl")
    run(place, "data", "verl", "PLACE/d.jsonl", "--out", "PLACE/out.parquet")


@fuzz(0.2, data=content(GENERATIONS) | content(ROWS), verify=st.sampled_from(["exact_match", "math_last_number"]))
def test_evaluations(tmp_path_factory: pytest.TempPathFactory, data: bytes, verify: str) -> None:
    place = folder(tmp_path_factory, {"g.jsonl": data})
    run(place, "evaluate", "--generations", "PLACE/g.jsonl", "--verify", verify, "--json", "PLACE/out.json")
