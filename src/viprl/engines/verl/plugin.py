"""What verl loads in every process through the entry-point group `verl.plugins`: registers trainer and estimators.

verl only logs errors of a plugin at debug level. So an error here registers a trainer that raises it when the mode is
used, and a command line that selects the mode ends at once, before Ray starts.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from viprl.engines.verl.consistency import contradictions
from viprl.engines.verl.namespace import MODE
from viprl.errors import MissingPackageError

logger = logging.getLogger(__name__)


def register(arguments: Sequence[str]) -> None:
    """Register with verl.

    Raises SystemExit if `arguments`, a command line, selects the mode, and contradicts it or viprl cannot be loaded.
    """
    lines = contradictions(arguments)
    if lines:
        raise SystemExit("viprl: " + "\nviprl: ".join(lines))
    try:
        from viprl.engines.verl import estimators, sync_trainer  # noqa: F401 (they register themselves)
    except Exception as error:
        reason = (
            f"trainer_mode={MODE} is not available: viprl cannot be loaded with the installed verl "
            f"({type(error).__name__}: {error})"
        )
        if f"trainer.v1.trainer_mode={MODE}" in arguments:
            raise SystemExit(f"viprl: {reason}") from error
        logger.error(reason)
        _register_unavailable(reason)


def _register_unavailable(reason: str) -> None:
    """Under the name of the trainer, one that raises an error with `reason`."""
    try:
        from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY
        from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
    except ImportError:
        return  # this verl has no trainer modes

    class Unavailable(PPOTrainerSync):
        def __init__(self, config: Any) -> NoReturn:
            raise MissingPackageError(reason)

    TRAINER_REGISTRY[MODE] = Unavailable


register(sys.argv[1:])
