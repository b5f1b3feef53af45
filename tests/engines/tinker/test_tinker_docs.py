"""The block of Python of docs/tinker.md runs, with a fake service."""

from __future__ import annotations

from tinker_cookbook.rl import train
from tinker_runs import QuestionsBuilder

import documentation
from viprl.engines.tinker import VIPDatasetBuilder

PAGE = "docs/tinker.md"


def test_the_block_runs(tmp_path, monkeypatch):
    started = []

    async def main(config):
        started.append(config)

    monkeypatch.setattr(train, "main", main)
    monkeypatch.chdir(tmp_path)
    (block,) = documentation.blocks(PAGE, "python")
    documentation.run(block, {"builder": QuestionsBuilder()})
    (config,) = started
    assert isinstance(config.dataset_builder, VIPDatasetBuilder)
    assert config.dataset_builder.settings.max_rollouts == 48
