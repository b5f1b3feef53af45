"""`viprl train`: what is wrong is said before anything is loaded; what is right runs, resumes and reports."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

pytest.importorskip("trl", reason='needs pip install "viprl[trl]"')

from typer.testing import CliRunner

import tiny
from viprl.cli import app
from viprl.data.loading import DataSource, load
from viprl.engines.trl import VIPRLOOConfig, VIPRLOOTrainer
from viprl.rewards import exact_match
from viprl.runs.engine_logs import read_history
from viprl.runs.resume import last_checkpoint
from viprl.train.config import ConfigError, load_config, parse_config
from viprl.train.config_file import read_config, with_overrides
from viprl.train.prepare import prepare
from viprl.train.training import dry_run, train
from viprl.utils.json_lines import log_rows


@pytest.fixture
def settings(tmp_path) -> dict:
    """A configuration that works."""
    tiny.model().save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    rows = tiny.dataset(32).to_list()
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "model": str(tmp_path / "model"), "dataset": str(tmp_path / "data.jsonl"), "output_dir": str(tmp_path / "run"),
        "vip_strategy": "random", "vip_features": "none", "num_generations": 4, "per_device_train_batch_size": 16,
        "max_completion_length": 4, "max_steps": 4, "save_steps": 2, "use_cpu": True, "bf16": False, "beta": 0.0,
        "disable_tqdm": True, "gradient_checkpointing": False, "learning_rate": 1e-3, "lr_scheduler_type": "constant",
    }  # fmt: skip


def without(settings: dict, key: str) -> dict:
    return {k: v for k, v in settings.items() if k != key}


def test_a_run_leaves_metrics_outcomes_and_a_model(settings, tmp_path):
    folder = train(parse_config(settings))
    rows = list(log_rows(folder / "metrics.jsonl"))
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert rows[-1]["rollouts"] == 64 and rows[-1]["strategy"] == "random"
    assert {"reward", "vip/counts/max", "vip/variance_ratio/realised"} <= set(rows[0])
    outcomes = list(log_rows(folder / "outcomes.jsonl"))
    logged = {t.prompt: t for t in read_history(folder)}
    assert sum(len(t.rollouts) for t in logged.values()) == sum(len(row["ids"]) for row in outcomes)
    assert sum(t.rollouts.sum() for t in logged.values()) == sum(sum(row["scorable"]) for row in outcomes)
    assert set(logged) <= set(load(DataSource(settings["dataset"])).dataset["prompt"])
    assert all(sum(row["counts"]) == 16 == sum(row["scorable"]) for row in outcomes)
    assert (folder / "final" / "model.safetensors").exists()


def test_the_same_command_resumes(settings, tmp_path):
    whole = train(parse_config(settings))
    parts = settings | {"output_dir": str(tmp_path / "parts")}
    train(parse_config(parts | {"max_steps": 2}))
    before = list(log_rows(tmp_path / "parts" / "metrics.jsonl"))
    folder = train(parse_config(parts))
    assert list(log_rows(folder / "metrics.jsonl"))[:2] == before  # its times would differ, had it begun anew
    assert [row["step"] for row in log_rows(folder / "outcomes.jsonl")] == [1, 2, 3, 4]
    first, second = (list(log_rows(path / "outcomes.jsonl")) for path in (whole, folder))
    assert [row["ids"] for row in first] == [row["ids"] for row in second]
    assert [row["counts"] for row in first] == [row["counts"] for row in second]


def test_a_killed_run_goes_on(settings, tmp_path):
    """SIGKILL in the middle, whatever is being written; then the same command finishes the run."""
    settings |= {"max_steps": 60, "save_steps": 5}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "viprl", "train", "--config", str(file)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while not (metrics.exists() and len(metrics.read_text().splitlines()) >= 12):
        assert process.poll() is None and time.monotonic() < deadline, "the run ended or hangs"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert last_checkpoint(tmp_path / "run") is not None
    before = [json.loads(line) for line in metrics.read_text().splitlines()[:5]]
    train(load_config(file))
    after = list(log_rows(metrics))
    assert [row["step"] for row in after] == list(range(1, 61))
    assert after[:5] == before and "step_time" in before[0]  # kept, not made again


def test_an_unfinished_checkpoint_is_passed_over(tmp_path):
    for step, text in ((2, "{}"), (10, '{"cut'), (12, None)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if text is not None:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(text)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-2"


def test_another_run_s_folder_is_not_overwritten(settings):
    train(parse_config(settings | {"max_steps": 1}))
    with pytest.raises(ConfigError, match="other settings \\(learning_rate\\)"):
        train(parse_config(settings | {"learning_rate": 1.0}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vip_stratgy": "paper"}, "unknown key `vip_stratgy`; did you mean `vip_strategy`"),
        ({"num_generation": 8}, "did you mean `num_generations`"),
        ({"algorithm": "ppo"}, "expected rloo or grpo"),
        ({"reward": "exactmatch"}, "expected exact_match, .* or 'module:function'"),
        ({"chat": "yes"}, "chat is 'yes'; expected true or false"),
        ({"max_prompt_length": 0}, "expected a number of at least 1"),
        ({"duplicates": "no"}, "expected keep or drop"),
        ({"update_batch_size": 16, "gradient_accumulation_steps": 1}, "leave one of the two out"),
        ({"dataset": {"gym": "chain_sum"}}, "expected `reasoning-gym: TASK`"),
        ({"reward": "nowhere:reward"}, "cannot be imported"),
        ({"reward": 3}, "reward is 3; expected a name such as exact_match, or a list"),
        ({"reward": "mine.py:right"}, "a module is named without .py: 'mine:right'"),
        ({"instruction": "box"}, "instruction is 'box'; did you mean boxed"),
        ({"eval_split": "test"}, "there is no eval_dataset"),
        ({"arms": {"a": {}}}, "it is a sweep; run it with `viprl sweep"),
        ({"model": None}, "`model` is missing"),
    ],
)
def test_mistakes_in_the_file(settings, change, message):
    with pytest.raises(ConfigError, match=message):
        parse_config({k: v for k, v in (settings | change).items() if v is not None})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vip_min_rollouts": 7}, r"cannot be met: Q=4 .*L=7.*C=16"),
        ({"vip_max_rollouts": 3}, "raise high"),
        ({"vip_strategy": "papr"}, "strategy is 'papr'"),
        ({"solution_column": "answer"}, "no `answer`; set `solution_column`"),
        ({"dataset": "nothing.jsonl"}, "no such file"),
        ({"per_device_train_batch_size": 256}, "holds 32 prompts, but a generation batch takes 64"),
    ],
)
def test_what_cannot_run_is_refused_before_the_model_is_loaded(settings, change, message, tmp_path):
    (tmp_path / "model" / "model.safetensors").unlink()  # loading it would fail
    with pytest.raises(ConfigError, match=message):
        prepare(parse_config(settings | change))


def test_bad_rows_are_named_by_number(settings, tmp_path):
    with (tmp_path / "data.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": None, "solution": "a"}) + "\n")
    with pytest.raises(ConfigError, match="row 32"):
        prepare(parse_config(settings))


def test_parquet_and_other_column_names(settings, tmp_path):
    tiny.dataset(32).rename_columns({"prompt": "question", "solution": "answer"}).to_parquet(tmp_path / "d.parquet")
    change = {"dataset": str(tmp_path / "d.parquet"), "prompt_column": "question", "solution_column": "answer"}
    dataset = prepare(parse_config(settings | change)).dataset
    assert {"prompt", "solution"} <= set(dataset.column_names)


def test_files_that_are_no_configuration(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "a.yaml").write_text("- 1\n- 2\n")
    with pytest.raises(ConfigError, match="holds list"):
        load_config(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("model: [1\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(tmp_path / "b.yaml")


def test_exact_match():
    chat = [{"role": "assistant", "content": "b a"}]
    assert exact_match([""] * 4, ["a  b ", "a", chat, "x"], ["a b", "b", "b a", None]) == [1.0, 0.0, 1.0, None]


def test_the_command_line_says_errors_in_one_line(tmp_path):
    command = [sys.executable, "-m", "viprl", "train", "--config", str(tmp_path / "none.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"})
    assert done.returncode == 2 and "no such file" in done.stderr and "Traceback" not in done.stderr
    done = subprocess.run([sys.executable, "-m", "viprl", "report", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_importing_viprl_needs_neither_torch_nor_trl():
    code = "import sys, viprl; viprl.VIP(features=None).allocate(['a', 'b'], 8); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


def test_a_finished_run_is_not_trained_further(settings):
    folder = train(parse_config(settings))
    before = (folder / "metrics.jsonl").read_text()
    train(parse_config(settings))
    assert (folder / "metrics.jsonl").read_text() == before and not (folder / "checkpoint-5").exists()


def test_a_finished_run_without_checkpoints_is_not_trained_again(settings):
    settings |= {"save_strategy": "no"}
    folder = train(parse_config(settings))
    before = (folder / "metrics.jsonl").read_text()
    train(parse_config(settings | {"logging_steps": 2}))
    assert (folder / "metrics.jsonl").read_text() == before


@pytest.mark.parametrize("length", [{}, {"max_steps": -1, "num_train_epochs": 0.5}])
def test_a_run_killed_while_it_wrote_its_end_is_finished(settings, length):
    """After its last checkpoint, that is, and before finished.json."""
    settings |= length
    folder = train(parse_config(settings))
    weights, metrics = (folder / "final" / "model.safetensors").read_bytes(), (folder / "metrics.jsonl").read_text()
    told = {t.id: t.successes.tolist() for t in read_history(folder)}
    names = {path.name for path in (folder / "final").iterdir()}
    shutil.rmtree(folder / "final")
    (folder / "finished.json").unlink()
    (folder / "trajectories.jsonl.gz").unlink()
    train(parse_config(settings))
    assert json.loads((folder / "finished.json").read_text()) == {"step": 4}
    assert (folder / "final" / "model.safetensors").read_bytes() == weights
    assert {path.name for path in (folder / "final").iterdir()} == names
    assert (folder / "metrics.jsonl").read_text() == metrics and not (folder / "checkpoint-5").exists()
    assert {t.id: t.successes.tolist() for t in read_history(folder)} == told


@pytest.mark.parametrize("change", [{"max_steps": 2}, {"vip_strategy": "uniform"}])
def test_a_run_that_came_further_is_not_taken_for_another(settings, change):
    folder = train(parse_config(settings))
    for _ in range(2):
        with pytest.raises(ConfigError, match=rf"come to step 4 with other settings \({next(iter(change))}\)"):
            train(parse_config(settings | change))
    with pytest.raises(ConfigError, match="nothing is left to train; raise max_steps"):
        dry_run(parse_config(settings | change))
    assert json.loads((folder / "finished.json").read_text()) == {"step": 4}


def test_a_resumed_run_knows_what_its_first_prompts_say(settings):
    """Killed after a checkpoint and before the trajectories of its steps are written."""
    folder = train(parse_config(settings | {"max_steps": 2}))
    (folder / "trajectories.jsonl.gz").unlink()
    with (folder / "prompts.jsonl").open("a") as file:
        file.write('{"step": 3, "id": "sha:later", "prompt": "later"}\n{"step": 3, "id": "sha:to')
    train(parse_config(settings))
    rows = list(log_rows(folder / "prompts.jsonl"))
    visited = [key for row in log_rows(folder / "outcomes.jsonl") for key in row["ids"]]
    assert [row["id"] for row in rows] == list(dict.fromkeys(visited))
    texts = {t.prompt for t in read_history(folder)}
    assert len(texts) == len(rows) and texts <= set(load(DataSource(settings["dataset"])).dataset["prompt"])


def test_a_warm_start_reads_the_reward_that_says_what_success_is(tmp_path):
    """TRL's own log with several rewards."""
    pandas = pytest.importorskip("pandas")
    rows = {"step": [1] * 4, "prompt": ["a a", "a a", "a b", "a b"], "completion": ["x"] * 4, "advantage": [0.0] * 4}
    rows |= {"length": [0.3, 0.2, 0.1, 0.4], "contains": [0.0, 0.0, 1.0, 1.0]}
    pandas.DataFrame(rows).to_parquet(tmp_path / "completions_00001.parquet")

    def length(completions, **_):
        return [0.5 for _ in completions]

    args = VIPRLOOConfig(
        str(tmp_path / "run"), use_cpu=True, bf16=False, beta=0.0, num_generations=4, per_device_train_batch_size=16,
        report_to=[], vip_features="none", vip_success="contains", vip_warm_start=str(tmp_path),
    )  # fmt: skip
    trainer = VIPRLOOTrainer(
        tiny.model(), [length, tiny.contains], args, train_dataset=tiny.dataset(), processing_class=tiny.tokenizer()
    )
    never, always = trainer.vip.predict(["a a", "a b"])
    assert never < 0.5 < always


def test_no_value_is_no_number(settings):
    with pytest.raises(ConfigError, match="max_steps has no value; leave it out for its default, -1"):
        prepare(parse_config(settings | {"max_steps": None}))
    assert prepare(parse_config(settings | {"vip_shadow": None})).args.vip_shadow is None


def test_numbers_that_yaml_reads_as_text(settings):
    args = prepare(parse_config(settings | {"learning_rate": "1e-6", "max_steps": "3"})).args
    assert args.learning_rate == 1e-6 and args.max_steps == 3
    with pytest.raises(ConfigError, match="learning_rate is 'fast'; expected a number"):
        prepare(parse_config(settings | {"learning_rate": "fast"}))


def test_a_failed_start_does_not_claim_the_folder(settings, tmp_path):
    with pytest.raises(ConfigError, match="nowhere: no such folder; expected the folder of a model"):
        train(parse_config(settings | {"model": str(tmp_path / "nowhere")}))
    train(parse_config(settings | {"max_steps": 1}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vip_success": "corect"}, "vip_success is 'corect'"),
        ({"vip_features": "minlm"}, "minlm"),
        ({"vip_id_column": "uid"}, "vip_id_column is `uid`"),
        ({"reward": ["exact_match", "tiny:contains"]}, "2 reward functions"),
    ],
)
def test_check_finds_what_training_would(settings, change, message):
    with pytest.raises(ConfigError, match=message):
        prepare(parse_config(settings | change))


def test_a_broken_line_is_named(settings, tmp_path):
    with (tmp_path / "data.jsonl").open("a") as file:
        file.write('{"prompt": "a", "solu\n')
    with pytest.raises(ConfigError, match="line 33 is not valid JSON"):
        prepare(parse_config(settings))


def test_a_damaged_state_says_what_to_delete(settings):
    folder = train(parse_config(settings | {"max_steps": 2}))
    state = folder / "checkpoint-2" / "vip_state.safetensors"
    state.write_bytes(state.read_bytes()[:-9])
    with pytest.raises(ConfigError, match=r"delete .*checkpoint-2"):
        train(parse_config(settings))


# --- what a dry run finds ---------------------------------------------------------------------------------------------


def too_few(completions, **_):
    return [1.0]


def half(completions, solution, **_):
    return [0.5 * (given == right) for given, right in zip(completions, solution, strict=True)]


def format_too(completions, solution, **_):
    return [1.0 if "boxed" in given else 0.25 for given in completions]


def vague(reward):
    return "perhaps"


def broken(completions, **_):
    raise KeyError("label")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chat": True}, "has no chat template; set chat: false"),
        ({"max_completion_length": 64}, "max_completion_length is 64, but the context of .* is 64 tokens"),
        ({"max_completion_length": 63}, "32 rows are longer than the 1 tokens .*row 0: 2 tokens"),
        ({"max_prompt_length": 1}, "longer than the 1 tokens"),
        ({"max_prompt_length": 61}, "max_prompt_length 61 and max_completion_length 4 exceed the context of 64"),
        ({"reward": "test_train:broken"}, "reward broken fails on the first row: KeyError: 'label'"),
        ({"reward": "test_train:too_few"}, "expected a list of two numbers"),
        ({"tokenizer": "."}, "no tokenizer that can be loaded"),
        ({"tokenizer": "data.jsonl/x/y"}, "data.jsonl/x/y: no such folder"),
        ({"model": "./nowhere"}, "./nowhere: no such folder"),
        ({"solution_column": "solutoin"}, "no `solutoin` .did you mean `solution`.*set `solution_column`"),
        ({"max_steps": 10.5}, "max_steps is 10.5; expected a whole number"),
        ({"max_steps": "10.5"}, "max_steps is '10.5'; expected a whole number"),
        ({"vip_warm_start": "nowhere.jsonl"}, "vip_warm_start: nowhere.jsonl: no such file"),
        ({"vip_warm_start": "BROKEN"}, "vip_warm_start: .*row 1 has the fields prompt; it needs"),
        ({"reward": "test_train:half"}, "the reward half is 0.5 .*is open what success is; .* vip_success: '0.5'"),
        ({"reward": "test_train:format_too"}, "is 0.25 for .*set a threshold, such as vip_success: '1'"),
        ({"reward": ["test_train:half", "exact_match"], "vip_success": "half"}, "such as vip_success: 'half>=0.5'"),
        ({"reward_weights": [2.0]}, "the reward exact_match is 2 for"),
        ({"reward_weights": [1.0, 1.0]}, "reward_weights has 2 numbers for 1 rewards"),
        ({"reward": "test_train:half", "vip_success": "test_train:vague"}, "'test_train:vague' says neither True"),
        ({"update_batch_size": 24}, "update_batch_size is 24, no multiple"),
        ({"dataset": "gsm-8k"}, "did you mean gsm8k"),
        ({"eval_dataset": "missing.jsonl"}, "missing.jsonl: no such file"),
        ({"eval_strategy": "steps"}, "there is no eval_dataset"),
        ({"per_device_train_batch_size": 6}, "6. must be divisible .*per_device_train_batch_size x processes x"),
    ],
)
def test_a_dry_run_finds_it_without_weights(settings, change, message, tmp_path):
    (tmp_path / "model" / "model.safetensors").unlink()
    (tmp_path / "broken.jsonl").write_text('{"prompt": "a"}\n')
    change = {key: str(tmp_path / "broken.jsonl") if value == "BROKEN" else value for key, value in change.items()}
    with pytest.raises(ConfigError, match=message):
        dry_run(parse_config(settings | change))


@pytest.mark.parametrize(
    "change",
    [
        {"reward": "test_train:half", "vip_success": 0.5},
        {"reward": ["test_train:half", "exact_match"], "vip_success": "half>=0.5"},
        {"reward": ["test_train:half", "exact_match"], "vip_success": "exact_match"},
        {"max_steps": 10.0},
    ],
)
def test_a_dry_run_takes_what_can_be_read(settings, change):
    assert dry_run(parse_config(settings | change))


def test_a_dry_run_reads_the_warm_start_by_the_reward_that_decides(settings, tmp_path):
    pandas = pytest.importorskip("pandas")
    rows = {"step": [1] * 2, "prompt": ["a a", "a b"], "completion": ["x"] * 2, "advantage": [0.0] * 2}
    rows |= {"half": [0.3, 0.2], "exact_match": [0.0, 1.0]}
    pandas.DataFrame(rows).to_parquet(tmp_path / "completions_00001.parquet")
    change = {"reward": ["test_train:half", "exact_match"], "vip_warm_start": str(tmp_path)}
    assert dry_run(parse_config(settings | change | {"vip_success": "exact_match"}))
    pandas.DataFrame(rows).drop(columns="exact_match").to_parquet(tmp_path / "completions_00001.parquet")
    with pytest.raises(ConfigError, match=r"vip_warm_start: .*has the columns .*not 'exact_match'"):
        dry_run(parse_config(settings | change | {"vip_success": "exact_match"}))


def test_a_dry_run_says_that_a_run_is_finished(settings):
    train(parse_config(settings | {"max_steps": 2}))
    told = dict(dry_run(parse_config(settings | {"max_steps": 2})))["folder"]
    assert "finished: nothing is left to train" in told and "resumed" not in told
    assert dict(dry_run(parse_config(settings)))["folder"].endswith("resumed from checkpoint-2")


def test_a_dry_run_tells_what_the_run_will_do_and_writes_nothing(settings, tmp_path):
    (tmp_path / "model" / "model.safetensors").unlink()
    change = {"update_batch_size": 32, "generation_batch_size": 64, "max_steps": 6, "use_cpu": False, "bf16": True}
    facts = dict(dry_run(parse_config(settings | change)))
    assert "32 rows, text, longest prompt 2 tokens" in facts["data"] and "context 64 tokens" in facts["model"]
    assert facts["step"].startswith("16 prompts, 64 rollouts") and facts["update"] == "32 rollouts on 1 process"
    assert facts["steps"] == "3 generation batches, 6 optimiser steps (2 a batch), 1.5 passes over the data"
    assert facts["reward"] == "exact_match (a right answer gets 1)" and "random, 2 to 24" in facts["allocation"]
    assert not (tmp_path / "run").exists()


def test_dry_run_on_the_command_line(settings, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(settings))
    good = CliRunner().invoke(app, ["train", "--config", str(file), "--set", "vip_strategy=uniform", "--dry-run"])
    assert good.exit_code == 0 and "uniform, 2 to 24" in good.output and "is in order" in good.output
    bad = CliRunner().invoke(app, ["train", "--config", str(file), "--set", "vip_strategy", "--dry-run"])
    assert isinstance(bad.exception, ConfigError) and "expected key=value" in str(bad.exception)


def test_overlong_rows_are_left_out_and_named_by_their_row(settings, tmp_path):
    rows = tiny.dataset(32).to_list()
    rows[3] = {"prompt": "", "solution": "a"}
    rows[5]["prompt"] = "a b c d"
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = prepare(parse_config(settings | {"max_prompt_length": 3, "skip_bad_rows": True}))
    assert len(run.dataset) == 30 and run.longest_prompt == 2
    assert "row 3: the prompt is empty" in run.notes[0] and "row 5: 4 tokens" in run.notes[1]


def test_evaluation_data_is_read_as_training_data_is(settings, tmp_path):
    rows = [*tiny.dataset(4).to_list(), {"prompt": "a b c d", "solution": "a"}]
    (tmp_path / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    change = {"eval_dataset": str(tmp_path / "eval.jsonl"), "max_prompt_length": 3}
    with pytest.raises(ConfigError, match=r"eval\.jsonl: 1 row is longer than the 3 tokens .*Raise max_prompt_length"):
        prepare(parse_config(settings | change))
    run = prepare(parse_config(settings | change | {"skip_bad_rows": True}))
    assert len(run.held_out) == 4 and len(run.dataset) == 32
    assert "evaluation: 1 row is too long" in run.notes[0] and "never evaluated" in run.notes[1]
    asked = settings | change | {"skip_bad_rows": True, "eval_strategy": "steps", "eval_steps": 2}
    assert len(prepare(parse_config(asked)).notes) == 1


def test_without_vllm_a_dry_run_says_so_and_a_run_ends(settings, monkeypatch):
    monkeypatch.setattr("viprl.train.prepare.find_spec", lambda name: None)
    config = parse_config(settings | {"use_vllm": True})
    assert "vLLM is not installed here" in prepare(config, dry_run=True).notes[0]
    with pytest.raises(ConfigError, match=r"vLLM is not installed here.*or set use_vllm: false"):
        prepare(config)


def test_a_reward_for_boxes_that_nobody_asks_for_is_noted(settings):
    pytest.importorskip("math_verify", reason='needs pip install "viprl[eval]"')
    roomy = settings | {"reward": "math", "max_prompt_length": 60}
    assert "does not ask for it; set instruction: boxed" in prepare(parse_config(roomy)).notes[0]
    assert prepare(parse_config(roomy | {"instruction": "boxed"})).notes == ()


def test_the_optimiser_step_does_not_depend_on_the_processes(settings, monkeypatch):
    from viprl.train.config import _accumulation

    config = parse_config(settings | {"update_batch_size": 64, "per_device_train_batch_size": 4})
    assert _accumulation(config, config.trainer) == 16
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert _accumulation(config, config.trainer) == 2


# --- files ------------------------------------------------------------------------------------------------------------


def test_extends(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "a.yaml").write_text("x: 1\ny: 1\nm: {a: 1, b: 1}\n")
    (tmp_path / "parts" / "b.yaml").write_text("extends: a.yaml\ny: 2\nm: {b: 2}\n")
    (tmp_path / "c.yaml").write_text("extends: [parts/b.yaml, parts/d.yaml]\nz: 3\n")
    (tmp_path / "parts" / "d.yaml").write_text("y: 4\n")
    raw = read_config(tmp_path / "c.yaml")
    assert raw == {"x": 1, "y": 4, "z": 3, "m": {"a": 1, "b": 2}}
    over = with_overrides(raw, ["m.b=[1, 2]", "w=1e-6", "z=null", "n.o.p=true"])
    assert over == {"x": 1, "y": 4, "z": None, "w": "1e-6", "m": {"a": 1, "b": [1, 2]}, "n": {"o": {"p": True}}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "key `a` stands twice .lines 1 and 3"),
        ("m:\n  a: 1\n  a: 2\n", "key `a` stands twice"),
        ("extends: self.yaml\n", "circle: self.yaml -> self.yaml"),
        ("extends: none.yaml\n", "none.yaml: no such file .`extends` of"),
        ("extends: {a: 1}\n", "expected a path or a list"),
        ("3: a\n", "the key 3 is no text"),
        ("? [a]\n: 1\n", "not valid YAML"),
    ],
)
def test_files_that_are_refused(tmp_path, text, message):
    (tmp_path / "self.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_config(tmp_path / "self.yaml")


def test_options_that_verl_does_not_know_are_added_with_a_plus():
    """Hydra refuses both an override of a key that is not there and the addition of one that is."""
    folder = Path(__file__).parents[2] / "recipes" / "verl"
    known = yaml.safe_load((folder / "paper.yaml").read_text())["trainer"]["v1"]["vip_sync"]
    text = "".join(path.read_text() for path in folder.iterdir())
    found = re.findall(r"(\+?)trainer\.v1\.vip_sync\.(\w+)=", text)
    assert found and all((plus == "") == (key in known) for plus, key in found)


# --- an endless source ------------------------------------------------------------------------------------------------


class Puzzles:
    """Stands in for a task of reasoning-gym: makes row i when it is read, and gives up where too many are."""

    made = 0

    def __getitem__(self, i: int) -> dict:
        Puzzles.made += 1
        assert Puzzles.made < 5_000, "the data is passed over"
        return {"question": f"puzzle {i}", "answer": "a", "metadata": {}}


def test_no_pass_is_made_over_an_endless_source(settings, monkeypatch):
    monkeypatch.setattr("viprl.data.gym._source", lambda *_: Puzzles())
    monkeypatch.setattr(Puzzles, "made", 0)
    endless = settings | {"dataset": "reasoning-gym:puzzles", "instruction": "none", "save_steps": 1}
    folder = train(parse_config(endless))
    logged = read_history(folder)
    assert len(logged) == 16 and all(t.prompt.startswith("puzzle ") for t in logged)
    assert "passes" not in dict(dry_run(parse_config(endless)))["steps"]


def test_an_endless_source_trains_and_resumes(settings, tmp_path):
    pytest.importorskip("reasoning_gym", reason='needs pip install "viprl[gym]"')
    change = {"dataset": {"reasoning-gym": "chain_sum", "levels": [0, 2]}, "reward": "viprl.data.gym:solved"}
    endless = settings | change
    whole = train(parse_config(endless))
    parts = endless | {"output_dir": str(tmp_path / "parts")}
    train(parse_config(parts | {"max_steps": 2}))
    second = train(parse_config(parts))
    ids = [[row["ids"] for row in log_rows(folder / "outcomes.jsonl")] for folder in (whole, second)]
    assert len(ids[0]) == 4 and ids[0] == ids[1]
    assert json.loads((second / "finished.json").read_text()) == {"step": 4}
    with pytest.raises(ConfigError, match="endless, so the run has no end; set max_steps"):
        dry_run(parse_config(without(endless, "max_steps") | {"output_dir": str(tmp_path / "new")}))
    with pytest.raises(ConfigError, match="set it false"):
        dry_run(parse_config(endless | {"output_dir": str(tmp_path / "new"), "vip_register_pool": True}))
