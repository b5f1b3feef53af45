"""`viprl train`: what is wrong is said before anything is loaded; what is right runs, resumes and reports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

pytest.importorskip("trl", reason='needs pip install "viprl[trl]"')

import tiny
from viprl.lab.runlog import read_jsonl
from viprl.train.config import ConfigError, load_config, parse_config
from viprl.train.rewards import exact_match
from viprl.train.run import last_checkpoint, prepare, train


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
    rows = list(read_jsonl(folder / "metrics.jsonl"))
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert rows[-1]["rollouts"] == 64 and rows[-1]["strategy"] == "random"
    assert {"reward", "vip/counts/max", "vip/variance_ratio/realised"} <= set(rows[0])
    outcomes = list(read_jsonl(folder / "outcomes.jsonl"))
    assert all(sum(row["counts"]) == 16 == sum(row["scorable"]) for row in outcomes)
    assert (folder / "final" / "model.safetensors").exists()


def test_the_same_command_resumes(settings, tmp_path):
    whole = train(parse_config(settings))
    parts = settings | {"output_dir": str(tmp_path / "parts")}
    train(parse_config(parts | {"max_steps": 2}))
    folder = train(parse_config(parts))
    assert [row["step"] for row in read_jsonl(folder / "outcomes.jsonl")] == [1, 2, 3, 4]
    first, second = (list(read_jsonl(path / "outcomes.jsonl")) for path in (whole, folder))
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
    train(load_config(file))
    assert [row["step"] for row in read_jsonl(metrics)] == list(range(1, 61))


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
        ({"reward": "exactmatch"}, "expected exact_match or 'module:function'"),
        ({"reward": "nowhere:reward"}, "cannot be imported"),
        ({"model": None}, "`model` is missing"),
    ],
)
def test_mistakes_in_the_file(settings, change, message):
    with pytest.raises(ConfigError, match=message):
        parse_config({k: v for k, v in (settings | change).items() if v is not None})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vip_low": 7}, r"cannot be met: Q=4 .*L=7.*C=16"),
        ({"vip_high": 3}, "raise high"),
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
    _, dataset, _ = prepare(parse_config(settings | change))
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
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)


def test_a_finished_run_is_not_trained_further(settings):
    folder = train(parse_config(settings))
    before = (folder / "metrics.jsonl").read_text()
    train(parse_config(settings))
    assert (folder / "metrics.jsonl").read_text() == before and not (folder / "checkpoint-5").exists()


def test_numbers_that_yaml_reads_as_text(settings):
    args, _, _ = prepare(parse_config(settings | {"learning_rate": "1e-6", "max_steps": "3"}))
    assert args.learning_rate == 1e-6 and args.max_steps == 3
    with pytest.raises(ConfigError, match="learning_rate is 'fast'; expected a number"):
        prepare(parse_config(settings | {"learning_rate": "fast"}))


def test_a_failed_start_does_not_claim_the_folder(settings, tmp_path):
    with pytest.raises(ConfigError, match="neither a model folder"):
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
