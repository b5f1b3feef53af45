"""Parquet files for verl."""

from __future__ import annotations

import json

import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from viprl.cli import app
from viprl.data.export import to_verl_rows, write_parquet
from viprl.errors import DataError


def test_rows_have_what_verl_reads(tmp_path):
    chat = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "2 + 2"}]
    rows = to_verl_rows([{"prompt": "1 + 1", "solution": 2}, {"prompt": chat, "solution": "4", "level": 1}])
    read = parquet.read_table(write_parquet(tmp_path / "a" / "train.parquet", rows)).to_pylist()
    assert read == rows
    assert read[0] == {
        "data_source": "math_dapo",
        "prompt": [{"role": "user", "content": "1 + 1"}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "2"},
        "extra_info": {"index": 0},
    }
    assert read[1]["prompt"] == chat and read[1]["extra_info"] == {"index": 1}


@pytest.mark.parametrize(
    ("rows", "keys"),
    [([], "no rows"), ([{"prompt": "x"}], "row 2 .*solution"), ([{"prompt": None, "solution": "1"}], "row 2 .*prompt")],
)
def test_rows_without_a_prompt_or_a_solution(rows, keys):
    with pytest.raises(DataError, match=keys):
        to_verl_rows([{"prompt": "p", "solution": "s"}, *rows] if rows else [])


def test_the_command_writes_the_file(tmp_path):
    source = tmp_path / "mine.jsonl"
    source.write_text("".join(json.dumps({"prompt": f"{i} + 1", "solution": str(i + 1)}) + "\n" for i in range(3)))
    out = tmp_path / "mine.parquet"
    result = CliRunner().invoke(app, ["data", "verl", str(source), "--out", str(out), "--data-source", "mine"])
    assert result.exit_code == 0, result.output
    rows = parquet.read_table(out).to_pylist()
    assert [row["reward_model"]["ground_truth"] for row in rows] == ["1", "2", "3"]
    assert rows[0]["data_source"] == "mine" and "Answer:" in rows[0]["prompt"][-1]["content"]
