"""A configuration that works, and the folder of its finished run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("trl", reason='needs pip install "viprl[trl]"')

import tiny
from viprl.train.config import parse_config
from viprl.train.training import train


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def settings(tmp_path, model_folder) -> dict:
    """The keys of a run of four steps in tmp_path/run, with checkpoints at steps 2 and 4."""
    return tiny.run_settings(tmp_path, model_folder)


@pytest.fixture
def base(settings) -> dict:
    """The keys of a run that the arms of a sweep share."""
    return {key: value for key, value in settings.items() if key not in ("vip_strategy", "output_dir")}


@pytest.fixture(scope="session")
def finished_once(tmp_path_factory, model_folder) -> tuple[dict, Path]:
    """Settings and folder of a finished run; not to be changed."""
    tmp_path = tmp_path_factory.mktemp("finished")
    keys = tiny.run_settings(tmp_path, model_folder)
    return keys, train(parse_config(keys))


@pytest.fixture
def finished(finished_once, tmp_path) -> tuple[dict, Path]:
    """Settings and folder of a finished run, a copy for each test."""
    keys, folder = finished_once
    shutil.copytree(folder, tmp_path / "run")
    return keys | {"output_dir": str(tmp_path / "run")}, tmp_path / "run"


class Puzzles:
    """Stands in for a task of reasoning-gym: makes row i when it is read, and fails if somebody reads all rows."""

    def __init__(self) -> None:
        self.made = 0

    def __getitem__(self, i: int) -> dict:
        self.made += 1
        assert self.made < 5_000, "the whole data set is read"
        return {"question": f"puzzle {i}", "answer": "a", "metadata": {}}


@pytest.fixture
def endless(settings, monkeypatch) -> dict:
    """The keys of a run on an endless data set."""
    puzzles = Puzzles()
    monkeypatch.setattr("viprl.data.gym._generator", lambda *_: puzzles)
    return settings | {"dataset": "reasoning-gym:puzzles", "instruction": "none", "save_steps": 1}
