"""What released versions saved is read, and a run goes on as it would have gone on then."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import viprl
from saved import files
from viprl.runs.history import read_history_file
from viprl.runs.reader import load_run

FOLDERS = sorted(path.parent for path in Path(__file__).parent.glob("*/next_counts.json"))
VERSIONS = pytest.mark.parametrize("folder", FOLDERS, ids=[folder.name for folder in FOLDERS])


def test_there_are_files_of_a_released_version() -> None:
    assert FOLDERS


@VERSIONS
@pytest.mark.parametrize("variant", files.VARIANTS)
def test_states(folder: Path, variant: str) -> None:
    vip = viprl.VIP(**files.OPTIONS | files.VARIANTS[variant])
    vip.load(folder / f"{variant}.vip")
    assert files.next_counts(vip) == json.loads((folder / "next_counts.json").read_text())[variant]


@VERSIONS
def test_histories(folder: Path) -> None:
    found, expected = read_history_file(folder / "history.jsonl"), files.histories()
    assert [(h.id, h.prompt, h.ground_truth) for h in found] == [(h.id, h.prompt, h.ground_truth) for h in expected]
    assert [h.rollouts.tolist() for h in found] == [h.rollouts.tolist() for h in expected]
    lengths = found[2].lengths
    assert lengths is not None
    np.testing.assert_array_equal(lengths, [[7.0, np.nan]] * 2)
    vip = viprl.VIP(**files.OPTIONS)
    vip.observe_histories(found)
    assert vip.predict([expected[0].prompt]).shape == (1,)


@VERSIONS
def test_run_folders(folder: Path) -> None:
    run = load_run(folder / "run")
    assert [row["step"] for row in run.rows] == [1, 2]
    assert {h.id: h.rollouts.tolist() for h in run.history} == {"a": [2, 2], "b": [4, 4], "c": [6, 6]}
