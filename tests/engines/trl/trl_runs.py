"""Short TRL trainings that tests look into."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

import tiny
from viprl import VIP
from viprl.engines.trl import VIPGRPOConfig, VIPGRPOTrainer, VIPRLOOConfig, VIPRLOOTrainer
from viprl.prompts import text

KINDS = {"rloo": (VIPRLOOTrainer, VIPRLOOConfig), "grpo": (VIPGRPOTrainer, VIPGRPOConfig)}
STOCK = {"rloo": (RLOOTrainer, RLOOConfig), "grpo": (GRPOTrainer, GRPOConfig)}
C, N = 16, 4
"""Rollouts of a batch, and their average per prompt."""


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


def trained_like_stock(
    kind: str, folder: Path, reward, data, estimator: str, prepare=lambda: None, vip=None, ours=None, **more
):
    """Train stock TRL and a uniform allocation from the same weights, and check that they end with the same.

    Args:
        vip: in place of the one that the options describe.
        ours: further options of ours alone.

    Returns: what both have logged.
    """
    tiny.model().save_pretrained(folder / "start")
    extra = {"scale_rewards": "none", "loss_type": "dr_grpo"} if kind == "grpo" else {}
    own = {"vip_strategy": "uniform", "vip_estimator": estimator, "vip_features": "none"} | (ours or {})
    ends = []
    for (trainer, config), options_of_vip, also in ((STOCK[kind], {}, {}), (KINDS[kind], own, {"vip": vip})):
        prepare()
        args = config(**options(folder / "run", **more) | extra | options_of_vip)
        made = trainer(
            str(folder / "start"), reward, args, train_dataset=data, processing_class=tiny.tokenizer(), **also
        )
        made.train()
        ends.append((weights(made), made.state.log_history))
    (stock, before), (adaptive, after) = ends
    assert distance(stock, adaptive) <= 6e-6 and distance(adaptive, tiny.model().state_dict()) > 1e-3
    return before, after


def on_loss(trainer, look):
    """Call `look(model, inputs)` before each loss."""
    inner = trainer.compute_loss

    def compute_loss(model, inputs, *args, **kwargs):
        look(model, inputs)
        return inner(model, inputs, *args, **kwargs)

    trainer.compute_loss = compute_loss


def watched(trainer):
    """The batches that the trainer reports, and the advantages [rows] of each loss."""
    batches, losses = [], []
    trainer.vip_listeners.append(batches.append)
    on_loss(trainer, lambda _, inputs: losses.append(inputs["advantages"].tolist()))
    return batches, losses


def trained(*args, **kwargs):
    """The batches and advantages of a training that has ended."""
    trainer = build(*args, **kwargs)
    batches, losses = watched(trainer)
    trainer.train()
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


class Recording(VIP):
    """Keeps the log probabilities that the trainer passes: one mapping from text to list for each batch, or None."""

    def observe(self, prompts, rewards, *, logprobs=None, **more):
        self.heard = getattr(self, "heard", [])
        self.heard.append(None if logprobs is None else dict(zip(map(text, prompts), logprobs, strict=True)))
        return super().observe(prompts, rewards, logprobs=logprobs, **more)


def recording(kind: str) -> Recording:
    """Groups of at least 3, so that both estimators can use it."""
    estimator = {"rloo": "rloo", "grpo": "dr_grpo"}[kind]
    return Recording(estimator=estimator, strategy="random", features="none", min_rollouts=3)


def row_logprobs(model, inputs) -> list[tuple[tuple[int, ...], float, float]]:
    """Of each row: tokens of the prompt, log probability of the completion without and with the tokens of tools, from
    one forward pass without padding."""
    names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "tool_mask")
    columns = [inputs.get(name, inputs["completion_mask"]) for name in names]
    found = []
    for prompt, seen, answer, kept, own in zip(*columns, strict=True):
        prompt, answer, own = prompt[seen.bool()], answer[kept.bool()], own[kept.bool()]
        with torch.no_grad():
            logits = model(torch.cat([prompt, answer])[None]).logits[0, len(prompt) - 1 : -1].double()
        logps = logits.log_softmax(-1).gather(1, answer[:, None])[:, 0]
        found.append((tuple(prompt.tolist()), float((logps * own).sum()), float(logps.sum())))
    return found
