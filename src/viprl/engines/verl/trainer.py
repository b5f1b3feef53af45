"""`trainer.v1.trainer_mode=vip_sync`: verl's synchronous trainer with adaptive rollout counts.

verl's data loading, rollout, losses and workers stay as they are. `rollout.n` = C/Q is the *average* group size: a step
has Q = data.train_batch_size prompts and exactly C = Q * rollout.n rollouts. Each override calls `super()`; nothing of
verl is copied or patched.

    extended method of PPOTrainerSync   why
    __init__                            refuse, set and tell what must be consistent, before any worker starts
    _next_train_batch                   prompts -> counts, handed to the agent loops as `__rollout_n__`
    _compute_advantage                  received = planned; outcomes to VIP; then verl calls our estimator
    _save_checkpoint                    the state of VIP goes in before verl moves its "latest" marker
    _load_checkpoint                    and comes back; a fresh run may start warm
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transfer_queue as tq
from omegaconf import OmegaConf, open_dict
from tensordict import NonTensorData
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils as tu

from viprl.engines.success import SuccessCriterion
from viprl.engines.verl import consistency, contract
from viprl.engines.verl.advantages import SETTINGS
from viprl.engines.verl.options import ESTIMATORS, MODE, NAMESPACE, Options, read_options
from viprl.engines.verl.rollouts import ROLLOUTS, Round, place, prompt_of, row_sums
from viprl.engines.verl.warm_start import observe_log
from viprl.prompts import Prompt
from viprl.utils.arrays import FloatArray
from viprl.vip import VIP

logger = logging.getLogger(__name__)

STATE_FILE = "actor/vip_state.safetensors"
"""Within a checkpoint folder global_step_N: beside the actor's weights, with which verl prunes it."""


@register_trainer(MODE)
class VIPTrainerSync(PPOTrainerSync):
    """`PPOTrainerSync` whose groups have the sizes that `self.vip` plans."""

    def __init__(self, config: Any) -> None:
        contract.check(PPOTrainerSync)
        consistency.refuse(config)
        rollout = config.actor_rollout_ref.rollout
        self.vip_options = read_options(
            OmegaConf.to_container(config.trainer.v1.get(MODE) or OmegaConf.create({}), resolve=True),
            adv_estimator=config.algorithm.adv_estimator,
            prompts=config.data.train_batch_size,
            rollout_n=rollout.n,
        )
        with open_dict(config):
            lines = consistency.settle(config, self.vip_options) + consistency.padding(config)
            config.algorithm[SETTINGS] = {
                "rollout_n": rollout.n,
                "prompt_weighting": self.vip_options.prompt_weighting,
            }
            config.trainer.v1[MODE] = _plain(self.vip_options)
        for line in lines:
            logger.warning("%s: %s", MODE, line)
        self._vip_success = _success(self.vip_options)
        self.vip = vip_from_options(self.vip_options, config.algorithm.adv_estimator, self._vip_success)
        self._vip_round: Round | None = None
        self.vip_batch: Round | None = None  # what was planned for the last step whose rewards have come
        self._vip_first = True
        super().__init__(config)

    @property
    def trainer_mode(self) -> str:
        """verl asks for the literal "sync" at several places; the configuration keeps this trainer's own name."""
        return "sync"

    @trainer_mode.setter
    def trainer_mode(self, value: str) -> None:
        if value != MODE:
            raise ValueError(f"trainer.v1.trainer_mode is {value!r}; this trainer is {MODE!r}")

    def _next_train_batch(self, num_prompts: int | None = None) -> Any:
        batch = super()._next_train_batch(num_prompts)
        prompts = [prompt_of(row, self.vip_options.id_key) for row in _rows(batch, self.vip_options.id_key)]
        counts = self.vip.allocate(prompts, len(prompts) * self.config.actor_rollout_ref.rollout.n).counts
        tu.assign_non_tensor_stack(batch, ROLLOUTS, counts.tolist())
        self._vip_round = Round(tuple(map(str, _column(batch, "uid"))), prompts, counts)
        return batch

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        planned, self._vip_round = self._vip_round, None
        if planned is None:
            raise RuntimeError("verl trains on a batch that was not planned: _next_train_batch was not called for it")
        keys = [key for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("is_padding", False)]
        placed = place(keys, planned)
        values, surprise = self._vip_values(keys, batch.partition_id)
        strange = self.vip.unreadable_rewards  # of an earlier part of the run
        observation = self.vip.observe(
            planned.prompts,
            [[values[i] for i in rows] for rows in placed],
            surprise=None if surprise is None else [[float(surprise[i]) for i in rows] for rows in placed],
        )
        self.vip_batch = planned
        first, self._vip_first = self._vip_first, False
        if first and observation.rollouts.sum() == 0 and self.vip.unreadable_rewards > strange:
            raise ValueError(
                f"all {len(values)} rewards of the first batch are neither 0/1 nor -1/+1 (first: {values[0]}), so "
                f"it is open what success is; set +{NAMESPACE}.success, for example to 0.5, a threshold on the reward, "
                "or to the name of a field that the reward function returns, such as acc"
            )
        metrics.update({f"vip/{name}": value for name, value in self.vip.metrics().items()})
        metrics["vip/rollouts"], metrics["vip/padding_rows"] = len(keys), len(batch.keys) - len(keys)
        return super()._compute_advantage(batch, metrics)

    def _vip_values(self, keys: list[str], partition: str) -> tuple[list[float | None], FloatArray | None]:
        """[C] what decides about each rollout, its reward or the field that `success` names, and [C] its surprise: -log
        probability of its tokens under the policy; None where that was not asked for."""
        column, asked = self._vip_success.column, self.vip_options.surprise
        field = "rm_scores" if column is None else "extra_fields"
        fields = [field, *(("old_log_probs", "response_mask") if asked else ())]
        data = tq.kv_batch_get(keys=keys, partition_id=partition, select_fields=fields)
        surprise = -row_sums(data["old_log_probs"], data["response_mask"]) if asked else None
        return self._vip_decisive(data[field], column), surprise

    def _vip_decisive(self, data: Any, column: str | None) -> list[float | None]:
        if column is None:
            return row_sums(data).tolist()
        infos = [(getattr(extra, "data", extra) or {}).get("reward_extra_info") or {} for extra in data]
        if not any(column in info for info in infos):
            raise ValueError(
                f"{NAMESPACE}.success names {column!r}, but the reward function returns "
                f"{', '.join(infos[0]) or 'a bare score'}"
            )
        return [info.get(column) for info in infos]

    def _save_checkpoint(self) -> None:
        self.vip.save(self._vip_step_folder() / STATE_FILE)
        super()._save_checkpoint()

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        if self.global_steps == 0:
            if self.vip_options.warm_start is not None:
                observe_log(self.vip, self.vip_options.warm_start, self._vip_training_set(), self._vip_success)
            return
        trainer = self.config.trainer
        named = Path(trainer.resume_from_path) if trainer.resume_mode == "resume_path" else None
        path = (named or self._vip_step_folder()) / STATE_FILE
        if path.exists():
            self.vip.load(path)
        else:
            logger.warning("%s holds no state of VIP (a stock checkpoint?); success prediction starts afresh", path)

    def _vip_step_folder(self) -> Path:
        return Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}"

    def _vip_training_set(self) -> Iterator[tuple[Prompt, str]]:
        """Each training prompt and how a rollout dump of verl writes it: the decoded chat template."""
        settings = dict(self.config.data.get("apply_chat_template_kwargs") or {})
        for position in range(len(self.train_dataset)):
            row = self.train_dataset[position]
            ids = self.tokenizer.apply_chat_template(
                row["raw_prompt"], add_generation_prompt=True, tokenize=True, return_dict=False, **settings
            )
            yield prompt_of(row, self.vip_options.id_key), self.tokenizer.decode(ids, skip_special_tokens=True)


def vip_from_options(options: Options, adv_estimator: str, success: SuccessCriterion) -> VIP:
    """The `VIP` that a configuration describes."""
    return VIP(
        estimator=ESTIMATORS[adv_estimator],
        min_rollouts=options.low,
        max_rollouts=options.high,
        strategy=options.strategy,
        shadow=options.shadow,
        features=options.features,
        cache=options.cache,
        success=success.rule,
        seed=options.seed,
    )


class _Field:
    """A field of the reward function's answer, to `SuccessCriterion` a reward function of that name."""

    def __init__(self, name: str) -> None:
        self.__name__ = name


def _success(options: Options) -> SuccessCriterion:
    name = str(options.success).partition(">=")[0].strip()
    return SuccessCriterion(options.success, [] if options.success is None else [_Field(name)])


def _plain(options: Options) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(options).items()}


def _rows(batch: Any, id_key: str | None) -> Iterator[dict[str, Any]]:
    """The columns of verl's batch that name its prompts, row by row."""
    names = ["raw_prompt", *([] if id_key is None else [id_key.partition(".")[0]])]
    missing = [name for name in names if name not in batch.keys()]  # noqa: SIM118 (not a dict)
    if missing:
        raise ValueError(f"verl's batch has no column {missing[0]!r}; it has {', '.join(map(str, batch.keys()))}")
    columns = [_column(batch, name) for name in names]
    return (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))


def _column(batch: Any, name: str) -> list[Any]:
    """[Q] values of a column: verl keeps lists in a stack of wrapped values, numbers in a tensor."""
    return [value.data if isinstance(value, NonTensorData) else value for value in batch.get(name).tolist()]
