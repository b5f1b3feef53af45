"""`python -m verl.trainer.main_ppo` on real Ray: every step has the planned rollouts, and no groups are mixed.

The run has two FSDP2 ranks on gloo, is killed, resumed, and then loses its rollout server. Several tests check it.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter

import launch
import numpy as np
import pytest
import torch
from toy import compute_score

from viprl.allocation.waves.estimator import FirstLook, wave_advantages
from viprl.runs.engine_logs import read_history

N = 4
BUDGET, ROWS, MINI_BATCHES = 6 * N, 32, 2


def prompt(key: str) -> str:
    """uid of the prompt of a row, in either wave."""
    return key.rsplit("_", 2)[0].removesuffix("#2")


def records(run):
    return {int(file.stem): json.loads(file.read_text()) for file in (run.folder / "record").glob("*.json")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Q = 6 of 12 candidates and at most C = 24 rollouts, with mini-batches of 16 rows: two of them, with 8 rows of
    padding and one more for each rollout that is saved. Half of the prompts use a tool. A pass over the data has 7
    prompts more than a step takes.

    The run is killed in step 6; the record of steps 4 and 5 is kept in `before`, the "latest" marker set back to 3.
    Resumed from there, it continues to step 7 or 8, where the rollout server dies."""
    run = launch.Run(tmp_path_factory.mktemp("run"), ranks=2, prompts=19, tools=True)
    settings = {
        "trainer.checkpoint_callback_class": "record.Record",
        "trainer.save_freq": 1,
        "data.train_batch_size": 6,
        "data.max_response_length": 10,
        "actor_rollout_ref.actor.ppo_mini_batch_size": 4,
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": 4,
        "actor_rollout_ref.rollout.multi_turn.function_tool_path": launch.HERE / "toy_tool.py",
        "actor_rollout_ref.rollout.multi_turn.format": "toy",
        "trainer.total_training_steps": 9,
        "+trainer.v1.vip_sync.candidates": 2,
        "+trainer.v1.vip_sync.baseline": "expected",
        "+trainer.v1.vip_sync.spend": "match",
        "+trainer.v1.vip_sync.variance_target": 2,
        "+trainer.v1.vip_sync.cost": "tokens",
        "+trainer.v1.vip_sync.waves": 2,
        "trainer.resume_mode": "auto",
        "trainer.max_actor_ckpt_to_keep": 3,
    }
    process = run.start(**settings)
    try:
        run.until(lambda: (run.folder / "record" / "5.json").exists(), process, timeout=600)
    finally:
        launch.kill(process)
    run.pruned = [step for step in range(1, 6) if not (run.folder / f"checkpoints/global_step_{step}/actor").exists()]
    shutil.copytree(run.folder / "record", run.folder / "before")
    for step in (4, 5):
        (run.folder / "record" / f"{step}.json").unlink()
    (run.folder / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("3")
    run.status = run.finish(run.start({"VIPRL_TEST_DIE": "7"}, **settings), timeout=600)
    return run


def test_every_step_has_the_planned_rollouts_within_the_budget(finished):
    steps = records(finished)
    assert len(steps) >= 6
    varied, spent = set(), {}
    for step, record in steps.items():
        planned = record["planned"]
        received = Counter(prompt(key) for key in record["advantages"] if key not in record["padding"])
        assert received == planned, f"step {step}"
        assert len(planned) == 6 and min(planned.values()) >= 2
        spent[step] = sum(planned.values())
        varied |= set(planned.values())
        dumped = Counter(prompt(row["uid"]) for row in finished.dump(step))
        assert {uid: dumped[uid] for uid in planned} == planned
    assert len(varied) > 2, "the counts were adaptive"
    assert spent[1] == max(spent.values()) == BUDGET, "nothing is known before the first step"
    assert min(spent.values()) <= 16, "with verl's own padding this step had one optimizer step"


def test_groups_are_intact(finished):
    """Advantages that reached the actor = those of the rewards in verl's own dump, by group, with prompt weights."""
    weights = [weight for record in records(finished).values() for weight in record["weights"].values()]
    assert max(weights) > 1.1 and min(weights) < 0.9
    assert all((record["expected"] is None) == (step == 1) for step, record in records(finished).items())
    looks: list[bool] = []
    for step, record in records(finished).items():
        groups: dict[str, list[dict]] = {}
        for row in finished.dump(step):
            if row["uid"] not in record["padding"]:
                groups.setdefault(prompt(row["uid"]), []).append(row)
        assert groups.keys() == record["planned"].keys()
        for uid, rollouts in groups.items():
            assert {row["input"].removesuffix(" <go>") for row in rollouts} == {record["uids"][uid]}
            rewards = np.array([row["score"] for row in rollouts])
            assert rewards.tolist() == [compute_score("toy", row["output"], row["gts"]) for row in rollouts]
            n, (mu, kappa) = len(rewards), (record["expected"] or {}).get(uid, (0, 0))
            if record["looks"]:
                size, marked, share, mean = record["looks"][uid]
                first = [row["score"] for row in rollouts if "#2" not in row["uid"]]
                assert len(first) == size and sum(first) in marked
                expected = wave_advantages(rewards, FirstLook.of(size, marked), share=share, mean=mean)
                looks += [len(marked) <= size]
            else:
                expected = rewards - (kappa * mu + rewards.sum() - rewards) / (kappa + n - 1)
            for row, value in zip(rollouts, expected * record["weights"][uid] * N / n, strict=True):
                advantages, mask = record["advantages"][row["uid"]]
                np.testing.assert_allclose(advantages, value * np.array(mask), atol=1e-5)
    assert any(looks), "first looks happened"


def test_padding_fills_every_step_and_has_no_effect(finished):
    for step, record in records(finished).items():
        planned = sum(record["planned"].values())
        assert len(record["advantages"]) == ROWS and len(record["padding"]) == ROWS - planned
        assert not any(np.any(record["advantages"][key]) for key in record["padding"])
        if step in finished.metrics():
            logged = finished.metrics()[step]
            assert (logged["vip/padding_rows"], logged["vip/rollouts"]) == (ROWS - planned, planned)
    assert " 8 masked rows" in finished.log() and f"at most {BUDGET} rollouts" in finished.log()


def test_every_step_has_the_optimizer_steps_of_the_whole_budget(finished):
    """AdamW's own count, in the checkpoint of each rank."""
    for rank in (0, 1):
        file = finished.folder / f"checkpoints/global_step_7/actor/optim_world_size_2_rank_{rank}.pt"
        counts = {int(state["step"]) for state in torch.load(file, weights_only=False)["state"].values()}
        assert counts == {7 * MINI_BATCHES}


def test_spending_is_logged(finished):
    """Tokens are those of the responses, a tool's included."""
    metrics, steps = finished.metrics(), records(finished)
    for step, logged in metrics.items():
        record = steps[step]
        lengths = [len(mask) for key, (_, mask) in record["advantages"].items() if key not in record["padding"]]
        assert logged["vip/spending/tokens"] == pytest.approx(sum(lengths))
        assert logged["vip/spending/rollouts"] == len(lengths)
        assert logged["vip/spending/rollouts_saved"] == pytest.approx(1 - len(lengths) / BUDGET)
        assert {"vip/spending/aim", "vip/spending/tokens_saved", "vip/spending/tokens_predicted"} <= logged.keys()


def test_metrics_and_settings_are_logged(finished):
    metrics, steps = finished.metrics(), records(finished)
    assert len(metrics) >= 4, "verl's file starts anew with a resumed run"
    for step in metrics:
        record = steps[step]
        counts = record["planned"].values()
        assert metrics[step]["vip/counts/min"] == min(counts) and metrics[step]["vip/counts/max"] == max(counts)
        assert {"vip/variance_ratio/predicted", "vip/brier", "vip/overhead_seconds"} <= metrics[step].keys()
        weights = np.array(list(record["weights"].values()))
        assert metrics[step]["vip/selection/squared_weights"] == pytest.approx((weights**2).mean())
        assert record["outstanding"] == 0, "nothing piles up"
        assert record["mode"] == ["sync", "vip_sync"] and record["read_beside"]
    assert "loss_agg_mode=seq-mean-token-sum-norm" in finished.log()


def test_tool_loops_get_variable_counts(finished):
    """Prompts with a tool have two assistant turns, the tool's answer masked between them."""
    counts, turns = set(), set()
    for step, record in records(finished).items():
        for row in finished.dump(step):
            if row["uid"] not in record["padding"] and "<tools>" in row["input"]:
                counts.add(record["planned"][prompt(row["uid"])])
                _, mask = record["advantages"][row["uid"]]
                turns.add(0 in mask[: len(mask) - 1] and 1 in mask)
    assert turns == {True} and len(counts) > 1


def test_a_resumed_run_repeats_the_selections_and_allocations(finished):
    resumed = records(finished)
    for step in (4, 5):
        before = json.loads((finished.folder / "before" / f"{step}.json").read_text())
        for entry, error in (("planned", 0), ("weights", 1e-6)):  # log probabilities depend on the order of the rows
            by_prompt = [
                {record["uids"][uid]: value for uid, value in record[entry].items()}
                for record in (before, resumed[step])
            ]
            assert by_prompt[0] == pytest.approx(by_prompt[1], rel=error, abs=0)


def test_state_is_pruned_with_verls_checkpoints(finished):
    assert finished.pruned == [1, 2]
    for step in (6, 7):
        assert (finished.folder / f"checkpoints/global_step_{step}/actor/vip_state.safetensors").is_file()


def test_a_dead_rollout_server_ends_the_run(finished):
    assert finished.status not in (0, None)
    assert max(records(finished)) == 7, "the server died when step 8 began"
    assert "RuntimeError" in finished.log()


def test_the_dump_is_read_back(finished):
    """`viprl replay` and a warm start read what verl really wrote."""
    seen: dict[str, list[tuple[float, float]]] = {}
    steps = sorted(records(finished))
    for step in steps:
        padding = records(finished)[step]["padding"]
        groups: dict[str, list[float]] = {}
        for row in finished.dump(step):
            if row["uid"] not in padding:
                groups.setdefault(row["input"], []).append(row["score"])
        for prompt, scores in groups.items():
            seen.setdefault(prompt, []).append((len(scores), sum(scores)))
    read = read_history(finished.folder / "dump")
    assert {t.prompt: list(zip(t.rollouts, t.successes, strict=True)) for t in read} == seen
