"""`trainer.v1.trainer_mode=vip_sync`: verl's synchronous trainer with adaptive rollout counts.

verl's data loading, rollout, losses and workers stay as they are. `rollout.n` = C/Q is the *average* group size: a step
has Q = data.train_batch_size prompts and exactly C = Q * rollout.n rollouts. Where the options `spend` and `cost` save
rollouts, masked rows take their place (`viprl.engines.verl.mini_batches`). With `candidates` = k a step takes k Q
prompts from the data, of which VIP selects Q; the others never enter verl's queue. With `waves` = 2 the rollouts of a
step are sampled in up to two waves: the second one is planned and sent to the agent loops while verl waits for the
first. Each override calls `super()`; nothing of verl is copied or patched.

    overridden method of PPOTrainerSync   purpose
    __init__                              check and complete the configuration before any worker starts
    _init_dataloader                      the length of an epoch with several candidates
    _build_replay_buffer                  with `waves` = 2, verl waits for both waves (`viprl.engines.verl.wave_buffer`)
    _next_train_batch                     prompts -> counts, passed to the agent loops as `__rollout_n__`
    _get_required_batch_multiple          as many rows, and optimizer steps, as C rollouts have
    _balance_batch                        the rollouts spread over the mini-batches, if there are fewer than C
    _compute_advantage                    received = planned; verl calls our estimator; VIP learns beside the driver
    step                                  waits until VIP has learned, when the actors have been updated
    _save_checkpoint                      the state of VIP is written before verl moves its "latest" marker
    _load_checkpoint                      reads it again; a fresh run may start warm; says how the run starts
    fit                                   with the process that reads outcomes; says afterwards what came of it
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import transfer_queue as tq
from omegaconf import OmegaConf, open_dict
from tensordict import NonTensorData
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils as tu

from viprl import metrics as names
from viprl.engines.planned_batch import batch_metrics, both_waves, plan_batch
from viprl.engines.prompt_id import identified
from viprl.engines.run_lines import RunSummary, announce, start_line
from viprl.engines.state_writer import StateWriter
from viprl.engines.success import SuccessCriterion
from viprl.engines.verl import consistency
from viprl.engines.verl.estimators import SETTINGS, planned
from viprl.engines.verl.mini_batches import rows_of_step, spread
from viprl.engines.verl.namespace import MODE, NAMESPACE, read_namespace, written_namespace
from viprl.engines.verl.queue_reader import Asked, QueueReader
from viprl.engines.verl.rollouts import (
    ROLLOUTS,
    SECOND_WAVE,
    Outcomes,
    PlannedStep,
    prompt_order,
    row_sums,
)
from viprl.engines.verl.verl_api import CONTRACT
from viprl.engines.verl.wave_buffer import WaveBuffer
from viprl.engines.vip_builder import build_vip, load_state
from viprl.engines.warm_start import TrainingRow, warm_start
from viprl.errors import InputError
from viprl.outcomes import scorable
from viprl.runs.history import ground_truth_text

logger = logging.getLogger(__name__)

STATE_FILE = "actor/vip_state.safetensors"
"""In a checkpoint folder global_step_N: beside the actor's weights, with which verl deletes it."""


@register_trainer(MODE)
class VIPTrainerSync(PPOTrainerSync):
    """`PPOTrainerSync` with group sizes that `self.vip` plans.

    Args:
        config: verl's configuration. Options in `trainer.v1.vip_sync`, see `viprl.settings.EngineSettings`.

    Raises InputError (a ValueError) for settings that cannot work, MissingPackageError (an ImportError) if the
    installed verl lacks an API.
    """

    def __init__(self, config: Any) -> None:
        CONTRACT.check()
        consistency.refuse(config)
        rollout_n = config.actor_rollout_ref.rollout.n
        self.vip_settings = read_namespace(
            OmegaConf.to_container(config.trainer.v1.get(MODE) or OmegaConf.create({}), resolve=True),
            adv_estimator=config.algorithm.adv_estimator,
            prompts=config.data.train_batch_size,
            rollout_n=rollout_n,
        )
        consistency.check_baseline(config, self.vip_settings.baseline)
        consistency.check_waves(config, self.vip_settings)
        weighting = self.vip_settings.prompt_weighting
        with open_dict(config):
            lines = consistency.settle(config, self.vip_settings) + consistency.padding(config, self.vip_settings)
            by_rows = config.actor_rollout_ref.actor.loss_agg_mode != "token-mean"
            config.algorithm[SETTINGS] = {"rollout_n": rollout_n, "prompt_weighting": weighting, "by_rows": by_rows}
            config.trainer.v1[MODE] = written_namespace(self.vip_settings)
        for line in lines:
            logger.warning("%s: %s", MODE, line)
        option = f"+{NAMESPACE}.success"
        self._vip_success = SuccessCriterion(self.vip_settings.success, complete=False, option=option)
        self.vip = build_vip(self.vip_settings, self._vip_success, f"{NAMESPACE}.")
        self._vip_writer = StateWriter(self.vip)
        self._vip_summary, self._vip_reader = RunSummary(), QueueReader()
        self._vip_thread = ThreadPoolExecutor(1, thread_name_prefix="viprl")
        self._vip_learning: Future[dict[str, float]] | None = None
        self._vip_step: PlannedStep | None = None
        self._vip_sent: Any = None
        """verl's batch of the first wave, as long as a second one may follow."""
        self.vip_batch: PlannedStep | None = None
        """The plan of the last step whose rewards have been observed."""
        super().__init__(config)

    @property
    def trainer_mode(self) -> str:
        """ "sync", which verl compares with in several places; the configuration keeps the name of this trainer."""
        return "sync"

    @trainer_mode.setter
    def trainer_mode(self, value: str) -> None:
        if value != MODE:
            raise InputError(f"trainer.v1.trainer_mode is {value!r}; this trainer is {MODE!r}")

    def _build_replay_buffer(self) -> Any:
        buffer = super()._build_replay_buffer()
        return WaveBuffer(buffer, self._vip_send_second) if self.vip_settings.waves == 2 else buffer

    def _init_dataloader(self) -> None:
        data, k = self.config.data, self.vip_settings.candidates
        size = data.train_batch_size
        if k > 1:  # verl computes the length of an epoch from train_batch_size, the loader reads gen_batch_size
            data.gen_batch_size = data.get("gen_batch_size") or size
            data.train_batch_size = k * size
        try:
            super()._init_dataloader()
        finally:
            data.train_batch_size = size
        if not self.steps_per_epoch:
            raise InputError(
                f"the training set has {len(self.train_dataset)} prompts, but a step takes {k * size} "
                f"(data.train_batch_size={size}, {NAMESPACE}.candidates={k}); lower one of the two"
            )

    def _next_train_batch(self, num_prompts: int | None = None) -> Any:
        size = self.config.data.train_batch_size if num_prompts is None else num_prompts
        batch = super()._next_train_batch(self.vip_settings.candidates * size)
        prompts = [self._vip_prompt(row) for row in _rows(batch, self.vip_settings.id_column)]
        budget, options = size * self.config.actor_rollout_ref.rollout.n, self.vip_settings
        positions, plan = plan_batch(self.vip, prompts, budget, size, unbiased=options.unbiased, waves=options.waves)
        if len(positions) < len(prompts):
            batch = tu.index_select_tensor_dict(batch, positions)
        tu.assign_non_tensor_stack(batch, ROLLOUTS, plan.counts.tolist())
        uids = tuple(map(str, _column(batch, "uid")))
        self._vip_step = PlannedStep(plan.prompts, plan.counts, plan.weights, uids, prior=plan.prior, waves=plan.waves)
        self._vip_sent = None if plan.waves is None else batch
        return batch

    def _vip_send_second(self, first: Any) -> int:
        """Plan the second wave by the rewards of the first, whose rows are given, and send it to the agent loops.

        Returns: the number of prompts that are sampled again.
        """
        plan, batch, self._vip_sent = self._vip_step, self._vip_sent, None
        if plan is None or batch is None:
            return 0
        with self._vip_noting_step():
            keys = [first.keys[i] for i in prompt_order(first.keys, plan)]
            data = tq.kv_batch_get(keys=keys, partition_id=first.partition_id, select_fields=["rm_scores"])
            self._vip_step = whole = both_waves(self.vip, plan, row_sums(data["rm_scores"]))
        more = whole.counts - plan.counts
        again = np.flatnonzero(more).tolist()
        if not again:
            return 0
        second = tu.index_select_tensor_dict(batch, again)
        tu.assign_non_tensor_stack(second, "uid", [plan.uids[q] + SECOND_WAVE for q in again])
        tu.assign_non_tensor_stack(second, ROLLOUTS, more[again].tolist())
        return int(self._submit_batch_to_rollout(second))

    def _get_required_batch_multiple(self, dp_size: int) -> int:
        self._vip_ranks = dp_size
        return rows_of_step(consistency.budget(self.config), super()._get_required_batch_multiple(dp_size))

    def _balance_batch(self, batch: Any, metrics: dict[str, Any], *more: Any, **options: Any) -> Any:
        batch = super()._balance_batch(batch, metrics, *more, **options)
        masked = [bool(tag.get("is_padding", False)) for tag in batch.tags]
        mini_batches, rest = divmod(len(masked), consistency.mini_batch(self.config))
        if masked.count(False) < consistency.budget(self.config) and rest == 0:  # a rest: the actor is not updated yet
            batch.reorder(spread(masked, self._vip_ranks, mini_batches))
        return batch

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        plan, self._vip_step = self._vip_step, None
        if plan is None:
            raise RuntimeError("verl computes advantages of a batch that was not planned by _next_train_batch")
        keys = [key for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("is_padding", False)]
        with self._vip_noting_step():
            rows = [keys[i] for i in prompt_order(keys, plan)]
            asked = Asked(rows, batch.partition_id, self._vip_success.column, bool(self.vip_settings.use_logprobs))
            read = None
            if consistency.masks_change(self.config):
                read = self._vip_reader.request(asked)
                read()
        with planned(plan):
            batch = super()._compute_advantage(batch, metrics)
        counted: dict[str, float] = {names.ROLLOUTS: len(keys), names.PADDING_ROWS: len(batch.keys) - len(keys)}
        with self._vip_noting_step():
            read = read or self._vip_reader.request(asked)
        self._vip_learning = self._vip_thread.submit(self._vip_learn, plan, read, counted)
        if not self._vip_reader.beside:
            metrics.update(self._vip_learned())
        return batch

    def step(self, metrics: dict[str, Any], *more: Any, **options: Any) -> Any:
        batch = super().step(metrics, *more, **options)
        metrics.update(self._vip_learned())
        return batch

    def _vip_learned(self) -> dict[str, float]:
        """Wait until VIP has learned from the outcomes of the step; returns the metrics, none if they were returned."""
        learning, self._vip_learning = self._vip_learning, None
        with self._vip_noting_step():
            return {} if learning is None else learning.result()

    def _vip_learn(
        self, plan: PlannedStep, outcomes: Callable[[], Outcomes], counted: dict[str, float]
    ) -> dict[str, float]:
        """Wait for the outcomes of a step and observe them; returns metrics."""
        seen = outcomes()
        column = self._vip_success.column
        if column is not None and column not in seen.fields:
            raise self._vip_success.not_found(column, seen.fields)
        rewards, deciding, lengths = plan.split(seen.rewards), plan.split(seen.deciding), plan.split(seen.lengths)
        logprobs = None if seen.logprobs is None else plan.split(seen.logprobs)
        observation = self._vip_success.observe(self.vip, plan, rewards, deciding, logprobs, lengths)
        if self._vip_is_saved():  # while the weights are trained
            self._vip_writer.start(self._vip_state_file())
        self.vip_batch = plan
        total = np.where(scorable(seen.rewards), seen.rewards, np.nan)
        own = batch_metrics(self.vip, plan.advantages(total))
        self._vip_summary.add(plan.counts, observation, own, self._vip_bounds())
        return names.logged(own | counted)

    @contextmanager
    def _vip_noting_step(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            error.add_note(f"raised at training step {self.global_steps}")
            raise

    def _vip_bounds(self) -> tuple[int, float] | None:
        least, most = self.vip_settings.min_rollouts, self.vip_settings.max_rollouts
        return None if least is None or most is None else (least, most)

    def _save_checkpoint(self) -> None:
        if self._vip_writer.path != self._vip_state_file():
            self._vip_writer.start(self._vip_state_file())
        self._vip_writer.finish()
        super()._save_checkpoint()

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        trainer, resumed = self.config.trainer, None
        if self.global_steps > 0:
            given = Path(trainer.resume_from_path) if trainer.resume_mode == "resume_path" else None
            resumed = given or self._vip_step_folder()
            load_state(self.vip, resumed / STATE_FILE)
        elif self.vip_settings.warm_start is not None:
            rows = self._vip_training_set()
            warm_start(self.vip, self.vip_settings.warm_start, self._vip_success, training_set=rows)
        where = None if resumed is None else str(resumed)
        options = self.vip_settings
        self._vip_summary = RunSummary(resumed is not None, options.candidates > 1, self.vip)
        choices = {name: getattr(options, name) for name in ("candidates", "unbiased", "baseline", "waves")}
        sizes = {"prompts": self.config.data.train_batch_size, "rollouts": consistency.budget(self.config)}
        announce(start_line(self.vip, self._vip_success, **sizes, **choices, resumed=where))

    def fit(self, agent_loop_manager: Any) -> None:
        self._vip_reader.start()
        try:
            super().fit(agent_loop_manager)
        finally:
            self._vip_reader.stop()
        folder = self.config.trainer.get("rollout_data_dir")
        log = f"viprl replay {folder}" if folder else "trainer.rollout_data_dir keeps a log that `viprl replay` reads"
        announce(self._vip_summary.line(next(iter(self.vip.strategies)), [log]))

    def _vip_is_saved(self) -> bool:
        """Whether verl saves a checkpoint after this step."""
        every, step = self.config.trainer.save_freq, self.global_steps
        return every > 0 and (step % every == 0 or step >= self.total_training_steps)

    def _vip_state_file(self) -> Path:
        return self._vip_step_folder() / STATE_FILE

    def _vip_step_folder(self) -> Path:
        return Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}"

    def _vip_prompt(self, row: dict[str, Any]) -> Any:
        return identified(row["raw_prompt"], row, self.vip_settings.id_column, f"{NAMESPACE}.id_column")

    def _vip_training_set(self) -> Iterator[TrainingRow]:
        """The training prompts as a rollout dump of verl writes them: the decoded chat template."""
        settings = dict(self.config.data.get("apply_chat_template_kwargs") or {})
        for position in range(len(self.train_dataset)):
            row = self.train_dataset[position]
            ids = self.tokenizer.apply_chat_template(
                row["raw_prompt"], add_generation_prompt=True, tokenize=True, return_dict=False, **settings
            )
            text = self.tokenizer.decode(ids, skip_special_tokens=True)
            truth = (row.get("reward_model") or {}).get("ground_truth")
            yield TrainingRow(self._vip_prompt(row), text, ground_truth_text(truth))


def _rows(batch: Any, id_column: str | None) -> Iterator[dict[str, Any]]:
    """The columns of verl's batch that identify its prompts, row by row."""
    columns = ["raw_prompt", *([] if id_column is None else [id_column.partition(".")[0]])]
    missing = [name for name in columns if name not in batch.keys()]  # noqa: SIM118 (not a dict)
    if missing:
        raise InputError(f"verl's batch has no column {missing[0]!r}; it has {', '.join(map(str, batch.keys()))}")
    values = [_column(batch, name) for name in columns]
    return (dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True))


def _column(batch: Any, name: str) -> list[Any]:
    """[Q] values of a column: verl keeps lists in a stack of wrapped values, numbers in a tensor."""
    return [value.data if isinstance(value, NonTensorData) else value for value in batch.get(name).tolist()]
