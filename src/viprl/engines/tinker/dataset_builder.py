"""`with_vip(config)`: adaptive rollout counts for tinker-cookbook's `rl.train.main`.

The dataset of the config is wrapped. A batch costs as many rollouts as before (fewer with `spend` and `cost`), but VIP
decides how many each prompt gets, and with `candidates` also which prompts are sampled. Nothing of tinker-cookbook is
copied or patched.

    extension point                         use
    RLDatasetBuilder, RLDataset.get_batch   prompts -> counts -> group builders of that many environments
    EnvGroupBuilder.compute_group_rewards   outcomes of a finished group to VIP; rewards shaped for training
    RolloutStrategy.execute                 with `waves` = 2, both waves of a group
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from viprl.errors import InputError, MissingPackageError

try:
    import chz
    from tinker_cookbook.rl.types import RLDataset, RLDatasetBuilder

    from viprl.engines.tinker.planned_dataset import VIPDataset, question
    from viprl.engines.tinker.two_waves import TwoWaves
except ImportError as error:
    raise MissingPackageError(
        f'viprl.engines.tinker needs tinker-cookbook: pip install "viprl[tinker]" ({error})'
    ) from error

from viprl.engines.success import SuccessCriterion
from viprl.engines.tinker.tinker_api import CONTRACT
from viprl.engines.vip_builder import build_vip, check_strategies
from viprl.engines.warm_start import warm_start
from viprl.prompts import Prompt
from viprl.settings import EngineSettings, documented, options, read_settings

REFUSED = {
    "prompt_weighting": "the rewards of a group are shaped so that every prompt has the same weight",
    "baseline": "tinker-cookbook itself subtracts the mean of a group from its rewards",
    "id_column": "pass prompt=, a function from a group builder to {'prompt': ..., 'id': ...}",
    "register_pool": "a dataset of tinker-cookbook gives its prompts batch by batch",
    "gradient_moments": "the service keeps the gradients",
}
"""Option -> why tinker-cookbook does not have it."""

ESTIMATORS = ("rloo", "dr_grpo")


@documented(options(without=REFUSED))
def with_vip(config: Any, *, prompt: Callable[[Any], Prompt] = question, **given: Any) -> Any:
    """`config` with adaptive rollout counts.

    Example:
        config = with_vip(config, success="correct", min_rollouts=2, max_rollouts=48)
        asyncio.run(train.main(config))

    Args:
    config (`tinker_cookbook.rl.train.Config`):
        The group size in it becomes the average.
    prompt (function):
        From a group builder to its prompt: a text, a chat, or a mapping with `prompt` and `id`. Default: the question
        of a `ProblemGroupBuilder`.
    {options}

    Raises InputError (a ValueError) for options that cannot work, MissingPackageError (an ImportError) if the installed
    tinker-cookbook lacks an API.
    """
    CONTRACT.check()
    if config.async_config is not None:
        raise InputError("async_config plans batches before the rewards of earlier ones are known; set it to None")
    if config.stream_minibatch_config is not None:
        raise InputError("stream_minibatch_config is not tested with VIP; set it to None")
    termination = config.effective_termination()
    if termination is not None and termination.zero_reward_on_limit:
        raise InputError(
            "termination.zero_reward_on_limit changes rewards after VIP has read them; set "
            "termination=TerminationRewardPolicy(zero_reward_on_limit=False)"
        )
    settings = _settings(given)
    builder = VIPDatasetBuilder(
        inner=config.dataset_builder, log_path=config.log_path, settings=settings, prompt=prompt
    )
    if settings.waves == 1:
        return chz.replace(config, dataset_builder=builder)
    strategy = TwoWaves(
        config.effective_rollout_strategy(), None if termination is None else termination.grader_timeout_seconds
    )
    return chz.replace(config, dataset_builder=builder, rollout_error_tolerance=strategy)


def _settings(given: dict[str, Any]) -> EngineSettings:
    settings = read_settings(given, where="with_vip", refused=REFUSED)
    check_strategies(settings)
    estimator = "rloo" if settings.estimator == "auto" else settings.estimator
    if estimator not in ESTIMATORS:
        raise InputError(
            f"with_vip: estimator is {estimator!r}; expected 'auto' or {' or '.join(map(repr, ESTIMATORS))} "
            "(tinker-cookbook does not divide advantages by a standard deviation)"
        )
    if settings.waves == 2 and estimator != "rloo":
        raise InputError(f"with_vip: waves is 2, which needs the estimator 'rloo'; it is {estimator!r}")
    return replace(settings, estimator=estimator)


@chz.chz
class VIPDatasetBuilder(RLDatasetBuilder):
    """Wraps the training dataset of `inner`; the test dataset stays as it is. Built by `with_vip`."""

    inner: RLDatasetBuilder
    log_path: str
    settings: EngineSettings
    prompt: Callable[[Any], Prompt] = question

    async def __call__(self) -> tuple[RLDataset, RLDataset | None]:
        CONTRACT.check()
        train, test = await self.inner()
        success = SuccessCriterion(self.settings.success, complete=False, option="success")
        dataset = VIPDataset(
            train, build_vip(self.settings, success), self.settings, success, self.log_path, self.prompt
        )
        if self.settings.warm_start and dataset.step == 0:
            warm_start(dataset.vip, self.settings.warm_start, success)
        return dataset, test
