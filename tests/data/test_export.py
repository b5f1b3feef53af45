"""Files for verl from rows of prompt and solution."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from viprl.cli import app
from viprl.data.export import to_verl_rows, write_parquet
from viprl.runs.engine_logs import from_verl

parquet = pytest.importorskip("pyarrow.parquet")


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


@pytest.mark.parametrize("record", [{"prompt": "x"}, {"prompt": None, "solution": "1"}])
def test_a_record_without_prompt_or_solution_is_named(record):
    with pytest.raises(ValueError, match="record 1 has prompt"):
        to_verl_rows([{"prompt": "p", "solution": "s"}, record])


def test_no_records():
    with pytest.raises(ValueError, match="no records"):
        to_verl_rows([])


def test_the_command_writes_the_file(tmp_path):
    source = tmp_path / "mine.jsonl"
    source.write_text("".join(json.dumps({"prompt": f"{i} + 1", "solution": str(i + 1)}) + "\n" for i in range(3)))
    out = tmp_path / "mine.parquet"
    result = CliRunner().invoke(app, ["data", "verl", str(source), "--out", str(out), "--data-source", "mine"])
    assert result.exit_code == 0, result.output
    rows = parquet.read_table(out).to_pylist()
    assert [row["reward_model"]["ground_truth"] for row in rows] == ["1", "2", "3"]
    assert rows[0]["data_source"] == "mine" and "Answer:" in rows[0]["prompt"][-1]["content"]


def test_padding_rows_of_a_dump_are_no_prompt(tmp_path):
    """verl dumps the rows with which it padded a batch: empty input, score 0, a uid of its own."""
    lines = [
        {"input": "p", "output": "", "score": 1.0, "uid": f"4f902dcb-37c1-42fb-ac7f-0cd7a2a7651c_{i}_0"} for i in (0, 1)
    ]
    lines += [{"input": "", "output": "", "score": 0.0, "uid": f"pad{'0a' * 16}_{i}_0"} for i in (0, 1)]
    (tmp_path / "1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (read,) = from_verl(tmp_path)
    assert read.prompt == "p" and read.rollouts.tolist() == [2] and read.successes.tolist() == [2]
