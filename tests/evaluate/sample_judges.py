"""Reward functions for the tests, as a user may write them."""

from __future__ import annotations


def first_letter(prompts, completions, level, **_):
    """1 if the completion begins as the prompt does; None at level 0."""
    return [
        None if row == 0 else float(given[:1] == prompt[:1])
        for prompt, given, row in zip(prompts, completions, level, strict=True)
    ]


def equal(completions, solution, **_):
    return [float(given == right) for given, right in zip(completions, solution, strict=True)]


def half(completions, solution, **_):
    return [0.5 * (given == right) for given, right in zip(completions, solution, strict=True)]


def texts(completions, **_):
    return ["right"] * len(completions)


async def waits(completions, solution, **_):
    return equal(completions, solution)


def chats_alone(completions, solution, **_):
    return [float(given[0]["content"] == right) for given, right in zip(completions, solution, strict=True)]


def broken(completions, **_):
    raise KeyError("label")
