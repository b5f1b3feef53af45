"""What verl loads in every process through the entry-point group `verl.plugins`: registers trainer and estimators.

verl swallows whatever goes wrong while a plugin loads. So a failure registers a trainer that says why when the mode is
asked for; and a command line that asks for it is answered at once, before Ray starts.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from viprl.engines.verl.consistency import contradictions
from viprl.engines.verl.options import MODE

logger = logging.getLogger(__name__)


def register(arguments: Sequence[str]) -> None:
    """Register with verl. SystemExit where `arguments`, a command line, asks for the mode and cannot have it."""
    lines = contradictions(arguments)
    if lines:
        raise SystemExit("viprl: " + "\nviprl: ".join(lines))
    try:
        from viprl.engines.verl import advantages, trainer  # noqa: F401 (they register themselves)
    except Exception as error:
        reason = (
            f"trainer_mode={MODE} cannot be had: viprl did not load beside this verl ({type(error).__name__}: {error})"
        )
        if f"trainer.v1.trainer_mode={MODE}" in arguments:
            raise SystemExit(f"viprl: {reason}") from error
        logger.error(reason)
        _stand_in(reason)


def _stand_in(reason: str) -> None:
    """Under the name of the trainer, one that gives `reason` when it is built."""
    try:
        from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY
        from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
    except ImportError:
        return  # a verl without this registry knows no trainer modes

    class Unavailable(PPOTrainerSync):
        def __init__(self, config: Any) -> NoReturn:
            raise ImportError(reason)

    TRAINER_REGISTRY[MODE] = Unavailable


register(sys.argv[1:])
