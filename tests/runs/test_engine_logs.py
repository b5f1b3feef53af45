"""Histories from run folders and from the logs of verl and TRL."""

from __future__ import annotations

import json

import numpy as np
import pytest

from log_files import plain, visits_of, write_lines, write_parquet
from viprl.errors import DataError, FileError, InputError
from viprl.runs.engine_logs import from_trl, from_verl, read_history, read_log
from viprl.runs.history import save_history
from viprl.runs.prompt_texts import PromptTexts
from viprl.runs.run_log import RunLog

ROW = {"id": "a", "prompt": "p", "rollouts": 4, "successes": [1]}


@pytest.mark.parametrize("name", ["history.jsonl.gz", "trajectories.jsonl.gz"])
def test_a_run_folder(tmp_path, name):
    write_lines(tmp_path / "metrics.jsonl", [{"step": 1}])
    write_lines(tmp_path / name, [ROW])
    assert plain(read_history(tmp_path)) == [("a", "p", None, [4], [1])]
    assert plain(read_history(tmp_path / name)) == plain(read_history(tmp_path))


def write_run(folder, settings):
    log, texts = RunLog(folder, strategy="default", seed=0), PromptTexts(folder)
    for step in (1, 2):
        texts.add(step, ["id:a", "id:b"], ["first", "second"])
        log.outcomes(step, ["id:a", "id:b"], [3, 5], [1.0, 5.0], [3.0, 4.0])
    (folder / "config.yaml").write_text(settings)


@pytest.mark.parametrize(
    ("settings", "bounds"),
    [
        ("trainer: {vip_min_rollouts: 3, vip_max_rollouts: 9}", (3, 9)),
        ("trainer: {vip_low: 3, vip_high: 9}", (3, 9)),  # an earlier version
        ("trainer: {vip_min_rollouts: null}", (None, None)),
        ("[1, 2", (None, None)),
    ],
)
@pytest.mark.parametrize("history", [[], [ROW]])
def test_a_run_is_read_up_to_its_last_step(tmp_path, settings, bounds, history):
    write_run(tmp_path, settings)
    if history:  # of the last checkpoint
        write_lines(tmp_path / "history.jsonl.gz", history)
    log = read_log(tmp_path)
    assert plain(log.histories) == [("a", "first", None, [3, 3], [1, 1]), ("b", "second", None, [4, 4], [4, 4])]
    assert (log.batch_size, log.min_rollouts, log.max_rollouts, log.own) == (2, *bounds, True)


def test_metrics_without_outcomes(tmp_path):
    (tmp_path / "trainer_state.json").write_text('{"global_step": 1, "log_history": []}')
    with pytest.raises(DataError, match="log_completions"):
        read_history(tmp_path)


def test_the_new_name_wins_in_a_folder_with_both(tmp_path):
    write_lines(tmp_path / "trajectories.jsonl.gz", [ROW])
    write_lines(tmp_path / "history.jsonl.gz", [ROW | {"id": "new"}])
    assert [history.id for history in read_history(tmp_path)] == ["new"]


def test_paths_without_a_history(tmp_path):
    with pytest.raises(FileError, match=r"missing\.jsonl"):
        read_history(tmp_path / "missing.jsonl")
    with pytest.raises(DataError, match=r"t\.csv"):
        read_history(write_lines(tmp_path / "t.csv", [ROW]))
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"folder .*history\.jsonl\.gz"):
        read_history(tmp_path / "folder")
    with pytest.raises(FileError, match="rollout_data_dir"):
        from_verl(tmp_path / "folder")
    with pytest.raises(FileError, match="log_completions"):
        from_trl(tmp_path / "folder")


# --- verl -------------------------------------------------------------------------------------------------------------


def verl(prompt, score, **more):
    return {"input": prompt, "output": "o", "gts": "g", "score": score, "step": 1} | more


def test_verl_steps_become_visits_in_the_order_of_their_numbers(tmp_path):
    for step in (11, 3, 10, 2, 12, 1, 9):
        write_lines(tmp_path / f"{step}.jsonl", [verl("p", float(i > 0)) for i in range(step)])
    write_lines(tmp_path / "4.jsonl", [verl("p", 0.0), verl("q", 0.0), verl("p", 1.0)])
    write_lines(tmp_path / "notes.jsonl", ["is not read"])
    found = read_history(tmp_path)
    assert visits_of(found) == [("p", [1, 2, 3, 2, 9, 10, 11, 12], [0, 1, 2, 1, 8, 9, 10, 11]), ("q", [1], [0])]
    save_history(tmp_path / "t.jsonl.gz", found)
    assert plain(read_history(tmp_path / "t.jsonl.gz")) == plain(found)


@pytest.mark.parametrize(
    ("first", "second", "texts"),
    [
        ("1", "2", ["1", "2"]),
        (1, 2.5, ["1", "2.5"]),
        ('{"target": 24, "numbers": [1, 2]}', '{"target": 3, "numbers": [1, 2]}', None),
        ({"b": 1, "a": 2}, {"b": 1, "a": 3}, ['{"a": 2, "b": 1}', '{"a": 3, "b": 1}']),
    ],
)
def test_equal_inputs_with_different_answers_are_different_prompts(tmp_path, first, second, texts):
    more = {"acc": True, "pred": "x"}
    for step in (1, 2):
        rollouts = ((1.0, first), (0.0, second), (0.0, first))
        write_lines(tmp_path / f"{step}.jsonl", [verl("p", score, gts=gts, **more) for score, gts in rollouts])
    found = read_history(tmp_path)
    assert visits_of(found) == [("p", [2, 2], [1, 1]), ("p", [1, 1], [0, 0])]
    assert len({history.id for history in found}) == 2
    assert [history.ground_truth for history in found] == (texts or [first, second])
    save_history(tmp_path / "t.jsonl", found)
    assert plain(read_history(tmp_path / "t.jsonl")) == plain(found)


def test_without_answers_the_input_alone_identifies_a_prompt(tmp_path):
    rows = [{"input": prompt, "output": "o", "score": score} for prompt, score in (("p", 1.0), ("p", 0.0), ("q", 0.0))]
    write_lines(tmp_path / "1.jsonl", rows)
    write_lines(tmp_path / "2.jsonl", [verl("p", 1.0, gts=None)])
    found = read_history(tmp_path)
    assert visits_of(found) == [("p", [2, 1], [1, 1]), ("q", [1], [0])]
    assert [history.ground_truth for history in found] == [None, None]


def test_verl_rewards_that_are_not_binary_are_kept(tmp_path):
    rows = [verl("p", 0.2, acc=True), verl("p", 0.7, acc=False), verl("p", None, acc=True)]
    write_lines(tmp_path / "1.jsonl", rows)
    (found,) = from_verl(tmp_path)
    assert [visit.tolist() for visit in found.rewards] == [[0.2, 0.7]] and found.rollouts.tolist() == [2]
    assert np.isnan(found.successes).all()
    assert visits_of(read_history(tmp_path, success=0.5)) == [("p", [2], [1])]  # null is unscorable
    assert visits_of(read_history(tmp_path, reward="acc")) == [("p", [3], [2])]
    with pytest.raises(DataError, match=r"1\.jsonl, row 1 .*'quality'"):
        from_verl(tmp_path, reward="quality")


def test_verl_outputs_of_one_rollout_count_once(tmp_path):
    turns = [
        verl("p", 0.0, uid="s-1_0_0"),
        verl("p and more", 1.0, uid="s-1_0_1"),  # the end of the first rollout
        verl("p", 0.0, uid="s-1_1_0"),
        verl("", 0.0, uid="pad" + "0" * 32 + "_0_0"),  # padding
    ]
    write_lines(tmp_path / "1.jsonl", turns)
    assert visits_of(from_verl(tmp_path)) == [("p", [2], [1])]
    write_lines(tmp_path / "1.jsonl", [verl("p", score, uid="math_3_12") for score in (1.0, 0.0, 1.0)])
    assert visits_of(from_verl(tmp_path)) == [("p", [3], [2])]  # uids of the data set do not merge rollouts


@pytest.mark.parametrize("missing", [None, float("nan"), "nan", "None", "<NA>", 5])
def test_missing_prompts_are_named_by_row(tmp_path, missing):
    write_lines(tmp_path / "1.jsonl", [verl("p", 1.0), verl(missing, 0.0)])
    with pytest.raises(DataError, match=r"1\.jsonl, row 2.* prompt"):
        read_history(tmp_path)


def test_scores_that_are_no_numbers_are_unscorable(tmp_path):
    scores = [1, True, "1.0", 0, None, float("nan"), "n/a", [1], {"score": 1}, 10**400]
    write_lines(tmp_path / "1.jsonl", [verl("p", score, gts=float("nan")) for score in scores])
    (history,) = read_history(tmp_path)
    assert (history.rollouts.tolist(), history.successes.tolist(), history.ground_truth) == ([4], [3], None)


def test_byte_order_marks_and_line_ends_of_other_systems(tmp_path):
    lines = [json.dumps(verl("é", score), ensure_ascii=False) for score in (1.0, 0.0)]
    (tmp_path / "1.jsonl").write_bytes("\r\n".join(["\ufeff" + lines[0], "", lines[1], ""]).encode())
    assert visits_of(read_history(tmp_path)) == [("é", [2], [1])]
    (tmp_path / "h.jsonl").write_bytes(("\ufeff" + json.dumps(ROW) + "\r\n").encode())
    assert plain(read_history(tmp_path / "h.jsonl")) == [("a", "p", None, [4], [1])]


@pytest.mark.parametrize("odd", ["[" * 100_000, '{"input": "p", "score": 1' + "0" * 5000 + "}", '{"input": "p", "sc'])
def test_lines_that_cannot_be_read_are_named(tmp_path, odd):
    write_lines(tmp_path / "1.jsonl", [verl("p", 1.0), odd])
    with pytest.raises(DataError, match=r"1\.jsonl, row 2"):
        read_history(tmp_path)


def test_a_log_says_how_many_prompts_a_step_had(tmp_path):
    for step, prompts in enumerate(["ab", "cd", "e"], start=1):
        write_lines(tmp_path / f"{step}.jsonl", [verl(prompt, 1.0) for prompt in prompts])
    log = read_log(tmp_path)
    assert log.batch_size == 2 and not log.own


# --- TRL --------------------------------------------------------------------------------------------------------------


def completions(step, rewards, prompt="p", **more):
    return [
        {"step": step, "prompt": prompt, "completion": f"{step}-{i}", "correct": r, **more, "advantage": 0.0}
        for i, r in enumerate(rewards)
    ]


def test_trl_files_become_visits(tmp_path):
    chat = [{"role": "user", "content": "q"}]
    folder = tmp_path / "completions"
    write_parquet(folder / "completions_00012.parquet", completions(12, [1.0, 1.0], chat))
    write_parquet(folder / "completions_00002.parquet", completions(2, [1.0, 0.0, float("nan")], chat))
    repeated = [row | {"step": 13} for row in completions(12, [1.0, 1.0], chat)]  # a second step on one generation
    write_parquet(folder / "completions_00013.parquet", repeated)
    for place in (tmp_path, folder):
        found = read_history(place)
        assert visits_of(found) == [(chat, [2, 2], [1, 2])]
    save_history(tmp_path / "t.jsonl", found)
    row = json.loads((tmp_path / "t.jsonl").read_text())
    assert row.keys() == {"id", "prompt", "rollouts", "successes", "lengths"}
    assert row["lengths"] == [[3, 3], [4, 4]]  # characters of "2-0" and so on; the unscorable rollout does not count


def test_trl_with_several_rewards_needs_a_choice(tmp_path):
    write_parquet(tmp_path / "completions_00001.parquet", completions(1, [0.0, 1.0], brevity=0.3))
    with pytest.raises(DataError, match="correct, brevity"):
        read_history(tmp_path)
    with pytest.raises(DataError, match=r"'length'.*correct, brevity"):
        from_trl(tmp_path, reward="length")
    assert visits_of(read_history(tmp_path, reward="correct")) == [("p", [2], [1])]


@pytest.mark.parametrize(
    ("reward", "success", "successes"),
    [
        ("correct", 0.5, 2),
        ("correct>=0.5", None, 2),
        (None, "correct>=0.5", 2),
        (None, "correct > 0.9", 1),
        (None, "length<=3", 1),
        ("length", "3", 3),
        ("length", lambda value: value > 3, 2),
    ],
)
def test_one_of_several_rewards_decides(tmp_path, reward, success, successes):
    rows = [completions(1, [value], length=length)[0] for value, length in ((0.2, 1), (0.7, 5), (0.95, 4))]
    rows = [row | {"length": float(row["length"]) + (index == 0) * 2} for index, row in enumerate(rows)]  # 3, 5, 4
    write_parquet(tmp_path / "completions_00001.parquet", rows)
    assert visits_of(read_history(tmp_path, reward=reward, success=success)) == [("p", [3], [successes])]


@pytest.mark.parametrize(
    ("reward", "success"),
    [
        ("correct", "length>=3"),
        ("correct>=0.5", 0.7),
        (None, "correct>=high"),
        (None, "1<correct<2"),
        (None, "no:where"),
    ],
)
def test_contradictions_and_unreadable_conditions(tmp_path, reward, success):
    write_parquet(tmp_path / "completions_00001.parquet", completions(1, [0.0, 1.0], length=3.0))
    with pytest.raises(InputError):
        read_history(tmp_path, reward=reward, success=success)


def test_a_batch_with_nan_that_is_logged_again_counts_once(tmp_path):
    for step in (1, 2):
        rows = [row | {"completion": "c"} for row in completions(step, [1.0, float("nan")])]
        write_parquet(tmp_path / f"completions_0000{step}.parquet", rows)
    assert visits_of(read_history(tmp_path)) == [("p", [1], [1])]


@pytest.mark.parametrize("prompt", [None, "nan", "None", 5])
def test_missing_prompts_of_trl_are_named_by_row(tmp_path, prompt):
    rows = completions(1, [1.0], prompt="4" if prompt == 5 else "p") + completions(1, [0.0], prompt=prompt)
    rows = rows[1:] if prompt == 5 else rows  # a column has one type
    write_parquet(tmp_path / "completions_00001.parquet", rows)
    with pytest.raises(DataError, match=r"completions_00001\.parquet, row \d.* prompt"):
        read_history(tmp_path)


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b[:100] + b"?" * 400 + b[500:], lambda b: b""]
)
def test_damaged_parquet(tmp_path, damage):
    file = write_parquet(tmp_path / "completions_00001.parquet", completions(1, 500 * [1.0, 0.0]))
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=r"completions_00001\.parquet"):
        read_history(tmp_path)


@pytest.mark.parametrize("name", ["1.jsonl", "completions_00001.parquet"])
def test_one_step_of_a_log_is_no_history(tmp_path, name):
    write_lines(tmp_path / "1.jsonl", [{"input": "p", "score": 1}])
    write_parquet(tmp_path / "completions_00001.parquet", completions(1, [1.0]))
    with pytest.raises(DataError, match=f"its folder, {tmp_path}"):
        read_history(tmp_path / name)


# --- rewards with more than two values --------------------------------------------------------------------------------


def rewards_of(history):
    return None if history.rewards is None else [visit.tolist() for visit in history.rewards]


def test_logs_keep_rewards_with_more_than_two_values(tmp_path):
    write_lines(tmp_path / "verl/1.jsonl", [verl("p", 1.0), verl("p", 0.0), verl("q", 1.0)])
    write_lines(tmp_path / "verl/2.jsonl", [verl("p", "0.1"), verl("p", None), verl("p", -1)])
    p, q = read_history(tmp_path / "verl")
    assert rewards_of(p) == [[1.0, 0.0], [0.1, -1.0]] and rewards_of(q) == [[1.0]] and p.rollouts.tolist() == [2, 2]
    save_history(tmp_path / "t.jsonl", [p, q])
    assert [rewards_of(history) for history in read_history(tmp_path / "t.jsonl")] == [rewards_of(p), rewards_of(q)]
    assert visits_of(read_history(tmp_path / "verl", success=0.1)) == [("p", [2, 2], [1, 1]), ("q", [1], [1])]
    write_parquet(tmp_path / "trl/completions_00001.parquet", completions(1, [0.25, 1.0, float("nan")]))
    (found,) = read_history(tmp_path / "trl")
    assert rewards_of(found) == [[0.25, 1.0]] and np.isnan(found.successes).all()


def test_of_several_columns_of_trl_one_is_chosen_and_its_rewards_are_kept(tmp_path):
    write_parquet(tmp_path / "completions_00001.parquet", completions(1, [1.0, 0.0], style=0.3))
    with pytest.raises(DataError, match=r"weights.* correct, style"):
        read_history(tmp_path)
    (style,), (correct,) = read_history(tmp_path, reward="style"), read_history(tmp_path, reward="correct")
    assert rewards_of(style) == [[0.3, 0.3]] and rewards_of(correct) is None and correct.successes.tolist() == [1]
    assert visits_of(read_history(tmp_path, success="style>=0.3")) == [("p", [2], [2])]


@pytest.mark.parametrize("second", [False, True])
def test_a_warning_of_groups_whose_size_depends_on_rewards(tmp_path, caplog, second):
    rows = [{"step": 1, "prompt": "p", "reward": 0.0, "vip_rollouts": 3, "vip_wave": 1}] * 2
    rows.append({**rows[0], "reward": 1.0, "vip_wave": 1 + second})
    write_parquet(tmp_path / "trl" / "completions_00001.parquet", rows)
    uids = ["s-1_0_0", "s-1_1_0", "s-1#2_0_0" if second else "s-1_2_0"]
    write_lines(
        tmp_path / "verl" / "1.jsonl", [{"input": "p", "score": float(i == 2), "uid": u} for i, u in enumerate(uids)]
    )
    for read, folder in ((from_trl, "trl"), (from_verl, "verl")):
        caplog.clear()
        assert visits_of(read(tmp_path / folder)) == [("p", [3], [1])]
        assert any("second wave" in record.getMessage() for record in caplog.records) == second
