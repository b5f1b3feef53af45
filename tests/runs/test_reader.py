"""Reading run folders: everything usable is read, the rest is noted."""

from __future__ import annotations

import numpy as np
import pytest

from log_files import write_lines
from viprl.errors import DataError, FileError, InputError
from viprl.runs.reader import load_run, load_runs

ROWS = [{"strategy": "default", "seed": 0, "step": step, "reward": 0.5} for step in (1, 2)]


def test_a_folder_is_read(tmp_path):
    write_lines(
        tmp_path / "metrics.jsonl", [*ROWS, {"strategy": "uniform", "step": 1, "vip/shadow/x/variance_ratio": 1}]
    )
    (tmp_path / "summary.json").write_text('{"settings": {"budget": 8}}')
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "question"}]
    history = [
        {"id": "a", "prompt": "first", "rollouts": [2, 2], "successes": [1, 0]},
        {"id": "b", "prompt": chat, "rollouts": 8, "successes": [3]},
    ]
    write_lines(tmp_path / "history.jsonl.gz", history)
    run = load_run(tmp_path)
    assert run.name == tmp_path.name and run.notes == () and run.summary == {"settings": {"budget": 8}}
    assert run.strategies == ("default", "uniform") and run.rows_of("default") == ROWS
    assert run.shadows("uniform") == ("x",) and run.shadows("default") == ()
    totals = [(p.text, p.visits, p.rollouts, p.successes) for p in run.prompts()]
    assert totals == [("question", 1, 8, 3), ("first", 2, 4, 1)]


def test_unusable_content_is_left_out_and_noted_by_file(tmp_path):
    write_lines(tmp_path / "metrics.jsonl", [{"step": 1}, "not json", "[1]", {"reward": 2}])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "rew')  # cut short
    (tmp_path / "summary.json").write_text('{"variance_ratio": ')
    good = {"prompt": "p", "rollouts": 2, "successes": [1]}
    packed = write_lines(tmp_path / "history.jsonl.gz", [good, good | {"successes": [3]}] + 2000 * [good])
    packed.write_bytes(packed.read_bytes()[: packed.stat().st_size // 2])
    run = load_run(tmp_path)
    assert len(run.rows) == 1 and run.strategies == ("unnamed",) and run.summary == {} and run.history
    metrics, summary, history = run.notes
    assert "metrics.jsonl: row 2" in metrics and "3 more" in metrics
    assert "summary.json" in summary and "history.jsonl.gz: row 2" in history


@pytest.mark.parametrize("row", [{}, {"id": "a"}, {"id": 1, "prompt": "p"}, {"id": "a", "prompt": 5}])
def test_prompts_of_another_form_are_noted(tmp_path, row):
    write_lines(tmp_path / "metrics.jsonl", [{"step": 1}])
    write_lines(tmp_path / "outcomes.jsonl", [{"ids": ["a"], "successes": [1], "scorable": [2]}])
    write_lines(tmp_path / "prompts.jsonl", [row])
    assert "prompts.jsonl, row 1" in load_run(tmp_path).notes[0]


def test_numbers_that_no_float_holds_do_not_end_the_reading(tmp_path):
    rows = ['{"step": 1, "reward": 1e999}', f'{{"step": {10**400}, "reward": 1}}', '{"step": 2, "reward": NaN}']
    write_lines(tmp_path / "metrics.jsonl", [*rows, f'{{"step": 3, "reward": {10**400}}}'])
    run = load_run(tmp_path)
    assert [row["step"] for row in run.rows] == [1, 2, 3] and "row 2 has no step" in run.notes[0]


def test_calibration_keeps_points_with_both_probabilities(tmp_path):
    write_lines(tmp_path / "metrics.jsonl", ROWS)
    points = '[{"predicted": 0.5, "true": null}, 7, {"predicted": 0.4, "true": 0.5, "count": 3}]'
    (tmp_path / "summary.json").write_text(f'{{"calibration": {points}}}')
    found = load_run(tmp_path).calibration()
    assert found is not None and [found[key].tolist() for key in ("predicted", "true", "count")] == [[0.4], [0.5], [3]]
    assert np.isnan(found["visits"]).all()


def test_folders_of_the_same_name_get_the_name_of_their_parent(tmp_path):
    for name in ("one/run", "two/run", "other"):
        write_lines(tmp_path / name / "metrics.jsonl", ROWS)
    assert [run.name for run in load_runs([tmp_path / n for n in ("one/run", "two/run", "other")])] == [
        "one/run", "two/run", "other",
    ]  # fmt: skip


def test_folders_that_are_not_runs(tmp_path):
    with pytest.raises(FileError, match="gone"):
        load_run(tmp_path / "gone")
    with pytest.raises(FileError, match=r"metrics\.jsonl"):
        load_run(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(InputError, match="is a file"):
        load_run(tmp_path / "metrics.jsonl")
    with pytest.raises(DataError, match=r"metrics\.jsonl"):
        load_run(tmp_path)
