"""Reward functions that do not return: warnings that say which one, and where it is.

A Python function cannot be ended from outside without its process, so that there is no time limit here. A function that
may hang needs its own, as `viprl.rewards.grading` has one for mathematical answers.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

PATIENCE = 300.0
"""Seconds until the first warning; each further one comes when the call has taken twice as long."""


@contextmanager
def watched(name: str, where: str) -> Iterator[None]:
    """Warn as long as a call of a reward function lasts longer than `PATIENCE`.

    Args:
        name: of the function.
        where: what it scores: "at training step 3".
    """
    done, began, caller = threading.Event(), time.monotonic(), threading.get_ident()

    def watch() -> None:
        wait = PATIENCE
        while not done.wait(began + wait - time.monotonic()):
            logger.warning(
                "the reward function %r %s has run for %.0f s, and is at %s; give it a time limit if it hangs",
                name,
                where,
                time.monotonic() - began,
                _place(caller),
            )
            wait *= 2

    thread = threading.Thread(target=watch, name=f"watches {name}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        if (took := time.monotonic() - began) > PATIENCE:
            logger.warning("the reward function %r %s ended after %.0f s", name, where, took)


def _place(thread: int) -> str:
    """The line of Python code that a thread runs."""
    frame = sys._current_frames().get(thread)
    if frame is None:
        return "an unknown line"
    last = traceback.extract_stack(frame)[-1]
    return f"{last.filename}:{last.lineno} ({last.name})"
