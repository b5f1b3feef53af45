"""Strategies that continue from a saved state of VIP."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from viprl.errors import StateError
from viprl.strategies import Strategy
from viprl.utils.state_checks import entry, mapping_entry
from viprl.utils.state_file import State

logger = logging.getLogger(__name__)


def load_strategies(
    strategies: Mapping[str, Strategy], features: Mapping[str, str], state: State, *, guards: bool
) -> None:
    """Let fresh strategies continue from the entries "strategies" and "features" of a state of VIP.

    A strategy that the state does not hold starts without history, with a warning if its predictor `remembers`.

    Args:
        features: what each strategy reads now, as `viprl.features.cache.Features.describe` writes it.
        guards: False to start the guards without evidence.

    Raises StateError for other features or another predictor, and for a damaged state.
    """
    saved, learned = mapping_entry(state, "strategies"), mapping_entry(state, "features")
    for name, strategy in strategies.items():
        if name not in saved:
            if strategy.predictor.remembers:
                held = ", ".join(saved) or "no strategy"
                logger.warning("the saved state holds %s; strategy %r starts without history", held, name)
            continue
        if entry(learned, name) != features[name]:
            raise StateError(
                f"the saved state of strategy {name!r} was learned with features {learned[name]!r}, but this run has "
                f"{features[name]!r}; use the same features, or delete the state to start without history"
            )
        strategy.load_state_dict(saved[name], guard=guards)
