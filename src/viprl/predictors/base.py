"""What a predictor is: beliefs about the success of each prompt, made before sampling and updated by outcomes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np

from viprl.errors import InputError, PredictionError
from viprl.reward_groups import GroupOutcomes
from viprl.utils.arrays import FloatArray
from viprl.utils.sequences import short
from viprl.utils.state_file import State

Belief = tuple[FloatArray, FloatArray]
"""Success probabilities [G], and how likely each of them is [Q, G]."""
_ROUNDING = 1e-9
"""By which probabilities and variances may miss their range."""
_LARGEST = 1e30
"""Beyond it, sums and squares of variances would become infinite."""
_FIX = "correct the predictor, or resume the run with another strategy"
NUMERICAL_ERRORS = (FloatingPointError, OverflowError, ZeroDivisionError, np.linalg.LinAlgError)
"""What arithmetic raises that fails because of its numbers."""


@dataclass(frozen=True)
class Batch:
    """Prompts as predictors see them."""

    keys: tuple[str, ...]
    """[Q] identity of each prompt; distinct within a batch."""
    features: FloatArray | None
    """[Q, d] feature vectors; None if the strategy runs without."""

    def __len__(self) -> int:
        return len(self.keys)

    def select(self, mask: np.ndarray) -> Batch:
        """The prompts where `mask` [Q] is true."""
        if mask.all():
            return self
        keys = tuple(key for key, keep in zip(self.keys, mask, strict=True) if keep)
        return Batch(keys, None if self.features is None else self.features[mask])


@dataclass(frozen=True)
class Prediction:
    """Beliefs about a batch before sampling."""

    success_probability: FloatArray
    """[Q] E[p]; of rewards with more than two values the expected reward as a position in their range."""
    reward_variance: FloatArray
    """[Q] expected reward variance, E[p(1-p)] of binary rewards; p(1-p) for a point prediction."""
    text_score: FloatArray | None = None
    """[Q] logit of the success probability that the text alone suggests; None if the predictor reads no text."""
    learned_weight: FloatArray | None = None
    """[Q] variance weights learned on top of these (`viprl.weights`); None if the strategy learns none."""
    variance_rms: FloatArray | None = None
    """[Q] root of the expected square of the reward variance, at least `reward_variance`; None if the predictor has no
    uncertainty."""

    pseudocounts: FloatArray | None = None
    """[Q] rollouts that the expected reward is worth: its expected variance within a prompt over the variance of the
    prompt's mean under the belief; finite. None if the predictor has no uncertainty."""

    @property
    def weight(self) -> FloatArray:
        """[Q] the weights a of the allocation, whose objective sum_q a_q f(n_q) is linear in them."""
        return self.reward_variance if self.learned_weight is None else self.learned_weight

    @property
    def rms_weight(self) -> FloatArray:
        """[Q] root of the expected square of the variance weight: much larger than the expectation for a prompt that
        may have come alive."""
        if self.variance_rms is None:
            return self.weight
        return self.weight * self.variance_rms / np.maximum(self.reward_variance, 1e-12)

    def at(self, rows: np.ndarray) -> Prediction:
        """The prediction for the prompts `rows`."""
        parts = {name: getattr(self, name) for name in self.__dataclass_fields__}
        chosen: dict[str, Any] = {name: None if part is None else part[rows] for name, part in parts.items()}
        return Prediction(**chosen)

    def weighted(self, factors: FloatArray) -> Prediction:
        """The prediction with variance weights times `factors` [Q]."""
        return replace(self, learned_weight=self.weight * factors)

    @classmethod
    def of_points(cls, p: FloatArray) -> Prediction:
        """A prediction without uncertainty, from success probabilities [Q]."""
        return cls(p, p * (1 - p))


class Predictor(ABC):
    """Base class of all predictors.

    `predict` changes nothing. All history is in the state, and a predictor that loads the state of another continues
    exactly as the other would. `viprl.testing.PredictorContract` tests this.

    Example: a predictor that believes the last success rate.
        class LastRate(Predictor):
            def __init__(self):
                self.rates = {}

            def predict(self, batch):
                return Prediction.of_points(np.array([self.rates.get(key, 0.5) for key in batch.keys]))

            def observe(self, batch, successes, rollouts):
                for key, k, n in zip(batch.keys, successes, rollouts):
                    if n > 0:
                        self.rates[key] = k / n

            def state_dict(self):
                return {"rates": dict(self.rates)}

            def load_state_dict(self, state):
                self.rates = dict(state["rates"])

        vip = VIP(strategy=Strategy(LastRate()))
    """

    features: ClassVar[str | None] = None
    """The features that `features="auto"` gives it, such as "minilm+length"; None if it reads none."""
    needs_features: ClassVar[bool] = False
    """Whether it cannot predict without features."""
    remembers: ClassVar[bool] = True
    """Whether it remembers what single prompts did, so that a start without history is worth a warning."""
    reads_pool: ClassVar[bool] = False
    """Whether `register` uses what it is given."""

    @abstractmethod
    def predict(self, batch: Batch) -> Prediction:
        """Beliefs about prompts, seen before or new."""

    @abstractmethod
    def observe(self, batch: Batch, successes: FloatArray, rollouts: FloatArray) -> None:
        """Learn from [Q] successes among [Q] scorable rollouts. Prompts with 0 rollouts are ignored."""

    def observe_outcomes(self, batch: Batch, outcomes: GroupOutcomes) -> None:
        """Learn from the outcomes of Q groups, whatever their rewards are.

        Default: `observe`, with the sum of the rewards as positions in their range as successes. A predictor of reward
        variances overrides it.
        """
        self.observe(batch, outcomes.successes, outcomes.rollouts)

    def knows(self, batch: Batch) -> np.ndarray:
        """[Q] whether each prompt was observed before; optional. Default: true for all. Where a run spends less than
        its budget, prompts that are not known get their whole share of it."""
        return np.ones(len(batch), dtype=bool)

    def success_belief(self, batch: Batch) -> Belief | None:
        """Optional: success probabilities [G], and the belief [Q, G] over them, of binary rewards; None if there is
        none. With it a first wave of rollouts can be planned (`viprl.allocation.waves`)."""
        return None

    def pass_over(self, batch: Batch) -> None:  # noqa: B027 (an optional hook)
        """Optional: prompts that could have been sampled in this step, and were not. Time passes for them too."""

    @abstractmethod
    def state_dict(self) -> State:
        """The state: arrays, numbers, strings, and lists and dicts of those. Copies: it is written while the run goes
        on."""

    @abstractmethod
    def load_state_dict(self, state: State) -> None:
        """Take over a state from `state_dict`. Raises StateError for the state of an incompatible predictor."""

    def register(self, batch: Batch) -> None:  # noqa: B027 (an optional hook)
        """Optional: prompts known in advance. Called only if `reads_pool`."""

    def tell(self, truth: Mapping[str, float]) -> None:  # noqa: B027 (an optional hook)
        """Optional: true success probabilities by prompt key, in experiments that know them."""

    def tell_variance(self, variances: Mapping[str, float]) -> None:  # noqa: B027 (an optional hook)
        """Optional: true reward variances by prompt key, where p(1-p) is not the variance."""


def check_prediction(predictor: Predictor, prediction: Any, batch: Batch, strategy: str) -> Prediction:
    """The prediction. Refuses one that no counts can be based on: they would be wrong without a sign.

    Raises PredictionError for numbers that are not possible, InputError for arrays of another shape or type, TypeError
    for anything but a `Prediction`.
    """
    name, size = type(predictor).__name__, len(batch)
    if not isinstance(prediction, Prediction):
        raise TypeError(
            f"{name}.predict returned a {type(prediction).__name__}; return a viprl.Prediction, such as "
            "Prediction.of_points(p) for success probabilities p"
        )
    for part in fields(Prediction):
        values = getattr(prediction, part.name)
        if values is None and part.default is None:
            continue
        said = f"{name}.predict of strategy {strategy!r} returned {part.name}"
        if not isinstance(values, np.ndarray) or values.shape != (size,) or values.dtype.kind not in "fiu":
            what = f"{values.dtype}{list(values.shape)}" if isinstance(values, np.ndarray) else type(values).__name__
            raise InputError(f"{said} of the type {what}; expected an array of {size} numbers; {_FIX}")
        least = -_LARGEST if part.name == "text_score" else 0.0
        most = 1.0 if part.name == "success_probability" else _LARGEST
        good = (values >= least - _ROUNDING) & (values <= most + _ROUNDING)  # False for NaN
        if not good.all():
            row = int(good.argmin())
            raise PredictionError(
                f"{said}={values[row]} for the prompt {short(batch.keys[row])} (row {row} of the batch); expected "
                f"numbers from {least:g} to {most:g}; {_FIX}"
            )
    return prediction


def check_belief(predictor: Predictor, belief: Belief | None, strategy: str) -> Belief | None:
    """The `Predictor.success_belief`. Raises PredictionError if it has NaN or infinity."""
    if belief is not None and not all(np.isfinite(part).all() for part in belief):
        raise PredictionError(
            f"{type(predictor).__name__}.success_belief of strategy {strategy!r} returned numbers that are not finite; "
            f"{_FIX}"
        )
    return belief


@contextmanager
def named_errors(part: object, method: str, strategy: str) -> Iterator[None]:
    """Let an exception of a part of a strategy say whose it is. Raises PredictionError if its arithmetic failed."""
    try:
        yield
    except NUMERICAL_ERRORS as error:
        raise PredictionError(
            f"{type(part).__name__}.{method} of strategy {strategy!r} failed with {type(error).__name__}: {error}; "
            f"{_FIX}"
        ) from error
    except Exception as error:
        error.add_note(f"raised by {type(part).__name__}.{method} of strategy {strategy!r}")
        raise
