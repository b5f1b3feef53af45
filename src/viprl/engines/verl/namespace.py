"""The options in `trainer.v1.vip_sync`, on verl's command line `+trainer.v1.vip_sync.min_rollouts=2`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from viprl.engines.vip_builder import options_named, resolve
from viprl.errors import InputError
from viprl.settings import EngineSettings, options, read_settings

MODE = "vip_sync"
NAMESPACE = f"trainer.v1.{MODE}"
ESTIMATORS = {"vip_rloo": "rloo", "vip_dr_grpo": "dr_grpo"}
"""verl's name of the advantage estimator -> ours."""

NEED_RLOO = {
    "baseline": ("expected", "which is relative to the mean of the whole group"),
    "waves": ("2", "which is biased where the size of a group depends on its rewards"),
}
"""Option -> the value that needs algorithm.adv_estimator=vip_rloo, and what is wrong with another one."""

REFUSED = {
    "estimator": "algorithm.adv_estimator=vip_rloo or vip_dr_grpo decides it",
    "register_pool": "features are computed when a prompt is drawn for the first time",
    "gradient_moments": "its workers keep the gradients; measure a checkpoint with `viprl variance`",
    "text": "it is a function, which only Python can pass",
}
"""Option -> why verl does not have it."""


def read_namespace(
    given: Mapping[str, Any] | None, *, adv_estimator: str, prompts: int, rollout_n: int
) -> EngineSettings:
    """The settings that are used, checked against the Q = `prompts` and C = Q * `rollout_n` of a step.

    Args:
        given: content of the namespace.
        adv_estimator: verl's `algorithm.adv_estimator`.

    Raises InputError for unknown names, values of other types, bounds that the budget cannot meet, and a baseline that
    the estimator does not have.
    """
    if not isinstance(adv_estimator, str) or adv_estimator not in ESTIMATORS:
        raise InputError(
            f"algorithm.adv_estimator is {adv_estimator!r}; trainer_mode={MODE} needs {' or '.join(ESTIMATORS)}"
        )
    with options_named(f"{NAMESPACE}."):
        settings = read_settings(given or {}, where=f"trainer_mode={MODE}", refused=REFUSED)
    for option in NEED_RLOO:
        if str(getattr(settings, option)) == NEED_RLOO[option][0] and ESTIMATORS[adv_estimator] != "rloo":
            raise InputError(needs_rloo(option, adv_estimator))
    return resolve(
        settings,
        prefix=f"{NAMESPACE}.",
        estimator=ESTIMATORS[adv_estimator],
        prompts=prompts,
        rollouts=prompts * rollout_n,
        where=f"{NAMESPACE} with data.train_batch_size={prompts}, rollout.n={rollout_n}, adv_estimator={adv_estimator}",
    )


def needs_rloo(option: str, adv_estimator: str) -> str:
    """Why a value in `NEED_RLOO` is refused."""
    return (
        f"{NAMESPACE}.{option}={NEED_RLOO[option][0]} needs algorithm.adv_estimator=vip_rloo; it is {adv_estimator}, "
        f"{NEED_RLOO[option][1]}"
    )


def written_namespace(settings: EngineSettings) -> dict[str, Any]:
    """The content of the namespace for settings."""
    written = {option.name: getattr(settings, option.name) for option in options(without=REFUSED)}
    return written | {"shadow": list(settings.shadows())}
