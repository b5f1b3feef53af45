"""Reward functions for the tests, as a user may write them."""


def too_few(completions, **_):
    return [1.0]


def half(completions, solution, **_):
    return [0.5 * (given == right) for given, right in zip(completions, solution, strict=True)]


def format_too(completions, solution, **_):
    return [1.0 if "boxed" in given else 0.25 for given in completions]


def credit(completions, solution, **_):
    """1 if right, .1 if in the right format."""
    pairs = zip(completions, solution, strict=True)
    return [1.0 if right in given.split() else 0.1 * (len(given) > 3) for given, right in pairs]


def vague(reward):
    return "perhaps"


def broken(completions, **_):
    raise KeyError("label")


def texts(completions, **_):
    return ["good"] * len(completions)


def nothing(completions, **_):
    [1.0 for _ in completions]


def unscorable(completions, **_):
    return [None] * len(completions)


def asks_for_answer(completions, answer, **_):
    return [float(given == right) for given, right in zip(completions, answer, strict=True)]


def no_kwargs(prompts, completions, solution):
    return [1.0] * len(completions)
