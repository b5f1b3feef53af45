"""reasoning-gym as an endless source: row i depends on the seed and i alone, so any row can be made again at any time.

reasoning-gym:chain_sum                       one task at its default difficulty
reasoning-gym:chain_sum?level=3               a level of the task's curriculum
reasoning-gym:chain_sum+gcd?levels=0-3        several tasks and levels in turn
reasoning-gym:chain_sum?min_terms=2&seed=7    options of the task itself
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import yaml

from viprl.data.question import Format
from viprl.rewards.grading.extract import boxed

PREFIX = "reasoning-gym"
ROWS = 2**20
"""Rows of one seed. reasoning-gym seeds a row by seed + i below 2**32, so seeds are spaced by this: none overlap."""
SEEDS = 2**12 - 1


@dataclass(frozen=True)
class Task:
    """Which rows: row i is of task i mod T, at level (i div T) mod L."""

    names: tuple[str, ...]
    levels: tuple[int, ...] = ()
    """Levels of the tasks' curricula; empty: the default difficulty."""
    seed: int = 0
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        words = [f"level{'s' if len(self.levels) > 1 else ''}={_span(self.levels)}"] if self.levels else []
        words += [f"seed={self.seed}"] if self.seed else []
        words += [f"{key}={value}" for key, value in self.options]
        return f"{PREFIX}:{'+'.join(self.names)}{'?' if words else ''}{'&'.join(words)}"

    def row(self, i: int) -> dict[str, Any]:
        """`question`, `answer`, `metadata`, `task` and `level` of row i."""
        name = self.names[i % len(self.names)]
        level = self.levels[i // len(self.names) % len(self.levels)] if self.levels else None
        entry = _source(name, level, self.seed, self.options)[i]
        return {**entry, "task": name, "level": -1 if level is None else level}


def is_gym(source: Any) -> bool:
    return isinstance(source, str) and source.partition(":")[0] == PREFIX


def canonical(source: Any) -> Any:
    """A YAML mapping `{reasoning-gym: chain_sum, levels: [0, 3], ...}` as the text that says the same."""
    if not isinstance(source, Mapping):
        return source
    if PREFIX not in source:
        raise ValueError(f"dataset is a mapping with the keys {', '.join(map(str, source))}; expected `{PREFIX}: TASK`")
    rest = {str(key): value for key, value in source.items() if key != PREFIX}
    names = source[PREFIX]
    words = []
    for key, value in rest.items():
        levels = key == "levels" and isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2
        words.append(f"{key}={value[0]}-{value[1]}" if levels else f"{key}={value}")
    joined = names if isinstance(names, str) else "+".join(map(str, names))
    return f"{PREFIX}:{joined}{'?' if words else ''}{'&'.join(words)}"


def parse(source: str) -> Task:
    """The task that a text names. Raises ValueError for unknown tasks, levels and options, ImportError without
    reasoning-gym."""
    head, _, query = source.removeprefix(PREFIX).removeprefix(":").partition("?")
    names = tuple(name for name in head.split("+") if name)
    if not names:
        raise ValueError(f"{source!r} names no task; expected {PREFIX}:TASK such as {PREFIX}:chain_sum")
    options: dict[str, Any] = {}
    for word in filter(None, query.split("&")):
        key, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"{source!r}: {word!r} has no value; expected key=value")
        options[key] = value
    levels = _levels(source, options)
    seed = options.pop("seed", "0")
    if not re.fullmatch(r"\d+", seed) or int(seed) >= SEEDS:
        raise ValueError(f"{source!r}: seed is {seed!r}; expected 0 to {SEEDS - 1}")
    task = Task(names, levels, int(seed), tuple((k, yaml.safe_load(v)) for k, v in options.items()))
    for name in names:
        for level in levels or (None,):
            _source(name, level, task.seed, task.options)
    return task


def endless(task: Task, form: Format) -> Any:
    """A `datasets.Dataset` of 2**20 rows, each made when it is read."""
    from datasets import Dataset

    return Dataset.from_dict({"prompt": range(ROWS)}).with_transform(_Maker(task, form))


@dataclass(frozen=True)
class _Maker:
    task: Task
    form: Format

    def __call__(self, batch: Mapping[str, list[int]]) -> dict[str, list[Any]]:
        rows = [self.task.row(i) for i in batch["prompt"]]
        return {
            "prompt": [self.form(row["question"]) for row in rows],
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
    """Reward: 1 where the task's own check gives full marks to the answer, else 0. The answer is what stands in the
    last <answer> tags, in the last \\boxed{} without such tags, else the whole completion."""
    return [
        _full_marks(name, _answer(given), {"answer": right, "metadata": meta})
        for given, right, name, meta in zip(completions, solution, task, metadata, strict=True)
    ]


def _full_marks(task: str, answer: str, entry: Mapping[str, Any]) -> float:
    try:
        return float(_source(task, None, 0, ()).score_answer(answer, entry) >= 1.0)
    except Exception:  # the checks of some tasks fail on an answer that they cannot read: a wrong answer, no fault
        return 0.0


def _answer(completion: Any) -> str:
    text = completion if isinstance(completion, str) else str(completion[-1].get("content") or "")
    if tagged := re.findall(r"<answer>(.*?)</answer>", text, flags=re.DOTALL):
        return tagged[-1].strip()
    return boxed(text) or text.strip()


@lru_cache(maxsize=256)
def _source(name: str, level: int | None, seed: int, options: tuple[tuple[str, Any], ...]) -> Any:
    """reasoning-gym's data set of one task and level, whose entry i is made on demand."""
    try:
        from reasoning_gym.factory import CURRICULA, DATASETS, create_curriculum, create_dataset
    except ImportError as error:
        raise ImportError(f'reasoning-gym tasks need: pip install "viprl[gym]" ({error})') from error
    if name not in DATASETS or name == "composite":
        near = difflib.get_close_matches(name, DATASETS, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(sorted(DATASETS))}"
        raise ValueError(f"reasoning-gym has no task {name!r}; {hint}")
    settings = dict(options)
    if level is not None:
        if name not in CURRICULA:
            raise ValueError(f"reasoning-gym's {name} has no curriculum, so no levels; set its own options instead")
        curriculum = create_curriculum(name)
        highest = max((len(curriculum.get_attribute(a).levels) for a in curriculum.attributes), default=1) - 1
        if level > highest:
            raise ValueError(f"reasoning-gym's {name} has the levels 0 to {highest}; got {level}")
        curriculum.set_global_level(level)
        settings = vars(curriculum.generate_configuration()) | settings
    settings |= {"seed": seed * ROWS, "size": ROWS}
    try:
        return create_dataset(name, **settings)
    except (AssertionError, TypeError, ValueError) as error:
        where = f"at level {level} " if level is not None else ""
        raise ValueError(f"reasoning-gym's {name} {where}with {dict(options)} cannot be made: {error}") from error


def _levels(source: str, options: dict[str, Any]) -> tuple[int, ...]:
    given = [options.pop(key) for key in ("level", "levels") if key in options]
    if not given:
        return ()
    if len(given) > 1:
        raise ValueError(f"{source!r} has both level and levels; leave one of them out")
    text = given[0]
    low, dash, high = text.partition("-")
    if not low.isdecimal() or (dash and (not high.isdecimal() or int(high) < int(low))):
        raise ValueError(f"{source!r}: the level is {text!r}; expected a number such as 2, or a span such as 0-3")
    return tuple(range(int(low), int(high if dash else low) + 1))


def _span(levels: Sequence[int]) -> str:
    return str(levels[0]) if len(levels) == 1 else f"{levels[0]}-{levels[-1]}"
