"""`VIPGRPOTrainer` and `VIPRLOOTrainer`, drop-in subclasses of TRL's trainers.

TRL's data loading stays as it is: `num_generations` = C/Q is the *average* group size, and every generation batch has Q
prompts, each repeated num_generations times. The subclass recovers the Q prompts, asks `VIP` for counts, builds the
rows again, lets TRL generate and score, and replaces the advantages. With `vip_waves` = 2 it may let TRL do so twice
(`viprl.engines.trl.two_waves`). There are as many rows as before, sum n_q = C, or
N < C if `vip_spend` and `vip_cost` save rollouts (`viprl.engines.trl.micro_batches`). With `vip_candidates` = k TRL
loads k Q prompts, each repeated num_generations / k times, of which `VIP` selects Q. Each override calls `super()`;
nothing of TRL is copied or patched.

    overridden method                   purpose
    _generate_and_score_completions     prompts -> counts -> rows; advantages and outcomes afterwards
    _prepare_inputs, compute_loss       micro-batches of N < C rollouts (`micro_batches`)
    _calculate_rewards                  checks and keeps the rewards of all functions; names a function that failed
    _set_signature_columns_if_needed    keeps the columns that identify a prompt
    training_step (`gradient_moments`)  sketches of the gradients, if asked for
    get_train_dataloader                k times as many prompts in a batch
    _get_train_sampler                  the same; order by (seed, epoch), so that a resumed run sees the same prompts
    _save_checkpoint, save_model        write the state of VIP into the checkpoint folder, beside the weights
    _load_optimizer_and_scheduler       reads it again

Prompt weights are exact for the loss types dr_grpo, grpo, sapo, luspo and RLOO, and approximate if the denominator
counts tokens (dapo, bnpo, cispo, vespo). They do not apply to a KL term in the loss (`beta` of GRPO), entropy bonuses,
or scaling by the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from viprl.errors import InputError, MissingPackageError

try:
    import torch
    from accelerate.utils import gather_object
    from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
    from trl import GRPOTrainer, RLOOTrainer
    from trl.trainer.utils import RepeatSampler, get_config_model_id
except (ImportError, RuntimeError) as error:  # transformers wraps a missing package in a RuntimeError
    raise MissingPackageError(f'viprl.engines.trl needs TRL: pip install "viprl[trl]" ({error})') from error

from viprl.advantages import group_index, group_std, rollout_weights
from viprl.engines.planned_batch import PlannedBatch, batch_metrics, plan_batch
from viprl.engines.state_writer import StateWriter
from viprl.engines.success import SuccessCriterion
from viprl.engines.trl.completion_logs import correct_advantages, keep_last
from viprl.engines.trl.epoch_sampler import EpochOrder, EpochSampler
from viprl.engines.trl.generation import Groups, Sampled
from viprl.engines.trl.gradient_moments import MeasuredSteps
from viprl.engines.trl.micro_batches import UnevenMicroBatches, completed
from viprl.engines.trl.ragged_advantages import grpo_advantages, rewards_of_one_group, rloo_advantages
from viprl.engines.trl.reward_calls import UnscorableRewards, checked_calls
from viprl.engines.trl.row_prompts import reset_columns, row_prompt
from viprl.engines.trl.run_report import RunReport
from viprl.engines.trl.trainer_configs import PREFIX as OPTION_PREFIX
from viprl.engines.trl.trainer_configs import VIPGRPOConfig, VIPRLOOConfig, check_given_vip, vip_settings
from viprl.engines.trl.training_set import PromptVariety, check_functions, check_training_set
from viprl.engines.trl.trl_api import CONTRACT
from viprl.engines.trl.two_waves import SamplingInWaves
from viprl.engines.vip_builder import build_vip, load_state, options_named
from viprl.engines.warm_start import warm_start
from viprl.metrics import ROLLOUTS_COLUMN, WAVE_COLUMN, logged
from viprl.outcomes import scorable
from viprl.prompts import Prompt
from viprl.utils.arrays import FloatArray
from viprl.vip import VIP, Observation

STATE_FILE = "vip_state.safetensors"
GROUP_ARGUMENT = "vip_group"
"""Argument of reward functions: the position in the batch of the prompt of each completion."""


class VIPTrainer(MeasuredSteps, UnevenMicroBatches, SamplingInWaves):
    """Mixin to place before a TRL trainer."""

    _config_class: ClassVar[type]
    _tag_names: ClassVar[list[str]]
    _name: ClassVar[str]
    _paper: ClassVar[dict[str, str]] = {
        "title": "Adaptive Rollout Allocation for Online Reinforcement Learning with Verifiable Rewards",
        "id": "2602.01601",
    }

    def __init__(
        self, model: Any, reward_funcs: Any = None, args: Any = None, *rest: Any, vip: VIP | None = None, **more: Any
    ):
        CONTRACT.check()
        if args is None:
            name = model if isinstance(model, str) else get_config_model_id(model.config)
            args = self._config_class(f"{name.split('/')[-1]}-{self._name}")
        self._vip_check_args(args)
        several = isinstance(reward_funcs, list | tuple)
        functions = list(reward_funcs) if several else [] if reward_funcs is None else [reward_funcs]
        environments = more.get("environment_factory") is not None  # they bring rewards of their own
        success = args.vip_success if vip is None or args.vip_success is not None else vip.success
        self._vip_success = SuccessCriterion(success, functions, complete=not environments)
        self._vip_tasks: set[str] | None = set()
        self._vip_beyond = UnscorableRewards()
        self.vip_batch: Groups | None = None
        """The last generation batch."""
        self.vip_listeners: list[Callable[[Groups], None]] = []
        """Called after every generation batch."""
        self.vip = vip if vip is not None else vip_from_config(args, self._vip_success)
        self._vip_writer = StateWriter(self.vip)
        check_given_vip(args, self.vip)
        if args.vip_warm_start:
            match = "id" if args.vip_id_column else "prompt"
            warm_start(self.vip, args.vip_warm_start, self._vip_success, match=match)
        super().__init__(model, reward_funcs, args, *rest, **more)
        self._vip_success.bind(self.reward_func_names)
        if environments:
            self._vip_tasks = reset_columns(self._vip_environments())
        check_training_set(self.train_dataset, args, environments=environments)
        self._vip_variety = PromptVariety(args.vip_id_column, self._vip_tasks)
        if self.accelerator.is_main_process:
            self._vip_variety.look_at_data(self.train_dataset)
        given = dict(zip(self.reward_func_names, functions, strict=False))
        check_functions({**given, "rollout_func": getattr(self, "rollout_func", None)}, args)
        if args.vip_register_pool and self.accelerator.is_main_process:
            with options_named(OPTION_PREFIX):
                self.vip.register([self._vip_prompt(row) for row in self.train_dataset])
        self._vip_report, self._vip_order = RunReport(self), EpochOrder()
        self.add_callback(self._vip_report)
        self.add_callback(self._vip_order)

    def _vip_environments(self) -> list[Any]:
        """One instance of each environment, as TRL keeps them."""
        pools = getattr(self, "_environment_pool", None)
        return list(self.environments or []) if pools is None else [pool[0] for pool in pools.values()]

    def _vip_check_args(self, args: Any) -> None:
        if not isinstance(args, self._config_class):
            raise TypeError(
                f"args is a {type(args).__name__}; {type(self).__name__} needs a {self._config_class.__name__}, which "
                "has the same options and those of VIP"
            )
        if getattr(args, "multi_objective_aggregation", "sum_then_normalize") != "sum_then_normalize":
            raise InputError(
                f"multi_objective_aggregation is {args.multi_objective_aggregation!r}, which normalises each reward "
                "within groups of equal size; set it to 'sum_then_normalize'"
            )

    # --- before sampling ----------------------------------------------------------------------------------------------

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if not self.model.training:
            return super()._generate_and_score_completions(inputs)
        rows = self._vip_prompt_rows(inputs)
        if self.accelerator.is_main_process:
            self._vip_variety.look(rows)
        offered, budget = [self._vip_prompt(row) for row in rows], self.accelerator.num_processes * len(inputs)
        positions, plan = self._vip_on_main(lambda: self._vip_plan(offered, budget))
        output, sampled = self._vip_sample([rows[position] for position in positions], plan)
        self._vip_finish(output, sampled)
        if self.vip.spends_all:
            return output
        keep_last(self._logs, int(sampled.plan.counts.sum()))
        return completed(output, len(inputs), self.args.steps_per_generation)

    def _vip_prompt_rows(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The distinct rows, one for each prompt that is offered. TRL repeats each `vip_rows` times over the global
        batch, so they are at multiples of that number, whatever their content is."""
        start = self.accelerator.process_index * len(inputs)
        heads = [row for i, row in enumerate(inputs) if (start + i) % self.args.vip_rows == 0]
        return gather_object(heads) if self.accelerator.num_processes > 1 else heads

    def _vip_prompt(self, row: dict[str, Any]) -> Prompt:
        return row_prompt(row, self.args.vip_id_column, getattr(self, "_vip_tasks", ()))

    def _vip_plan(self, offered: list[Prompt], budget: int) -> tuple[list[int], PlannedBatch]:
        """The positions of the prompts that are sampled, and their plan."""
        args, size = self.args, len(offered) // self.args.vip_candidates
        choices = {"unbiased": args.vip_unbiased, "multiple": self.accelerator.num_processes, "waves": args.vip_waves}
        with options_named(OPTION_PREFIX):
            return plan_batch(self.vip, offered, budget, size, **choices)

    # --- after sampling -----------------------------------------------------------------------------------------------

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: Any, completions: Any, completion_ids_list: list[Any]
    ) -> Any:
        current, step = self._vip_generation, self.state.global_step
        when = f"in the evaluation after training step {step}" if current is None else f"at training step {step + 1}"
        known = self._vip_groups(len(inputs))
        # rows of an evaluation have no count, but TRL's table has one value for each row
        for column in (ROLLOUTS_COLUMN, *[WAVE_COLUMN] * (self.args.vip_waves > 1)):
            self._log_completion_extra(column, [None] * len(inputs) if current is None else known[column])
        with checked_calls(self, when, known):
            rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list).detach()
        beyond = ~scorable(rewards) & ~torch.isnan(rewards)
        if self.accelerator.is_main_process:
            self._vip_beyond.look(beyond, self.reward_func_names, when)
        if current is not None:
            current.rewards = rewards.masked_fill(beyond, torch.inf)
            lengths = torch.tensor([len(ids) for ids in completion_ids_list], device=rewards.device)
            current.lengths = self.accelerator.gather(lengths).double().cpu().numpy()
            self.num_generations = len(rewards)  # TRL's own advantages, replaced below, then use one group of N
        return rewards.masked_fill(beyond, torch.nan)

    def _vip_groups(self, rows: int) -> dict[str, list[int]]:
        """What reward functions may ask for, [rows] of this process: the group of each row in the whole batch, the
        rollouts of that group as far as they are planned, and with two waves which of them it is."""
        current, size = self._vip_generation, self.num_generations_eval
        if current is None:
            start = self.accelerator.process_index * rows
            group, counts, wave = [(start + i) // size for i in range(rows)], [size] * rows, 1
        else:
            group, counts, wave = current.local.tolist(), current.counts[current.local].tolist(), current.wave
        found = {GROUP_ARGUMENT: group, ROLLOUTS_COLUMN: counts}
        return found | ({WAVE_COLUMN: [wave] * rows} if self.args.vip_waves > 1 else {})

    def _vip_finish(self, output: dict[str, Any], sampled: Sampled) -> None:
        """Replace the advantages, correct what TRL logged about them, and let VIP learn from the outcomes."""
        plan, counts = sampled.plan, sampled.plan.counts
        total, rewards = self._vip_totals(sampled.rewards)
        shaped = self._vip_shaped(total, output)
        advantages = self._vip_advantages(shaped, plan)
        weighted = advantages * rollout_weights(counts, self.args.vip_prompt_weighting, prompt_weights=plan.weights)
        mine = output["advantages"]
        output["advantages"] = torch.as_tensor(sampled.own(weighted), dtype=mine.dtype, device=mine.device)
        correct_advantages(self, advantages, group_std(shaped, counts)[group_index(counts)])
        deciding = self._vip_success.values(sampled.rewards, rewards)
        observation = self._vip_observe(sampled, rewards, deciding)
        groups = plan.prompts, counts.tolist(), plan.split(total)
        self.vip_batch = Groups(*groups, advantages, observation, plan.weights)
        self._vip_log(self.vip_batch, plan)
        for listener in self.vip_listeners:
            listener(self.vip_batch)

    def _vip_log(self, batch: Groups, plan: PlannedBatch) -> None:
        """Log the metrics of VIP, on the main process."""
        if batch.observation is None:
            return
        values = batch_metrics(self.vip, batch.advantages)
        for name, value in logged(values).items():
            self._metrics["train"][name].append(value)
        self._vip_report.add(batch, values)

    def _vip_observe(self, sampled: Sampled, rewards: FloatArray, deciding: FloatArray) -> Observation | None:
        """Let VIP learn, on the main process. Both arrays are [N]."""
        if not self.accelerator.is_main_process:
            return None
        plan = sampled.plan
        nats = None if sampled.logprobs is None else plan.split(sampled.logprobs)
        given = plan.split(rewards), plan.split(deciding), nats, plan.split(sampled.lengths)
        return self._vip_success.observe(self.vip, plan, *given)

    def _vip_shaped(self, total: FloatArray, output: dict[str, Any]) -> FloatArray:
        """[N] the rewards that the advantages are computed from."""
        return total

    def _vip_advantages(self, rewards: FloatArray, plan: PlannedBatch) -> FloatArray:
        """[N] advantages by the configured estimator, before the prompt weights."""
        raise NotImplementedError

    # --- columns and order of the prompts, checkpoints ----------------------------------------------------------------

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        column = self.args.vip_id_column
        wanted = [] if column is None else [column, column.partition(".")[0]]
        self._signature_columns += [name for name in wanted if name not in self._signature_columns]

    def get_train_dataloader(self) -> Any:
        with self._vip_set(num_generations=self.args.vip_rows):  # reads it for streams
            return super().get_train_dataloader()

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        with self._vip_set(num_generations=self.args.vip_rows):
            sampler = super()._get_train_sampler(dataset)
        if type(sampler) is not RepeatSampler:
            return sampler
        self._vip_order.sampler = EpochSampler.of(sampler)
        return self._vip_order.sampler

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.accelerator.is_main_process:
            folder = Path(self._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            self._vip_writer.start(folder / STATE_FILE)
        super()._save_checkpoint(model, trial)
        self._vip_writer.finish()

    def save_model(self, *args: Any, **options: Any) -> None:
        super().save_model(*args, **options)
        self._vip_writer.finish()  # before the file that makes a checkpoint complete, and before a push

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and self.accelerator.is_main_process:
            load_state(self.vip, Path(checkpoint) / STATE_FILE)
        self._vip_report.resumed = checkpoint


class VIPGRPOTrainer(VIPTrainer, GRPOTrainer):
    """`trl.GRPOTrainer` with adaptive rollout counts.

    Args:
        args: a `VIPGRPOConfig`; `num_generations` is the average group size.
        vip: a `viprl.VIP` to use instead of the one that `args` describes.

    All other arguments are those of `trl.GRPOTrainer`. Raises InputError (a ValueError) for options that cannot work,
    MissingPackageError (an ImportError) if the installed TRL lacks an API.
    """

    _config_class = VIPGRPOConfig
    _tag_names: ClassVar[list[str]] = ["trl", "grpo", "vip"]
    _name = "VIP-GRPO"

    def _vip_advantages(self, rewards: FloatArray, plan: PlannedBatch) -> FloatArray:
        options = {"leave_one_out": self.args.vip_estimator == "rloo", "scale": self.scale_rewards}
        return grpo_advantages(rewards, plan, self.args.num_generations, **options)


class VIPRLOOTrainer(VIPTrainer, RLOOTrainer):
    """`trl.RLOOTrainer` with adaptive rollout counts.

    Args:
        args: a `VIPRLOOConfig`; `num_generations` is the average group size.
        vip: a `viprl.VIP` to use instead of the one that `args` describes.

    All other arguments are those of `trl.RLOOTrainer`. Raises InputError (a ValueError) for options that cannot work,
    MissingPackageError (an ImportError) if the installed TRL lacks an API.
    """

    _config_class = VIPRLOOConfig
    _tag_names: ClassVar[list[str]] = ["trl", "rloo", "vip"]
    _name = "VIP-RLOO"

    def _vip_shaped(self, total: FloatArray, output: dict[str, Any]) -> FloatArray:
        if self.beta != 0.0:
            gathered = self.accelerator.gather(output["advantages"]).double().cpu().numpy()
            return rewards_of_one_group(gathered, total)
        clip = self.reward_clip_range
        return np.clip(total, *clip) if clip else total

    def _vip_advantages(self, rewards: FloatArray, plan: PlannedBatch) -> FloatArray:
        return rloo_advantages(rewards, plan, normalize=self.normalize_advantages)


def vip_from_config(args: Any, success: SuccessCriterion) -> VIP:
    """The `VIP` that a config describes; `success` has read its `vip_success`."""
    return build_vip(vip_settings(args), success, OPTION_PREFIX)
