"""VIP: the one stateful object that an engine holds. It allocates before sampling and observes afterwards."""

from __future__ import annotations

import copy
import inspect
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from viprl import metrics as names
from viprl.allocation.budget import Budget
from viprl.allocation.optimum import Allocation
from viprl.allocation.selection import Selection
from viprl.allocation.variance_models import get_variance_model
from viprl.errors import InputError
from viprl.outcomes import GivenRollouts, Observation, RewardReader, counted, read_probabilities
from viprl.plans import Choice, PendingPlans
from viprl.prompts import Prompt, PromptBatch
from viprl.prompts import text as text_of
from viprl.run_memory import RunMemory
from viprl.runs.engine_logs import logged_prompts
from viprl.runs.history import PromptHistory, all_of_one_kind, visits
from viprl.runs.logged_rollouts import deciding_reward
from viprl.settings import Settings, check_option_names, documented, options, warn_of_other_options
from viprl.spending import hard_budget
from viprl.strategies import Strategy, named_strategies
from viprl.strategy_features import StrategyFeatures
from viprl.utils import state_file
from viprl.utils.arrays import FloatArray
from viprl.utils.sequences import whole_number
from viprl.utils.state_checks import check_entries, mapping_entry, number_entry
from viprl.utils.state_file import State
from viprl.utils.threads import Lock, locked_method

logger = logging.getLogger(__name__)

STATE_KIND, STATE_VERSION = "viprl.VIP", 9


@documented(options(Settings))
class VIP(Settings):
    """Adaptive rollout allocation for one training run.

    A prompt is a text, a list of chat messages, or a mapping with `prompt` and optionally `id`. Prompts may repeat in a
    batch and may be new at any time. A prompt is identified by its id if it has one, otherwise by its content.

    Example:
        vip = VIP(estimator="rloo", min_rollouts=2, max_rollouts=32)
        plan = vip.allocate(prompts, budget=512)          # plan.counts: rollouts of each prompt, sum 512
        rewards = [sample_and_score(prompt, n) for prompt, n in zip(prompts, plan.counts)]
        vip.observe(prompts, rewards)                     # one list of rewards for each prompt

    `strategy` and `shadow` also take `viprl.Strategy` objects, which are copied; `features` also takes a function or an
    encoder, `success` a callable, and `text` a function from a prompt to the text that is embedded.

    Args:
        {options}

    Raises InputError (a ValueError) for unknown names and impossible bounds, MissingPackageError (an ImportError) if
    features need a package that is not installed.
    """

    __eq__ = object.__eq__
    __hash__ = object.__hash__
    __signature__ = inspect.signature(Settings)  # not that of __new__

    if not TYPE_CHECKING:

        def __new__(cls, *_: Any, **options: Any) -> VIP:
            check_option_names(options, cls)
            return super().__new__(cls)

    def __post_init__(self) -> None:
        self.check_types()
        self.check_choices()
        self._lock = Lock()
        self._model = get_variance_model("rloo" if self.estimator == "auto" else self.estimator)
        if self.baseline == "expected" and self._model.name != "rloo":
            raise InputError(f"baseline 'expected' needs the estimator 'rloo', but estimator is {self.estimator!r}")
        least = self._model.min_rollouts if self.min_rollouts is None else self.min_rollouts
        Budget.of(1, least, self.min_rollouts, self.max_rollouts, self._model)
        self._blank = named_strategies([self.strategy], self.shadows())
        self._active = next(iter(self._blank))
        if not self.spends_all and not self._blank[self._active].can_save:
            logger.warning("strategy %r minimises no variance, so that it spends the whole budget", self._active)
        self._features = StrategyFeatures(self._blank, self.features, self.cache)
        self._memory = RunMemory(self._blank, self)
        self._rewards = RewardReader(self.success)
        self._rng = np.random.default_rng(self.seed)
        self._pending = PendingPlans()
        self._metrics: dict[str, float] = {}
        self._seconds = 0.0

    # --- planning -----------------------------------------------------------------------------------------------------

    @locked_method
    def predict(self, prompts: Sequence[Prompt]) -> FloatArray:
        """[Q] success probability of each prompt, as the active strategy believes; of rewards with more than two values
        the expected reward as a position in their range. Raises PredictionError if it has no usable prediction."""
        batch = self._batch(prompts)
        if not batch.keys:
            return np.empty(0)
        prediction = self._memory.active.predict(self._features.batch(self._active, batch))
        return prediction.success_probability[batch.rows]

    @locked_method
    def allocate(
        self,
        prompts: Sequence[Prompt],
        budget: int | None = None,
        *,
        average: float | None = None,
        min_rollouts: ArrayLike | None = None,
        max_rollouts: ArrayLike | None = None,
        multiple: int = 1,
        waves: int = 1,
    ) -> Allocation:
        """Spend a budget of rollouts on `prompts` within the bounds.

        All of the budget is spent, unless the options `spend` or `cost` say otherwise; then it is the most that is
        spent. The plan is kept until `observe` is called with the same prompts.

        Args:
            prompts: [Q] prompts; they may repeat.
            budget: C.
            average: in place of a budget, for engines that ask for few prompts at a time: rollouts of a prompt, met on
                average over many calls (`viprl.allocation.running_price`). It does not go with spend="match".
            min_rollouts, max_rollouts: numbers or [Q] that override the bounds of the object.
            multiple: of which the number of rollouts is one, by rounding up.
            waves: 2 to sample in two waves where that pays. Pass the rewards of the first one to `next`.

        Raises InputError (a ValueError) for a budget that the bounds cannot meet, and unless one of the two is given.
        """
        began, batch, rng = time.perf_counter(), self._batch(prompts), copy.deepcopy(self._rng)
        limits = self._budget(len(batch.keys), budget, min_rollouts, max_rollouts, average=average, rng=rng)
        batches = self._features.batches(batch)
        allocation = self._plan(batch, batches, limits, rng, average=average, multiple=multiple, waves=waves)
        self._seconds += time.perf_counter() - began
        return allocation

    @locked_method
    def next(self, plan: Allocation, rewards: Sequence[Sequence[float | None]]) -> Allocation:
        """The second wave of a plan of two, after `rewards` [Q][n] of the first. `counts` are the rollouts to add, 0
        for many prompts. Then `observe` the rewards of both, and use `viprl.pooled_advantages`: with those of
        `viprl.group_advantages` the gradient would be biased. Raises InputError (a ValueError) for what does not fit.
        """
        both = self._pending.after_first(plan, rewards, RewardReader(self.success))
        return replace(plan, counts=both.counts - plan.counts, cost=both.cost, waves=both.waves)

    @locked_method
    def select(
        self,
        candidates: Sequence[Prompt],
        budget: int,
        size: int,
        *,
        min_rollouts: int | None = None,
        max_rollouts: int | None = None,
        unbiased: bool = True,
        multiple: int = 1,
        waves: int = 1,
    ) -> Selection:
        """Choose `size` of the candidates, and spend `budget` rollouts on them within the bounds, as `allocate` does.

        The plan is kept until `observe` is called with `[candidates[i] for i in selection.positions]`. With advantages
        times `viprl.rollout_weights(selection.allocation, prompt_weights=selection.weights)` the expected gradient is
        that of the mean over all candidates.

        Args:
            candidates: [M] prompts; they may repeat.
            budget: C.
            size: m, at most M. With m = M every candidate is sampled, as by `allocate`.
            min_rollouts, max_rollouts: numbers that override the bounds of the object, for prompts that are sampled.
            unbiased: False for weights of 1, with which prompts that are often sampled count more.
            multiple, waves: as for `allocate`.

        Raises InputError (a ValueError) for a size outside 1 to M, and for a budget that the bounds cannot meet.
        """
        began = time.perf_counter()
        offered, m = self._batch(candidates), whole_number("size", size, least=1)
        if m > len(offered.keys):
            raise InputError(f"size is {m}, but {len(offered.keys)} candidates were given; lower size, or give more")
        limits, rng = self._budget(m, budget, min_rollouts, max_rollouts), copy.deepcopy(self._rng)
        batches = self._features.batches(offered)
        choice = self._memory.choose(offered, batches[self._active], m, rng, unbiased=unbiased)
        draw, sampled = choice.draw, offered.at(choice.draw.positions)
        own = self._features.at(batches, offered, draw.positions)
        allocation = self._plan(sampled, own, limits, rng, choice, multiple=multiple, waves=waves)
        self._memory.pass_over(offered, batches, sampled)
        self._seconds += time.perf_counter() - began
        return Selection(draw.positions, allocation, draw.inclusion, choice.weights)

    @locked_method
    def propose(
        self, prompts: Sequence[Prompt], budget: int, *, rng: np.random.Generator | None = None
    ) -> dict[str, Allocation]:
        """What each strategy would allocate now; shadows with bad predictions are left out. Nothing is kept."""
        batch, rng = self._batch(prompts), np.random.default_rng(0) if rng is None else rng
        limits = self._budget(len(batch.keys), budget)
        plan, _ = self._memory.plan(self._features.batches(batch), batch, limits, rng)
        return {name: proposal.allocation for name, proposal in plan.proposals.items()}

    # --- learning -----------------------------------------------------------------------------------------------------

    @locked_method
    def observe(
        self,
        prompts: Sequence[Prompt],
        rewards: Sequence[Sequence[float | None]],
        *,
        logprobs: Sequence[Sequence[float | None]] | None = None,
        successes: Sequence[Sequence[float | None]] | None = None,
        lengths: Sequence[Sequence[float | None]] | None = None,
    ) -> Observation:
        """Learn from the rewards of a batch.

        A batch that was planned must be complete, in its order, with the planned number of rewards for each prompt;
        otherwise nothing is learned. Prompts that were not planned are learned from too.

        Args:
            prompts: [Q].
            rewards: one list for each prompt, one reward for each rollout. None and NaN are unscorable. So are, counted
                in `unreadable_rewards`, infinity, numbers beyond 1e30 and whatever is not a number.
            logprobs: shaped like `rewards`: log probability of each rollout under the policy, summed over its tokens,
                in nats; None where unknown. With them the default strategy learns which prompts have large gradients,
                not only which rewards vary (`viprl.weights`).
            successes: shaped like `rewards`: whether each rollout succeeded (1 or True, 0 or False), None if undecided;
                for metrics alone. Default: what the option `success` says.
            lengths: shaped like `rewards`: tokens of each rollout, None where unknown; cut-off rollouts cost what they
                have. Needed with cost="tokens", otherwise for metrics alone.

        Returns: how the rewards were read.

        Raises InputError (a ValueError), and changes nothing, for other shapes. The plan is kept then.
        """
        began = time.perf_counter()
        batch = self._batch(prompts)
        given = GivenRollouts.read(len(batch.keys), rewards, logprobs, successes, lengths)
        if lengths is None and self.cost == "tokens":
            raise InputError("cost is 'tokens', but no lengths were given; give lengths=, the tokens of each rollout")
        plan = self._pending.find(batch.keys, given.rewards)
        batches = plan.batches if plan is not None else self._features.batches(batch)
        # nothing above changes anything, and nothing below refuses anything
        values, judged = self._rewards.batch(given.rewards), given.successes
        self._pending.remove(batch.keys)
        if judged is None and self.success is not None:
            judged = [self._rewards.outcomes(group) for group in values]
        also = {"nats": given.logprobs, "judged": judged, "lengths": given.lengths}
        observation, metrics = self._memory.learn(batch, batches, values, plan=plan, **also)
        self._seconds += time.perf_counter() - began
        if plan is not None:
            self._metrics, self._seconds = {**metrics, names.OVERHEAD: self._seconds}, 0.0
        return observation

    @locked_method
    def observe_counts(self, prompts: Sequence[Prompt], successes: ArrayLike, rollouts: ArrayLike) -> None:
        """Learn from [Q] successes among [Q] rollouts that were not planned here."""
        batch = self._batch(prompts)
        k, n = counted(successes, rollouts, len(batch.keys))
        self._memory.learn_counts(self._features.batches(batch), batch.summed(k), batch.summed(n))

    @locked_method
    def observe_histories(self, histories: Sequence[PromptHistory]) -> None:
        """Learn from the visits of an earlier run in their order: from rewards where known, else from counts. Lengths
        are learned up to their unit, which the first batch of this run decides."""
        for batch, visit in visits(all_of_one_kind(histories)):
            shown = [history.visits[visit] for history in batch]
            prompts = self._batch([history.prompt for history in batch])
            self._memory.learn_visits(prompts, self._features.batches(prompts), shown)
        self._memory.spending.lengths.expect_other_unit()

    @classmethod
    def from_log(cls, path: str | Path, *, match: str = "prompt", reward: str | None = None, **options: Any) -> VIP:
        """A VIP that has learned from the log of an earlier run, whatever `viprl replay` reads.

        Args:
            path: a history file, a run folder, verl's rollout_data_dir or TRL's completions.
            match: how prompts of the new run are recognised: by content ("prompt") or by "id".
            reward: the column of verl's or TRL's logs with the rewards to learn from; needed if TRL's has several.
            options: of `VIP`; `success` may also be "NAME" or "NAME>=0.5", a column of the log. The threshold is for
                metrics: rewards are learned from as they are.
        """
        reward, options["success"] = deciding_reward(reward, options.get("success"))
        vip = cls(**options)
        vip.learn_from_log(path, match=match, reward=reward)
        return vip

    @locked_method
    def learn_from_log(self, path: str | Path, *, match: str = "prompt", reward: str | None = None) -> None:
        """Observe the visits of an earlier run in their order; see `from_log`."""
        logged = logged_prompts(path, match, reward)
        self.observe_histories(logged)
        logger.info("learned from %d prompts of %s", len(logged), path)

    @locked_method
    def register(self, prompts: Sequence[Prompt]) -> None:
        """Optional: announce prompts known in advance.

        Their features are computed now, and the paper's predictor takes its bandwidth from them.
        """
        batch = self._batch(prompts)
        if not batch.keys:
            return
        self._features.warm(batch)
        predictors = {name: strategy.predictor for name, strategy in self._memory.strategies.items()}
        readers = {name: predictor for name, predictor in predictors.items() if predictor.reads_pool}
        batches = {name: self._features.batch(name, batch) for name in readers}  # before anything changes: it can fail
        for name, predictor in readers.items():
            predictor.register(batches[name])

    @locked_method
    def tell_oracle(self, prompts: Sequence[Prompt], success_probability: ArrayLike) -> None:
        """Give the strategy "oracle" the true success probabilities [Q] of prompts. Other strategies ignore them.

        Raises InputError (a ValueError) for other lengths and for anything but numbers in [0, 1].
        """
        truth = read_probabilities(PromptBatch(prompts, lambda prompt: "").keys, success_probability)
        for strategy in self._memory.strategies.values():
            strategy.predictor.tell(truth)

    @property
    def unreadable_rewards(self) -> int:
        """Rewards so far that were neither None nor NaN and could not be read as a number to train on."""
        return self._rewards.unreadable

    @property
    def strategies(self) -> dict[str, Strategy]:
        """The strategies at work by name, the active one first."""
        return dict(self._memory.strategies)

    @locked_method
    def metrics(self) -> dict[str, float]:
        """Numbers of the last planned and observed batch, by the names in `viprl.metrics`."""
        return dict(self._metrics)

    # --- state --------------------------------------------------------------------------------------------------------

    @locked_method
    def state_dict(self) -> State:
        """Everything that later allocations depend on, pending plans excepted."""
        return {
            **self._memory.state_dict(),
            "features": self._features.described(),
            "options": self.learned(self._model.name),
            "rng": dict(self._rng.bit_generator.state),
            "unreadable": self._rewards.unreadable,
        }

    @locked_method
    def load_state_dict(self, state: State) -> None:
        """Continue from `state_dict`.

        A strategy that the state does not hold starts without history, with a warning, as do other options than those
        that it was saved with. With another estimator, the guards of the counts and running ratios start afresh.

        Raises StateError (a ValueError), and changes nothing, if a strategy was saved with other features or another
        predictor, and if the state is damaged.
        """
        check_entries(STATE_KIND, state, ["features", "rng", "unreadable"])
        now, then = self.learned(self._model.name), mapping_entry(state, "options", optional=True)
        same_estimator = then.get("estimator", now["estimator"]) == now["estimator"]
        memory, unreadable = RunMemory(self._blank, self), number_entry(state, "unreadable", least=0, whole=True)
        memory.load_state_dict(state, self._features.described(), same_estimator=same_estimator)
        self._rng = state_file.generator(state["rng"])
        self._memory, self._rewards.unreadable = memory, unreadable
        self._pending.clear()
        warn_of_other_options(then, now)

    def save(self, path: str | Path) -> None:
        """Write the state to one file, atomically."""
        state_file.save(path, self.state_dict(), kind=STATE_KIND, version=STATE_VERSION)

    def load(self, path: str | Path) -> None:
        """Read a file that `save` wrote. Raises StateError (a ValueError) for anything else."""
        self.load_state_dict(state_file.load(path, kind=STATE_KIND, version=STATE_VERSION))

    # --- parts --------------------------------------------------------------------------------------------------------

    def _budget(self, *given: Any, **average: Any) -> Budget:
        return hard_budget(self, self._model, *given, **average)

    def _batch(self, prompts: Sequence[Prompt]) -> PromptBatch:
        return PromptBatch(prompts, self.text or text_of)

    def _plan(
        self, batch: PromptBatch, seen: Any, hard: Budget, rng: np.random.Generator, *choice: Choice, **how: Any
    ) -> Allocation:
        """Keep the plan of a batch, and the generator. The arguments are those of `RunMemory.plan`."""
        plan, allocation = self._memory.plan(seen, batch, hard, rng, *choice, **how)
        self._rng = rng  # only now: a refused call changes nothing
        self._pending.add(batch.keys, plan)
        return allocation
