"""reasoning-gym as an endless data set. Row i depends on the seed and on i alone, so a resumed run sees the same rows.

reasoning-gym:chain_sum                       one task at its default difficulty
reasoning-gym:chain_sum?level=3               a level of the task's curriculum
reasoning-gym:chain_sum+gcd?levels=0-3        several tasks and levels in turn
reasoning-gym:chain_sum?min_terms=2&seed=7    options of the task
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import yaml

from viprl.data.gym_answers import final_answer, may_be_checked
from viprl.data.question import Format
from viprl.errors import InputError, MissingPackageError
from viprl.utils.safe_yaml import parse_yaml
from viprl.utils.words import did_you_mean

PREFIX = "reasoning-gym"
ROWS = 2**20
"""Rows of one seed. reasoning-gym seeds row i with seed + i < 2**32, so our seeds are multiples of this: no overlap."""
SEEDS = 2**12 - 1
"""Number of seeds."""


@dataclass(frozen=True)
class Task:
    """The rows of an endless data set: row i is of task i mod T, at level (i div T) mod L."""

    names: tuple[str, ...]
    levels: tuple[int, ...] = ()
    """Levels of the tasks' curricula; empty: the default difficulty."""
    seed: int = 0
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        levels = {"levels": (self.levels[0], self.levels[-1])} if self.levels else {}
        seed = {"seed": self.seed} if self.seed else {}
        return _name(self.names, {**levels, **seed, **dict(self.options)})

    def row(self, i: int) -> dict[str, Any]:
        """Row i: `question`, `answer`, `metadata`, `task` and `level` (-1 for the default difficulty)."""
        name = self.names[i % len(self.names)]
        level = self.levels[i // len(self.names) % len(self.levels)] if self.levels else None
        entry = _generator(name, level, self.seed, self.options)[i]
        return {**entry, "task": name, "level": -1 if level is None else level}


def is_gym(name: Any) -> bool:
    """Whether a data set is named `reasoning-gym:...`."""
    return isinstance(name, str) and name.partition(":")[0] == PREFIX


def canonical(dataset: Any) -> Any:
    """The name `reasoning-gym:...` of a YAML mapping `{reasoning-gym: chain_sum, levels: [0, 3], ...}`.

    Anything else than a mapping is returned unchanged. Raises InputError for a mapping without the key reasoning-gym.
    """
    if not isinstance(dataset, Mapping):
        return dataset
    if PREFIX not in dataset:
        raise InputError(f"dataset has the keys {', '.join(map(str, dataset))}; expected `{PREFIX}: TASK`")
    names = dataset[PREFIX]
    options = {key: value for key, value in dataset.items() if key != PREFIX}
    return _name([names] if isinstance(names, str) else names, options)


def parse(name: str) -> Task:
    """The tasks of a name `reasoning-gym:...`.

    Raises InputError for unknown tasks, levels and options, MissingPackageError without reasoning-gym.
    """
    head, _, query = name.removeprefix(PREFIX).removeprefix(":").partition("?")
    tasks = tuple(task for task in head.split("+") if task)
    if not tasks:
        raise InputError(f"{name!r} has no task; expected {PREFIX}:TASK, such as {PREFIX}:chain_sum")
    options: dict[str, Any] = {}
    for word in filter(None, query.split("&")):
        key, equals, value = word.partition("=")
        if not equals:
            raise InputError(f"{name!r}: {word!r} has no value; expected key=value")
        options[key] = value
    levels = _levels(name, options)
    seed = options.pop("seed", "0")
    if not re.fullmatch(r"[0-9]{1,9}", seed) or int(seed) >= SEEDS:
        raise InputError(f"{name!r}: seed is {seed!r}; expected 0 to {SEEDS - 1}")
    parsed = Task(tasks, levels, int(seed), tuple((key, _value(name, key, text)) for key, text in options.items()))
    for task in tasks:
        for level in levels or (None,):
            _generator(task, level, parsed.seed, parsed.options)
    return parsed


def endless(task: Task, form: Format) -> Any:
    """A `datasets.Dataset` of 2**20 rows that are generated when they are read."""
    from datasets import Dataset

    return Dataset.from_dict({"prompt": range(ROWS)}).with_transform(partial(_generated, task, form))


def _generated(task: Task, form: Format, batch: Mapping[str, list[int]]) -> dict[str, list[Any]]:
    rows = [task.row(i) for i in batch["prompt"]]
    return {
        "prompt": [form(row["question"]) for row in rows],
        "solution": [row["answer"] for row in rows],
        **{name: [row[name] for row in rows] for name in ("task", "level", "metadata")},
    }


def solved(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    solution: Sequence[str],
    task: Sequence[str],
    metadata: Sequence[Mapping[str, Any]],
    **_: Any,
) -> list[float | None]:
    r"""Reward: 1 if the task's own check gives the answer the full score, otherwise 0.

    The answer is the content of the last <answer> tags; without such tags that of the last \boxed{}; without a box the
    whole completion. An answer that a check would run as code is wrong, see `viprl.data.gym_answers`.
    """
    return [
        _full_score(name, final_answer(given), {"answer": right, "metadata": meta})
        for given, right, name, meta in zip(completions, solution, task, metadata, strict=True)
    ]


def _full_score(task: str, answer: str, entry: Mapping[str, Any]) -> float:
    check = _generator(task, None, 0, ()).score_answer
    if not may_be_checked(answer, entry["answer"], check):
        return 0.0
    try:
        return float(check(answer, entry) >= 1.0)
    except Exception:  # the checks of some tasks raise on answers that they cannot parse; such an answer is wrong
        return 0.0


@lru_cache(maxsize=256)
def _generator(name: str, level: int | None, seed: int, options: tuple[tuple[str, Any], ...]) -> Any:
    """reasoning-gym's data set of one task and level; entry i is generated on demand."""
    try:
        from reasoning_gym.factory import CURRICULA, DATASETS, create_curriculum, create_dataset
    except ImportError as error:
        raise MissingPackageError(f'reasoning-gym is not installed: pip install "viprl[gym]" ({error})') from error
    if name not in DATASETS or name == "composite":
        hint = did_you_mean(name, DATASETS, n=3) or f"expected one of {', '.join(sorted(DATASETS))}"
        raise InputError(f"reasoning-gym has no task {name!r}; {hint}")
    settings = dict(options)
    if level is not None:
        if name not in CURRICULA:
            raise InputError(f"reasoning-gym's {name} has no levels; set its own options instead")
        curriculum = create_curriculum(name)
        highest = max((len(curriculum.get_attribute(a).levels) for a in curriculum.attributes), default=1) - 1
        if level > highest:
            raise InputError(f"reasoning-gym's {name} has the levels 0 to {highest}; got {level}")
        curriculum.set_global_level(level)
        settings = vars(curriculum.generate_configuration()) | settings
    settings |= {"seed": seed * ROWS, "size": ROWS}
    try:
        return create_dataset(name, **settings)
    except (AssertionError, TypeError, ValueError) as error:
        where = f"at level {level} " if level is not None else ""
        raise InputError(f"reasoning-gym cannot generate {name} {where}with {dict(options)}: {error}") from error


def _levels(name: str, options: dict[str, Any]) -> tuple[int, ...]:
    given = [options.pop(key) for key in ("level", "levels") if key in options]
    if not given:
        return ()
    if len(given) > 1:
        raise InputError(f"{name!r} has both level and levels; remove one of them")
    text = given[0]
    low, dash, high = text.partition("-")
    if not re.fullmatch(r"[0-9]{1,3}(-[0-9]{1,3})?", text) or (dash and int(high) < int(low)):
        raise InputError(f"{name!r}: the level is {text!r}; expected a number such as 2, or a range such as 0-3")
    return tuple(range(int(low), int(high if dash else low) + 1))


def _value(name: str, key: str, text: str) -> Any:
    """The value of an option. Tasks are remembered by their options, so it must be hashable."""
    try:
        value = parse_yaml(text)
        hash(value)
    except (yaml.YAMLError, TypeError) as error:
        raise InputError(f"{name!r}: {key} is {text!r}; expected a number, a text, true or false") from error
    return value


def _name(names: Iterable[str], options: Mapping[str, Any]) -> str:
    """The name of tasks with options; two levels are the ends of a range."""
    words = []
    for key, value in options.items():
        ends = key == "levels" and isinstance(value, list | tuple) and len(value) == 2
        words.append(f"{key}={value[0]}-{value[1]}" if ends else f"{key}={value}")
    query = f"?{'&'.join(words)}" if words else ""
    return f"{PREFIX}:{'+'.join(names)}{query}"
