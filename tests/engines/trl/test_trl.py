"""The TRL trainers: ragged groups are right, stock behaviour is kept where nothing is adaptive, runs resume."""

from __future__ import annotations

import inspect
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("trl", reason='needs pip install "viprl[trl]"')

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

import tiny
from viprl import VIP
from viprl.engines.trl.trainers import STATE_FILE
from viprl.engines.trl import VIPGRPOConfig, VIPGRPOTrainer, VIPRLOOConfig, VIPRLOOTrainer

KINDS = {"rloo": (VIPRLOOTrainer, VIPRLOOConfig), "grpo": (VIPGRPOTrainer, VIPGRPOConfig)}
STOCK = {"rloo": (RLOOTrainer, RLOOConfig), "grpo": (GRPOTrainer, GRPOConfig)}
C, N = 16, 4


def options(folder: Path, **more):
    base = {
        "output_dir": str(folder), "per_device_train_batch_size": C, "num_generations": N, "max_completion_length": 4,
        "max_steps": 3, "logging_steps": 1, "report_to": [], "use_cpu": True, "beta": 0.0, "learning_rate": 1e-2,
        "save_strategy": "no", "disable_tqdm": True, "bf16": False, "gradient_checkpointing": False, "seed": 3,
    }  # fmt: skip
    return base | more


def build(kind: str, folder: Path, *, reward=tiny.contains, data=None, trainer=None, vip=None, extra=None, **more):
    base, config = KINDS[kind]
    settings = {"vip_features": "none", "vip_strategy": "random"} | options(folder, **more)
    return (trainer or base)(
        tiny.model(), reward, config(**settings), train_dataset=data or tiny.dataset(),
        processing_class=tiny.tokenizer(), vip=vip, **(extra or {}),
    )  # fmt: skip


def watched(trainer):
    """The batches that the trainer reports, and the rows that its loss saw."""
    batches, losses = [], []
    trainer.vip_listeners.append(batches.append)
    inner = trainer.compute_loss

    def compute_loss(model, inputs, *args, **kwargs):
        losses.append({k: inputs[k].clone() for k in ("completion_ids", "advantages")})
        return inner(model, inputs, *args, **kwargs)

    trainer.compute_loss = compute_loss
    return batches, losses


def independent_advantages(rewards: list[list[float]], leave_one_out: bool, prompt_equal: bool) -> list[float]:
    """Plain Python, no library code."""
    total = sum(map(len, rewards))
    flat = []
    for group in rewards:
        scorable = [r for r in group if not math.isnan(r)]
        for r in group:
            if math.isnan(r) or len(scorable) < 2:
                flat.append(0.0)
                continue
            others = (sum(scorable) - r) / (len(scorable) - 1)
            advantage = r - (others if leave_one_out else sum(scorable) / len(scorable))
            flat.append(advantage * ((total / len(rewards)) / len(group) if prompt_equal else 1.0))
    return flat


def weights(trainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}


def distance(a, b) -> float:
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weighting", ["prompt", "rollout"])
def test_ragged_advantages_reach_the_loss(kind, weighting, tmp_path):
    trainer = build(kind, tmp_path, vip_prompt_weighting=weighting, max_steps=4)
    batches, losses = watched(trainer)
    trainer.train()
    assert len(batches) == 4
    assert len({tuple(batch.counts) for batch in batches}) > 1
    for batch, loss in zip(batches, losses, strict=True):
        assert sum(batch.counts) == C and len(batch.counts) == C // N
        assert min(batch.counts) >= 2 and max(batch.counts) > N
        assert [len(group) for group in batch.rewards] == batch.counts
        scale = 1.0 if kind == "rloo" else 1 - 1 / N
        expected = [a * scale for a in independent_advantages(batch.rewards, True, weighting == "prompt")]
        assert sorted(loss["advantages"].tolist()) == pytest.approx(sorted(expected), abs=1e-6)
        fixed = np.array([r for group in batch.rewards for r in group]).reshape(-1, N)
        if len(set(batch.counts)) > 1 and np.ptp(fixed) > 0:
            mutant = (fixed - (fixed.sum(1, keepdims=True) - fixed) / (N - 1)).ravel() * scale
            assert sorted(loss["advantages"].tolist()) != pytest.approx(sorted(mutant), abs=1e-6)


def test_published_dr_grpo_uses_the_group_mean_and_groups_of_three(tmp_path):
    trainer = build("grpo", tmp_path, vip_estimator="dr_grpo", vip_prompt_weighting="rollout")
    batches, losses = watched(trainer)
    trainer.train()
    for batch, loss in zip(batches, losses, strict=True):
        assert min(batch.counts) >= 3
        expected = independent_advantages(batch.rewards, False, False)
        assert sorted(loss["advantages"].tolist()) == pytest.approx(sorted(expected), abs=1e-6)
    with pytest.raises(ValueError, match="at least 3"):
        VIPGRPOConfig(**options(tmp_path), vip_estimator="dr_grpo", vip_min_rollouts=2)


def test_completions_belong_to_their_prompts(tmp_path):
    """Rows, prompts, completions and rewards stay together under ragged counts."""
    seen = []

    def spy(prompts, completions, solution, **_):
        seen.append((list(prompts), list(solution)))
        return [1.0] * len(prompts)

    trainer = build("rloo", tmp_path, reward=spy)
    batches, _ = watched(trainer)
    trainer.train()
    for (prompts, solutions), batch in zip(seen, batches, strict=True):
        assert prompts == [p for p, n in zip(batch.prompts, batch.counts, strict=True) for _ in range(n)]
        assert solutions == [p.split()[0] for p in prompts]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("accumulation", "per_generation"), [(1, 1), (4, 4), (2, 4), (4, 2)])
@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_each_rollout_is_used_num_iterations_times(kind, accumulation, per_generation, iterations, tmp_path):
    generations, share = 2, 8
    steps = max(1, generations * per_generation * iterations // accumulation)
    trainer = build(
        kind, tmp_path, per_device_train_batch_size=share, gradient_accumulation_steps=accumulation,
        steps_per_generation=per_generation, num_iterations=iterations, max_steps=steps,
    )  # fmt: skip
    batches, losses = watched(trainer)
    trainer.train()
    budget = share * per_generation
    assert all(sum(batch.counts) == budget for batch in batches)
    used = sorted(a for loss in losses for a in loss["advantages"].tolist())
    whole = [
        a for batch in batches for a in independent_advantages(batch.rewards, True, True) for _ in range(iterations)
    ]
    scale = 1.0 if kind == "rloo" else 1 - 1 / N
    assert used == pytest.approx(sorted(a * scale for a in whole), abs=1e-6)


@pytest.mark.parametrize("loss_type", ["dr_grpo", "dapo", "grpo", "bnpo", "cispo"])
def test_loss_types(loss_type, tmp_path):
    trainer = build("grpo", tmp_path, loss_type=loss_type)
    batches, _ = watched(trainer)
    before = weights(trainer)
    trainer.train()
    assert len(batches) == 3 and all(sum(batch.counts) == C for batch in batches)
    assert distance(before, weights(trainer)) > 0


@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize(
    ("kind", "estimator", "unscorable"),
    [("rloo", "rloo", True), ("grpo", "dr_grpo", True), ("grpo", "rloo", False)],
)
def test_uniform_equals_stock(kind, estimator, unscorable, beta, tmp_path):
    """The same weights after 8 steps; with beta this covers RLOO's KL in the reward. (Leave-one-out advantages in GRPO
    are scaled by the planned group, so they equal stock's only where every rollout of it can be scored.)"""

    def sometimes(prompts, completions, solution, **_):
        rewards = tiny.contains(prompts, completions, solution)
        return [None if unscorable and i % 7 == 0 else r for i, r in enumerate(rewards)]

    start = tmp_path / "start"
    tiny.model().save_pretrained(start)
    extra = {"scale_rewards": "none", "loss_type": "dr_grpo"} if kind == "grpo" else {}
    settings = options(tmp_path / "run", max_steps=8, beta=beta, num_train_epochs=20) | extra
    data = tiny.dataset(64)
    base, config = STOCK[kind]
    stock = base(str(start), sometimes, config(**settings), train_dataset=data, processing_class=tiny.tokenizer())
    stock.train()
    mine, config = KINDS[kind]
    settings |= {"vip_strategy": "uniform", "vip_estimator": estimator}
    ours = mine(str(start), sometimes, config(**settings), train_dataset=data, processing_class=tiny.tokenizer())
    ours.train()
    assert distance(weights(stock), weights(ours)) <= 6e-6
    assert distance(weights(ours), tiny.model().state_dict()) > 1e-3
    logged = [row for row in ours.state.log_history if "vip/counts/max" in row]
    assert all(row["vip/counts/max"] == N for row in logged)
    same = ("reward", "frac_reward_zero_std", "loss")
    for a, b in zip(stock.state.log_history, ours.state.log_history, strict=True):
        for key in same:
            assert a.get(key) == pytest.approx(b.get(key), abs=1e-5, nan_ok=True)


@pytest.mark.parametrize("kind", KINDS)
def test_resume_mid_run_and_past_an_epoch(kind, tmp_path):
    """Interrupted after step 2 of 4-step epochs and after step 6 (second epoch): same counts, same weights."""
    whole = build(kind, tmp_path / "whole", max_steps=8, vip_strategy="default")
    batches, _ = watched(whole)
    whole.train()
    for stop in (2, 6):
        first = build(
            kind, tmp_path / f"at{stop}", max_steps=8, vip_strategy="default", save_strategy="steps", save_steps=stop
        )
        first.train()
        second = build(kind, tmp_path / f"at{stop}", max_steps=8, vip_strategy="default")
        later, _ = watched(second)
        second.train(resume_from_checkpoint=str(tmp_path / f"at{stop}" / f"checkpoint-{stop}"))
        assert [b.prompts for b in later] == [b.prompts for b in batches[stop:]]
        assert [b.counts for b in later] == [b.counts for b in batches[stop:]]
        assert distance(weights(whole), weights(second)) < 1e-6


def test_a_stock_checkpoint_starts_without_history(tmp_path, caplog):
    base, config = STOCK["rloo"]
    settings = options(tmp_path, max_steps=2, save_strategy="steps", save_steps=2)
    base(
        tiny.model(), tiny.contains, config(**settings), train_dataset=tiny.dataset(), processing_class=tiny.tokenizer()
    ).train()
    ours = build("rloo", tmp_path, max_steps=4)
    batches, _ = watched(ours)
    with caplog.at_level("WARNING", logger="viprl.engines.trl"):
        ours.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert len(batches) == 2 and "afresh" in caplog.text


def test_the_strategy_may_change_on_resume(tmp_path, caplog):
    build("rloo", tmp_path, max_steps=2, vip_strategy="uniform", save_strategy="steps", save_steps=2).train()
    ours = build("rloo", tmp_path, max_steps=4, vip_strategy="default")
    batches, _ = watched(ours)
    with caplog.at_level("WARNING", logger="viprl.vip"):
        ours.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert len(batches) == 2 and "without history" in caplog.text


def test_a_damaged_state_is_refused_by_name(tmp_path):
    build("rloo", tmp_path, max_steps=2, save_strategy="steps", save_steps=2).train()
    state = tmp_path / "checkpoint-2" / STATE_FILE
    state.write_bytes(state.read_bytes()[:-7])
    with pytest.raises(ValueError, match="vip_state"):
        build("rloo", tmp_path, max_steps=4).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_state_is_in_the_checkpoint_before_a_push(tmp_path):
    pushed = []

    class Pushing(VIPRLOOTrainer):
        def _push_from_checkpoint(self, folder):
            pushed.append((Path(folder) / STATE_FILE).exists())

    trainer = build("rloo", tmp_path, trainer=Pushing, save_strategy="steps", save_steps=1)
    trainer.args.push_to_hub = True
    trainer.train()
    assert pushed and all(pushed)


def test_duplicates_workers_and_iterable_data(tmp_path):
    twice = Dataset.from_dict({"prompt": ["a b", "a b", "c d", "e f"] * 4, "solution": ["a", "a", "c", "e"] * 4})
    for data, more in ((twice, {"dataloader_num_workers": 2}), (twice.to_iterable_dataset(), {})):
        trainer = build("rloo", tmp_path, data=data, vip_strategy="default", **more)
        batches, losses = watched(trainer)
        trainer.train()
        assert len(batches) == 3
        for batch, loss in zip(batches, losses, strict=True):
            assert sum(batch.counts) == C and len(batch.prompts) == C // N
            expected = independent_advantages(batch.rewards, True, True)
            assert sorted(loss["advantages"].tolist()) == pytest.approx(sorted(expected), abs=1e-6)


def test_ids_keep_equal_prompts_apart(tmp_path):
    data = Dataset.from_dict({"prompt": ["a b"] * 8, "solution": list("aabbccdd"), "key": list(range(8))})
    trainer = build("rloo", tmp_path, data=data, vip_strategy="default", vip_id_column="key")
    batches, _ = watched(trainer)
    trainer.train()
    assert all(len(set(batch.observation.keys)) == C // N for batch in batches)
    with pytest.raises(ValueError, match="vip_id_column is 'nothing'"):
        build("rloo", tmp_path, vip_id_column="nothing").train()


def test_chat_prompts(tmp_path):
    chats = [[{"role": "system", "content": "be brief"}, {"role": "user", "content": f"{x} b"}] for x in "abcdefgh"]
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    _, config = KINDS["rloo"]
    args = config(**options(tmp_path), vip_features="length", vip_strategy="default")

    def reward(completions, **_):
        return [float("a" in c[-1]["content"]) for c in completions]

    trainer = VIPRLOOTrainer(
        tiny.model(), reward, args, train_dataset=Dataset.from_dict({"prompt": chats}), processing_class=tokenizer
    )
    batches, _ = watched(trainer)
    trainer.train()
    assert len(batches) == 3 and all(sum(batch.counts) == C for batch in batches)


def test_rollout_func(tmp_path):
    def rollout(prompts, trainer):
        ids = [[3 + i % 5, 1] for i in range(len(prompts))]
        return {
            "prompt_ids": trainer.processing_class(list(prompts))["input_ids"],
            "completion_ids": ids,
            "logprobs": [[-1.0, -1.0]] * len(ids),
            "position": list(range(len(ids))),
        }

    positions = []

    def reward(prompts, completions, position, **_):
        positions.append(list(position))
        return [float(p % 2) for p in position]

    trainer = build("grpo", tmp_path, reward=reward, extra={"rollout_func": rollout})
    batches, _ = watched(trainer)
    trainer.train()
    assert positions == [list(range(C))] * 3, "each rollout has a row of its own"
    assert all(sum(batch.counts) == C for batch in batches)


def test_an_engine_that_merges_equal_rows_still_gets_one_row_a_rollout(tmp_path):
    """vLLM's server mode keeps every num_generations-th prompt and asks for num_generations answers to each."""

    class Merging(VIPGRPOTrainer):
        def _generate_single_turn(self, prompt_ids, *rest, **more):
            n = self.num_generations
            assert [p for p in prompt_ids[::n] for _ in range(n)] == prompt_ids
            return super()._generate_single_turn(prompt_ids, *rest, **more)

    trainer = build("grpo", tmp_path, trainer=Merging)
    trainer.train()
    assert trainer.num_generations == N, "restored after every batch"


def test_evaluation_is_untouched(tmp_path):
    trainer = build(
        "rloo", tmp_path, eval_strategy="steps", eval_steps=1, per_device_eval_batch_size=8, num_generations_eval=2,
        extra={"eval_dataset": tiny.dataset(8)},
    )  # fmt: skip
    batches, _ = watched(trainer)
    trainer.train()
    assert len(batches) == 3
    assert any("eval_reward" in row for row in trainer.state.log_history)
    assert not any(key.startswith("eval_vip") for row in trainer.state.log_history for key in row)


def test_unscorable_and_strange_rewards_never_end_a_run(tmp_path, caplog):
    def reward(prompts, completions, **_):
        return [[None, 0.0, 1.0, 0.5][i % 4] for i in range(len(prompts))]

    trainer = build("rloo", tmp_path, reward=reward, vip_strategy="default")
    batches, losses = watched(trainer)
    with caplog.at_level("WARNING", logger="viprl.rewards"):
        trainer.train()
    for batch, loss in zip(batches, losses, strict=True):
        expected = independent_advantages(batch.rewards, True, True)
        assert sorted(loss["advantages"].tolist()) == pytest.approx(sorted(expected), abs=1e-6)
        assert batch.observation.rollouts.sum() == C / 2, "None and .5 are no outcomes"
    assert "0.5 tells the predictor nothing" in caplog.text


def two(prompts, completions, **_):
    return [0.3] * len(prompts)


@pytest.mark.parametrize(
    ("success", "expected"),
    [("contains", "column"), ("two>=0.5", 0), ("two>=0.3", C), ("1.2", "total"), (lambda total: total > 1.2, "total")],
)
def test_success_is_named(success, expected, tmp_path):
    trainer = build("rloo", tmp_path, reward=[tiny.contains, two], vip_success=success)
    batches, _ = watched(trainer)
    trainer.train()
    for batch in batches:
        wins = sum(r > 1.2 for group in batch.rewards for r in group)
        assert batch.observation.successes.sum() == (wins if expected in ("column", "total") else expected)
    json.dumps(trainer.args.to_dict())


@pytest.mark.parametrize(
    ("reward", "success", "message"),
    [
        ([tiny.contains, two], None, "2 reward functions"),
        ([tiny.contains, two], "accuracy", "contains, two"),
        ([tiny.contains], "contains>=much", "no number"),
        ([tiny.contains], "contains>=inf", "no number"),
        ([tiny.contains], "contains>0.5", "the one comparison"),
        ([tiny.contains], "nowhere:function", "cannot be imported"),
        (tiny.model(), None, "reward model"),
    ],
)
def test_an_open_question_of_success_is_refused(reward, success, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        build("rloo", tmp_path, reward=reward, vip_success=success)


def test_what_cannot_work_is_refused(tmp_path):
    with pytest.raises(TypeError, match="VIPRLOOConfig"):
        VIPRLOOTrainer(tiny.model(), tiny.contains, RLOOConfig(**options(tmp_path)))
    with pytest.raises(ValueError, match="sum_then_normalize"):
        build("grpo", tmp_path, multi_objective_aggregation="normalize_then_sum")
    with pytest.raises(ValueError, match="auto_find_batch_size"):
        VIPRLOOConfig(**options(tmp_path), auto_find_batch_size=True)
    with pytest.raises(ValueError, match=r"Q=4 .*L=5.*C=16"):
        VIPRLOOConfig(**options(tmp_path), vip_min_rollouts=5)
    with pytest.raises(ValueError, match="raise high"):
        VIPRLOOConfig(**options(tmp_path), vip_max_rollouts=3)
    with pytest.raises(ValueError, match="strategy is 'defualt'"):
        VIPRLOOConfig(**options(tmp_path), vip_strategy="defualt")
    for told in ({"vip_strategy": "oracle"}, {"vip_shadow": ["paper", "oracle"]}):
        with pytest.raises(ValueError, match="no training run knows"):
            VIPRLOOConfig(**options(tmp_path), **told)
    with pytest.raises(ValueError, match="prompt_weighting"):
        VIPRLOOConfig(**options(tmp_path), vip_prompt_weighting="equal")
    with pytest.warns(UserWarning, match="no variance law"):
        VIPGRPOConfig(**options(tmp_path), scale_rewards="group")


def test_args_may_be_left_out_and_the_model_card_credits_vip(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.model().save_pretrained("start")
    tiny.tokenizer().save_pretrained("start")
    trainer = build("rloo", tmp_path / "run", save_strategy="steps", save_steps=3)
    trainer.train()
    card = (tmp_path / "run" / "README.md").read_text()
    assert "VIP-RLOO" in card and "2602.01601" in card and "2402.14740" not in card

    @dataclass
    class OnCPU(VIPRLOOConfig):
        use_cpu: bool = True
        bf16: bool = False
        vip_features: str = "none"

    class Trainer(VIPRLOOTrainer):
        _config_class = OnCPU

    default = Trainer("start", tiny.contains, train_dataset=tiny.dataset())
    assert type(default.args) is OnCPU and default.args.output_dir == "start-VIP-RLOO"


def test_metrics_and_shadow(tmp_path):
    trainer = build("rloo", tmp_path, vip_strategy="uniform", vip_shadow=["default", "random"])
    batches, _ = watched(trainer)
    trainer.train()
    rows = [row for row in trainer.state.log_history if "vip/counts/mean" in row]
    assert len(rows) == 3
    for row, batch in zip(rows, batches, strict=True):
        settled = [len(g) for g in batch.rewards if len(set(g)) == 1]
        assert row["vip/zero_advantage_rollouts"] == pytest.approx(sum(settled) / C)
        assert row["vip/counts/mean"] == N and row["vip/variance_ratio/predicted"] == 1
        assert {"vip/brier", "vip/log_loss", "vip/overhead_seconds", "vip/shadow/default/variance_ratio"} <= set(row)
        zero = sum(n for n, g in zip(batch.counts, batch.rewards, strict=True) if len(set(g)) == 1) / C
        assert row["frac_reward_zero_std"] == pytest.approx(zero)


def test_completions_log_has_counts_and_advantages(tmp_path):
    import pandas as pd

    trainer = build("grpo", tmp_path, log_completions=True, max_steps=1)
    batches, _ = watched(trainer)
    trainer.train()
    table = pd.read_parquet(next((tmp_path / "completions").glob("*.parquet")))
    assert table["vip_rollouts"].tolist() == [n for n in batches[0].counts for _ in range(n)]
    expected = [a * (1 - 1 / N) for a in independent_advantages(batches[0].rewards, True, False)]
    assert table["advantage"].tolist() == pytest.approx(expected, abs=1e-6)


def test_a_vip_of_ones_own(tmp_path):
    vip = VIP(min_rollouts=2, max_rollouts=9, features=None, success=0.5)
    trainer = build("rloo", tmp_path, vip=vip)
    trainer.train()
    assert trainer.vip is vip and vip.metrics()["counts/mean"] == N


def test_contract_with_trl():
    """What the adapter leans on; a failure here names the method that an engine's new version changed."""
    expected = {
        "_generate_and_score_completions": ["self", "inputs"],
        "_calculate_rewards": ["self", "inputs", "prompts", "completions", "completion_ids_list"],
        "_get_train_sampler": ["self", "dataset"],
        "_save_checkpoint": ["self", "model", "trial"],
        "_load_optimizer_and_scheduler": ["self", "checkpoint"],
    }
    assert set(expected) == set(engine.OVERRIDDEN)
    for trainer in (GRPOTrainer, RLOOTrainer):
        for name, parameters in expected.items():
            assert list(inspect.signature(getattr(trainer, name)).parameters) == parameters, (
                f"{trainer.__name__}.{name}"
            )
        for name in (
            "num_generations",
            "reward_weights",
            "reward_func_names",
            "_log_completion_extra",
            "_metrics",
            "_logs",
        ):
            assert name in inspect.getsource(trainer), f"{trainer.__name__} no longer has {name}"


def test_data_that_cannot_train_is_refused_at_construction(tmp_path):
    with pytest.raises(ValueError, match="holds 3 prompts, but a generation batch takes 4"):
        build("rloo", tmp_path, data=tiny.dataset(3))
    with pytest.raises(ValueError, match="no `prompt`"):
        build("rloo", tmp_path, data=tiny.dataset().rename_column("prompt", "question"))


def test_a_first_batch_that_nobody_can_read_stops_the_run(tmp_path):
    def half(prompts, completions, **_):
        return [0.3] * len(prompts)

    with pytest.raises(ValueError, match=r"all 16 rewards of the first batch.*vip_success"):
        build("rloo", tmp_path, reward=half).train()
    build("rloo", tmp_path, reward=half, vip_success="0.2").train()


def test_strange_rewards_before_a_resume_say_nothing_of_the_first_batch_after_it(tmp_path):
    def lost(completions, **_):
        return [None] * len(completions)

    trainer = build("rloo", tmp_path, reward=lost, max_steps=1)
    trainer.vip._outcomes.strange = 1_000  # as read from a checkpoint
    trainer.train()
    assert trainer.vip_batch.observation.rollouts.sum() == 0


def test_rewards_without_a_name_are_no_reward_models(tmp_path):
    import functools

    trainer = build("rloo", tmp_path, reward=functools.partial(tiny.contains))
    batches, _ = watched(trainer)
    trainer.train()
    assert len(batches) == 3


def test_scaling_that_voids_the_law_warns_or_is_refused(tmp_path):
    with pytest.warns(UserWarning, match="variance law"):
        VIPGRPOConfig(**options(tmp_path), scale_rewards="batch")
    with pytest.warns(UserWarning, match="variance law"):
        VIPRLOOConfig(**options(tmp_path), normalize_advantages=True)
    with pytest.raises(ValueError, match="contradict"):
        VIPGRPOConfig(**options(tmp_path), vip_estimator="rloo", scale_rewards="group")
    with pytest.raises(ValueError, match="expected 'none'"):
        VIPGRPOConfig(**options(tmp_path), scale_rewards="bogus")


class Listening(VIP):
    """Remembers the surprises that the trainer hands over."""

    def observe(self, prompts, rewards, *, surprise=None):
        self.heard = getattr(self, "heard", [])
        self.heard.append(None if surprise is None else dict(zip(prompts, surprise, strict=True)))
        return super().observe(prompts, rewards, surprise=surprise)


def surprises_of_rows(model, inputs, tokenizer) -> dict[str, list[float]]:
    """By prompt, sorted: one forward pass a row, without padding."""
    found: dict[str, list[float]] = {}
    columns = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
    for prompt, seen, answer, kept in zip(*(inputs[name] for name in columns), strict=True):
        prompt, answer = prompt[seen.bool()], answer[kept.bool()]
        with torch.no_grad():
            logits = model(torch.cat([prompt, answer])[None]).logits[0, len(prompt) - 1 : -1].double()
        logp = logits.log_softmax(-1).gather(1, answer[:, None]).sum()
        found.setdefault(tokenizer.decode(prompt), []).append(-float(logp))
    return {text: sorted(values) for text, values in found.items()}


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("rloo", {}),
        ("grpo", {"gradient_accumulation_steps": 2, "steps_per_generation": 4, "per_device_train_batch_size": 4}),
    ],
)
def test_vip_hears_how_surprising_each_rollout_was(kind, more, tmp_path):
    vip = Listening(
        estimator="rloo" if kind == "rloo" else "dr_grpo", strategy="random", features="none", min_rollouts=3
    )
    trainer = build(kind, tmp_path, vip=vip, learning_rate=0.0, max_steps=1, **more)
    rows: dict[str, list[float]] = {}
    inner = trainer.compute_loss

    def compute_loss(model, inputs, *args, **kwargs):
        for text, values in surprises_of_rows(model, inputs, trainer.processing_class).items():
            rows.setdefault(text, []).extend(values)
        return inner(model, inputs, *args, **kwargs)

    trainer.compute_loss = compute_loss
    trainer.train()
    (heard,) = trainer.vip.heard
    assert len(rows) > 1
    for text, values in rows.items():  # with accumulation, one optimizer step sees half of the generation batch
        given = np.array(heard[text])
        assert all(np.abs(given - value).min() < 1e-4 for value in values)
        assert kind == "grpo" or sorted(given) == pytest.approx(sorted(values), abs=1e-4)


def test_grpo_that_never_computes_log_probabilities_has_no_surprises(tmp_path):
    trainer = build(
        "grpo", tmp_path, vip=Listening(estimator="dr_grpo", strategy="default", features="none", min_rollouts=3)
    )
    trainer.train()
    assert trainer.vip.heard == [None] * 3
