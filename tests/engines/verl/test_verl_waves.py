"""Two waves in a step: verl's own replay buffer and submission with a dictionary as queue, agent loops as a stub."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from agent_loops import POOL, AgentLoops, chance
from test_verl_config import MODE, config
from test_verl_trainer import with_workers
from trainer_steps import Queue, batches, build, installed, prompt_row
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1 import replay_buffer

from viprl.allocation.waves.estimator import wave_advantages
from viprl.engines.verl.consistency import check_waves, contradictions
from viprl.engines.verl.rollouts import PlannedStep, prompt_order
from viprl.engines.verl.sync_trainer import VIPTrainerSync
from viprl.engines.verl.wave_buffer import SECONDS, WaveBuffer
from viprl.errors import InputError
from viprl.settings import EngineSettings

Q, N = 16, 8
SIZES = (f"data.train_batch_size={Q}", f"actor_rollout_ref.rollout.n={N}", "critic.enable=False")


@pytest.fixture
def queue(monkeypatch):
    monkeypatch.setattr(replay_buffer.time, "sleep", lambda _: pytest.fail("verl waits for rollouts that never come"))
    return installed(monkeypatch)


def looking(queue: Queue, *options: str, waves: int = 2, pool: bool = True, score=lambda won: won) -> VIPTrainerSync:
    """A trainer whose VIP has seen half of a pool in which most prompts are hopeless, so that first looks pay at the
    others; without `pool` all that it has seen are alike."""
    trainer = build(*SIZES, *(f"+trainer.v1.vip_sync.{option}" for option in (*options, f"waves={waves}")))
    rng = np.random.default_rng(1)
    for start in range(0, 192, 32):
        numbers = range(start, start + 32)
        p = [chance(i) if pool else 0.5 for i in numbers]
        trainer.vip.observe_counts([prompt_row(i)["raw_prompt"] for i in numbers], rng.binomial(8, p), [8] * 32)
    trainer.actor_rollout_wg = SimpleNamespace()
    return running(trainer, queue, score=score)


def running(trainer: VIPTrainerSync, queue: Queue, seed: int = 0, score=lambda won: won) -> VIPTrainerSync:
    """A trainer with data, agent loops, and stubs of the workers."""

    def compute_old_log_prob(batch, metrics):
        for key, tag in zip(batch.keys, batch.tags, strict=True):
            assert tag["response_len"] == len(queue.rows[key]["rm_scores"]), "tags are those of the rows"
            queue.rows[key]["old_log_probs"] = -0.5 * torch.ones_like(queue.rows[key]["rm_scores"])
        return batch

    trainer.train_dataloader_it = batches(seed, Q, POOL)
    trainer.agent_loop_manager = AgentLoops(queue, trainer.config, seed, score)
    trainer.reward_loop_manager = SimpleNamespace(reward_loop_worker_handles=[])
    trainer.checkpoint_manager = SimpleNamespace(sleep_replicas=lambda: trainer.slept.append(len(queue.rows)))
    trainer.actor_rollout_wg._dispatch_info = {"actor": [0, 1]}
    trainer.tokenizer = SimpleNamespace(eos_token_id=0)
    trainer.curr_step_profile, trainer.use_reference_policy, trainer.slept = False, False, []
    trainer._compute_old_log_prob = compute_old_log_prob
    trainer._update_actor = lambda batch, metrics: batch
    return trainer


def step(trainer: VIPTrainerSync, queue: Queue):
    """verl's own step. Returns the rows that the actor gets, metrics and timers."""
    queue.kv_clear([*queue.rows, *queue.tags], "train")
    trainer.agent_loop_manager.calls.clear()
    metrics, timers = {}, {}
    rows = trainer.step(metrics, timers)
    assert not any(tag.get("is_prompt") for tag in queue.tags.values()), "prompts are taken from the queue"
    return rows, metrics, timers


def groups(queue: Queue, trainer: VIPTrainerSync) -> list[tuple[list[dict], list[dict]]]:
    """[Q] rows of the first and of the second wave."""
    return [
        tuple([row for key, row in queue.rows.items() if key.rsplit("_", 2)[0] == name] for name in (uid, f"{uid}#2"))
        for uid in trainer.vip_batch.uids
    ]


def check_advantages(queue: Queue, trainer: VIPTrainerSync, threshold: float = 0.5) -> int:
    """Against `wave_advantages` of the rows' own rewards, prompt by prompt. Returns how many prompts had a look."""
    plan, looks = trainer.vip_batch, 0
    assert plan.waves is not None
    waves = plan.waves.waves
    shares = waves.plan.shares(plan.counts)
    for q, (first, second) in enumerate(groups(queue, trainer)):
        rows = first + second
        r = np.array([float(row["rm_scores"].sum()) for row in rows])
        n, look = len(r), waves.labels[q]
        assert n == plan.counts[q]
        marked = int((r[: len(first)] > threshold).sum())
        assert look.size == len(first) and marked in look.marked, "the label is that of the first wave"
        looks += len(look.marked) < look.size + 1
        expected = wave_advantages(r, look, r > threshold, share=shares[q], mean=waves.mean[q])
        for row, value in zip(rows, expected * plan.weights[q] * N / n, strict=True):
            np.testing.assert_allclose(row["advantages"], value, atol=1e-5)
    return looks


@pytest.mark.parametrize("options", [(), ("baseline=expected", "candidates=2"), ("use_logprobs=False",)])
def test_a_step_in_two_waves(queue, options):
    trainer = looking(queue, *options)
    for trainer.global_steps in (1, 2):
        rows, metrics, timers = step(trainer, queue)
        (first, second), plan = trainer.agent_loop_manager.calls, trainer.vip_batch
        assert len(rows) == len(set(rows.keys)) == Q * N, "exactly the budget, no row lost or twice"
        assert set(rows.keys) == set(queue.rows) == set(queue.tags)
        for key, tag in zip(rows.keys, rows.tags, strict=True):
            assert (tag["global_steps"], tag["status"]) == (trainer.global_steps, "success")
            assert tag["response_len"] == len(queue.rows[key]["rm_scores"])
        assert list(first) == list(plan.uids) and {uid.removesuffix("#2") for uid in second} <= set(first)
        assert [n + second.get(f"{uid}#2", 0) for uid, n in first.items()] == plan.counts.tolist()
        assert 0 < sum(second.values()) < Q * N and min(second.values()) > 0
        numbers = trainer.agent_loop_manager.numbers
        assert all(numbers[uid] == numbers[uid.removesuffix("#2")] for uid in second), "the same prompts again"
        assert check_advantages(queue, trainer) > 0
        assert trainer.slept[-1] == Q * N, "rollout servers sleep after both waves"
        assert 0 < metrics[SECONDS] <= timers["gen"]
        assert metrics["vip/rollouts"] == Q * N
        zero = np.mean([not row["advantages"].any() for row in queue.rows.values()])
        assert metrics["vip/zero_advantage_rollouts"] == pytest.approx(zero)
        assert trainer._vip_step is None and trainer._vip_sent is None and len(trainer.vip._pending) == 0
        assert (np.ptp(plan.weights) > 0) == ("candidates=2" in options)


@pytest.mark.parametrize("options", [("spend=match", "variance_target=1.2"), ("cost=tokens",)])
def test_two_waves_that_spend_less(queue, options):
    """Masked rows take the place of the rollouts that are saved."""
    trainer, spent = looking(queue, *options), []
    for trainer.global_steps in range(1, 4):
        rows, metrics, _ = step(trainer, queue)
        calls, plan = trainer.agent_loop_manager.calls, trainer.vip_batch
        assert sum(sum(call.values()) for call in calls) == plan.counts.sum() == metrics["vip/rollouts"] <= Q * N
        assert len(rows) == Q * N and metrics["vip/padding_rows"] == Q * N - plan.counts.sum()
        if len(calls) == 2:
            spent.append(plan.counts.sum())
            assert check_advantages(queue, trainer) > 0
    assert spent and (min(spent) < Q * N or "cost=tokens" in options)  # all rollouts cost about the same here


@pytest.mark.parametrize("low, high", [(-1.0, 1.0), (0.25, 1.5)])
def test_rewards_of_another_scale(queue, low, high):
    trainer = looking(queue, score=lambda won: high if won else low)
    trainer.vip.observe(["one more"], [[low, high]])
    step(trainer, queue)
    assert check_advantages(queue, trainer, (low + high) / 2) > 0


def test_an_unscorable_rollout_of_a_first_wave(queue):
    scores = iter([float("inf"), float("nan")])
    trainer = looking(queue, score=lambda won: next(scores, won))
    rows, metrics, _ = step(trainer, queue)
    assert len(trainer.agent_loop_manager.calls) == 2 and len(rows) == Q * N
    assert metrics["vip/unscorable"] == pytest.approx(2 / (Q * N))
    bad = [row for row in queue.rows.values() if not torch.isfinite(row["rm_scores"]).all()]
    assert len(bad) == 2 and not any(row["advantages"].any() for row in bad)
    assert all(torch.isfinite(row["advantages"]).all() for row in queue.rows.values())


def test_padding_rows_have_no_advantage(queue):
    """A mini-batch of 96 rows: verl adds 64 masked rows to the 128 of both waves."""
    trainer = looking(queue)
    trainer.config.actor_rollout_ref.actor.ppo_mini_batch_size = 12
    rows, metrics, _ = step(trainer, queue)
    padding = [key for key, tag in zip(rows.keys, rows.tags, strict=True) if tag.get("is_padding")]
    assert len(rows) == 192 and len(padding) == metrics["vip/padding_rows"] == 64 and metrics["vip/rollouts"] == Q * N
    assert not any(queue.rows[key]["advantages"].any() for key in padding)
    assert check_advantages(queue, trainer) > 0


def by_prompt(trainer: VIPTrainerSync, queue: Queue) -> list[list[float]]:
    """[Q][n] advantages; uids are drawn anew in each run."""
    return [[float(row["advantages"][0]) for row in first + second] for first, second in groups(queue, trainer)]


def test_one_wave_where_the_plan_has_none_is_as_with_the_option_off(queue):
    """All prompts are alike in what VIP has seen."""
    found = []
    for waves in (1, 2):
        trainer = looking(queue, waves=waves, pool=False)
        for trainer.global_steps in (1, 2):
            _, metrics, _ = step(trainer, queue)
            assert len(trainer.agent_loop_manager.calls) == 1 and trainer.vip_batch.waves is None
            seconds = metrics.pop(SECONDS, None), metrics.pop("vip/overhead_seconds")
            assert seconds[0] == (None if waves == 1 else 0)
            metrics = {name: value for name, value in metrics.items() if not name.startswith("vip/waves/")}
            found.append((trainer.vip_batch.counts.tolist(), by_prompt(trainer, queue), metrics))
    assert found[:2] == found[2:]


def test_a_resumed_run_continues(queue, tmp_path):
    trainer = looking(queue)
    step(trainer, queue)
    with_workers(trainer, tmp_path)._save_checkpoint()
    later = []
    for one in (trainer, with_workers(build(*SIZES, "+trainer.v1.vip_sync.waves=2"), tmp_path)):
        if one is not trainer:
            one.config.trainer.resume_mode = "auto"
            one._load_checkpoint()
        running(one, queue, seed=7)
        step(one, queue)
        later.append((one.vip_batch.counts.tolist(), by_prompt(one, queue), len(one.agent_loop_manager.calls)))
    assert later[0] == later[1] and later[0][2] == 2


@pytest.mark.parametrize("wave, failures, error", [(0, 2, "planned .* received"), (1, 1, f"of {Q * N} rollouts")])
def test_failed_rollouts_end_the_run(queue, wave, failures, error):
    trainer = looking(queue)
    trainer.agent_loop_manager.fail = {wave: failures}
    with pytest.raises(RuntimeError, match=error) as raised:
        step(trainer, queue)
    assert any("step 1" in note for note in raised.value.__notes__)
    assert len(trainer.agent_loop_manager.calls) == wave + 1
    assert trainer.vip.metrics() == {}, "nothing was learned"


def test_a_second_wave_without_any_rollout_ends_the_run(queue):
    trainer = looking(queue)
    trainer.agent_loop_manager.fail = {1: Q * N}
    with pytest.raises(RuntimeError) as raised:
        step(trainer, queue)
    assert any("second wave" in note for note in raised.value.__notes__)


def test_validation_is_sampled_once():
    rows = KVBatchMeta(partition_id="val", keys=["a_0_0"], tags=[{}])
    buffer = SimpleNamespace(sample=lambda global_steps, partition_id, batch_size: (rows, {"x": 1.0}))
    assert WaveBuffer(buffer, lambda _: pytest.fail("no second wave")).sample(1, "val", 1) == (rows, {"x": 1.0})


def test_the_buffer_that_the_configuration_names_is_kept(queue):
    buffers = [build(f"+trainer.v1.vip_sync.waves={waves}").replay_buffer for waves in (1, 2)]
    assert type(buffers[0]) is type(buffers[1].buffer) is replay_buffer.ReplayBuffer


def test_rows_of_both_waves_in_the_order_of_the_prompts():
    plan = PlannedStep(["a", "b"], np.array([3, 2]), np.ones(2), ("u", "v"))
    keys = ["v_0_0", "u#2_0_0", "u_0_0", "v_1_0", "u_1_0"]
    assert prompt_order(keys, plan) == [1, 2, 4, 0, 3]
    found = plan.of_rows(np.array([1.0, 9.0, 0.0, 0.0, 1.0, 0.0]), ["v", "pad", "u", "v", "u", "u"])
    np.testing.assert_allclose(found, [1, 0, -0.5, -1, 1, -0.5])
    for wrong in (["u#2_0_0", "u#2_0_1"], ["w#2_0_0"]):
        with pytest.raises(RuntimeError):
            prompt_order(wrong, plan)


@pytest.mark.parametrize(
    "overrides, named",
    [
        (["algorithm.use_kl_in_reward=True"], r"waves=2.*use_kl_in_reward=False"),
        (["reward.reward_model.enable=True"], r"waves=2.*enable_resource_pool=True"),
        (["+trainer.v1.vip_sync.prompt_weighting=rollout"], r"vip_sync\.waves=2.*prompt_weighting"),
        (["algorithm.adv_estimator=vip_dr_grpo"], r"vip_sync\.waves=2.*algorithm\.adv_estimator=vip_rloo"),
        (["++trainer.v1.vip_sync.waves=3"], r"vip_sync\.waves is 3"),
    ],
)
def test_what_does_not_go_with_two_waves(overrides, named):
    with pytest.raises(InputError, match=named):
        build("+trainer.v1.vip_sync.waves=2", *overrides)


def test_what_goes_with_them():
    own_gpus = ["reward.reward_model.enable=True", "reward.reward_model.enable_resource_pool=True"]
    check_waves(config(*own_gpus), EngineSettings(waves=2))
    shared = config("algorithm.use_kl_in_reward=True", own_gpus[0])
    check_waves(shared, EngineSettings(waves=1, prompt_weighting="rollout"))


@pytest.mark.parametrize(
    "other", ["algorithm.adv_estimator=vip_dr_grpo", "+trainer.v1.vip_sync.prompt_weighting=rollout"]
)
def test_a_command_line_that_contradicts_two_waves(other):
    two = "+trainer.v1.vip_sync.waves=2"
    (line,) = contradictions([MODE[0], other, two])
    assert "waves=2" in line
    assert not contradictions([MODE[0], other])


def test_the_start_line_names_them(queue, tmp_path, caplog):
    caplog.set_level("INFO", logger="viprl")
    for waves in (1, 2):
        caplog.clear()
        with_workers(build(f"+trainer.v1.vip_sync.waves={waves}"), tmp_path)._load_checkpoint()
        assert ("two waves" in caplog.text) == (waves == 2)
