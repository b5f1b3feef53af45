"""Trainings with tinker-cookbook: counts, advantages, checkpoints, metrics."""

import asyncio
import json
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import tinker
from tinker_cookbook.rl import train
from tinker_cookbook.rl.data_processing import compute_advantages
from tinker_cookbook.rl.types import Trajectory, TrajectoryGroup, Transition
from tinker_runs import CHANCE, OPTIONS, N, Q, Service, config_in, run, soon, trained

from log_files import write_lines
from metric_names import unknown
from viprl import VIP
from viprl.advantages import group_advantages, rollout_weights
from viprl.engines.tinker import with_vip
from viprl.engines.tinker.planned_dataset import STATE_FOLDER
from viprl.errors import InputError
from viprl.metrics import COUNTS_MEAN, PREFIX, REWARD, STEP_TIME
from viprl.report.diagnosis import diagnose
from viprl.runs.logged_rows import TINKER_PREFIX
from viprl.runs.reader import load_run


def test_the_loop_has_the_planned_counts_and_trains_on_weighted_advantages(tmp_path):
    dataset, service, log = run(tmp_path, 6)
    by_hand = VIP(features="none", cache=None)
    for step, data in enumerate(service.steps):
        groups = trained(data)
        questions = [step % 2 * Q + q for q in range(Q)]
        counts = [len(groups[q][0]) for q in questions]
        planned = by_hand.allocate([str(q) for q in questions], Q * N).counts
        assert sum(counts) == Q * N and counts == planned.tolist()
        outcomes = [groups[q][0] for q in questions]
        flat = [outcome for group in outcomes for outcome in group]
        expected = group_advantages(flat, counts) * rollout_weights(counts) * (1 - 1 / N)
        np.testing.assert_allclose(np.concatenate([groups[q][1] for q in questions]), expected, atol=1e-6)
        logprobs = [[float(np.log(CHANCE[q] if right else 1 - CHANCE[q])) for right in groups[q][0]] for q in questions]
        by_hand.observe([str(q) for q in questions], outcomes, logprobs=logprobs)
        assert log.rows[step]["env/all/reward/total"] == pytest.approx(np.mean(flat), abs=1e-6)
        means = [np.mean(group) for group in outcomes]
        assert log.rows[step]["env/all/vip/rollout_reward"] == pytest.approx(np.mean(flat))
        assert log.rows[step]["env/all/vip/reward"] == pytest.approx(np.mean(means))
        assert log.rows[step]["env/all/vip/success_rate"] == pytest.approx(np.mean(means))
        assert log.rows[step]["env/all/vip/counts/max"] == max(counts)
    assert len(set(counts)) > 1
    assert dataset.step == 6


def test_equal_groups_train_on_the_advantages_of_stock_tinker_cookbook(tmp_path):
    _, service, _ = run(tmp_path, 1, strategy="uniform")
    for outcomes, advantages in trained(service.steps[0]).values():
        step = Transition(tinker.ModelInput.empty(), None, 0.0, True)
        stock = TrajectoryGroup(
            [Trajectory([step], tinker.ModelInput.empty()) for _ in outcomes], [float(o) for o in outcomes], []
        )
        assert len(outcomes) == N
        np.testing.assert_allclose(advantages, compute_advantages([stock])[0], atol=1e-6)


def test_a_resumed_run_continues_from_its_checkpoint(tmp_path):
    through, _, _ = run(tmp_path / "a", 4)
    rng = Service()
    run(tmp_path / "b", 3, service=rng)  # the last checkpoint is that of step 2; step 3 is lost
    resumed, _, _ = run(tmp_path / "b", 2, service=rng)
    assert resumed.step == 2
    known = VIP(features="none", cache=None)
    known.load(tmp_path / "a" / STATE_FOLDER / "000002.safetensors")
    prompts = [str(q) for q in range(2 * Q)]
    assert (resumed.vip.predict(prompts) == known.predict(prompts)).all()
    assert resumed.vip.predict(prompts)[3] != through.vip.predict(prompts)[3]
    with pytest.raises(InputError, match="batch 1"):
        resumed.get_batch(1)
    assert len(resumed.get_batch(0)) == Q


def test_states_are_kept_for_checkpoints_and_the_last_two_steps(tmp_path):
    run(tmp_path, 8, save_every=3)
    assert sorted(int(path.stem) for path in (tmp_path / STATE_FOLDER).iterdir()) == [3, 6, 7, 8]


def test_a_checkpoint_without_state_starts_without_history(tmp_path, caplog):
    (tmp_path / "checkpoints.jsonl").write_text(
        json.dumps({"name": "000003", "batch": 3, "state_path": "fake://state/000003"}) + "\n"
    )
    dataset, _, _ = run(tmp_path, 4)
    assert dataset.step == 4 and "000003.safetensors" in caplog.text


def test_main_runs_writes_its_metrics_and_resumes(tmp_path, monkeypatch):
    service = Service()
    service.create_lora_training_client = lambda *_, **__: soon(service)
    service.create_training_client_from_state_with_optimizer = lambda *_, **__: soon(service)
    monkeypatch.setattr(train.tinker, "ServiceClient", lambda **_: nullcontext(service))
    monkeypatch.setattr(train, "get_tokenizer", lambda name: SimpleNamespace(decode=str))
    monkeypatch.setattr(train.checkpoint_utils, "check_renderer_name_for_checkpoint_async", lambda *_: soon(None))
    for steps in (3, 5):  # the second run continues from the final checkpoint of the first
        settings = {"num_epochs": 9, "max_steps": steps, "num_groups_to_log": 1, "remove_constant_reward_groups": True}
        asyncio.run(train.main(with_vip(config_in(tmp_path, **settings), **OPTIONS)))
    assert len(service.steps) == 5
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {row["step"] for row in rows if "env/all/vip/rollout_reward" in row} == set(range(5))
    assert (tmp_path / STATE_FOLDER / "000005.safetensors").exists()


def test_its_log_has_the_names_of_the_metrics(tmp_path):
    """What `viprl doctor`, `watch` and `report` read."""
    _, _, log = run(tmp_path / "run", 4, shadow=["random"])
    assert unknown({name for row in log.rows for name in row}, TINKER_PREFIX + PREFIX) == set()
    write_lines(tmp_path / "metrics.jsonl", [{"step": step} | row for step, row in enumerate(log.rows)])
    found = load_run(tmp_path)
    assert [row["step"] for row in found.rows if PREFIX + COUNTS_MEAN in row] == [0, 1, 2, 3]
    assert all(REWARD in row and STEP_TIME in row for row in found.rows)
    assert "log" not in {one.name for one in diagnose(found, *found.strategies)}
