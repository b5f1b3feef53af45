"""VIP: the one stateful object that an engine holds. It allocates before sampling and observes afterwards."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from viprl import state as durable
from viprl.allocation import Allocation, Budget, even_share
from viprl.encoders import FeatureSpec
from viprl.features import Features, default_folder
from viprl.metrics import batch_metrics, ratio
from viprl.plans import Plan, Plans
from viprl.predictors.protocol import Batch, State
from viprl.prompts import Prompt, PromptBatch, identity
from viprl.prompts import text as prompt_text
from viprl.rewards import Outcomes, Success, tally
from viprl.strategies import Proposal, Strategy, preset
from viprl.surprise import Surprise, SurpriseUnit, measured_weight
from viprl.variance import FloatArray, get_estimator

logger = logging.getLogger(__name__)

STATE_KIND, STATE_VERSION = "viprl.VIP", 4


@dataclass(frozen=True)
class Observation:
    """How a batch of rewards was read."""

    keys: tuple[str, ...]
    """[Q] identity of each prompt."""
    successes: FloatArray
    """[Q] rollouts that succeeded."""
    rollouts: FloatArray
    """[Q] rollouts that could be scored."""


class VIP:
    """Adaptive rollout allocation for one training run.

    Example:
        vip = VIP(estimator="rloo", low=2, high=32)
        plan = vip.allocate(prompts, budget=512)          # plan.counts: rollouts of each prompt, sum 512
        rewards = [sample_and_score(prompt, n) for prompt, n in zip(prompts, plan.counts)]
        vip.observe(prompts, rewards)                     # one list of rewards a prompt

    A prompt is a text, a list of chat messages, or a mapping with `prompt` and optionally `id`; prompts may repeat in
    a batch and may be new at any time. Identity is the id, otherwise the content.

    Args:
        estimator: "rloo" or "dr_grpo"; fixes the variance law and the smallest legal group.
        low, high: bounds of a prompt's rollouts. Defaults: the smallest legal group; no limit but the budget.
        strategy: a name from `viprl.STRATEGIES`.
        shadow: further strategies that see the same outcomes and say what they would have done.
        features: None or "none", "minilm", "length", "minilm+length", a folder, a function of texts, or "auto": what
            each strategy asks for.
        text: the text of a prompt that is embedded; default: a text prompt itself, the user's turns of a chat.
        cache: folder of the feature cache; None keeps features in memory only.
        success: how a reward counts as success (see `viprl.rewards.Success`); None means rewards 0/1 or -1/+1.
        seed: of the generator that breaks ties.

    Raises: ValueError for unknown names and impossible bounds; ImportError where features need a missing extra.
    """

    def __init__(
        self,
        *,
        estimator: str = "rloo",
        low: int | None = None,
        high: int | None = None,
        strategy: str = "default",
        shadow: Sequence[str] = (),
        features: FeatureSpec = "auto",
        text: Callable[[Prompt], str] = prompt_text,
        cache: str | Path | None = "auto",
        success: Success = None,
        seed: int = 0,
    ) -> None:
        self.estimator = get_estimator(estimator)
        self.low = self.estimator.smallest_group if low is None else low
        self.high = high
        Budget.check(1, self.low, self.low, high, self.estimator)
        names = list(dict.fromkeys([strategy, *([shadow] if isinstance(shadow, str) else shadow)]))
        self._specs = {name: preset(name).features if _is_auto(features) else features for name in names}
        self._features = Features(default_folder() if cache == "auto" else cache)
        self._strategies: dict[str, Strategy] = {}
        for name in names:
            has_features = self._features.prepare(self._specs[name])
            self._strategies[name] = Strategy(name, features=has_features)
        self.strategy, self.shadow = strategy, tuple(names[1:])
        self._text = text
        self._outcomes = Outcomes(success)
        self._unit = SurpriseUnit()
        self._rng = np.random.default_rng(seed)
        self._outstanding = Plans()
        self._saved: dict[str, FloatArray] = {name: np.zeros(2) for name in names}  # realised, uniform; summed
        self._metrics: dict[str, float] = {}
        self._seconds = 0.0

    def predict(self, prompts: Sequence[Prompt]) -> FloatArray:
        """[Q] success probability of each prompt, as the active strategy believes."""
        view = PromptBatch(prompts, self._text)
        if not view.keys:
            return np.empty(0)
        prediction = self._strategies[self.strategy].predictor.predict(self._batch(self.strategy, view))
        return prediction.success_probability[view.rows]

    def allocate(
        self, prompts: Sequence[Prompt], budget: int, *, low: ArrayLike | None = None, high: ArrayLike | None = None
    ) -> Allocation:
        """Spend `budget` rollouts on `prompts`, all of them, within the bounds.

        The plan is remembered until `observe` is called with the same prompts. `low` and `high` (numbers or [Q])
        override the bounds of the object. Raises ValueError for a budget that cannot be met.
        """
        began = time.perf_counter()
        view = PromptBatch(prompts, self._text)
        spec = self._budget(len(prompts), budget, low, high)
        batches = self._batches(view)
        proposals = self._proposals(batches, view, spec, self._rng)
        allocation = proposals[self.strategy].allocation
        self._outstanding.add(view.keys, Plan(spec, proposals, batches, allocation.counts))
        self._seconds += time.perf_counter() - began
        return allocation

    def propose(
        self, prompts: Sequence[Prompt], budget: int, *, rng: np.random.Generator | None = None
    ) -> dict[str, Allocation]:
        """What each strategy, shadows included, would do now. Nothing is remembered."""
        view = PromptBatch(prompts, self._text)
        spec = self._budget(len(prompts), budget, None, None)
        rng = np.random.default_rng(0) if rng is None else rng
        proposals = self._proposals(self._batches(view), view, spec, rng)
        return {name: proposal.allocation for name, proposal in proposals.items()}

    def observe(
        self,
        prompts: Sequence[Prompt],
        rewards: Sequence[Sequence[float | None]],
        *,
        surprise: Sequence[Sequence[float | None]] | None = None,
    ) -> Observation:
        """Learn from the rewards of a batch, one list a prompt; None and NaN are unscorable. Returns what was read.

        `surprise` is shaped like `rewards`: -log probability of each sampled text under the policy, in nats, where the
        engine knows it. The default strategy then learns which prompts have large gradients, not only which outcomes
        vary (`viprl.weights`).

        With an outstanding plan for these prompts each list must have the planned length, and the batch must be whole
        and in its order (ValueError otherwise, and nothing is learned). Other prompts are welcome: logs of an earlier
        run are a warm start.
        """
        began = time.perf_counter()
        view = PromptBatch(prompts, self._text)
        if len(rewards) != len(view.keys):
            raise ValueError(
                f"{len(rewards)} lists of rewards were given for {len(view.keys)} prompts; expected one each"
            )
        for q, group in enumerate(rewards):
            if not hasattr(group, "__len__"):
                raise ValueError(f"expected a list of rewards for each prompt, got {group!r} for prompt {q}")
        if surprise is not None and list(map(len, surprise)) != list(map(len, rewards)):
            raise ValueError("surprise and rewards differ in shape; give one surprise a rollout, None where unknown")
        plan = self._outstanding.take(view.keys, rewards)
        batches = plan.batches if plan is not None else self._batches(view)  # what may fail comes first
        outcomes = [self._outcomes(group) for group in rewards]
        successes, rollouts = tally(outcomes)
        groups = None if surprise is None else Surprise.of(outcomes, surprise)
        merged = None if surprise is None else Surprise.of(view.merged(outcomes), view.merged(surprise))
        k, n = view.summed(successes), view.summed(rollouts)
        if groups is not None and merged is not None:
            unit = self._unit.observe(k, n, merged)
            groups, merged = groups.per(unit), merged.per(unit)
        if plan is not None:
            self._review(plan, successes, rollouts, groups)
        for name, strategy in self._strategies.items():
            strategy.observe(batches[name], k, n, None if plan is None else plan.proposals[name].believed, merged)
        self._seconds += time.perf_counter() - began
        if plan is not None:
            self._metrics["overhead_seconds"], self._seconds = self._seconds, 0.0
        return Observation(view.keys, successes, rollouts)

    @classmethod
    def from_log(cls, path: str | Path, *, match: str = "prompt", reward: str | None = None, **options: Any) -> VIP:
        """A VIP that has learned from the log of an earlier run, whatever `viprl replay` reads.

        Args:
            path: a file of trajectories, a run folder, verl's rollout_data_dir or TRL's completions.
            match: how the new run's prompts are recognised: by their content ("prompt") or by their "id".
            reward: column of verl's or TRL's logs that decides, read as `success` says.
            options: of `VIP`.
        """
        vip = cls(**options)
        vip.learn_from_log(path, match=match, reward=reward)
        return vip

    def learn_from_log(self, path: str | Path, *, match: str = "prompt", reward: str | None = None) -> None:
        """Observe the visits of an earlier run in their order; see `from_log`."""
        from viprl.lab.trajectories import read_trajectories, visits

        if match not in ("prompt", "id"):
            raise ValueError(f"match is {match!r}; expected 'prompt' or 'id'")
        logged = read_trajectories(path, reward=reward, success=self._outcomes.success)
        if match == "prompt":
            logged = [trajectory for trajectory in logged if trajectory.prompt]
        if not logged:
            raise ValueError(f"{path} holds ids without prompts; match='id' recognises them in a run that has ids too")
        for batch, successes, rollouts in visits(logged):
            ids = match == "id"
            self.observe_counts(
                [{"prompt": t.prompt, "id": t.id} if ids else t.prompt for t in batch], successes, rollouts
            )
        logger.info("learned from %d prompts of %s", len(logged), path)

    def observe_counts(self, prompts: Sequence[Prompt], successes: ArrayLike, rollouts: ArrayLike) -> None:
        """Learn from [Q] successes among [Q] rollouts that were not planned here."""
        view = PromptBatch(prompts, self._text)
        k, n = np.asarray(successes, dtype=float), np.asarray(rollouts, dtype=float)
        if k.shape != (len(view.keys),) or n.shape != k.shape or not ((k >= 0) & (k <= n)).all():
            raise ValueError(f"expected successes and rollouts of {len(view.keys)} prompts, 0 <= successes <= rollouts")
        for name, strategy in self._strategies.items():
            strategy.observe(self._batch(name, view), view.summed(k), view.summed(n))

    def register(self, prompts: Sequence[Prompt]) -> None:
        """Announce prompts known in advance: their features are computed now, and the paper's predictor takes its
        bandwidth from them. Optional."""
        view = PromptBatch(prompts, self._text)
        for name, strategy in self._strategies.items():
            if strategy.reads_pool:
                strategy.predictor.register(self._batch(name, view))
            else:
                self._features.warm(self._specs[name], view.texts)  # cached, but never all in memory

    def tell_oracle(self, prompts: Sequence[Prompt], success_probability: ArrayLike) -> None:
        """Give the strategy "oracle" the true success probabilities [Q] of prompts. No effect on any other."""
        truth = dict(zip(map(identity, prompts), np.asarray(success_probability, dtype=float).tolist(), strict=True))
        for strategy in self._strategies.values():
            if hasattr(strategy.predictor, "tell"):
                strategy.predictor.tell(truth)

    @property
    def strange_rewards(self) -> int:
        """Rewards so far that were neither None nor readable as success or failure."""
        return self._outcomes.strange

    def metrics(self) -> dict[str, float]:
        """Numbers of the last planned and observed batch.

        counts/min, counts/mean, counts/max; variance_ratio/predicted and /realised (against uniform; the second is
        unbiased but noisy) and /running (realised, over the whole run); zero_advantage_rollouts (share of rollouts in
        groups that are all right or all wrong); brier, log_loss (of the predictions made before sampling, mean over
        prompts); trust (0: the guard plays uniform, 1: it plays the prediction); unscorable (share of rollouts whose
        reward was None, NaN or unreadable); overhead_seconds; for each shadow shadow/NAME/variance_ratio and /running.
        """
        return dict(self._metrics)

    def state_dict(self) -> State:
        """Everything that later allocations depend on, outstanding plans excepted."""
        return {
            "strategies": {name: strategy.state_dict() for name, strategy in self._strategies.items()},
            "features": {name: self._describe(spec) for name, spec in self._specs.items()},
            "saved": {name: sums.copy() for name, sums in self._saved.items()},
            "unit": self._unit.state_dict(),
            "rng": _rng_state(self._rng),
            "strange": self._outcomes.strange,
        }

    def load_state_dict(self, state: State) -> None:
        """Go on from `state_dict`. A strategy that the state does not hold starts afresh, with a warning.

        Raises ValueError, and changes nothing, where a strategy was saved with other features.
        """
        missing = {"strategies", "features", "saved", "unit", "rng", "strange"} - set(state)
        if missing:
            raise ValueError(f"this is no state of viprl.VIP: it lacks {', '.join(sorted(missing))}")
        strategies, saved = {}, dict(self._saved)
        for name, spec in self._specs.items():
            strategies[name] = Strategy(name, features=self._features.prepare(spec))
            if name in state["strategies"]:
                if state["features"][name] != self._describe(spec):
                    raise ValueError(
                        f"the saved state of strategy {name!r} was learned with features "
                        f"{state['features'][name]!r}, this run has {self._describe(spec)!r}; go on with the same, or "
                        "delete the state to start prediction afresh"
                    )
                strategies[name].load_state_dict(state["strategies"][name])
                saved[name] = np.array(state["saved"][name])
            elif preset(name).features:
                held = ", ".join(state["strategies"])
                logger.warning("the saved state holds %s; strategy %r starts without history", held, name)
        self._rng.bit_generator.state = _rng_from(state["rng"])
        self._unit.load_state_dict(state["unit"])
        self._strategies, self._saved = strategies, saved
        self._outcomes.strange = state["strange"]
        self._outstanding.clear()

    def save(self, path: str | Path) -> None:
        """Write the state to one file, atomically."""
        durable.save(path, self.state_dict(), kind=STATE_KIND, version=STATE_VERSION)

    def load(self, path: str | Path) -> None:
        """Read what `save` wrote. Raises `viprl.state.StateError` (a ValueError) for anything else."""
        self.load_state_dict(durable.load(path, kind=STATE_KIND, version=STATE_VERSION))

    def _budget(self, prompts: int, budget: int, low: ArrayLike | None, high: ArrayLike | None) -> Budget:
        return Budget.check(
            prompts, budget, self.low if low is None else low, self.high if high is None else high, self.estimator
        )

    def _describe(self, spec: FeatureSpec) -> str:
        """How a state remembers the features it was learned with: their name and number of columns."""
        vectors = self._features(spec, ["how many columns?"])
        name = str(spec) if isinstance(spec, str | Path) else "custom"
        return "none" if vectors is None else f"{name}, {vectors.shape[1]} columns"

    def _batch(self, name: str, view: PromptBatch) -> Batch:
        return Batch(view.distinct, self._features(self._specs[name], view.texts))

    def _batches(self, view: PromptBatch) -> dict[str, Batch]:
        """What each strategy sees of the prompts; strategies with the same features share the vectors."""
        vectors = {id(spec): self._features(spec, view.texts) for spec in self._specs.values()}
        return {name: Batch(view.distinct, vectors[id(spec)]) for name, spec in self._specs.items()}

    def _proposals(
        self, batches: dict[str, Batch], view: PromptBatch, spec: Budget, rng: np.random.Generator
    ) -> dict[str, Proposal]:
        seed = int(rng.integers(2**63))  # the same for all, so that a shadow leaves the driver's draws alone
        return {
            name: strategy.propose(batches[name], view.rows, spec, seed) for name, strategy in self._strategies.items()
        }

    def _review(self, plan: Plan, successes: FloatArray, rollouts: FloatArray, surprise: Surprise | None) -> None:
        """Metrics of a planned batch and what the guards learn from it, before any predictor has seen the outcome."""
        measured = np.nan_to_num(measured_weight(successes, rollouts, surprise))
        law, even = self.estimator, float(measured @ self.estimator.interpolated(even_share(plan.spec)))
        for name, proposal in plan.proposals.items():
            realised = float(measured @ law.factor(proposal.allocation.counts))
            self._saved[name] += realised, even
            ratios = {"variance_ratio": ratio(realised, even), "running": ratio(*self._saved[name])}
            if name == self.strategy:
                self._metrics = batch_metrics(proposal, successes, rollouts)
                self._metrics["variance_ratio/realised"] = ratios["variance_ratio"]
                self._metrics["variance_ratio/running"] = ratios["running"]
            else:
                self._metrics |= {f"shadow/{name}/{key}": value for key, value in ratios.items()}
            strategy = self._strategies[name]
            if strategy.guard is not None and name == self.strategy:
                self._metrics["trust"] = strategy.guard.trust
            strategy.review(proposal, successes, rollouts, law, surprise)


def _is_auto(features: FeatureSpec) -> bool:
    return isinstance(features, str) and features == "auto"


def _rng_state(rng: np.random.Generator) -> State:
    state: Any = rng.bit_generator.state
    return {**state, "state": {key: str(value) for key, value in state["state"].items()}}  # 128-bit integers


def _rng_from(state: State) -> Any:
    return {**state, "state": {key: int(value) for key, value in state["state"].items()}}
