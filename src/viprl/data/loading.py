"""`load`: checked rows of `prompt` and `solution` from a named set, a file, a folder, the Hub or reasoning-gym."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from rich.progress import track

from viprl.data import gym
from viprl.data.answer import MARK, read_answer
from viprl.data.layout import Layout, column_at, find_layout, first_copies
from viprl.data.named import NAMED
from viprl.data.question import Format, read_question
from viprl.data.remarks import mostly_marked, remarks
from viprl.data.tables import read_table
from viprl.data.values import column_of, for_datasets, values_of
from viprl.errors import DataError, InputError
from viprl.prompts import Prompt, identity

SHOWN = 8  # bad rows that a message describes
LEAVE_OUT = "leave them out (skip_bad_rows: true in a configuration, --skip-bad-rows on the command line)"


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """How the rows of a data set are read. None: the default of the named set or of the file.

    Raises InputError for values that cannot be used.
    """

    split: str | None = None
    """Split of a folder or of a data set on the Hub. Default: "train"."""
    subset: str | None = None
    """Configuration name of a data set on the Hub."""
    prompt_column: str | None = None
    """Column of the prompt; a dot selects a field of a struct."""
    solution_column: str | None = None
    """Column of the answer; a dot selects a field of a struct."""
    answer_after: str | None = None
    """The answer is the text after this mark, such as "####"."""
    instruction: str | None = None
    """Added to the prompt: boxed, answer_line, answer_tags, none, or a text; a text with {question} is a template."""
    system: str | None = None
    """System message."""
    chat: bool | None = None
    """True: use the chat template of the model. False: plain text."""
    duplicates: str | None = None
    """"keep", or "drop" to keep only the first row of each prompt."""
    skip_bad_rows: bool = False
    """Leave bad rows out and report them. Otherwise they are an error."""

    def __post_init__(self) -> None:
        if self.duplicates not in (None, "keep", "drop"):
            raise InputError(f"duplicates is {self.duplicates!r}; expected keep or drop")
        Format(self.instruction, self.system, self.chat)


@dataclass(frozen=True)
class DataSource(DataOptions):
    """Where a data set is, and how its rows are read (see `DataOptions`)."""

    name: str
    """A name of `viprl.data.NAMED`, `reasoning-gym:TASK?...`, a file, a folder or a Hub name."""


@dataclass(frozen=True)
class Conflict:
    """A prompt that has several answers in the data."""

    answers: Counter[str]
    """Answer -> number of rows."""
    row: int
    """Index of the first row of the prompt."""


@dataclass(frozen=True)
class Findings:
    """What was found in the rows. Messages number rows from 1; these are indices, from 0."""

    rows: int
    prompts: int
    """Distinct prompts in good rows."""
    repeated: int
    """Prompts in more than one row."""
    conflicts: tuple[Conflict, ...]
    bad: dict[int, str]
    """Index of each bad row -> what is wrong with it."""
    remarks: tuple[str, ...] = ()
    """What good rows may not have been meant to be, in words with an example."""

    @property
    def duplicates(self) -> int:
        """Good rows beyond the first of their prompt."""
        return self.rows - len(self.bad) - self.prompts


@dataclass(frozen=True)
class Loaded:
    """A data set that is ready to train on."""

    dataset: Any
    """`datasets.Dataset` with `prompt`, `solution` and the other columns of the source."""
    source: DataSource
    """The source, with the defaults of the named set."""
    layout: Layout
    findings: Findings | None
    """None for an endless data set."""
    rows: np.ndarray | None
    """[n] index in the source of each row of `dataset`; None for an endless data set."""
    notes: tuple[str, ...] = ()
    """Rows that were left out, duplicates, conflicting answers and other remarks, in words."""


def load(source: DataSource) -> Loaded:
    """Read, check and format a data set.

    Raises FileError if the source is not found, DataError for content that cannot be read, missing columns and bad
    rows (with their numbers, counted from 1), InputError for an unknown task of reasoning-gym.
    """
    if gym.is_gym(source.name):
        return _load_gym(source)
    source = _resolved(source)
    known = NAMED.get(source.name)
    table = read_table(known.hub if known else source.name, source.split or "train", source.subset)
    if len(table) == 0:
        raise DataError(f"{source.name} has no rows")
    layout = find_layout(table, source.name, source.prompt_column, source.solution_column)
    prompts, solutions = column_at(table, layout.prompt), column_at(table, layout.solution)
    first, copy_of = first_copies([prompts, solutions])
    taken = pa.array(first)
    questions, answers = values_of(prompts.take(taken)), values_of(solutions.take(taken))
    if source.answer_after is None and mostly_marked(answers):
        source = replace(source, answer_after=MARK)
    rows = _read_rows(questions, answers, source)
    read = [row.prompt for row in rows]
    _refuse_mixed(read, first, source)
    same: dict[str, list[int]] = {}
    for at, row in enumerate(rows):
        if not row.bad:
            same.setdefault(row.key, []).append(at)
    found = remarks(questions, answers, read, first, copy_of, source.answer_after)
    findings = replace(_find(rows, list(same.values()), first, copy_of), remarks=found)
    if source.duplicates == "drop":
        kept = np.array([first[group[0]] for group in same.values()], dtype=np.int64)
    else:
        kept = np.setdiff1d(np.arange(len(table)), list(findings.bad))
    _refuse_bad(findings, source, len(kept))
    return Loaded(
        _dataset(table, layout, rows, kept, copy_of), source, layout, findings, kept, _notes(findings, source)
    )


def _resolved(source: DataSource) -> DataSource:
    """The source with the defaults of its named set."""
    known = NAMED.get(source.name)
    if known is None:
        return source
    unset = {name for name, value in vars(source).items() if value is None}
    return replace(source, **{name: value for name, value in vars(known).items() if name in unset})


@dataclass(frozen=True)
class _Row:
    prompt: Prompt | None
    solution: str
    key: str
    bad: str = ""


def _read_rows(prompts: list[Any], solutions: list[Any], source: DataSource) -> list[_Row]:
    """Every distinct row, formatted, or with the reason why it is bad.

    DAPO's instruction around a question is removed where another one is added.
    """
    form = Format(source.instruction, source.system, source.chat)
    pairs = list(zip(prompts, solutions, strict=True))
    rows = []
    for value, answer in track(pairs, "reading rows", transient=True, disable=len(pairs) < 100_000):
        try:
            prompt = form(read_question(value, strip=source.instruction is not None))
            rows.append(_Row(prompt, read_answer(answer, source.answer_after), identity(prompt)))
        except DataError as error:
            rows.append(_Row(None, "", "", str(error)))
    return rows


def _refuse_mixed(prompts: Sequence[Prompt | None], first: np.ndarray, source: DataSource) -> None:
    """Refuse texts and chats in one data set: the trainers decide by the first row what all rows are."""
    texts = [str(first[at] + 1) for at, prompt in enumerate(prompts) if isinstance(prompt, str)]
    chats = [str(first[at] + 1) for at, prompt in enumerate(prompts) if isinstance(prompt, list)]
    if texts and chats:
        raise DataError(
            f"{source.name}: some prompts are texts (rows {_some(texts)}) and others are chats (rows {_some(chats)}); "
            "make chats of all with chat: true (--chat), or texts with chat: false (--no-chat)"
        )


def _some(rows: Sequence[str]) -> str:
    return ", ".join(rows[:SHOWN]) + (", ..." if len(rows) > SHOWN else "")


def _find(rows: Sequence[_Row], groups: list[list[int]], first: np.ndarray, copy_of: np.ndarray) -> Findings:
    """`groups` are the indices of the distinct good rows of each prompt."""
    copies = np.bincount(copy_of, minlength=len(rows))
    conflicts = []
    for group in groups:
        answers: Counter[str] = Counter()
        for at in group:
            answers[rows[at].solution] += int(copies[at])
        if len(answers) > 1:
            conflicts.append(Conflict(answers, int(first[group[0]])))
    is_bad = np.array([bool(row.bad) for row in rows])
    bad = {int(i): rows[copy_of[i]].bad for i in np.flatnonzero(is_bad[copy_of])}
    repeated = sum(copies[group].sum() > 1 for group in groups)
    return Findings(len(copy_of), len(groups), int(repeated), tuple(conflicts), bad)


def _refuse_bad(findings: Findings, source: DataSource, kept: int) -> None:
    if findings.bad and (kept == 0 or not source.skip_bad_rows):
        if len(findings.bad) == findings.rows and len(set(findings.bad.values())) == 1:
            raise DataError(f"{source.name}: all {findings.rows} rows are bad: {next(iter(findings.bad.values()))}")
        fix = f"Fix the rows, or {LEAVE_OUT}" if kept else "Fix the rows"
        raise DataError(f"{source.name}: {bad_rows(findings.bad)}. {fix}")


def bad_rows(bad: dict[int, str], what: str = "bad") -> str:
    """The bad rows in words: "2 rows are bad: row 4: why; row 10: why".

    Args:
        bad: index of each row -> reason. The text counts rows from 1.
        what: what the rows are.
    """
    words = [f"row {at + 1}: {why}" for at, why in list(bad.items())[:SHOWN]]
    if rest := [str(at + 1) for at in bad][SHOWN:]:
        words.append(f"and {len(rest)} more ({', '.join(rest[:20])}{', ...' if len(rest) > 20 else ''})")
    return f"{len(bad)} {'row is' if len(bad) == 1 else 'rows are'} {what}: {'; '.join(words)}"


def _dataset(table: pa.Table, layout: Layout, rows: Sequence[_Row], kept: np.ndarray, copy_of: np.ndarray) -> Any:
    """The data set that trainers read. Every value of it comes back as it was in the source."""
    from datasets import Dataset

    replaced = {"prompt", "solution", layout.prompt.partition(".")[0], layout.solution.partition(".")[0]}
    others = table.select([name for name in table.column_names if name not in replaced]).take(pa.array(kept))
    columns = {name: for_datasets(others.column(name), name, kept) for name in others.column_names}
    distinct = np.unique(copy_of[kept])
    chosen = pa.array(np.searchsorted(distinct, copy_of[kept]))
    prompts = pa.chunked_array([column_of([rows[at].prompt for at in distinct])])
    columns["prompt"] = for_datasets(prompts, "prompt", distinct).take(chosen)
    columns["solution"] = pa.array([rows[at].solution for at in distinct], pa.string()).take(chosen)
    return Dataset(pa.table(columns))


def _notes(findings: Findings, source: DataSource) -> tuple[str, ...]:
    notes = []
    if findings.bad:
        notes.append(f"left out: {bad_rows(findings.bad)}")
    if findings.duplicates:
        what = "left out" if source.duplicates == "drop" else "kept (set duplicates: drop to leave them out)"
        notes.append(f"{findings.duplicates:,} rows repeat the prompt of another row: {what}")
    if findings.conflicts:
        number = len(findings.conflicts)
        some = ", ".join(f"row {c.row + 1} ({' / '.join(c.answers)})" for c in findings.conflicts[:SHOWN])
        more = f" and {number - SHOWN} more" if number > SHOWN else ""
        which = "; the answer of the first row is kept" if source.duplicates == "drop" else ""
        notes.append(f"{number} prompt{'s' if number > 1 else ''} with several answers: {some}{more}{which}")
    return (*notes, *findings.remarks)


def _load_gym(source: DataSource) -> Loaded:
    task = gym.parse(source.name)
    form = Format(source.instruction or "answer_tags", source.system, source.chat)
    return Loaded(
        gym.endless(task, form), replace(source, name=str(task)), Layout("question", "answer", "gym"), None, None
    )
