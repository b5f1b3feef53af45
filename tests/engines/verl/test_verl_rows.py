"""The files of `viprl data verl` in verl's own hands: its data set reads them, its reward scores them."""

from __future__ import annotations

import json

import toy
from omegaconf import OmegaConf
from transformers import AutoTokenizer
from typer.testing import CliRunner
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.utils.reward_score import default_compute_score

from viprl.cli import app


def test_verl_reads_and_scores_what_the_command_writes(tmp_path):
    source, out = tmp_path / "mine.jsonl", tmp_path / "mine.parquet"
    source.write_text("".join(json.dumps({"prompt": f"{i} + 1", "solution": str(i + 1)}) + "\n" for i in range(3)))
    result = CliRunner().invoke(app, ["data", "verl", str(source), "--out", str(out)])
    assert result.exit_code == 0, result.output
    tokenizer = AutoTokenizer.from_pretrained(toy.save_model(tmp_path / "model"))
    config = OmegaConf.create({"max_prompt_length": 512, "filter_overlong_prompts": False, "cache_dir": str(tmp_path)})
    rows = RLHFDataset(str(out), tokenizer, config)
    assert len(rows) == 3 and rows[2]["index"] == 2
    assert "2 + 1" in rows[2]["raw_prompt"][-1]["content"]
    truth = rows[2]["reward_model"]["ground_truth"]
    scores = [
        default_compute_score(rows[2]["data_source"], text, truth)["score"] for text in ("Answer: 3", "Answer: 4")
    ]
    assert scores == [1.0, -1.0]
