"""The settings of the quickstart, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ARMS = ("default", "uniform")
"""The strategies that train."""


@dataclass(frozen=True)
class Experiment:
    """What the quickstart trains and measures. The defaults take minutes on two cores."""

    prompts: int = 32
    """Q, prompts of a step with uniform allocation."""
    budget: int = 128
    """C, rollouts of a step."""
    default_prompts: int = 64
    """Prompts of a step with the default strategy, whose baselines allow smaller groups."""
    candidates: int = 2
    """Prompts that the default strategy considers for each one that it samples."""
    min_rollouts: int = 2
    max_rollouts: int = 48
    steps: int = 120
    learning_rate: float = 3e-4
    warmup_steps: int = 10
    pool: int = 1024
    """Training prompts."""
    held_out: int = 256
    """Held-out prompts."""
    pretraining_seed: int = 0
    pretraining_steps: int = 400
    checkpoint_every: int = 20
    """Steps between checkpoints, which are also the points of the learning curve."""
    measure_every: int = 40
    """Steps between measurements of the gradient variance."""
    batches: int = 4
    """Batches of each measurement."""
    rollouts: int = 96
    """Rollouts of a prompt from which its gradient variance is estimated; the same for all strategies."""
    truth: int = 256
    """Further, independent rollouts of a prompt that give the oracle its success probability."""
    max_tokens: int = 12
    """Longest completion."""
    shadow: tuple[str, ...] = ()
    """Further strategies that are measured with the others; they learn from the outcomes of the default run."""

    def measured(self) -> tuple[str, ...]:
        """All strategies whose gradient variance is measured; the first one trains."""
        return ("default", "paper", "oracle", "random", "uniform", *self.shadow)

    def config(self, *, model: str, dataset: str, output_dir: str, strategy: str, seed: int) -> dict[str, Any]:
        """The `viprl train` configuration of one training."""
        adaptive = strategy == "default"
        chosen = {"vip_candidates": self.candidates, "vip_baseline": "expected"} if adaptive else {}
        return {
            "model": model,
            "dataset": dataset,
            "output_dir": output_dir,
            "algorithm": "rloo",
            "reward": "exact_match",
            "vip_strategy": strategy,
            "vip_shadow": ["paper", "random", *self.shadow] if adaptive else ["random"],
            "vip_min_rollouts": self.min_rollouts,
            "vip_max_rollouts": self.max_rollouts,
            "vip_id_column": "id",
            "vip_register_pool": True,
            **chosen,
            "num_generations": self.budget // (self.default_prompts if adaptive else self.prompts),
            "per_device_train_batch_size": self.budget,
            "max_completion_length": self.max_tokens,
            "max_steps": self.steps,
            "learning_rate": self.learning_rate,
            "lr_scheduler_type": "constant_with_warmup",
            "warmup_steps": self.warmup_steps,
            "temperature": 1.0,
            "beta": 0.0,
            "seed": seed,
            "save_steps": self.checkpoint_every,
            "gradient_checkpointing": False,
            "bf16": False,
            "use_cpu": True,
            "disable_tqdm": True,
        }
