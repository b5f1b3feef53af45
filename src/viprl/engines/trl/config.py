"""The configs of the TRL trainers: TRL's options, those of VIP, and what does not go together."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any, ClassVar

from trl import GRPOConfig, RLOOConfig

from viprl.advantages import rollout_weights
from viprl.allocation.budget import Budget
from viprl.strategies import check_training_strategy

_Host: Any = object  # at run time nothing; to a type checker "some trainer", whose attributes it cannot know

_SCALED = (
    "{} rescales the advantages of each batch by their own spread, which the prompt weights and the variance law ignore"
)


@dataclass
class VIPOptions(_Host):
    """The options that both configs add to TRL's."""

    vip_strategy: str = field(
        default="default", metadata={"help": "Who allocates: default, paper, uniform, random, ... (viprl.STRATEGIES)."}
    )
    vip_shadow: list[str] | None = field(
        default=None,
        metadata={"help": "Strategies that watch the run and log what they would have saved, without acting."},
    )
    vip_min_rollouts: int | None = field(
        default=None, metadata={"help": "L, least rollouts of a prompt. Default: the smallest legal group."}
    )
    vip_max_rollouts: int | None = field(
        default=None, metadata={"help": "U, most rollouts of a prompt. Default: 6 * num_generations."}
    )
    vip_estimator: str | None = field(
        default=None,
        metadata={
            "help": "'rloo' or 'dr_grpo': variance law and baseline. Default: 'rloo' (in VIPGRPOTrainer scaled to the "
            "size of Dr.GRPO's advantages), but 'dr_grpo' for GRPO with vip_strategy='paper', as published."
        },
    )
    vip_prompt_weighting: str = field(
        default="prompt",
        metadata={"help": "'prompt': every prompt weighs the same. 'rollout': TRL's flat mean, weight n_q/C."},
    )
    vip_success: str | None = field(
        default=None,
        metadata={
            "help": "What counts as success: a reward function's name, 'name>=0.5', a threshold on the total reward, "
            "or 'module:function' (a callable in Python). Needed with several or continuous rewards."
        },
    )
    vip_features: str = field(
        default="auto", metadata={"help": "'auto', 'minilm', 'minilm+length', 'length', 'none', or a model folder."}
    )
    vip_cache: str | None = field(
        default="auto", metadata={"help": "Folder of the feature cache. 'auto': $VIPRL_CACHE or ~/.cache/viprl."}
    )
    vip_id_column: str | None = field(
        default=None, metadata={"help": "Dataset column that identifies a prompt. Default: the prompt's content."}
    )
    vip_register_pool: bool = field(
        default=False,
        metadata={"help": "Compute the features of the whole training set before the first step, with a progress bar."},
    )
    vip_warm_start: str | None = field(
        default=None,
        metadata={"help": "Log of an earlier run to learn from before the first step: whatever `viprl replay` reads."},
    )

    estimators: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        options: Any = self
        if self.vip_max_rollouts is None:
            self.vip_max_rollouts = 6 * options.num_generations
        if self.vip_estimator is None:
            self.vip_estimator = self._default_estimator()
        if self.vip_estimator not in self.estimators:
            raise ValueError(
                f"vip_estimator is {self.vip_estimator!r}; {type(self).__name__} takes {' or '.join(self.estimators)}"
            )
        rollout_weights([1], self.vip_prompt_weighting)  # type: ignore[arg-type]
        if isinstance(self.vip_shadow, str):
            self.vip_shadow = [self.vip_shadow]
        for name in [self.vip_strategy, *(self.vip_shadow or [])]:
            check_training_strategy(name)
        try:
            prompts = options.generation_batch_size // options.num_generations
            spec = Budget.of(
                prompts, options.generation_batch_size, self.vip_min_rollouts, self.vip_max_rollouts, self.vip_estimator
            )
        except ValueError as error:
            raise ValueError(
                f"vip_min_rollouts={self.vip_min_rollouts}, vip_max_rollouts={self.vip_max_rollouts}, num_generations={options.num_generations}, "
                f"generation_batch_size={options.generation_batch_size}: {error}"
            ) from error
        self.vip_min_rollouts = int(spec.low[0])

    def _default_estimator(self) -> str:
        return "rloo"

    def to_dict(self) -> dict[str, Any]:
        values = super().to_dict()
        if callable(self.vip_success):  # configs are written as JSON
            values["vip_success"] = getattr(self.vip_success, "__qualname__", repr(self.vip_success))
        return values


@dataclass
class VIPGRPOConfig(VIPOptions, GRPOConfig):
    """`trl.GRPOConfig` with VIP's options. The defaults are Dr.GRPO's: no division by the group's std."""

    scale_rewards: str = field(
        default="none", metadata={"help": "As in TRL; anything but 'none' voids the variance law."}
    )
    loss_type: str = field(default="dr_grpo", metadata={"help": "As in TRL."})

    estimators: ClassVar[tuple[str, ...]] = ("rloo", "dr_grpo", "grpo")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale_rewards not in ("none", "group", "batch"):
            raise ValueError(f"scale_rewards is {self.scale_rewards!r}; expected 'none', 'group' or 'batch'")
        if (self.vip_estimator == "grpo") != (self.scale_rewards == "group"):
            raise ValueError(
                f"vip_estimator={self.vip_estimator!r} and scale_rewards={self.scale_rewards!r} contradict each other: "
                "'grpo' is the division by the group's standard deviation, scale_rewards='group'"
            )
        if self.scale_rewards == "batch":
            warnings.warn(_SCALED.format("scale_rewards='batch'"), stacklevel=2)

    def _default_estimator(self) -> str:
        if self.scale_rewards in ("group", True):
            return "grpo"
        return "dr_grpo" if self.vip_strategy == "paper" else "rloo"


@dataclass
class VIPRLOOConfig(VIPOptions, RLOOConfig):
    """`trl.RLOOConfig` with VIP's options."""

    estimators: ClassVar[tuple[str, ...]] = ("rloo",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.normalize_advantages:
            warnings.warn(_SCALED.format("normalize_advantages=True"), stacklevel=2)
