"""What is checked before the weights are loaded: data, rewards, lengths, packages."""

from __future__ import annotations

import pytest

import tiny
from refused import refused
from viprl.errors import ConfigError, ViprlError
from viprl.train.config import parse_config
from viprl.train.prepare import prepare
from viprl.utils.json_lines import write_json_lines

REWARDS = "sample_rewards"


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"chat": True}, ["chat template", "chat: false"]),
        ({"max_completion_length": 64}, ["max_completion_length is 64", "64 tokens", "max_position_embeddings"]),
        ({"max_completion_length": 63}, ["32 rows", "1 tokens", "row 1: 2 tokens", "Lower max_completion_length"]),
        ({"max_prompt_length": 1}, ["1 tokens", "Raise max_prompt_length", "skip_bad_rows"]),
        ({"max_prompt_length": 61}, ["max_prompt_length 61", "max_completion_length 4", "64"]),
        ({"tokenizer": "."}, ["tokenizer", "'.'"]),
        ({"model": "./nowhere"}, ["./nowhere"]),
        ({"dataset": "nothing.jsonl"}, ["nothing.jsonl"]),
        ({"dataset": "gsm-8k"}, ["gsm8k"]),
        ({"eval_dataset": "missing.jsonl"}, ["missing.jsonl"]),
        ({"eval_strategy": "steps"}, ["eval_strategy", "eval_dataset"]),
        ({"solution_column": "solutoin"}, ["solutoin", "mean solution?", "solution_column"]),
        ({"per_device_train_batch_size": 256}, ["32 prompts", "64", "size 256", "lower per_device_train_batch_size,"]),
        ({"gradient_accumulation_steps": 9}, ["36", "lower per_device_train_batch_size or gradient_accumulation"]),
        ({"generation_batch_size": 256}, ["32 prompts", "64", "lower generation_batch_size,"]),
        (
            {"generation_batch_size": 64, "vip_candidates": 4},
            ["32 prompts", "64", "vip_candidates 4", "lower vip_candidates or generation_batch_size,"],
        ),
        ({"vip_id_column": "uid"}, ["vip_id_column", "'uid'", "prompt, solution"]),
        ({"vip_features": "minlm"}, ["minlm"]),
        ({"vip_success": "corect"}, ["vip_success", "'corect'"]),
        ({"vip_warm_start": "nowhere.jsonl"}, ["vip_warm_start", "nowhere.jsonl"]),
        ({"vip_warm_start": "broken.jsonl"}, ["vip_warm_start", "row 1"]),
        ({"reward": f"{REWARDS}:too_few"}, ["too_few", "[1.0]", "row 1", "2 numbers"]),
        ({"reward": [f"{REWARDS}:half", "exact_match"], "vip_success": "half"}, ["vip_success: 'half>=0.5'"]),
        (
            {"reward": f"{REWARDS}:half", "vip_success": f"{REWARDS}:vague"},
            [f"'{REWARDS}:vague'", "True, False or None"],
        ),
        ({"reward": f"{REWARDS}:texts"}, ["texts", "row 1", "'good'", "str"]),
        ({"reward": f"{REWARDS}:nothing"}, ["nothing", "None", "return"]),
        ({"reward": f"{REWARDS}:asks_for_answer"}, ["asks_for_answer", "`answer`", "solution"]),
        ({"reward": f"{REWARDS}:no_kwargs"}, ["no_kwargs", "completion_ids", "**kwargs"]),
        ({"report_to": "wandb"}, ["report_to", "'wandb'", "pip install wandb"]),
        ({"report_to": ["tensorboard"]}, ["report_to", "pip install tensorboard"]),
        ({"report_to": ["wand"]}, ["report_to", "'wand'", "mean wandb?"]),
        ({"reward_weights": [1.0, 1.0]}, ["reward_weights has 2 numbers for 1 rewards"]),
    ],
)
def test_mistakes_are_found_without_the_weights(settings, change, parts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if change.get("vip_warm_start") == "broken.jsonl":
        write_json_lines("broken.jsonl", [{"prompt": "a"}])
    with refused(ViprlError, *parts):
        prepare(parse_config(settings | change), dry_run=True)


def test_an_exception_of_a_reward_function_keeps_its_type_and_names_the_function(settings):
    with pytest.raises(KeyError) as error:
        prepare(parse_config(settings | {"reward": f"{REWARDS}:broken"}))
    assert any("broken" in note for note in error.value.__notes__)


@pytest.mark.parametrize(
    "change",
    [
        {"reward": ["exact_match", "tiny:contains"]},
        {"reward": f"{REWARDS}:half"},
        {"reward": f"{REWARDS}:format_too"},
        {"reward": f"{REWARDS}:half", "vip_success": 0.5},
        {"reward": [f"{REWARDS}:half", "exact_match"], "vip_success": "half>=0.5"},
        {"reward": [f"{REWARDS}:half", "exact_match"], "vip_success": "exact_match"},
    ],
)
def test_rewards_that_can_be_read(settings, change):
    expected = {"half": 0.5, "exact_match": 1.0, "format_too": 1.0, "contains": 1.0}
    given = dict(prepare(parse_config(settings | change)).reward_check)
    assert given == {name: expected[name] for name in given}


def test_a_warm_start_is_read_by_the_reward_that_decides(settings, tmp_path):
    pandas = pytest.importorskip("pandas")
    rows = {"step": [1] * 2, "prompt": ["a a", "a b"], "completion": ["x"] * 2, "advantage": [0.0] * 2}
    rows |= {"half": [0.3, 0.2], "exact_match": [0.0, 1.0]}
    log = tmp_path / "completions_00001.parquet"
    pandas.DataFrame(rows).to_parquet(log)
    change = {"reward": [f"{REWARDS}:half", "exact_match"], "vip_warm_start": str(tmp_path)}
    config = parse_config(settings | change | {"vip_success": "exact_match"})
    assert prepare(config)
    pandas.DataFrame(rows).drop(columns="exact_match").to_parquet(log)
    with refused(ConfigError, "vip_warm_start", "'exact_match'"):
        prepare(config)


def test_bad_and_overlong_rows_are_left_out_and_numbered(settings, tmp_path):
    rows = tiny.dataset(32).to_list()
    rows[3] = {"prompt": "", "solution": "a"}
    rows[5]["prompt"] = "a b c d"
    write_json_lines(tmp_path / "data.jsonl", rows)
    with refused(ViprlError, "row 4"):
        prepare(parse_config(settings))
    run = prepare(parse_config(settings | {"max_prompt_length": 3, "skip_bad_rows": True}))
    assert len(run.dataset) == 30 and run.longest_prompt == 2
    assert "row 4" in run.notes[0] and "row 6: 4 tokens" in run.notes[1]


def test_evaluation_data_is_read_as_training_data_is(settings, tmp_path):
    rows = [*tiny.dataset(4).to_list(), {"prompt": "a b c d", "solution": "a"}]
    write_json_lines(tmp_path / "eval.jsonl", rows)
    change = {"eval_dataset": str(tmp_path / "eval.jsonl"), "max_prompt_length": 3}
    with refused(ConfigError, "eval.jsonl: 1 row is", "Raise max_prompt_length"):
        prepare(parse_config(settings | change))
    run = prepare(parse_config(settings | change | {"skip_bad_rows": True}))
    assert len(run.held_out) == 4 and len(run.dataset) == 32
    assert run.notes[0].startswith("evaluation: 1 row") and "eval_strategy" in run.notes[1]
    used = settings | change | {"skip_bad_rows": True, "eval_strategy": "steps", "eval_steps": 2}
    assert len(prepare(parse_config(used)).notes) == 1


def test_a_missing_vllm_is_a_note_of_a_dry_run_and_an_error_of_a_run(settings, monkeypatch):
    monkeypatch.setattr("viprl.train.prepare.find_spec", lambda name: None)
    config = parse_config(settings | {"use_vllm": True})
    assert "vLLM" in prepare(config, dry_run=True).notes[0]
    with pytest.raises(ConfigError, match="use_vllm: false"):
        prepare(config)


def test_a_reward_that_reads_boxes_needs_an_instruction_to_write_them(settings):
    pytest.importorskip("math_verify", reason='needs pip install "viprl[eval]"')
    roomy = settings | {"reward": "math", "max_prompt_length": 60}
    assert "instruction: boxed" in prepare(parse_config(roomy)).notes[0]
    assert prepare(parse_config(roomy | {"instruction": "boxed"})).notes == ()


def test_a_reward_that_asks_for_the_column_of_the_file_is_told_its_name(settings, tmp_path):
    rows = [{"prompt": row["prompt"], "answer": row["solution"]} for row in tiny.dataset(32).to_list()]
    write_json_lines(tmp_path / "data.jsonl", rows)
    with refused(ConfigError, "`answer`", "the column answer reaches rewards as `solution`"):
        prepare(parse_config(settings | {"reward": f"{REWARDS}:asks_for_answer"}))


@pytest.mark.parametrize(
    "name", ["completions", "prompts", "completion_ids", "trainer_state", "log_extra", "completion"]
)
def test_a_column_with_the_name_of_an_argument_is_left_out_with_a_note(settings, tmp_path, name):
    rows = [row | {name: ["a", "b"]} for row in tiny.dataset(32).to_list()]
    write_json_lines(tmp_path / "data.jsonl", rows)
    run = prepare(parse_config(settings | {"eval_dataset": settings["dataset"], "eval_strategy": "epoch"}))
    assert name not in run.dataset.column_names and name not in run.held_out.column_names
    assert len(run.notes) == 1 and name in run.notes[0]


def test_a_row_that_no_reward_can_score_is_noted(settings):
    (note,) = prepare(parse_config(settings | {"reward": f"{REWARDS}:unscorable"})).notes
    assert "unscorable" in note and "row 1" in note


@pytest.mark.parametrize("trackers", ["none", [], "all", ["none"], None])
def test_trackers_that_need_no_package(settings, trackers):
    assert prepare(parse_config(settings | {"report_to": trackers}))
