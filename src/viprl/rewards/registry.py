"""Reward functions by name, as configuration files give them.

To add a built-in reward: its function in `viprl.rewards.built_in`, and a line in `MODES`.
"""

from __future__ import annotations

from collections.abc import Sequence

from viprl.errors import InputError
from viprl.rewards import built_in
from viprl.rewards.built_in import Reward
from viprl.rewards.grading.verifier import require_math_verify
from viprl.utils.imports import import_function
from viprl.utils.words import did_you_mean

MODES = {"exact_match": "exact", "math": "boxed", "math_last_number": "last_number"}
"""Built-in reward -> how it reads an answer, see `viprl.rewards.grading.answers.EXTRACTORS`."""


def resolve_rewards(names: Sequence[str]) -> list[Reward]:
    """The functions of built-in names and of import paths "module:function".

    Modules of the working directory are found too. Raises InputError for anything else, MissingPackageError (an
    ImportError) if a built-in reward lacks its package.
    """
    if not names:
        raise InputError("reward is empty; name at least one, such as exact_match")
    return [_resolve(name) for name in names]


def require_packages(name: str) -> None:
    """Raise MissingPackageError if the built-in reward `name` lacks a package."""
    if MODES.get(name, "exact") != "exact":
        require_math_verify()


def _resolve(name: str) -> Reward:
    if name in MODES:
        require_packages(name)
        return getattr(built_in, name)
    if ":" not in name:
        module, dot, function = name.rpartition(".")
        near = f"did you mean '{module}:{function}'?" if dot else did_you_mean(name, MODES)
        raise InputError(f"reward is {name!r}; {near and f'{near} '}expected {', '.join(MODES)} or 'module:function'")
    if ".py:" in name:
        raise InputError(f"reward is {name!r}; give the module without .py: {name.replace('.py:', ':')!r}")
    return import_function(name)
