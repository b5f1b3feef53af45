"""`load`: from a name, a file, a folder, the hub or reasoning-gym to checked rows of `prompt` and `solution`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from rich.progress import track

from viprl.data import gym
from viprl.data.layout import Layout, column_at, find_layout, first_copies
from viprl.data.named import DAPO_WRAPPER, NAMED
from viprl.data.question import Format, read_answer, read_question
from viprl.data.tables import read_table
from viprl.prompts import Prompt, identity

SHOWN = 8  # bad rows that a message spells out
LEAVE_OUT = "leave them out (skip_bad_rows: true in a configuration, --skip-bad-rows as an option)"


@dataclass(frozen=True)
class DataSource:
    """What to read and how. None: as the named set or the file has it."""

    source: str
    """A name of `viprl.data.NAMED`, `reasoning-gym:TASK?...`, a file, a folder or a hub name."""
    split: str | None = None
    subset: str | None = None
    prompt_column: str | None = None
    solution_column: str | None = None
    answer_after: str | None = None
    """The answer is what follows this mark, such as "####"."""
    instruction: str | None = None
    system: str | None = None
    chat: bool | None = None
    duplicates: str | None = None
    """"keep", or "drop": only the first row of each prompt."""
    skip_bad_rows: bool = False
    """Leave bad rows out and report them; otherwise they are an error."""

    def __post_init__(self) -> None:
        if self.duplicates not in (None, "keep", "drop"):
            raise ValueError(f"duplicates is {self.duplicates!r}; expected keep or drop")
        Format(self.instruction, self.system, self.chat)


@dataclass(frozen=True)
class Conflict:
    """A prompt that stands in the data with several answers."""

    prompt: Prompt
    answers: dict[str, int]
    """Rows with each answer."""
    row: int
    """The first row of the prompt, counted from 0."""


@dataclass(frozen=True)
class Findings:
    """What was found in the rows. Rows are counted from 0."""

    rows: int
    prompts: int
    """Distinct prompts in good rows."""
    repeated: int
    """Prompts that stand in more than one row."""
    conflicts: tuple[Conflict, ...]
    bad: dict[int, str]
    """Reason by row."""

    @property
    def duplicates(self) -> int:
        """Good rows beyond the first of their prompt."""
        return self.rows - len(self.bad) - self.prompts


@dataclass(frozen=True)
class Loaded:
    """A data set that is ready to train on."""

    dataset: Any
    """`datasets.Dataset` with `prompt`, `solution` and the columns that the source had besides."""
    spec: DataSource
    """What was asked for, with the named set's own choices filled in."""
    layout: Layout
    findings: Findings | None
    """None for an endless source, which has no rows to look through."""
    rows: np.ndarray | None
    """[n] the row of the source, counted from 0, that each row of `dataset` comes from; None for an endless source."""
    notes: tuple[str, ...] = ()
    """What the reader should know: rows left out, answers in conflict."""


def load(spec: DataSource) -> Loaded:
    """Read, check and format. Raises ValueError for sources that cannot be read, missing columns, and bad rows, which
    are named by number."""
    if gym.is_gym(spec.source):
        return _load_gym(spec)
    spec, wrapper = _resolved(spec)
    known = NAMED.get(spec.source)
    table = read_table(known.hub if known else spec.source, spec.split or "train", spec.subset)
    if len(table) == 0:
        raise ValueError(f"{spec.source} holds no rows")
    layout = find_layout(table, spec.source, spec.prompt_column, spec.solution_column)
    prompts, solutions = column_at(table, layout.prompt), column_at(table, layout.solution)
    if spec.answer_after is None and layout.name == "GSM8K" and "####" in str(solutions[0].as_py()):
        spec = replace(spec, answer_after="####")
    if not wrapper[0] and layout.name.startswith("DAPO") and spec.instruction is not None:
        wrapper = DAPO_WRAPPER

    first, copy_of = first_copies([prompts, solutions])
    taken = pa.array(first)
    rows = _read_rows(prompts.take(taken).to_pylist(), solutions.take(taken).to_pylist(), wrapper, spec)
    findings = _find(rows, first, copy_of)
    kept = _kept(rows, first, copy_of, spec.duplicates == "drop")
    _refuse_bad(findings, spec, len(kept))
    return Loaded(_dataset(table, layout, rows, kept, copy_of), spec, layout, findings, kept, _notes(findings, spec))


def _resolved(spec: DataSource) -> tuple[DataSource, tuple[str, str]]:
    """The spec with the choices of its named set, and the wrapper of the set's questions."""
    known = NAMED.get(spec.source)
    if known is None:
        return spec, ("", "")
    names = ("split", "subset", "prompt_column", "solution_column", "answer_after", "instruction", "chat", "duplicates")
    chosen = {name: getattr(known, name) for name in names if getattr(spec, name) is None}
    return replace(spec, **chosen), known.wrapper


@dataclass(frozen=True)
class _Row:
    prompt: Prompt | None
    solution: str
    key: str
    bad: str = ""


def _read_rows(prompts: list[Any], solutions: list[Any], wrapper: tuple[str, str], spec: DataSource) -> list[_Row]:
    """Every distinct row, formatted or with what is wrong with it."""
    form = Format(spec.instruction, spec.system, spec.chat)
    pairs = list(zip(prompts, solutions, strict=True))
    rows = []
    for value, answer in track(pairs, "reading rows", transient=True, disable=len(pairs) < 100_000):
        try:
            question = read_question(value, wrapper)
            rows.append(_Row(form(question), read_answer(answer, spec.answer_after), identity(question)))
        except ValueError as error:
            rows.append(_Row(None, "", "", str(error)))
    return rows


def _find(rows: Sequence[_Row], first: np.ndarray, copy_of: np.ndarray) -> Findings:
    copies = np.bincount(copy_of, minlength=len(rows))
    groups: dict[str, list[int]] = {}
    for at, row in enumerate(rows):
        if not row.bad:
            groups.setdefault(row.key, []).append(at)
    conflicts = []
    for group in groups.values():
        answers: dict[str, int] = {}
        for at in group:
            answers[rows[at].solution] = answers.get(rows[at].solution, 0) + int(copies[at])
        if len(answers) > 1:
            conflicts.append(Conflict(rows[group[0]].prompt, answers, int(first[group[0]])))
    is_bad = np.array([bool(row.bad) for row in rows])
    bad = {int(i): rows[copy_of[i]].bad for i in np.flatnonzero(is_bad[copy_of])}
    repeated = sum(copies[group].sum() > 1 for group in groups.values())
    return Findings(len(copy_of), len(groups), int(repeated), tuple(conflicts), bad)


def _kept(rows: Sequence[_Row], first: np.ndarray, copy_of: np.ndarray, drop: bool) -> np.ndarray:
    """[k] the rows that stay, ascending."""
    if not drop:
        good = np.array([not row.bad for row in rows])
        return np.flatnonzero(good[copy_of])
    seen: dict[str, int] = {}
    for at, row in enumerate(rows):
        if not row.bad:
            seen.setdefault(row.key, int(first[at]))
    return np.array(sorted(seen.values()), dtype=np.int64)


def _refuse_bad(findings: Findings, spec: DataSource, kept: int) -> None:
    if findings.bad and (kept == 0 or not spec.skip_bad_rows):
        if len(findings.bad) == findings.rows and len(set(findings.bad.values())) == 1:
            raise ValueError(f"{spec.source}: all {findings.rows} rows are bad: {next(iter(findings.bad.values()))}")
        mend = f"Mend the rows, or {LEAVE_OUT}" if kept else "Mend the rows"
        raise ValueError(f"{spec.source}: {bad_rows(findings.bad)}. {mend}")


def bad_rows(bad: dict[int, str], what: str = "bad") -> str:
    """ "row 3: why; row 9: why; and 5 more (12, 13, ...)"."""
    numbers = list(bad)
    words = [f"row {n}: {bad[n]}" for n in numbers[:SHOWN]]
    if len(numbers) > SHOWN:
        rest = ", ".join(map(str, numbers[SHOWN : SHOWN + 20])) + (", ..." if len(numbers) > SHOWN + 20 else "")
        words.append(f"and {len(numbers) - SHOWN} more ({rest})")
    plural = "row is" if len(numbers) == 1 else "rows are"
    return f"{len(numbers)} {plural} {what} (counted from 0): {'; '.join(words)}"


def _dataset(table: pa.Table, layout: Layout, rows: Sequence[_Row], kept: np.ndarray, copy_of: np.ndarray) -> Any:
    from datasets import Dataset

    spent = {"prompt", "solution", layout.prompt.partition(".")[0], layout.solution.partition(".")[0]}
    others = table.select([name for name in table.column_names if name not in spent]).take(pa.array(kept))
    chosen = [rows[at] for at in copy_of[kept]]
    chats = {isinstance(row.prompt, list) for row in chosen}
    if len(chats) > 1:
        raise ValueError("some prompts are chats and some are texts; set chat: true")
    columns = {name: others.column(name) for name in others.column_names}
    columns["prompt"] = pa.array([row.prompt for row in chosen])
    columns["solution"] = pa.array([row.solution for row in chosen])
    return Dataset(pa.table(columns))


def _notes(findings: Findings, spec: DataSource) -> tuple[str, ...]:
    notes = []
    if findings.bad:
        notes.append(f"left out: {bad_rows(findings.bad)}")
    if findings.duplicates:
        what = "left out" if spec.duplicates == "drop" else "kept (duplicates: drop leaves them out)"
        notes.append(f"{findings.duplicates:,} rows repeat the prompt of another: {what}")
    if findings.conflicts:
        names = ", ".join(f"{c.row} ({' / '.join(c.answers)})" for c in findings.conflicts[:SHOWN])
        more = f" and {len(findings.conflicts) - SHOWN} more" if len(findings.conflicts) > SHOWN else ""
        which = "; the first row's answer stays" if spec.duplicates == "drop" else ""
        one = len(findings.conflicts) == 1
        notes.append(
            f"{len(findings.conflicts)} prompt{'' if one else 's'} with several answers, first row {names}{more}{which}"
        )
    return tuple(notes)


def _load_gym(spec: DataSource) -> Loaded:
    task = gym.parse(spec.source)
    form = Format(spec.instruction or "answer_tags", spec.system, spec.chat)
    return Loaded(
        gym.endless(task, form), replace(spec, source=str(task)), Layout("question", "answer", "gym"), None, None
    )
