"""Calls of reward functions: errors that name the function, and rewards that are numbers which can be trained on.

TRL puts what a function returns into a tensor, so that a text fails with "too many dimensions 'str'", and an infinite
reward makes every advantage of its group NaN.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from viprl.rewards.returned import returned_rewards
from viprl.rewards.slow_calls import watched

logger = logging.getLogger(__name__)

_NOTE = "raised by the reward function "


class UnscorableRewards:
    """Counts batches with rewards that cannot be trained on, and warns of the 1st, 2nd, 4th, 8th ... of them."""

    def __init__(self) -> None:
        self.batches = 0

    def look(self, beyond: Tensor, names: Sequence[str], when: str) -> None:
        """Take a batch into account. `beyond` [C, F] says which rewards cannot be trained on."""
        if not beyond.any():
            return
        self.batches += 1
        if self.batches & (self.batches - 1) == 0:
            logger.warning(
                "%d rewards of %s %s are infinite or too large for 32 bits; they count as unscorable, like None "
                "(batches with such rewards so far: %d)",
                int(beyond.sum()),
                ", ".join(repr(name) for name, bad in zip(names, beyond.any(0).tolist(), strict=True) if bad),
                when,
                self.batches,
            )


@contextlib.contextmanager
def checked_calls(trainer: Any, when: str, groups: Mapping[str, Sequence[int]]) -> Iterator[None]:
    """While TRL calls the reward functions of a trainer: `checked` functions, and notes of exceptions that name a
    reward model, or at least the step. Arguments: see `checked`."""
    functions, names = trainer.reward_funcs, trainer.reward_func_names
    trainer.reward_funcs = [checked(*pair, when, groups) for pair in zip(functions, names, strict=True)]
    try:
        yield
    except Exception as error:
        if not any(note.startswith(_NOTE) for note in getattr(error, "__notes__", ())):
            model = _failed_model(error, functions, names)
            error.add_note(f"raised {'' if model is None else f'by the reward model {model!r} '}{when}")
        raise
    finally:
        trainer.reward_funcs = functions


def checked(
    function: Any, name: str, when: str, groups: Mapping[str, Sequence[int]] | None = None
) -> Callable[..., Any]:
    """The reward function with checks around it; a reward model as it is.

    Args:
        function: a function, async function, method, partial or callable object.
        name: TRL's name of it.
        when: the step, for errors: "at training step 3".
        groups: further keyword arguments with one value for each completion, for functions that take them.

    The result raises InputError, naming the function, unless it returns one number or None for each completion.
    Exceptions of the function have a note with its name and the step, and warnings say so if it hangs.
    """
    if isinstance(function, nn.Module):
        return function
    extra = {key: value for key, value in (groups or {}).items() if _takes(function, key)}

    def call(given: dict[str, Any]) -> Any:
        return function(**{**extra, **given})

    def read(returned: Any, given: dict[str, Any]) -> list[float]:
        return returned_rewards(name, returned, len(given["completions"]))

    def noted(error: Exception, given: dict[str, Any]) -> None:
        columns = ", ".join(key for key in given if key not in _PASSED_BY_TRL) or "(none)"
        error.add_note(f"{_NOTE}{name!r} {when}; the columns it was called with: {columns}")

    if _is_async(function):

        async def waiting(**given: Any) -> list[float]:
            try:
                with watched(name, when):
                    return read(await call(given), given)
            except Exception as error:
                noted(error, given)
                raise

        return waiting

    def direct(**given: Any) -> list[float]:
        try:
            with watched(name, when):
                return read(call(given), given)
        except Exception as error:
            noted(error, given)
            raise

    return direct


_PASSED_BY_TRL = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric")


def _failed_model(error: BaseException, functions: Sequence[Any], names: Sequence[str]) -> str | None:
    """The name of the reward model in whose `forward` an exception was raised."""
    trace = error.__traceback__
    while trace is not None:
        frame, trace = trace.tb_frame, trace.tb_next
        held = [frame.f_locals.get(argument) for argument in frame.f_code.co_varnames[:1]]
        for function, name in zip(functions, names, strict=False):
            if isinstance(function, nn.Module) and any(one is function for one in held):
                return name
    return None


def _is_async(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _takes(function: Any, name: str) -> bool:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
