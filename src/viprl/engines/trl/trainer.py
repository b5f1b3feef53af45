"""VIP for TRL: `VIPGRPOTrainer` and `VIPRLOOTrainer`, drop-in subclasses of TRL's trainers.

TRL's data loading stays as it is: `num_generations` = C/Q is the *average* group size, and every generation batch
holds Q prompts, each repeated num_generations times. The subclass recovers the Q prompts, asks `VIP` for counts, lays
the rows out anew (sum n_q = C, so no shape changes), lets TRL generate and score, and replaces the advantages. Each
override calls `super()`; nothing of TRL is copied or patched.

    overridden method                   why
    _generate_and_score_completions     prompts -> counts -> rows; advantages and outcomes afterwards
    _calculate_rewards                  sees the gathered rewards of all functions
    _get_train_sampler                  order fixed by (seed, epoch), so that a resumed run sees the same prompts
    _save_checkpoint                    the state of VIP goes into the checkpoint folder
    _load_optimizer_and_scheduler       and comes back

Prompt weights are exact for the loss types dr_grpo, grpo, sapo, luspo and RLOO; approximate where the denominator
counts tokens (dapo, bnpo, cispo, vespo). They do not reach a KL term in the loss (`beta` of GRPO), entropy bonuses, or
batch-level scaling.
"""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

try:
    import torch
    from accelerate.utils import broadcast_object_list, gather_object
    from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
    from trl import GRPOTrainer, RLOOTrainer
    from trl.trainer.utils import RepeatSampler, get_config_model_id
except (ImportError, RuntimeError) as error:  # transformers wraps a missing package in a RuntimeError
    raise ImportError(f'viprl.engines.trl needs TRL: pip install "viprl[trl]" ({error})') from error

from viprl.advantages import group_advantages, group_index, group_std, rollout_weights
from viprl.engines.success import SuccessCriterion
from viprl.engines.trl.config import VIPGRPOConfig, VIPRLOOConfig
from viprl.engines.trl.sampler import EpochSampler, check_dataset
from viprl.prompts import Prompt
from viprl.utils.arrays import FloatArray
from viprl.vip import VIP, Observation

logger = logging.getLogger(__name__)

SUPPORTED = "trl>=1.9,<1.17"
STATE_FILE = "vip_state.safetensors"
OVERRIDDEN = (
    "_generate_and_score_completions",
    "_calculate_rewards",
    "_get_train_sampler",
    "_save_checkpoint",
    "_load_optimizer_and_scheduler",
)
"""TRL's methods that this module extends; a trainer without one of them is refused by name."""


_Host: Any = object  # at run time nothing; to a type checker "some trainer", whose attributes it cannot know


@dataclass(frozen=True)
class Groups:
    """One generation batch as VIP sees it: what `trainer.vip_listeners` are called with."""

    prompts: list[Prompt]
    """The Q prompts in global order, the same on every process."""
    counts: list[int]
    """[Q] rollouts of each, sum C."""
    rewards: list[list[float]]
    """Total reward of each rollout, by prompt; NaN where unscorable."""
    advantages: FloatArray
    """[C] before the prompt weights."""
    observation: Observation | None
    """What VIP read of the rewards; None on all processes but the main one."""


class _Round:
    """What the overrides of one generation batch hand to each other."""

    def __init__(self, rows: list[dict[str, Any]], counts: list[int], rank: int, share: int) -> None:
        self.rows, self.counts = rows, counts
        self.local = group_index(counts)[rank * share : (rank + 1) * share]
        self.rewards: torch.Tensor | None = None  # [C, F], gathered


class VIPTrainer(_Host):
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
        for name in OVERRIDDEN:
            if not hasattr(super(), name):
                raise ImportError(
                    f"this version of TRL has no {type(self).__name__}.{name}; viprl supports {SUPPORTED}"
                )
        if args is None:
            name = model if isinstance(model, str) else get_config_model_id(model.config)
            args = self._config_class(f"{name.split('/')[-1]}-{self._name}")
        if not isinstance(args, self._config_class):
            raise TypeError(
                f"args is a {type(args).__name__}; {type(self).__name__} needs a {self._config_class.__name__} "
                "(the same options, and those of VIP)"
            )
        if getattr(args, "multi_objective_aggregation", "sum_then_normalize") != "sum_then_normalize":
            raise ValueError(
                "multi_objective_aggregation='normalize_then_sum' normalises each reward within groups of one size; "
                "VIP needs 'sum_then_normalize'"
            )
        several = isinstance(reward_funcs, list | tuple)
        functions = list(reward_funcs) if several else [] if reward_funcs is None else [reward_funcs]
        owns_rewards = more.get("environment_factory") is not None  # then the trainer finds more rewards than these
        self._vip_success = SuccessCriterion(args.vip_success, functions, complete=not owns_rewards)
        self._vip_round: _Round | None = None
        self._vip_first = True
        self.vip_batch: Groups | None = None
        self.vip_listeners: list[Callable[[Groups], None]] = []
        self.vip = vip if vip is not None else vip_from_config(args, self._vip_success)
        if args.vip_warm_start:
            match = "id" if args.vip_id_column else "prompt"
            self.vip.learn_from_log(args.vip_warm_start, match=match, reward=self._vip_success.column)
        super().__init__(model, reward_funcs, args, *rest, **more)
        self._vip_success.bind(self.reward_func_names)
        check_dataset(self.train_dataset, args, environments=getattr(self, "environment_factories", None) is not None)
        if args.vip_register_pool and self.accelerator.is_main_process:
            self.vip.register([self._vip_prompt(row) for row in self.train_dataset])

    def _vip_check_rewards(self, observation: Observation, rewards: list[list[float]], strange: int) -> None:
        """A first batch in which no reward can be read is a set-up that was never clear; later ones only warn.
        `strange` of them were values, but neither success nor failure."""
        first, self._vip_first = self._vip_first, False
        total = sum(map(len, rewards))
        if first and observation.rollouts.sum() == 0 and strange >= total > 0:
            raise ValueError(
                f"all {total} rewards of the first batch are neither 0/1 nor -1/+1 (the first is {rewards[0][0]}), so "
                "it is open what success is; set vip_success, for example vip_success='0.5', a threshold on the total"
            )

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if not self.model.training:
            return super()._generate_and_score_completions(inputs)
        rows = self._vip_prompt_rows(inputs)
        prompts = [self._vip_prompt(row) for row in rows]
        counts = self._vip_allocate(prompts, self.accelerator.num_processes * len(inputs))
        self._vip_round = _Round(rows, counts, self.accelerator.process_index, len(inputs))
        try:
            with self._vip_one_row_one_rollout():
                # each rollout gets its own copy: TRL and reward functions write into the rows
                output = super()._generate_and_score_completions(
                    [copy.deepcopy(rows[group]) for group in self._vip_round.local]
                )
            self._vip_finish(output, prompts, self._vip_round)
        finally:
            self._vip_round = None
        return output

    def _vip_prompt_rows(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The Q distinct rows: TRL repeats each num_generations times over the global batch, so they stand at the
        global positions k * num_generations, whatever their content."""
        start = self.accelerator.process_index * len(inputs)
        heads = [row for i, row in enumerate(inputs) if (start + i) % self.num_generations == 0]
        return gather_object(heads) if self.accelerator.num_processes > 1 else heads

    def _vip_prompt(self, row: dict[str, Any]) -> Prompt:
        column = self.args.vip_id_column
        if column is None:
            return row.get("prompt", "")
        if column not in row:
            raise ValueError(f"vip_id_column is {column!r}, but the dataset has the columns {', '.join(row)}")
        return {"prompt": row.get("prompt", ""), "id": row[column]}

    def _vip_allocate(self, prompts: list[Prompt], budget: int) -> list[int]:
        """Counts from the main process, the only one whose VIP is used."""
        box: list[Any] = [None]
        if self.accelerator.is_main_process:
            box = [self.vip.allocate(prompts, budget).counts.tolist()]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(box, from_process=0)
        return box[0]

    @contextlib.contextmanager
    def _vip_one_row_one_rollout(self) -> Iterator[None]:
        """While TRL works on the batch each row is one rollout: it must neither merge rows for generation (vLLM's
        server mode keeps every num_generations-th prompt) nor scale rewards by groups that it takes to be equal."""
        overrides = {"num_generations": 1, "scale_rewards": "none", "normalize_advantages": False}
        saved = {name: getattr(self, name) for name in overrides if hasattr(self, name)}
        for name in saved:
            setattr(self, name, overrides[name])
        try:
            yield
        finally:
            for name, value in saved.items():
                setattr(self, name, value)

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
        current = self._vip_round
        if current is not None:
            self._log_completion_extra("vip_rollouts", [current.counts[group] for group in current.local])
        rewards = super()._calculate_rewards(*args, **kwargs)
        if current is not None:
            current.rewards = rewards.detach().clone()
            self.num_generations = len(rewards)  # TRL's own advantages, replaced below, then see one group of C
        return rewards

    def _vip_finish(self, output: dict[str, Any], prompts: list[Prompt], current: _Round) -> None:
        """Replace the advantages, repair what TRL logged of them, and tell VIP what happened."""
        if current.rewards is None:
            raise RuntimeError(f"TRL did not call _calculate_rewards; viprl supports {SUPPORTED}")
        per_function = current.rewards.double().cpu().numpy()
        weights = self.reward_weights.double().cpu().numpy()
        total = np.where(np.isnan(per_function).all(axis=1), np.nan, np.nansum(per_function * weights, axis=1))
        shaped = self._vip_shaped(total, output)
        advantages = self._vip_advantages(shaped, current.counts)
        weighted = advantages * rollout_weights(current.counts, self.args.vip_prompt_weighting)
        mine, own = output["advantages"], self.accelerator.process_index * len(output["advantages"])
        output["advantages"] = torch.as_tensor(weighted[own : own + len(mine)], dtype=mine.dtype, device=mine.device)

        std = group_std(shaped, current.counts)
        logged = self._logs["advantages"]
        for _ in range(min(len(advantages), len(logged))):
            logged.pop()
        logged.extend(advantages.tolist())
        metrics = self._metrics["train"]
        if metrics.get("frac_reward_zero_std"):
            metrics["frac_reward_zero_std"][-1] = float(np.isclose(std, 0)[group_index(current.counts)].mean())

        surprise = self._vip_surprise(output)
        ends = np.cumsum(current.counts)[:-1]
        by_prompt = [group.tolist() for group in np.split(total, ends)]
        observation = None
        if self.accelerator.is_main_process:
            outcomes = self._vip_success.values(per_function, total)
            strange = self.vip.unreadable_rewards
            observation = self.vip.observe(
                prompts,
                [group.tolist() for group in np.split(outcomes, ends)],
                surprise=None if surprise is None else [group.tolist() for group in np.split(surprise, ends)],
            )
            self._vip_check_rewards(observation, by_prompt, self.vip.unreadable_rewards - strange)
            for name, value in self.vip.metrics().items():
                metrics[f"vip/{name}"].append(value)
        self.vip_batch = Groups(prompts, current.counts, by_prompt, advantages, observation)
        for listener in self.vip_listeners:
            listener(self.vip_batch)

    def _vip_surprise(self, output: dict[str, Any]) -> FloatArray | None:
        """[C] -log probability of each completion under the policy that sampled it, where TRL has computed it: always
        for RLOO; for GRPO with vLLM's importance sampling, or where a batch serves several optimizer steps."""
        mask = output["completion_mask"] * output.get("tool_mask", 1)
        for name in ("old_per_token_logps", "sampling_per_token_logps"):
            if output.get(name) is not None:
                mine = (output[name] * mask).sum(1)
                break
        else:
            if output.get("old_logps") is None:
                return None
            mine = output["old_logps"]
        return -self.accelerator.gather(mine.detach()).double().cpu().numpy()

    def _vip_shaped(self, total: FloatArray, output: dict[str, Any]) -> FloatArray:
        """[C] the rewards that advantages are made of."""
        return total

    def _vip_advantages(self, rewards: FloatArray, counts: list[int]) -> FloatArray:
        """[C] advantages by the configured estimator, before the prompt weights; each trainer below has its own."""
        raise NotImplementedError

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(dataset)
        return EpochSampler.of(sampler) if type(sampler) is RepeatSampler else sampler

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.accelerator.is_main_process:  # before super(), which may push the folder to the hub
            folder = Path(self._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            folder.mkdir(parents=True, exist_ok=True)
            self.vip.save(folder / STATE_FILE)
        super()._save_checkpoint(model, trial)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None or not self.accelerator.is_main_process:
            return
        path = Path(checkpoint) / STATE_FILE
        if path.exists():
            self.vip.load(path)
        else:
            logger.warning(
                "%s holds no state of VIP (a stock TRL checkpoint?); success prediction starts afresh", checkpoint
            )


class VIPGRPOTrainer(VIPTrainer, GRPOTrainer):
    """`trl.GRPOTrainer` with adaptive rollout counts. Same arguments, `args` a `VIPGRPOConfig`; `vip` to bring your own
    `viprl.VIP`."""

    _config_class = VIPGRPOConfig
    _tag_names: ClassVar[list[str]] = ["trl", "grpo", "vip"]
    _name = "VIP-GRPO"

    def _vip_advantages(self, rewards: FloatArray, counts: list[int]) -> FloatArray:
        if self.args.vip_estimator == "rloo":
            # leave-one-out advantages of the size of Dr.GRPO's: (n-1)/n at the average n, the same for all prompts
            advantages = group_advantages(rewards, counts) * (1 - len(counts) / len(rewards))
        else:
            advantages = group_advantages(rewards, counts, "mean")
        if self.scale_rewards == "group":
            return advantages / (group_std(rewards, counts)[group_index(counts)] + 1e-4)
        if self.scale_rewards == "batch":
            scorable = rewards[~np.isnan(rewards)]
            return advantages / ((scorable.std(ddof=1) if len(scorable) > 1 else 0.0) + 1e-4)
        return advantages


class VIPRLOOTrainer(VIPTrainer, RLOOTrainer):
    """`trl.RLOOTrainer` with adaptive rollout counts. Same arguments, `args` a `VIPRLOOConfig`; `vip` to bring your own
    `viprl.VIP`."""

    _config_class = VIPRLOOConfig
    _tag_names: ClassVar[list[str]] = ["trl", "rloo", "vip"]
    _name = "VIP-RLOO"

    def _vip_shaped(self, total: FloatArray, output: dict[str, Any]) -> FloatArray:
        if self.beta != 0.0:
            # TRL subtracts a KL that only each process knows. It has just computed m/(m-1) (r - mean r) over the
            # batch as one group, so undoing the factor gives r with its KL, up to a shift that no baseline sees.
            gathered = self.accelerator.gather(output["advantages"]).double().cpu().numpy()
            m = int((~np.isnan(total)).sum())
            return np.where(np.isnan(total), np.nan, gathered * (m - 1) / max(m, 1))
        clip = self.reward_clip_range
        return np.clip(total, *clip) if clip else total

    def _vip_advantages(self, rewards: FloatArray, counts: list[int]) -> FloatArray:
        advantages = group_advantages(rewards, counts)
        if self.normalize_advantages:
            size = np.bincount(group_index(counts), ~np.isnan(rewards), minlength=len(counts))[group_index(counts)]
            used = ~np.isnan(rewards) & (size > 1)
            spread = advantages[used].std(ddof=1) if used.sum() > 1 else 0.0
            advantages[used] = (advantages[used] - advantages[used].mean()) / (spread + 1e-4)
        return advantages


def vip_from_config(args: Any, success: SuccessCriterion) -> VIP:
    """The `VIP` that a config describes."""
    return VIP(
        estimator=args.vip_estimator,
        min_rollouts=args.vip_min_rollouts,
        max_rollouts=args.vip_max_rollouts,
        strategy=args.vip_strategy,
        shadow=args.vip_shadow or (),
        features=args.vip_features,
        cache=args.vip_cache,
        success=success.rule,
        seed=args.seed,
    )
