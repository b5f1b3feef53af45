"""`viprl train`: what a run writes, how it resumes, and what it refuses."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import yaml

from child_processes import killed_after
from refused import refused
from viprl.data.loading import DataSource, load
from viprl.errors import ConfigError, StateError, ViprlError
from viprl.runs.engine_logs import read_history
from viprl.runs.files import FINISHED_FILE, HISTORY_FILE, METRICS_FILE, OUTCOMES_FILE, PROMPTS_FILE
from viprl.train.config import load_config, parse_config
from viprl.train.training import train
from viprl.utils.json_lines import log_rows


def test_a_run_writes_metrics_outcomes_history_and_a_model(finished_once):
    settings, folder = finished_once
    rows = list(log_rows(folder / METRICS_FILE))
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert rows[-1]["rollouts"] == 64 and rows[-1]["strategy"] == "random"
    assert {"reward", "vip/counts/max", "vip/variance_ratio/realised"} <= set(rows[0])
    outcomes = list(log_rows(folder / OUTCOMES_FILE))
    assert all(sum(row["counts"]) == 16 == sum(row["scorable"]) for row in outcomes)
    logged = {history.prompt: history for history in read_history(folder)}
    assert sum(len(history.rollouts) for history in logged.values()) == sum(len(row["ids"]) for row in outcomes)
    assert sum(history.rollouts.sum() for history in logged.values()) == sum(sum(row["scorable"]) for row in outcomes)
    assert set(logged) <= set(load(DataSource(settings["dataset"])).dataset["prompt"])
    assert (folder / "final" / "model.safetensors").exists()
    assert json.loads((folder / FINISHED_FILE).read_text()) == {"step": 4}


def test_a_run_logs_the_prompts_that_were_chosen(settings):
    """Half of the prompts that a batch is offered; an epoch has 4 steps."""
    options = {"vip_candidates": 2, "vip_baseline": "expected", "vip_strategy": "default", "max_steps": 5}
    folder = train(parse_config(settings | options))
    outcomes = list(log_rows(folder / OUTCOMES_FILE))
    assert [len(row["ids"]) for row in outcomes] == [4] * 5
    assert all(sum(row["counts"]) == 16 == sum(row["scorable"]) for row in outcomes)
    first_epoch = [key for row in outcomes[:4] for key in row["ids"]]
    assert len(set(first_epoch)) == 16 and len(load(DataSource(settings["dataset"])).dataset) == 32
    rows = list(log_rows(folder / METRICS_FILE))
    assert [row["epoch"] for row in rows] == [0.25, 0.5, 0.75, 1.0, 1.25]
    assert {"vip/selection/squared_weights", "vip/selection/neglected", "vip/shrinkage"} <= set(rows[1])
    assert sum(len(history.rollouts) for history in read_history(folder)) == 20


def test_a_run_with_format_credit_logs_rewards(settings, tmp_path):
    """What `viprl replay`, `viprl report` and a warm start read."""
    pytest.importorskip("matplotlib")
    from viprl import VIP
    from viprl.analysis.protocol import Protocol
    from viprl.analysis.replay import replay
    from viprl.report.run_report import write_report
    from viprl.runs.engine_logs import read_log
    from viprl.runs.history import read_history_file

    folder = train(parse_config(settings | {"reward": "sample_rewards:credit", "max_steps": 18, "save_steps": 18}))
    rows = list(log_rows(folder / OUTCOMES_FILE))
    assert all([len(group) for group in row["rewards"]] == row["scorable"] for row in rows)
    assert {reward for row in rows for group in row["rewards"] for reward in group} == {0.0, 0.1, 1.0}
    assert all(row["successes"] == [None] * 4 for row in rows)
    log = read_log(folder)
    stored = read_history_file(folder / HISTORY_FILE)
    assert [h.rewards[0].tolist() for h in log.histories] == [h.rewards[0].tolist() for h in stored]
    results = replay(log.histories, ["oracle", "default"], Protocol.of(log, seeds=1), features="none")
    assert results["oracle"][-1].scores["capture"].mean == pytest.approx(1)
    assert "mean reward" in write_report([folder], tmp_path / "report.html").read_text()
    warm = VIP.from_log(folder, features="none", cache=None)
    assert len({*warm.propose([h.prompt for h in log.histories[:8]], 64)["default"].counts.tolist()}) > 1


def test_a_resumed_run_continues_as_if_it_had_not_stopped(finished_once, settings):
    """Stopped after the checkpoint of step 2, with lines in the logs that belong to a later step or are cut short."""
    folder = train(parse_config(settings | {"max_steps": 2}))
    before = list(log_rows(folder / METRICS_FILE))
    (folder / HISTORY_FILE).unlink()
    with (folder / PROMPTS_FILE).open("a") as file:
        file.write('{"step": 3, "id": "sha:later", "prompt": "later"}\n{"step": 3, "id": "sha:to')
    train(parse_config(settings))
    assert list(log_rows(folder / METRICS_FILE))[:2] == before and "step_time" in before[0]  # kept, not computed again
    whole, resumed = (list(log_rows(place / OUTCOMES_FILE)) for place in (finished_once[1], folder))
    assert len(resumed) == 4
    assert [(row["ids"], row["counts"]) for row in whole] == [(row["ids"], row["counts"]) for row in resumed]
    visited = [key for row in resumed for key in row["ids"]]
    assert [row["id"] for row in log_rows(folder / PROMPTS_FILE)] == list(dict.fromkeys(visited))
    assert {history.prompt for history in read_history(folder)} == {
        row["prompt"] for row in log_rows(folder / PROMPTS_FILE)
    }


def test_a_killed_run_continues(settings, tmp_path):
    """SIGKILL at any moment; the same command finishes the run."""
    settings |= {"max_steps": 40, "save_steps": 5}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "viprl", "train", "--config", str(file)]
    metrics = tmp_path / "run" / METRICS_FILE
    killed_after(command, metrics, lines=12)
    before = [json.loads(line) for line in metrics.read_text().splitlines()[:5]]
    train(load_config(file))
    after = list(log_rows(metrics))
    assert [row["step"] for row in after] == list(range(1, 41)) and after[:5] == before


@pytest.mark.parametrize("change", [{}, {"logging_steps": 2}])
def test_a_finished_run_is_not_trained_again(finished, change):
    settings, folder = finished
    shutil.rmtree(folder / "checkpoint-2")
    shutil.rmtree(folder / "checkpoint-4")
    before = (folder / METRICS_FILE).read_text()
    train(parse_config(settings | change))
    assert (folder / METRICS_FILE).read_text() == before and not list(folder.glob("checkpoint-*"))


@pytest.mark.parametrize("length", [{"max_steps": 4}, {"max_steps": -1, "num_train_epochs": 0.5}])
def test_a_run_that_was_killed_after_its_last_step_is_completed(finished, length):
    settings, folder = finished
    weights, metrics = (folder / "final" / "model.safetensors").read_bytes(), (folder / METRICS_FILE).read_text()
    histories = {history.id: history.successes.tolist() for history in read_history(folder)}
    names = {path.name for path in (folder / "final").iterdir()}
    shutil.rmtree(folder / "final")
    (folder / FINISHED_FILE).unlink()
    (folder / HISTORY_FILE).unlink()
    if "num_train_epochs" in length:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config |= length
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    train(parse_config(settings | length))
    assert json.loads((folder / FINISHED_FILE).read_text()) == {"step": 4}
    assert (folder / "final" / "model.safetensors").read_bytes() == weights
    assert {path.name for path in (folder / "final").iterdir()} == names
    assert (folder / METRICS_FILE).read_text() == metrics and not (folder / "checkpoint-5").exists()
    assert {history.id: history.successes.tolist() for history in read_history(folder)} == histories


@pytest.mark.parametrize("change", [{"learning_rate": 1.0}, {"max_steps": 2}, {"vip_strategy": "uniform"}])
def test_the_folder_of_another_run_is_left_alone(finished, change):
    settings, folder = finished
    before = (folder / METRICS_FILE).read_text()
    for _ in range(2):
        with refused(ConfigError, f"{next(iter(change))} ", " -> ", folder):
            train(parse_config(settings | change))
    assert json.loads((folder / FINISHED_FILE).read_text()) == {"step": 4}
    assert (folder / METRICS_FILE).read_text() == before


def test_a_failed_start_does_not_claim_the_folder(settings, tmp_path):
    with pytest.raises(ViprlError, match="nowhere"):
        train(parse_config(settings | {"model": str(tmp_path / "nowhere")}))
    assert not (tmp_path / "run").exists()


def test_a_damaged_state_names_the_checkpoint(finished):
    settings, folder = finished
    state = folder / "checkpoint-4" / "vip_state.safetensors"
    state.write_bytes(state.read_bytes()[:-9])
    with pytest.raises(StateError, match="checkpoint-4"):
        train(parse_config(settings | {"max_steps": 6}))


def test_a_checkpoint_without_the_state_of_the_optimizer(finished):
    settings, folder = finished
    for name in ("checkpoint-2", "checkpoint-4"):
        (folder / name / "optimizer.pt").unlink()
    with refused(StateError, "checkpoint-4", "save_only_model"):
        train(parse_config(settings | {"max_steps": 6, "save_only_model": True}))


def test_an_endless_data_set_is_never_read_to_the_end(endless):
    logged = read_history(train(parse_config(endless)))
    assert len(logged) == 16 and all(history.prompt.startswith("puzzle ") for history in logged)


def test_an_endless_run_resumes_with_the_same_prompts(settings, tmp_path):
    pytest.importorskip("reasoning_gym", reason='needs pip install "viprl[gym]"')
    change = {"dataset": {"reasoning-gym": "chain_sum", "levels": [0, 2]}, "reward": "viprl.data.gym:solved"}
    whole = train(parse_config(settings | change))
    parts = settings | change | {"output_dir": str(tmp_path / "parts")}
    train(parse_config(parts | {"max_steps": 2}))
    second = train(parse_config(parts))
    ids = [[row["ids"] for row in log_rows(folder / OUTCOMES_FILE)] for folder in (whole, second)]
    assert len(ids[0]) == 4 and ids[0] == ids[1]
