"""Evaluations in the logs of TRL and verl are not training."""

from __future__ import annotations

import json
import logging

import pytest

from log_files import write_lines, write_parquet
from viprl.errors import DataError
from viprl.runs.engine_logs import read_history, read_log
from viprl.runs.evaluations import Evaluations, repetition, without_evaluations
from viprl.runs.logged_rollouts import LoggedStep

TRAINED = [["a", "b", "c"], ["d", "e", "f"], ["b", "f", "a"], ["c", "d", "e"]]
HELD_OUT = ["x", "y"]


def steps(*prompts):
    return [LoggedStep(at, dict.fromkeys(names, (4.0, 2.0))) for at, names in enumerate(prompts, start=1)]


def prompts_of(found):
    return [list(step.groups) for step in found]


@pytest.mark.parametrize(
    ("logged", "evaluated", "last", "kept"),
    [
        (TRAINED, [], 4, TRAINED),
        ([*TRAINED[:3], HELD_OUT], [4], 4, TRAINED[:3]),
        (
            [["a", "b", "c"], ["d", *HELD_OUT], ["b"], ["c", *HELD_OUT]],
            [2, 4],
            4,
            [["a", "b", "c"], ["d"], ["b"], ["c"]],
        ),
        ([["a", *HELD_OUT], ["b", *HELD_OUT]], [1, 2], 2, [["a"], ["b"]]),  # every step was evaluated
        ([["a", "b"], HELD_OUT, ["c"], HELD_OUT], [2], 2, [["a", "b"], ["c"]]),  # the record ends before the log
        ([["a", "b"], ["b", "a"], ["b"]], [3], 3, [["a", "b"], ["b", "a"]]),  # evaluated on training prompts
    ],
)
def test_recorded_evaluations_are_left_out(logged, evaluated, last, kept, caplog):
    found = without_evaluations(steps(*logged), Evaluations(frozenset(evaluated), last), "log")
    assert prompts_of(found) == kept
    assert bool(caplog.records) == (kept != logged)


def test_a_log_of_evaluations_alone_is_an_error():
    with pytest.raises(DataError, match="logging_steps"):
        without_evaluations(steps(HELD_OUT, HELD_OUT), Evaluations(frozenset({1, 2}), 2), "log")
    with pytest.raises(DataError, match="logging_steps"):  # before the first step
        without_evaluations([LoggedStep(0, {"a": (1.0, 1.0)})], Evaluations(frozenset(), 0), "log")


def test_prompts_that_end_several_steps_in_the_same_order():
    assert repetition(steps(*TRAINED)) is None
    mixed = repetition(steps(["a", "x", "y"], ["b", "c"], ["d", "x", "y"]))
    assert mixed is not None and mixed.prompts == HELD_OUT and mixed.steps == [1, 3] and mixed.mixed
    whole = repetition(steps(["a", "b"], HELD_OUT, HELD_OUT))
    assert whole is not None and whole.prompts == HELD_OUT and not whole.mixed
    assert repetition(steps(["a", "x", "y"], ["b", "x", "y"], ["y", "x"])) is None  # trained on in another order


@pytest.mark.parametrize(
    ("logged", "kept"),
    [
        (TRAINED, TRAINED),
        ([["a", *HELD_OUT], ["b", "c"], ["d", *HELD_OUT]], [["a"], ["b", "c"], ["d"]]),
        ([HELD_OUT, HELD_OUT], [HELD_OUT, HELD_OUT]),  # or data that are not shuffled
    ],
)
def test_without_a_record_there_is_a_warning_in_any_case(logged, kept, caplog):
    assert prompts_of(without_evaluations(steps(*logged), None, "log")) == kept
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "trainer_state.json" in caplog.text


# --- TRL --------------------------------------------------------------------------------------------------------------


def write_step(folder, step, prompts, **more):
    rows = [
        {"step": step, "prompt": prompt, "completion": f"{step} {prompt} {i}", "correct": float(i), **columns}
        for prompt in prompts
        for i in range(2)
        for columns in [{name: values[prompt in HELD_OUT] for name, values in more.items()}]
    ]
    write_parquet(folder / "completions" / f"completions_{step:05d}.parquet", rows)


def state(*evaluated, last):
    rows = [{"step": step, "reward": 0.5} for step in range(1, last + 1)]
    rows += [{"step": step, "eval_loss": 0.0, "eval_reward": 0.1} for step in evaluated]
    return json.dumps({"global_step": last, "log_history": [*rows, {"step": last, "train_runtime": 1.0}]})


@pytest.mark.parametrize("place", ["", "checkpoint-4", "checkpoint-9"])
@pytest.mark.parametrize("inside", ["", "completions"])
def test_the_state_of_a_trainer_says_which_steps_were_evaluated(tmp_path, place, inside):
    for step, prompts in enumerate([["a", "b"], ["c", *HELD_OUT], ["b", "a"], ["d", *HELD_OUT]], start=1):
        write_step(tmp_path, step, prompts)
    for name, text in (("checkpoint-4", state(2, 4, last=4)), ("checkpoint-10", "{ cut"), (place, state(2, 4, last=4))):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "trainer_state.json").write_text("\ufeff" + text)
    found = read_history(tmp_path / inside)
    assert {history.prompt: len(history.rollouts) for history in found} == {"a": 2, "b": 2, "c": 1, "d": 1}


def test_the_column_of_rollouts_marks_training(tmp_path, caplog):
    write_step(tmp_path, 1, ["a", "b"], vip_rollouts=(2, None))
    write_step(tmp_path, 2, ["c", *HELD_OUT], vip_rollouts=(2.0, float("nan")))
    write_step(tmp_path, 3, HELD_OUT, vip_rollouts=(2, None))
    log = read_log(tmp_path)
    assert sorted(history.prompt for history in log.histories) == ["a", "b", "c"]
    assert "8 rollouts" in caplog.text


def test_evaluations_alone_are_an_error(tmp_path):
    write_step(tmp_path, 3, HELD_OUT, vip_rollouts=(2, None))
    with pytest.raises(DataError, match="evaluations"):
        read_log(tmp_path)


# --- verl -------------------------------------------------------------------------------------------------------------


def dump(folder, step, prompts, validation=False):
    pairs = [(prompt, score) for prompt in prompts for score in (0.0, 1.0)]
    rows = [{"input": prompt, "output": "o", "gts": "g", "score": score, "step": step} for prompt, score in pairs]
    rows = [row | ({"reward": row["score"]} if validation else {}) for row in rows]
    write_lines(folder / f"{step}.jsonl", rows)


def test_validation_dumps_beside_rollouts_are_left_out(tmp_path, caplog):
    dump(tmp_path, 0, HELD_OUT)
    dump(tmp_path, 1, ["a", "b"])
    dump(tmp_path, 2, HELD_OUT, validation=True)
    dump(tmp_path, 3, ["b", "c"])
    found = read_history(tmp_path)
    assert {history.prompt: len(history.rollouts) for history in found} == {"a": 1, "b": 2, "c": 1}
    assert "0.jsonl, 2.jsonl" in caplog.text


def test_a_folder_of_validation_dumps_is_read_with_a_warning(tmp_path, caplog):
    for step in (0, 5):
        dump(tmp_path, step, HELD_OUT, validation=True)
    assert [len(history.rollouts) for history in read_history(tmp_path)] == [2, 2]
    assert "validation_data_dir" in caplog.text


def test_logs_in_folders_of_the_folder_are_named(tmp_path):
    dump(tmp_path / "rollouts", 1, ["a"])
    dump(tmp_path / "validation", 1, HELD_OUT)
    with pytest.raises(DataError, match=r"rollouts, .*validation: give one"):
        read_history(tmp_path)
