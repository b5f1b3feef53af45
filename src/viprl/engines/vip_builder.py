"""Checked settings of an engine, the VIP that they describe, and its state in a checkpoint."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

from viprl.allocation.budget import Budget, default_max_rollouts
from viprl.allocation.variance_models import get_variance_model
from viprl.engines.success import SuccessCriterion
from viprl.errors import InputError, ViprlError
from viprl.settings import EngineSettings
from viprl.strategies import Strategy, build_strategy
from viprl.vip import VIP

logger = logging.getLogger(__name__)

_NAMES = "|".join(f.name for f in fields(EngineSettings))
_OPTION = re.compile(rf"(?<![\w.'])((?:{_NAMES})(?==| is ['\"\[({{<\dNTF-])|(?:min|max)_rollouts\b)")
"""An option in a message: features='none', "features is 'none'", min_rollouts."""


@contextmanager
def options_named(prefix: str) -> Iterator[None]:
    """Errors about options of VIP say the engine's names of them: "vip_features is ..." with the prefix "vip_"."""
    try:
        yield
    except ViprlError as error:
        message = _OPTION.sub(lambda found: prefix + found[1], str(error))
        if message == str(error):
            raise
        raise type(error)(message) from error


def resolve(
    settings: EngineSettings, *, estimator: str, prompts: int, rollouts: int, where: str, prefix: str
) -> EngineSettings:
    """The settings with the estimator and the bounds that will be used.

    Args:
        prefix: of the engine's names of the options, for errors.
        estimator: what 'auto' means for this run.
        prompts: Q, prompts of a step.
        rollouts: C, rollouts of a step.
        where: the options and values of the engine that decide Q and C, for errors.

    Raises InputError for strategies that cannot train, and for bounds that the budget of a step cannot meet.
    """
    check_strategies(settings, prefix)
    with options_named(prefix):
        return _resolved(settings, estimator, prompts, rollouts, where)


def _resolved(settings: EngineSettings, estimator: str, prompts: int, rollouts: int, where: str) -> EngineSettings:
    model = get_variance_model(estimator)
    if settings.waves == 2 and model.name != "rloo":
        raise InputError(f"waves is 2, which needs the estimator 'rloo'; the estimator of this run is {estimator!r}")
    least = model.min_rollouts if settings.min_rollouts is None else settings.min_rollouts
    most = settings.max_rollouts
    most = default_max_rollouts(prompts, rollouts, least) if most is None else most
    try:
        Budget.of(prompts, rollouts, least, most, model)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    if settings.spend == "match" and not prompts * least < rollouts < prompts * most:
        logger.warning(
            "spend='match' saves nothing: a prompt gets %g rollouts on average, at least %d and at most %g (%s); %s",
            rollouts / prompts,
            least,
            most,
            where,
            "raise the maximum" if rollouts >= prompts * most else "raise the average",
        )
    return replace(settings, estimator=estimator, min_rollouts=least, max_rollouts=most)


def check_strategies(settings: EngineSettings, prefix: str = "") -> None:
    """Raise InputError for a strategy or a shadow that cannot be used in training; `prefix` as for `resolve`."""
    check_training_strategy(settings.strategy, f"{prefix}strategy")
    for shadow in settings.shadows():
        check_training_strategy(shadow, f"{prefix}shadow")


def check_training_strategy(strategy: str | Strategy, option: str = "strategy") -> None:
    """Raise InputError for a strategy that a training run cannot use: unknown ones, and "oracle"."""
    if isinstance(strategy, str) and strategy == "oracle":
        raise InputError(
            f"{option} is 'oracle', which needs the true success probabilities, and no training run knows them; use it "
            "in `viprl replay`, or in experiments with VIP.tell_oracle"
        )
    build_strategy(strategy, option)


def build_vip(settings: EngineSettings, success: SuccessCriterion, prefix: str = "") -> VIP:
    """The `VIP` that the settings describe; `success` has read the option of that name; `prefix` as for `resolve`."""
    with options_named(prefix):
        return VIP(**replace(settings, success=success.rule).for_vip())


def load_state(vip: VIP, path: Path) -> None:
    """Load the state that a checkpoint has at `path`; if there is none, warn and let `vip` start without history."""
    if path.exists():
        vip.load(path)
    else:
        logger.warning("%s not found (a checkpoint without VIP?); VIP starts without history", path)
