"""`spend` and `cost`: a step with fewer rollouts than its budget has the optimizer steps and scale of a full one."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from trainer_steps import N, Q, build, installed, rollout
from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils as tu

from viprl.engines.verl import estimators
from viprl.engines.verl.mini_batches import spread
from viprl.errors import InputError

MINI = 2  # prompts of a mini-batch
ROWS = MINI * N
STEPS = Q // MINI
SCALE, WIDTH = 7, 5


@pytest.fixture
def queue(monkeypatch):
    return installed(monkeypatch)


def saving(ranks: int, *options: str):
    """A trainer with a mini-batch of ROWS rows, on `ranks` ranks."""
    actor = "actor_rollout_ref.actor"
    sizes = (f"{actor}.ppo_mini_batch_size={MINI}", f"{actor}.loss_scale_factor={SCALE}")
    trainer = build(*sizes, f"trainer.n_gpus_per_node={ranks}", *(f"+trainer.v1.vip_sync.{one}" for one in options))
    trainer.actor_rollout_wg = SimpleNamespace(_dispatch_info={"actor": list(range(ranks))})
    trainer.tokenizer = SimpleNamespace(eos_token_id=0)
    return trainer


def step(trainer, queue, rng):
    """The rows of a step as verl's workers get them, and the metrics."""
    batch = trainer._next_train_batch()
    rows, metrics = trainer._balance_batch(rollout(queue, batch, rng), {}), {}
    for key in rows.keys:
        queue.rows[key]["old_log_probs"] = torch.zeros(len(queue.rows[key]["rm_scores"]))
    trainer._compute_advantage(rows, metrics)
    return rows, metrics


def mini_batches(rows, ranks: int) -> list[list[list[str]]]:
    """[optimizer steps][ranks] keys of rows, by verl's own split."""
    split = []
    for share in rows.chunk(ranks):
        positions = TensorDict({"position": torch.arange(len(share))}, batch_size=len(share))
        order = {"mini_batch_size": ROWS // ranks, "epochs": 1, "dataloader_kwargs": {"shuffle": False}}
        parts = tu.make_iterator(positions, seed=1, **order)
        split.append([[share.keys[i] for i in part["position"].tolist()] for part in parts])
    return [list(part) for part in zip(*split, strict=True)]


def gradient(queue, mini_batch, ranks: int, features) -> np.ndarray:
    """[WIDTH] the gradient of an optimizer step by verl's own loss, as its workers call it; their gradients are
    averaged. The log probability of every token of a row is features @ theta."""
    theta = torch.zeros(WIDTH, dtype=torch.float64, requires_grad=True)
    for keys in mini_batch:
        info = {"dp_size": ranks, "global_batch_size": ROWS, "loss_scale_factor": SCALE}
        config = SimpleNamespace(clip_ratio=0.2, clip_ratio_low=0.2, clip_ratio_high=0.2, global_batch_info=info)
        config.get = lambda name, default=None: default
        for micro in np.array_split(np.array(keys), 2):
            found = [queue.rows[key] for key in micro]
            pad = [torch.nn.utils.rnn.pad_sequence([row[name] for row in found], batch_first=True)
                   for name in ("advantages", "response_mask")]  # fmt: skip
            x = torch.tensor(np.array([features[key] for key in micro]))
            log_prob = (x @ theta)[:, None].expand(pad[1].shape)
            loss, _ = compute_policy_loss_vanilla(
                old_log_prob=log_prob.detach(),
                log_prob=log_prob,
                advantages=pad[0].double(),
                response_mask=pad[1].double(),
                loss_agg_mode="seq-mean-token-sum-norm",
                config=config,
            )
            (loss / ranks).backward()
    return -theta.grad.numpy()


def expected_gradient(queue, plan, features) -> np.ndarray:
    """(1/Q) sum_q v_q (1/n_q) sum_i A_i Z_i of all rollouts of a step."""
    total = np.zeros(WIDTH)
    for q, uid in enumerate(plan.uids):
        keys = [key for key in queue.rows if key.startswith(uid)]
        r = np.array([float(queue.rows[key]["rm_scores"].sum()) for key in keys])
        mu, kappa = (0.0, 0.0) if plan.prior is None else (plan.prior.mean[q], plan.prior.rollouts[q])
        advantages = r - (kappa * mu + r.sum() - r) / (kappa + len(r) - 1)
        lengths = np.array([len(queue.rows[key]["rm_scores"]) for key in keys])
        scores = lengths[:, None] * np.array([features[key] for key in keys]) / SCALE
        total += plan.weights[q] * (advantages[:, None] * scores).mean(axis=0)
    return total / len(plan.uids)


def check_step(trainer, queue, rows, ranks: int, rng) -> list[int]:
    """The gradients of the optimizer steps have the expected mean. Returns the rollouts in each of them."""
    features = {key: rng.normal(size=WIDTH) for key in queue.rows}
    parts = mini_batches(rows, ranks)
    found = np.mean([gradient(queue, part, ranks, features) for part in parts], axis=0)
    np.testing.assert_allclose(found, expected_gradient(queue, trainer.vip_batch, features), atol=1e-6)
    for part in parts:
        for keys in part:
            masked = [key.startswith("pad") for key in keys]
            assert masked == sorted(masked), "masked rows come last"
    return [sum(not key.startswith("pad") for keys in part for key in keys) for part in parts]


@pytest.mark.parametrize(
    "ranks, options",
    [
        (1, ["spend=match", "variance_target=1.5"]),
        (2, ["spend=match", "variance_target=2", "cost=tokens", "candidates=2", "baseline=expected"]),
        (2, ["cost=tokens"]),
    ],
)
def test_a_step_with_fewer_rollouts_is_as_large_as_a_full_one(queue, ranks, options):
    trainer, rng, spent, varied = saving(ranks, *options), np.random.default_rng(0), [], set()
    for _ in range(8):
        rows, metrics = step(trainer, queue, rng)
        n = trainer.vip_batch.counts
        rollouts = check_step(trainer, queue, rows, ranks, rng)
        assert len(rows) == Q * N and len(rollouts) == STEPS, "as many optimizer steps as with C rollouts"
        assert sum(rollouts) == n.sum() and np.ptp(rollouts) <= 1, "spread evenly"
        assert metrics["vip/rollouts"] == n.sum() and metrics["vip/padding_rows"] == Q * N - n.sum()
        lengths = [len(row["rm_scores"]) for key, row in queue.rows.items() if not key.startswith("pad")]
        assert metrics["vip/spending/tokens"] == pytest.approx(sum(lengths))
        assert not any(row["advantages"].any() for key, row in queue.rows.items() if key.startswith("pad"))
        spent.append(int(n.sum()))
        varied |= set(n.tolist())
    assert max(spent) == Q * N and len(varied) > 1
    assert metrics["vip/spending/rollouts"] == spent[-1]
    if "spend=match" in options:
        assert metrics["vip/spending/rollouts_saved"] == pytest.approx(1 - spent[-1] / (Q * N))
        assert min(spent) <= Q * N - ROWS, "with verl's own padding there were fewer optimizer steps"


def test_the_check_notices_other_weights_and_verls_own_padding(queue, monkeypatch):
    """Weights of the rollouts that were sampled, and mini-batches as stock verl makes them."""
    trainer, rng = saving(1, "spend=match", "variance_target=1.5"), np.random.default_rng(0)
    for _ in range(8):
        rows, _ = step(trainer, queue, rng)
    assert trainer.vip_batch.counts.sum() <= Q * N - ROWS
    check_step(trainer, queue, rows, 1, rng)
    for row in queue.rows.values():
        row["advantages"] = row["advantages"] * float(trainer.vip_batch.counts.mean() / N)
    with pytest.raises(AssertionError):
        check_step(trainer, queue, rows, 1, rng)

    monkeypatch.setattr(trainer, "_get_required_batch_multiple", lambda dp_size: ROWS)
    monkeypatch.setattr(trainer, "_balance_batch", lambda *given: PPOTrainerSync._balance_batch(trainer, *given))
    rows, _ = step(trainer, queue, rng)
    assert len(mini_batches(rows, 1)) < STEPS
    with pytest.raises(AssertionError):
        check_step(trainer, queue, rows, 1, rng)


def test_a_step_without_saving_is_laid_out_by_verl(queue):
    trainer, rng = saving(2), np.random.default_rng(0)
    batch = trainer._next_train_batch()
    given = rollout(queue, batch, rng)
    kept = given.select_keys(list(given.keys))
    assert trainer._balance_batch(given, {}).keys == PPOTrainerSync._balance_batch(trainer, kept, {}).keys


def test_while_the_actor_is_not_updated_rows_are_a_multiple_of_the_ranks(queue):
    trainer, rng = saving(2, "spend=match", "variance_target=1.5"), np.random.default_rng(0)
    for _ in range(6):
        step(trainer, queue, rng)
    trainer.config.trainer.critic_warmup = 100
    rows, _ = step(trainer, queue, rng)
    assert len(rows) == Q * N and trainer.vip_batch.counts.sum() < Q * N


@pytest.mark.parametrize("ranks, steps, size", [(1, 1, 8), (1, 4, 8), (2, 4, 6), (4, 3, 5), (3, 7, 2)])
def test_masked_rows_are_spread(ranks, steps, size):
    rng = np.random.default_rng(0)
    for share in (0, 0.3, 0.9, 1):
        masked = rng.random(ranks * steps * size) < share
        order = np.array(spread(masked.tolist(), ranks, steps)).reshape(ranks, steps, size)
        assert sorted(order.ravel().tolist()) == list(range(len(masked)))
        for rank, own in enumerate(order):
            assert set(own.ravel().tolist()) == set(range(rank * steps * size, (rank + 1) * steps * size))
            rollouts = own.ravel()[~masked[own.ravel()]]
            assert (np.diff(rollouts) > 0).all(), "rollouts keep their order"
        assert (np.diff(masked[order].astype(int), axis=-1) >= 0).all(), "masked rows come last"
        assert np.ptp((~masked[order]).sum(axis=(0, 2))) <= 1


def way_of_adamw(sizes, share: float, signal: float) -> float:
    """How far AdamW moves along the mean gradient in 150 steps. A step has `share` of C = 512 rollouts of 64 prompts,
    split into mini-batches with these shares of C, and the variance of a full step."""
    rng, prompts = np.random.default_rng(0), 64
    theta = torch.zeros(64, requires_grad=True)
    optimizer = torch.optim.AdamW([theta], lr=1e-3, weight_decay=0)
    for _ in range(150):
        counts = 2 + rng.multinomial(int(512 * share) - 2 * prompts, np.ones(prompts) / prompts)
        n = np.repeat(counts, counts)
        scores = signal + rng.normal(size=(len(n), 64)) * np.sqrt(n / 8)[:, None]
        ends = np.round(np.cumsum(sizes) * 512).astype(int)
        for mini_batch in np.split(8 / n[:, None] * scores / 128, ends[:-1]):
            theta.grad = torch.tensor(-mini_batch.sum(axis=0), dtype=torch.float32)
            optimizer.step()
    return theta.mean().item()


@pytest.mark.parametrize("signal, own, end", [(0.03, 0.87, 1.0), (0.3, 0.78, 0.9)])
def test_adamw_moves_as_far_as_with_all_rollouts(signal, own, end):
    """With .7 C: spread over 4 mini-batches; as verl pads, 3 of them; as many rows as C, but the rollouts first."""
    full = way_of_adamw([0.25] * 4, 1.0, signal)
    assert way_of_adamw([0.175] * 4, 0.7, signal) == pytest.approx(full, rel=0.03)
    assert way_of_adamw([0.25, 0.25, 0.2], 0.7, signal) < own * full
    assert way_of_adamw([0.25, 0.25, 0.2, 0.0], 0.7, signal) < end * full


@pytest.mark.parametrize("weighting, by_rows", [("prompt", True), ("rollout", True), ("rollout", False)])
def test_weights_replace_the_rollouts_that_are_missing(weighting, by_rows):
    """4 rollouts where 6 were paid for: a loss that divides by rows sees 4, one that divides by tokens does not."""
    from test_verl_estimators import COUNTS, EQUAL, plan, rows

    rewards, mask, uid = rows(padding=8)
    settings = {estimators.SETTINGS: {"rollout_n": 6, "prompt_weighting": weighting, "by_rows": by_rows}}
    with estimators.planned(plan(EQUAL)):
        advantages, _ = estimators.vip_rloo(rewards, mask, uid, settings)
    for q, n in enumerate(COUNTS):
        mine = np.flatnonzero(uid == f"u{q}")
        r = rewards[mine].sum(-1).numpy()
        factor = 6 / n if weighting == "prompt" else 6 / 4 if by_rows else 1
        expected = factor * (r - (r.sum() - r) / (n - 1))
        np.testing.assert_allclose(advantages[mine], expected[:, None] * mask[mine].numpy(), atol=1e-6)
    assert not advantages[uid == "pad"].any()


@pytest.mark.parametrize(
    "option, named",
    [
        ("spend=all", "trainer.v1.vip_sync.spend is 'all'"),
        ("cost=seconds", "trainer.v1.vip_sync.cost is 'seconds'"),
        ("variance_target=-1", "trainer.v1.vip_sync.variance_target"),
        ("variance_target=low", "trainer.v1.vip_sync.variance_target is 'low'"),
    ],
)
def test_values_that_do_not_exist(option, named):
    with pytest.raises(InputError, match=named):
        build(f"+trainer.v1.vip_sync.{option}")


def test_the_options_reach_vip_and_are_written_back(caplog):
    trainer = saving(2, "spend=match", "variance_target=2", "cost=tokens")
    namespace = trainer.config.trainer.v1.vip_sync
    assert (trainer.vip.spend, trainer.vip.variance_target, trainer.vip.cost) == ("match", 2, "tokens")
    assert (namespace.spend, namespace.variance_target, namespace.cost) == ("match", 2, "tokens")
    assert f"{STEPS} mini-batches of {ROWS} rows" in caplog.text
