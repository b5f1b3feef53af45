"""VIP: the one stateful object that an engine holds. It allocates before sampling and observes afterwards."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from viprl import state as durable
from viprl.allocation import Allocation, Budget, IntArray, even_share
from viprl.encoders import FeatureSpec
from viprl.features import Features, default_folder
from viprl.predictors.protocol import Batch, State
from viprl.prompts import Prompt, identity
from viprl.prompts import text as prompt_text
from viprl.rewards import Outcomes, Success, sample_variance, tally
from viprl.strategies import Proposal, Strategy, preset
from viprl.variance import FloatArray, get_estimator

logger = logging.getLogger(__name__)

STATE_KIND, STATE_VERSION = "viprl.VIP", 2
OUTSTANDING = 16
"""Plans remembered until their rewards come; engines that drop batches must not fill the memory."""


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
        self._rng = np.random.default_rng(seed)
        self._outstanding: OrderedDict[tuple[str, ...], _Plan] = OrderedDict()
        self._saved: dict[str, FloatArray] = {name: np.zeros(2) for name in names}  # realised, uniform; summed
        self._metrics: dict[str, float] = {}
        self._seconds = 0.0

    def predict(self, prompts: Sequence[Prompt]) -> FloatArray:
        """[Q] success probability of each prompt, as the active strategy believes."""
        view = _View(prompts, self._text)
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
        view = _View(prompts, self._text)
        spec = self._budget(len(prompts), budget, low, high)
        plan = _Plan(spec, self._proposals(view, spec, self._rng))
        self._outstanding[view.keys] = plan
        self._outstanding.move_to_end(view.keys)
        while len(self._outstanding) > OUTSTANDING:
            self._outstanding.popitem(last=False)
        self._seconds += time.perf_counter() - began
        return plan.proposals[self.strategy].allocation

    def propose(
        self, prompts: Sequence[Prompt], budget: int, *, rng: np.random.Generator | None = None
    ) -> dict[str, Allocation]:
        """What each strategy, shadows included, would do now. Nothing is remembered."""
        view = _View(prompts, self._text)
        spec = self._budget(len(prompts), budget, None, None)
        proposals = self._proposals(view, spec, np.random.default_rng(0) if rng is None else rng)
        return {name: proposal.allocation for name, proposal in proposals.items()}

    def observe(self, prompts: Sequence[Prompt], rewards: Sequence[Sequence[float | None]]) -> Observation:
        """Learn from the rewards of a batch, one list a prompt; None and NaN are unscorable. Returns what was read.

        With an outstanding plan for these prompts each list must have the planned length (ValueError otherwise, and
        nothing is learned). Other prompts are welcome: logs of an earlier run are a warm start.
        """
        began = time.perf_counter()
        view = _View(prompts, self._text)
        if len(rewards) != len(view.keys):
            raise ValueError(
                f"{len(rewards)} lists of rewards were given for {len(view.keys)} prompts; expected one each"
            )
        for q, group in enumerate(rewards):
            if not hasattr(group, "__len__"):
                raise ValueError(f"expected a list of rewards for each prompt, got {group!r} for prompt {q}")
        plan = self._outstanding.get(view.keys)
        if plan is not None:
            _check_lengths(rewards, plan.proposals[self.strategy].allocation.counts)
        batches = {name: self._batch(name, view) for name in self._strategies}  # what may fail comes first
        successes, rollouts = tally([self._outcomes(group) for group in rewards])
        if plan is not None:
            del self._outstanding[view.keys]
            self._review(plan, successes, rollouts)
        k, n = (np.bincount(view.rows, values).astype(float) for values in (successes, rollouts))
        for name, strategy in self._strategies.items():
            strategy.predictor.observe(batches[name], k, n)
        self._seconds += time.perf_counter() - began
        if plan is not None:
            self._metrics["overhead_seconds"], self._seconds = self._seconds, 0.0
        return Observation(view.keys, successes, rollouts)

    def register(self, prompts: Sequence[Prompt]) -> None:
        """Announce prompts known in advance: their features are computed now, and the paper's predictor takes its
        bandwidth from them. Optional."""
        view = _View(prompts, self._text)
        for name, strategy in self._strategies.items():
            strategy.predictor.register(self._batch(name, view))

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
            "rng": _rng_state(self._rng),
            "strange": self._outcomes.strange,
        }

    def load_state_dict(self, state: State) -> None:
        """Go on from `state_dict`. A strategy that the state does not hold starts afresh, with a warning.

        Raises ValueError, and changes nothing, where a strategy was saved with other features.
        """
        missing = {"strategies", "features", "saved", "rng", "strange"} - set(state)
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

    def _batch(self, name: str, view: _View) -> Batch:
        return Batch(view.distinct, self._features(self._specs[name], view.texts))

    def _proposals(self, view: _View, spec: Budget, rng: np.random.Generator) -> dict[str, Proposal]:
        seed = int(rng.integers(2**63))  # the same for all, so that a shadow leaves the driver's draws alone
        return {
            name: strategy.propose(self._batch(name, view), view.rows, spec, seed)
            for name, strategy in self._strategies.items()
        }

    def _review(self, plan: _Plan, successes: FloatArray, rollouts: FloatArray) -> None:
        """Metrics of a planned batch and what the guards learn from it, before any predictor has seen the outcome."""
        variance = np.nan_to_num(sample_variance(successes, rollouts))
        law, even = self.estimator, float(variance @ self.estimator.interpolated(even_share(plan.spec)))
        for name, proposal in plan.proposals.items():
            realised = float(variance @ law.factor(proposal.allocation.counts))
            self._saved[name] += realised, even
            ratios = {"variance_ratio": _ratio(realised, even), "running": _ratio(*self._saved[name])}
            if name == self.strategy:
                self._metrics = _batch_metrics(proposal, successes, rollouts)
                self._metrics["variance_ratio/realised"] = ratios["variance_ratio"]
                self._metrics["variance_ratio/running"] = ratios["running"]
            else:
                self._metrics |= {f"shadow/{name}/{key}": value for key, value in ratios.items()}
            strategy = self._strategies[name]
            if strategy.guard is not None and name == self.strategy:
                self._metrics["trust"] = strategy.guard.trust
            strategy.review(proposal, successes, rollouts, law)


@dataclass(frozen=True)
class _Plan:
    spec: Budget
    proposals: dict[str, Proposal]


class _View:
    """A batch of prompts as predictors need it: distinct keys and texts, and the row of each prompt among them."""

    def __init__(self, prompts: Sequence[Prompt], text: Callable[[Prompt], str]) -> None:
        if isinstance(prompts, str):
            raise TypeError("expected a sequence of prompts; got one string")
        self.keys = tuple(identity(prompt) for prompt in prompts)
        first = {key: position for position, key in reversed(list(enumerate(self.keys)))}
        self.distinct = tuple(dict.fromkeys(self.keys))
        self.texts = [text(prompts[first[key]]) for key in self.distinct]
        row = {key: index for index, key in enumerate(self.distinct)}
        self.rows: IntArray = np.array([row[key] for key in self.keys], dtype=np.int64)


def _batch_metrics(proposal: Proposal, successes: FloatArray, rollouts: FloatArray) -> dict[str, float]:
    counts, p = proposal.allocation.counts, proposal.prediction.success_probability
    seen = rollouts > 0
    settled = seen & ((successes == 0) | (successes == rollouts))
    rate, guess = successes[seen] / rollouts[seen], p[seen]
    safe = np.clip(guess, 1e-4, 1 - 1e-4)
    return {
        "counts/min": float(counts.min()),
        "counts/mean": float(counts.mean()),
        "counts/max": float(counts.max()),
        "variance_ratio/predicted": proposal.allocation.variance_ratio,
        "zero_advantage_rollouts": _ratio(float(counts[settled].sum()), float(counts[seen].sum())),
        "unscorable": float(1 - rollouts.sum() / counts.sum()),
        "brier": _mean(rate * (1 - guess) ** 2 + (1 - rate) * guess**2),
        "log_loss": _mean(-rate * np.log(safe) - (1 - rate) * np.log1p(-safe)),
    }


def _mean(values: FloatArray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _ratio(value: float, reference: float) -> float:
    """NaN where no group of the batch was mixed: then nothing was measured."""
    return float(value / reference) if reference > 0 else float("nan")


def _check_lengths(rewards: Sequence[Sequence[Any]], counts: IntArray) -> None:
    got = np.array([len(group) for group in rewards])
    if (got != counts).any():
        q = int(np.argmax(got != counts))
        raise ValueError(
            f"the plan gave prompt {q} of the batch {counts[q]} rollouts, but {got[q]} rewards came for it "
            f"({int((got != counts).sum())} of {len(counts)} prompts differ); pass one reward a rollout, in the "
            "order of the prompts, None for an unscorable one"
        )


def _is_auto(features: FeatureSpec) -> bool:
    return isinstance(features, str) and features == "auto"


def _rng_state(rng: np.random.Generator) -> State:
    state: Any = rng.bit_generator.state
    return {**state, "state": {key: str(value) for key, value in state["state"].items()}}  # 128-bit integers


def _rng_from(state: State) -> Any:
    return {**state, "state": {key: int(value) for key, value in state["state"].items()}}
