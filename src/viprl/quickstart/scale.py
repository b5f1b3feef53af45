"""The numbers of the quickstart, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Settings:
    """A late-RL pool that two cores train on in minutes."""

    prompts: int = 32
    """Q, prompts of a step."""
    budget: int = 256
    """C, rollouts of a step."""
    min_rollouts: int = 2
    max_rollouts: int = 48
    steps: int = 120
    learning_rate: float = 1e-4
    warmup_steps: int = 10
    pool: int = 1024
    held_out: int = 256
    pretraining_seed: int = 0
    pretraining_steps: int = 400
    checkpoint_every: int = 20
    """Steps between checkpoints: what an interruption can cost, and the points of the learning curve."""
    measure_every: int = 40
    """Steps between measurements of the gradient variance."""
    batches: int = 4
    """Batches measured each time."""
    rollouts: int = 96
    """Rollouts of a prompt that its variance law is estimated from, the same for all strategies."""
    truth: int = 256
    """Further rollouts of a prompt for its true success probability, told to the oracle; independent of the above."""
    answers: int = 8
    """Answers to a held-out prompt: mean@8."""
    max_tokens: int = 12
    also: tuple[str, ...] = ()
    """Further strategies that watch the default run and are measured with the others."""

    def shadows(self) -> tuple[str, ...]:
        """Strategies that watch the default run and learn from its outcomes."""
        return ("paper", "random", *self.also)

    def measured(self) -> tuple[str, ...]:
        """All strategies whose gradient variance is measured."""
        return ("default", "paper", "oracle", "random", "uniform", *self.also)

    def arm(self, *, model: str, dataset: str, output_dir: str, strategy: str, seed: int) -> dict[str, Any]:
        """The `viprl train` configuration of one training."""
        return {
            "model": model,
            "dataset": dataset,
            "output_dir": output_dir,
            "algorithm": "rloo",
            "reward": "exact_match",
            "vip_strategy": strategy,
            "vip_shadow": list(self.shadows()) if strategy == "default" else ["random"],
            "vip_min_rollouts": self.min_rollouts,
            "vip_max_rollouts": self.max_rollouts,
            "vip_id_column": "id",
            "vip_register_pool": True,
            "num_generations": self.budget // self.prompts,
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
            "logging_steps": 1,
            "gradient_checkpointing": False,
            "bf16": False,
            "use_cpu": True,
            "disable_tqdm": True,
        }

    def measured_steps(self) -> list[int]:
        """Steps at which the gradient variance is measured."""
        return list(range(self.measure_every, self.steps + 1, self.measure_every))

    def evaluated_steps(self) -> list[int]:
        """Steps at which held-out answers are scored; 0 is the pretrained model."""
        return list(range(0, self.steps + 1, self.checkpoint_every))
