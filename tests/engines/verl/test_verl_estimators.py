"""The estimators against verl's own functions, and the weight that each prompt has in verl's loss."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from verl.protocol import DataProto
from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla, get_adv_estimator_fn
from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories

from viprl.advantages import RewardPrior
from viprl.engines.verl.consistency import EVEN_LOSSES
from viprl.engines.verl.estimators import SETTINGS, planned, vip_dr_grpo, vip_rloo
from viprl.engines.verl.rollouts import PlannedStep
from viprl.errors import InputError

COUNTS = [2, 7, 3, 4]  # rollout.n = 4
EQUAL = (1.0, 1.0, 1.0, 1.0)
SELECTED = (0.5, 2.5, 0.7, 1.0)  # weights of prompts that were selected
T = 5


def algorithm(weighting: str = "prompt", rollout_n: int = 4):
    return OmegaConf.create({SETTINGS: {"rollout_n": rollout_n, "prompt_weighting": weighting, "by_rows": True}})


def plan(weights, prior=None):
    uids = tuple(f"u{q}" for q in range(len(COUNTS)))
    return PlannedStep(list(uids), np.array(COUNTS), np.array(weights), uids, prior=prior)


def rows(counts=COUNTS, seed=0, padding=0):
    """Shuffled rows of a batch: rewards on the last token, masks of several lengths, padding rows at random places."""
    rng = np.random.default_rng(seed)
    uid = [f"u{q}" for q, n in enumerate(counts) for _ in range(n)] + ["pad"] * padding
    lengths = np.where(np.array(uid) == "pad", 0, rng.integers(1, T + 1, len(uid)))
    mask = (np.arange(T) < lengths[:, None]).astype(np.float32)
    reward = np.where(np.array(uid) == "pad", 0, rng.integers(0, 2, len(uid)))
    order = rng.permutation(len(uid))
    rewards = np.zeros((len(uid), T), dtype=np.float32)
    rewards[np.arange(len(uid)), np.maximum(lengths - 1, 0)] = reward
    return (torch.tensor(rewards[order]), torch.tensor(mask[order]), np.array(uid, dtype=object)[order])


@pytest.mark.parametrize("name, stock", [("vip_rloo", "rloo"), ("vip_dr_grpo", "grpo")])
@pytest.mark.parametrize("counts, padding", [(COUNTS, 0), (COUNTS, 3), ([4, 4, 4], 0)])
def test_they_are_verls_own_on_ragged_groups_times_the_weights(name, stock, counts, padding):
    rewards, mask, uid = rows(counts, padding=padding)
    kwargs = {"norm_adv_by_std_in_grpo": False} if stock == "grpo" else {}
    theirs, _ = get_adv_estimator_fn(stock)(token_level_rewards=rewards, response_mask=mask, index=uid, **kwargs)
    size = torch.tensor([(uid == u).sum() for u in uid])[:, None]
    for weighting, weight in (("rollout", 1.0), ("prompt", 4 / size)):
        mine, returns = get_adv_estimator_fn(name)(
            token_level_rewards=rewards, response_mask=mask, index=uid, config=algorithm(weighting)
        )
        torch.testing.assert_close(mine, theirs * weight, atol=5e-7, rtol=0)
        assert mine.dtype == torch.float32 and torch.equal(mine, returns) and not mine[uid == "pad"].any()


def test_verl_passes_what_the_estimator_needs():
    rewards, mask, uid = rows()
    data = DataProto.from_dict(
        tensors={"token_level_rewards": rewards, "response_mask": mask}, non_tensors={"uid": uid}
    )
    keys = [f"{u}_{i}_0" for i, u in enumerate(uid)]
    out = compute_advantage_for_multi_trajectories(
        data, batch_keys=keys, adv_estimator="vip_rloo", num_repeat=4, config=algorithm()
    )
    expected, _ = vip_rloo(rewards, mask, uid, algorithm())
    assert torch.equal(out.batch["advantages"], expected)


@pytest.mark.parametrize("weighting", ["prompt", "rollout"])
def test_weights_and_expected_rewards_of_the_plan(weighting):
    """Row by row against the formula; the plan does not outlive its step."""
    rewards, mask, uid = rows(padding=3)
    mu, kappa = np.array([0.2, 0.9, 0.5, 0.0]), np.array([3.0, 0.5, 10.0, 0.0])
    before, _ = vip_rloo(rewards, mask, uid, algorithm(weighting))
    with planned(plan(SELECTED, RewardPrior(mu, kappa))):
        advantages, _ = vip_rloo(rewards, mask, uid, algorithm(weighting))
    for q, n in enumerate(COUNTS):
        mine = np.flatnonzero(uid == f"u{q}")
        r = rewards[mine].sum(-1).numpy()
        baselines = (kappa[q] * mu[q] + r.sum() - r) / (kappa[q] + n - 1)
        expected = (r - baselines) * SELECTED[q] * (4 / n if weighting == "prompt" else 1)
        np.testing.assert_allclose(advantages[mine], expected[:, None] * mask[mine].numpy(), atol=1e-6)
    assert torch.isfinite(advantages).all() and not advantages[uid == "pad"].any()
    assert torch.equal(vip_rloo(rewards, mask, uid, algorithm(weighting))[0], before)


def test_unscorable_rollouts_are_outside_every_mean():
    rewards, mask, uid = rows([3, 2])
    rewards[np.flatnonzero(uid == "u0")[0], 0] = float("nan")
    advantages, _ = vip_rloo(rewards, mask, uid, algorithm(rollout_n=2))
    first, *others = np.flatnonzero(uid == "u0")
    assert torch.isfinite(advantages).all() and not advantages[first].any()
    a, b = (advantages[i][mask[i] > 0][0] for i in others)
    r = rewards[others].sum(-1)
    torch.testing.assert_close(a, (r[0] - r[1]) * 2 / 3)
    torch.testing.assert_close(b, -a)


@pytest.mark.parametrize("estimator", [vip_rloo, vip_dr_grpo])
@pytest.mark.parametrize("config", [None, OmegaConf.create({})])
def test_they_need_their_trainer(estimator, config):
    rewards, mask, uid = rows()
    with pytest.raises(InputError, match=f"{estimator.__name__}.*vip_sync"):
        estimator(rewards, mask, uid, config)


def gradients(mode: str, mini_batches: int, ranks: int = 1, micro: int = 3, padding: int = 0, weights=EQUAL):
    """[rows] derivative of a step's mean loss with respect to each row's log probability per token, by verl's own loss
    as its workers call it: rows shuffled over mini-batches, ranks and micro-batches; gradients averaged over ranks."""
    rewards, mask, uid = rows(padding=padding)
    with planned(plan(weights)):
        advantages, _ = vip_rloo(rewards, mask, uid, algorithm())
    logp = torch.zeros(len(uid), T, requires_grad=True)
    order = np.random.default_rng(1).permutation(len(uid))
    for mini in np.array_split(order, mini_batches):
        info = {
            "dp_size": ranks,
            "batch_num_tokens": mask[mini].sum().item(),
            "global_batch_size": len(uid) // mini_batches,
            "loss_scale_factor": 8,
        }
        config = SimpleNamespace(clip_ratio=0.2, clip_ratio_low=0.2, clip_ratio_high=0.2, global_batch_info=info)
        config.get = lambda name, default=None: default
        for share in np.array_split(mini, ranks):
            for part in np.array_split(share, max(1, len(share) // micro)):
                loss, _ = compute_policy_loss_vanilla(
                    old_log_prob=logp[part].detach(),
                    log_prob=logp[part],
                    advantages=advantages[part],
                    response_mask=mask[part],
                    loss_agg_mode=mode,
                    config=config,
                )
                (loss / ranks / mini_batches).backward()
    unweighted, _ = vip_rloo(rewards, mask, uid, algorithm("rollout"))
    first = mask.bool().any(-1)
    slope = torch.where(first, -logp.grad[:, 0] / unweighted[:, 0].where(unweighted[:, 0] != 0, torch.nan), torch.nan)
    return slope.numpy(), mask.sum(-1).numpy(), uid


def weights_of(slope, uid, per_token=1.0, weights=EQUAL):
    """Weight of each prompt whose rollouts have advantages, from those of its rollouts, relative to `weights`."""
    counts = {f"u{q}": n / weight for q, (n, weight) in enumerate(zip(COUNTS, weights, strict=True))}
    used = np.isfinite(slope)
    assert len(set(uid[used])) >= 3, "groups of several sizes are mixed"
    return (slope * per_token)[used] * np.array([counts[u] for u in uid[used]])


@pytest.mark.parametrize("mode", EVEN_LOSSES)
@pytest.mark.parametrize("mini_batches, ranks, padding", [(1, 1, 0), (4, 1, 0), (2, 2, 0), (2, 2, 4)])
@pytest.mark.parametrize("weights", [EQUAL, SELECTED])
def test_every_prompt_has_its_weight_in_verls_loss(mode, mini_batches, ranks, padding, weights):
    """Weight of a rollout in the mean over the mini-batches of a step = constant / n_q, however rows are split, times
    that of a selected prompt."""
    slope, length, uid = gradients(mode, mini_batches, ranks, padding=padding, weights=weights)
    weight = weights_of(slope, uid, length if mode == "seq-mean-token-mean" else 1.0, weights)
    np.testing.assert_allclose(weight, weight[0], rtol=1e-5)
    if mode != "token-sum":  # and the constant is 1/Q, the mean over prompts (Q rows of rollout.n when padded)
        scale = 8 if mode.endswith("norm") else 1
        q = len(COUNTS) * (sum(COUNTS) + padding) / sum(COUNTS)
        np.testing.assert_allclose(weight[0] * scale, 1 / q, rtol=1e-5)


def test_with_token_mean_prompts_have_different_weights():
    slope, _, uid = gradients("token-mean", 4)
    weight = weights_of(slope, uid)
    assert weight.max() / weight.min() > 1.05
