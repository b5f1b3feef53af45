"""The options under `trainer.v1.vip_sync`, written `+trainer.v1.vip_sync.min_rollouts=2` on verl's command line."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from viprl.advantages import PromptWeighting, rollout_weights
from viprl.allocation.budget import Budget
from viprl.strategies import check_training_strategy

MODE = "vip_sync"
NAMESPACE = f"trainer.v1.{MODE}"
ESTIMATORS = {"vip_rloo": "rloo", "vip_dr_grpo": "dr_grpo"}
"""verl's name of the advantage estimator -> ours."""


@dataclass(frozen=True)
class Options:
    """What VIP needs besides verl's own configuration; every field has a default."""

    low: int | None = None
    """Least rollouts of a prompt. Default: the estimator's smallest legal group (vip_rloo 2, vip_dr_grpo 3)."""
    high: int | None = None
    """Most rollouts of a prompt. Default: 6 * rollout.n."""
    strategy: str = "default"
    """Who allocates: default, paper, uniform, ... (viprl.STRATEGIES)."""
    shadow: tuple[str, ...] = ()
    """Strategies that watch the run and log what they would have saved, without acting."""
    success: str | float | None = None
    """What counts as success. Default: the reward, which must be 0/1 or -1/+1. A number is a threshold on the reward,
    "acc" a field that the reward function returns beside its score, "acc>=0.5" that with a threshold, "module:function"
    takes the reward."""
    features: str = "auto"
    """auto, minilm, minilm+length, length, none, or a model folder."""
    cache: str | None = "auto"
    """Folder of the feature cache. auto: $VIPRL_CACHE or ~/.cache/viprl/features. null: memory only."""
    id_key: str | None = None
    """Column that identifies a prompt, dots reach inside: "extra_info.index". Default: the prompt's content."""
    prompt_weighting: PromptWeighting = "prompt"
    """prompt: every prompt weighs the same. rollout: verl's flat mean, in which a prompt weighs n_q/C."""
    warm_start: str | None = None
    """RewardReader of an earlier run: verl's rollout_data_dir or a file of trajectories. Read when a run starts afresh."""
    surprise: bool = True
    """Tell the strategy how improbable each rollout was under the policy: the default one learns from it which prompts
    have large gradients. Costs the exchange of two token-level fields a step."""
    seed: int = 0
    """Of the generator that breaks ties."""


def read_options(given: Mapping[str, Any] | None, *, adv_estimator: str, prompts: int, rollout_n: int) -> Options:
    """Options from the namespace, checked against the batch of Q prompts and C = Q * rollout_n rollouts.

    Raises ValueError for unknown names, types that cannot be, and bounds that the budget cannot meet.
    """
    if adv_estimator not in ESTIMATORS:
        raise ValueError(
            f"algorithm.adv_estimator is {adv_estimator!r}; trainer_mode={MODE} needs {' or '.join(ESTIMATORS)}"
        )
    known = {field.name: field for field in fields(Options)}
    values = dict(given or {})
    for name in values:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; it has {', '.join(known)}"
            raise ValueError(f"{NAMESPACE} has no option {name!r}{hint}")
    for name in ("low", "high", "seed"):
        if values.get(name) is not None and type(values[name]) is not int:
            raise ValueError(f"{NAMESPACE}.{name} is {values[name]!r}; expected a whole number")
    if type(values.get("surprise", True)) is not bool:
        raise ValueError(f"{NAMESPACE}.surprise is {values['surprise']!r}; expected True or False")
    if "shadow" in values:
        shadow = values["shadow"] or ()
        values["shadow"] = (shadow,) if isinstance(shadow, str) else tuple(shadow)
    options = Options(**values)
    rollout_weights([1], options.prompt_weighting)
    for name in (options.strategy, *options.shadow):
        check_training_strategy(name)
    high = 6 * rollout_n if options.high is None else options.high
    try:
        spec = Budget.of(prompts, prompts * rollout_n, options.low, high, ESTIMATORS[adv_estimator])
    except ValueError as error:
        raise ValueError(
            f"{NAMESPACE}: min_rollouts={options.low}, max_rollouts={high} with data.train_batch_size={prompts}, "
            f"rollout.n={rollout_n}, adv_estimator={adv_estimator}: {error}"
        ) from error
    return Options(**{**asdict(options), "low": int(spec.low[0]), "high": high})
