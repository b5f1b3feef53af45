"""The configs of the TRL trainers: TRL's options, those of VIP, and combinations that cannot work."""

from __future__ import annotations

import copy
import functools
import logging
import warnings
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from trl import GRPOConfig, RLOOConfig

from viprl.engines.vip_builder import options_named, resolve
from viprl.errors import InputError
from viprl.predictors.base import Predictor
from viprl.settings import EngineSettings, Settings, documented, options
from viprl.vip import VIP

logger = logging.getLogger(__name__)

PREFIX = "vip_"
OPTIONS = options(EngineSettings, without=("seed",))  # TRL has a seed

_Fields: Any = make_dataclass(
    "_Fields",
    [
        (PREFIX + f.name, f.metadata["kind"], field(default=f.default, metadata={"help": f.metadata["help"]}))
        for f in OPTIONS
    ],
)

_SCALED = (
    "{} divides the advantages of each batch by their own standard deviation, which neither the prompt weights nor "
    "the variance model take into account"
)

_UNSHAPED = {"beta": 0.0, "reward_clip_range": None}
"""Options with which RLOO changes rewards before advantages are computed, and the values with which it does not."""


def _if_default(config: Any, name: str) -> str:
    """Says that an option was not set."""
    default = type(config).__dataclass_fields__[name].default
    return " (the default of TRL)" if getattr(config, name) == default and not name.startswith(PREFIX) else ""


@dataclass
class _VIPConfig(_Fields):
    """Mixin to place before a config of TRL: a field vip_NAME for each option of VIP."""

    estimators: ClassVar[tuple[str, ...]] = ()
    """The values of vip_estimator, apart from 'auto'."""
    needed_by_waves: ClassVar[dict[str, Any]] = {"vip_prompt_weighting": "prompt"}
    """Options that two waves need: nothing may weigh or scale the advantages by what the outcomes were."""

    def __post_init__(self: Any) -> None:
        """Check the options of VIP, and set the estimator and the bounds to the values that are used."""
        super().__post_init__()
        if isinstance(self.vip_shadow, str):
            self.vip_shadow = [self.vip_shadow]
        estimator = self._implied_estimator() if self.vip_estimator == "auto" else self.vip_estimator
        if estimator not in self.estimators:
            names = " or ".join(map(repr, self.estimators))
            raise InputError(f"vip_estimator is {estimator!r}; {type(self).__name__} takes 'auto' or {names}")
        self._check_waves(estimator)
        used = resolve(
            vip_settings(self),
            prefix=PREFIX,
            estimator=estimator,
            prompts=self.vip_prompts,
            rollouts=self.generation_batch_size,
            where=f"vip_min_rollouts={self.vip_min_rollouts}, vip_max_rollouts={self.vip_max_rollouts}, "
            f"num_generations={self.num_generations}, generation_batch_size={self.generation_batch_size}",
        )
        self.vip_estimator = used.estimator
        self.vip_min_rollouts, self.vip_max_rollouts = used.min_rollouts, used.max_rollouts
        self._check_candidates()
        self._check_baseline()

    @property
    def vip_prompts(self: Any) -> int:
        """Q, prompts of a generation batch that are sampled."""
        return self.generation_batch_size // self.num_generations

    @property
    def vip_offered(self: Any) -> int:
        """Prompts of the data set that a generation batch takes, k Q."""
        return self.vip_prompts * self.vip_candidates

    @property
    def vip_rows(self: Any) -> int:
        """Rows that TRL loads of each of them, num_generations / k."""
        return self.num_generations // self.vip_candidates

    def _check_candidates(self: Any) -> None:
        self.vip_candidates = int(self.vip_candidates)
        if self.num_generations % self.vip_candidates:
            raise InputError(
                f"vip_candidates={self.vip_candidates} does not divide num_generations={self.num_generations}: each "
                "prompt has num_generations / vip_candidates rows of a batch before the selection; set num_generations "
                f"to a multiple of {self.vip_candidates}, or vip_candidates to a divisor of {self.num_generations}"
            )

    def _check_baseline(self: Any) -> None:
        """Baselines can be shrunk if they are leave-one-out means of the rewards that VIP learns from."""
        if self.vip_baseline == "expected" and self.vip_estimator != "rloo":
            raise InputError(
                f"vip_baseline='expected' needs the estimator 'rloo', but vip_estimator is {self.vip_estimator!r} with "
                f"vip_strategy={_plain(self.vip_strategy)!r} and scale_rewards={self.scale_rewards!r}; set "
                "vip_baseline='group', or vip_estimator='rloo' with scale_rewards='none'"
            )

    def _check_waves(self: Any, estimator: str) -> None:
        if self.vip_waves != 2:
            return
        for name, value in self.needed_by_waves.items():
            if getattr(self, name) != value:
                given = f"{getattr(self, name)!r}{_if_default(self, name)}"
                raise InputError(
                    f"vip_waves=2 needs {name}={value!r}, but {name} is {given}: the gradient of two waves would be "
                    f"biased; set {name}={value!r} or vip_waves=1"
                )
        if estimator != "rloo":
            raise InputError(
                f"vip_waves=2 needs the estimator 'rloo', but vip_estimator is {estimator!r} with vip_strategy="
                f"{_plain(self.vip_strategy)!r}; set vip_estimator='rloo' or vip_waves=1"
            )

    def _implied_estimator(self) -> str:
        return "rloo"

    def to_dict(self) -> dict[str, Any]:
        """The config as JSON can hold it; functions and objects become their names."""
        values = super().to_dict()
        return values | {name: _plain(value) for name, value in values.items() if name.startswith(PREFIX)}

    def __getstate__(self) -> dict[str, Any]:
        """For pickle, with which checkpoints keep the config: functions and objects become their names, because a
        lambda or a class in a function cannot be pickled."""
        return {name: _plain(value) if name.startswith(PREFIX) else value for name, value in vars(self).items()}

    def __copy__(self: Any) -> Any:
        twin = object.__new__(type(self))
        vars(twin).update(vars(self))
        return twin

    def __deepcopy__(self: Any, memo: dict[int, Any]) -> Any:
        twin = memo[id(self)] = object.__new__(type(self))
        vars(twin).update(copy.deepcopy(vars(self), memo))
        return twin


@documented(OPTIONS, PREFIX)
@dataclass
class VIPGRPOConfig(_VIPConfig, GRPOConfig):
    """`trl.GRPOConfig` with the options of VIP.

    The defaults of two options of TRL are those of Dr.GRPO: `scale_rewards="none"` and `loss_type="dr_grpo"`.
    `vip_estimator="auto"` means "dr_grpo" with `vip_strategy="paper"`, "grpo" with `scale_rewards="group"`, otherwise
    "rloo", scaled to the size of Dr.GRPO's advantages. After construction the config holds the estimator and the bounds
    that are used.

    Parameters, besides those of `trl.GRPOConfig`:
    {options}

    Raises InputError (a ValueError) for values that contradict each other, and for bounds that the budget
    `generation_batch_size` cannot meet.
    """

    scale_rewards: str = field(
        default="none", metadata={"help": "As in TRL, with another default. The variance model holds for 'none' alone."}
    )
    loss_type: str = field(default="dr_grpo", metadata={"help": "As in TRL, with another default."})

    estimators: ClassVar[tuple[str, ...]] = ("rloo", "dr_grpo", "grpo")
    needed_by_waves: ClassVar[dict[str, Any]] = {**_VIPConfig.needed_by_waves, "scale_rewards": "none"}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale_rewards not in ("none", "group", "batch"):
            raise InputError(f"scale_rewards is {self.scale_rewards!r}; expected 'none', 'group' or 'batch'")
        if (self.vip_estimator == "grpo") != (self.scale_rewards == "group"):
            raise InputError(
                f"vip_estimator={self.vip_estimator!r} and scale_rewards={self.scale_rewards!r} contradict each other: "
                "'grpo' divides by the standard deviation of the group, which is scale_rewards='group'"
            )
        if self.scale_rewards == "batch":
            warnings.warn(_SCALED.format("scale_rewards='batch'"), stacklevel=2)

    def _implied_estimator(self) -> str:
        if self.scale_rewards in ("group", True):
            return "grpo"
        return "dr_grpo" if self.vip_strategy == "paper" else "rloo"


@documented(OPTIONS, PREFIX)
@dataclass
class VIPRLOOConfig(_VIPConfig, RLOOConfig):
    """`trl.RLOOConfig` with the options of VIP.

    The only estimator is "rloo". After construction the config holds the bounds that are used.

    Parameters, besides those of `trl.RLOOConfig`:
    {options}

    Raises InputError (a ValueError) for values that contradict each other, and for bounds that the budget
    `generation_batch_size` cannot meet.
    """

    estimators: ClassVar[tuple[str, ...]] = ("rloo",)
    needed_by_waves: ClassVar[dict[str, Any]] = {
        **_VIPConfig.needed_by_waves,
        "normalize_advantages": False,
        **_UNSHAPED,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.normalize_advantages:
            warnings.warn(_SCALED.format("normalize_advantages=True"), stacklevel=2)

    def _check_baseline(self) -> None:
        super()._check_baseline()
        for name, neutral in _UNSHAPED.items():
            value = getattr(self, name)
            if self.vip_baseline == "expected" and value != neutral:
                raise InputError(
                    f"vip_baseline='expected' compares rewards with what VIP expects, but {name}={value!r}"
                    f"{_if_default(self, name)} changes them before advantages are computed; set {name}={neutral!r} or "
                    "vip_baseline='group'"
                )


def vip_settings(args: Any) -> EngineSettings:
    """The options of VIP in a config."""
    with options_named(PREFIX):
        return EngineSettings(
            seed=args.seed, **{option.name: getattr(args, PREFIX + option.name) for option in OPTIONS}
        )


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, np.generic | Path):
        return value.item() if isinstance(value, np.generic) else str(value)
    while isinstance(value, functools.partial):
        value = value.func
    return getattr(value, "name", None) or getattr(value, "__qualname__", type(value).__qualname__)


def check_given_vip(args: Any, vip: VIP) -> None:
    """Warn of options in a config that the VIP of a trainer does not have, or that have no effect with it. Raises
    InputError for another baseline."""
    if vip.baseline != args.vip_baseline:
        raise InputError(
            f"vip_baseline is {args.vip_baseline!r}, but the VIP that is given has baseline={vip.baseline!r}; set both "
            "to the same"
        )
    names = ("strategy", "spend", "variance_target", "cost", "score_signal", "on_bad_prediction")
    asked = {name: getattr(args, PREFIX + name) for name in names}
    ignored = [
        f"{PREFIX}{name}={_plain(value)!r}"
        for name, value in asked.items()
        if value not in (getattr(Settings, name), getattr(vip, name))
    ]
    if ignored:
        logger.warning("%s: not used, because the VIP that is given has other options", ", ".join(ignored))
    name, strategy = next(iter(vip.strategies.items()))
    if args.vip_waves == 2 and type(strategy.predictor).success_belief is Predictor.success_belief:
        logger.warning(
            "vip_waves=2 has no effect: the strategy %s has no belief over success; set vip_strategy='default'", name
        )
