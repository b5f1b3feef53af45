"""What a run does when the arithmetic of a predictor fails: the option `on_bad_prediction` of VIP."""

from __future__ import annotations

import logging

from viprl.allocation.rules import Uniform
from viprl.errors import PredictionError
from viprl.predictors.constant import SuccessRate
from viprl.settings import Settings
from viprl.strategies import Strategy

logger = logging.getLogger(__name__)


class BadPredictions:
    """Decides about each `PredictionError`, and warns once of each strategy.

    Args:
        settings: `on_bad_prediction`.
    """

    def __init__(self, settings: Settings) -> None:
        self._stops = settings.on_bad_prediction == "stop"
        self._warned: set[str] = set()

    def stand_in(self, strategy: Strategy, error: PredictionError) -> Strategy:
        """What plans a batch with uniform counts in place of `strategy`, which acts. Raises `error` under "stop"."""
        if self._stops:
            raise error
        self._warn(
            f"plan of {strategy.name}", "%s. This batch and later ones with bad predictions get uniform counts", error
        )
        return Strategy(SuccessRate(), Uniform(), name=strategy.name)

    def leave_out(self, shadow: str, error: PredictionError) -> None:
        """Plan a batch without a shadow, which never stops a run."""
        self._warn(f"plan of {shadow}", "%s. The shadow %r has no metrics of such batches", error, shadow)

    def restart(self, blank: Strategy, error: PredictionError, *, acts: bool) -> Strategy:
        """What goes on in place of a strategy that failed while it learned, so that what it believes is unknown: the
        same without history. Raises `error` under "stop" if it acts."""
        if self._stops and acts:
            raise error
        logger.warning("%s. Strategy %r starts again without history", error, blank.name)
        return blank.fresh()

    def _warn(self, what: str, message: str, *given: object) -> None:
        if what not in self._warned:
            self._warned.add(what)
            logger.warning(message, *given)
