"""Reward functions that do not return."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

import pytest

from viprl.rewards import slow_calls
from viprl.rewards.calling import call_reward


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> float:
    monkeypatch.setattr(slow_calls, "PATIENCE", 0.02)
    caplog.set_level(logging.WARNING, logger="viprl")
    return 0.02


def hangs(completions: list, **_: object) -> list[float]:
    time.sleep(0.2)
    return [1.0] * len(completions)


async def waits(completions: list, **_: object) -> list[float]:
    await asyncio.sleep(0.2)
    return [1.0] * len(completions)


def warned(caplog: pytest.LogCaptureFixture, *parts: str) -> None:
    *while_it_ran, last = [record.getMessage() for record in caplog.records]
    assert 2 <= len(while_it_ran) <= 5  # after 20, 40, 80 and 160 ms
    assert all(part in message for message in while_it_ran for part in parts)
    assert "ended" in last and parts[0] in last
    assert not any(thread.name.startswith("watches") for thread in threading.enumerate())


@pytest.mark.parametrize("reward", [hangs, waits])
def test_a_call_of_the_commands_names_the_function_and_the_problem(reward, patience, caplog) -> None:
    assert call_reward(reward, "2+2?", ["4"], {}, "problem 'a'") == [1.0]
    warned(caplog, reward.__name__, "problem 'a'")


@pytest.mark.parametrize("reward", [hangs, waits])
def test_a_call_of_trl_names_the_function_and_the_step(reward, patience, caplog) -> None:
    checked = pytest.importorskip("viprl.engines.trl.reward_calls").checked
    returned = checked(reward, "mine", "at training step 12")(completions=["4"])
    assert (asyncio.run(returned) if reward is waits else returned) == [1.0]
    warned(caplog, "mine", "training step 12")


def test_the_warning_says_at_which_line_it_is(patience, caplog) -> None:
    call_reward(hangs, "2+2?", ["4"], {}, "problem 'a'")
    assert f"{__file__}:{hangs.__code__.co_firstlineno + 1} (hangs)" in caplog.records[0].getMessage()


def test_nothing_is_said_of_a_function_that_returns_or_raises_in_time(patience, caplog, monkeypatch) -> None:
    monkeypatch.setattr(slow_calls, "PATIENCE", 60.0)

    def raises(**_: object) -> None:
        raise ZeroDivisionError

    began = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        call_reward(raises, "2+2?", ["4"], {}, "problem 'a'")
    assert not caplog.records and time.monotonic() - began < 30
