"""Reward functions for the tests, as a user may write them."""


def too_few(completions, **_):
    return [1.0]


def half(completions, solution, **_):
    return [0.5 * (given == right) for given, right in zip(completions, solution, strict=True)]


def format_too(completions, solution, **_):
    return [1.0 if "boxed" in given else 0.25 for given in completions]


def vague(reward):
    return "perhaps"


def broken(completions, **_):
    raise KeyError("label")
