"""The file of completions, one JSON object a line: `id`, `answer`, `completions` (a list of texts), all problems with
equally many. `viprl evaluate` appends to one while it samples, and scores any."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from viprl.data.question import written


@dataclass(frozen=True)
class Generations:
    """The completions of one problem."""

    id: str
    answer: str
    completions: tuple[str, ...]
    truncated: int = 0
    """Completions that ended only because they reached the longest length, where that is known."""


def read_generations(path: str | Path) -> list[Generations]:
    """All problems of a file (.jsonl or .jsonl.gz). Raises ValueError, with the line, for rows that are no generations,
    ids that come twice, problems without an answer or without completions, and different numbers of completions."""
    path = Path(path)
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no such file"
        raise ValueError(f"{path}: {what}; expected a file of JSON lines with id, answer and completions")
    rows: dict[str, Generations] = {}
    lines: dict[str, int] = {}
    for number, line in _lines(path):
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            cut = "" if line.endswith("\n") else "; the file ends within this line: it was cut off, or is still written"
            raise ValueError(f"{where} is not valid JSON ({error}){cut}") from error
        problem = parse_row(row, where)
        if problem.id in rows:
            raise ValueError(f"{where}: the id {problem.id!r} stands in line {lines[problem.id]} already")
        rows[problem.id], lines[problem.id] = problem, number
    if not rows:
        raise ValueError(f"{path} holds no problems")
    check_equal_numbers(list(rows.values()), str(path))
    if not any(text.strip() for problem in rows.values() for text in problem.completions):
        raise ValueError(f"{path}: every completion is empty; the model that made them generated nothing")
    return list(rows.values())


def parse_row(row: Any, where: str) -> Generations:
    """A checked row. Raises ValueError saying what is wrong with it."""
    if not isinstance(row, Mapping):
        raise ValueError(f"{where} is a {type(row).__name__}; expected an object with id, answer and completions")
    missing = [key for key in ("id", "answer", "completions") if key not in row]
    if missing:
        raise ValueError(f"{where} has no {' and no '.join(missing)}; its keys are {', '.join(row) or '-'}")
    name, answer, texts = row["id"], row["answer"], row["completions"]
    if isinstance(name, bool) or not isinstance(name, str | int) or name == "":
        raise ValueError(f"{where}: the id is {name!r}; expected a text or a whole number")
    if isinstance(answer, bool) or not isinstance(answer, str | int | float) or not str(answer).strip():
        raise ValueError(f"{where}: problem {name!r} has the answer {answer!r}; expected a text or a number")
    if isinstance(texts, str):
        raise ValueError(f"{where}: the completions of problem {name!r} are a text; expected a list of texts")
    if not isinstance(texts, list) or not texts:
        raise ValueError(f"{where}: problem {name!r} has no completions; expected a list of texts")
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(
                f"{where}: completion {place} of problem {name!r} is of type {type(text).__name__}; expected a text"
            )
    return Generations(str(name), written(answer), tuple(texts), int(row.get("truncated") or 0))


def check_equal_numbers(problems: Sequence[Generations], where: str) -> None:
    """ValueError unless all problems have equally many completions."""
    usual = problems[0]
    for problem in problems:
        if len(problem.completions) != len(usual.completions):
            raise ValueError(
                f"{where}: problem {problem.id!r} has {len(problem.completions)} completions, but problem {usual.id!r} "
                f"has {len(usual.completions)}; expected equally many"
            )


def check_same_problems(problems: Sequence[Generations], answers: Mapping[str, str], where: str, dataset: str) -> None:
    """ValueError unless the file's problems are those of the dataset (`answers` by id)."""
    known = {problem.id for problem in problems}
    strange = [problem.id for problem in problems if problem.id not in answers]
    if strange:
        some = ", ".join(map(repr, strange[:5]))
        raise ValueError(
            f"{where} is of another dataset: {len(strange)} of its {len(problems)} ids are not in {dataset} ({some})"
        )
    for problem in problems:
        if problem.answer.strip() != answers[problem.id].strip():
            raise ValueError(
                f"{where} is of another dataset: problem {problem.id!r} has the answer {problem.answer!r} there and "
                f"{answers[problem.id]!r} in {dataset}"
            )
    absent = [name for name in answers if name not in known]
    if absent:
        some = ", ".join(map(repr, absent[:5]))
        raise ValueError(
            f"{where} lacks {len(absent)} of the {len(answers)} problems of {dataset} ({some}); an average over the "
            "rest would be no result for that dataset (--limit takes its first problems)"
        )


class Store:
    """The growing file of a run that samples. A kill at any moment costs at most the problem that was being written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found = {problem.id: problem for problem in self._recover()}
        """Problems that are in the file, by id."""

    def append(self, problem: Generations) -> None:
        """Add one problem and wait until it is on the disk."""
        line = json.dumps(
            {
                "id": problem.id,
                "answer": problem.answer,
                "truncated": problem.truncated,
                "completions": problem.completions,
            }
        )
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            view = memoryview(line.encode("ascii") + b"\n")
            while view:
                view = view[os.write(file, view) :]
            os.fsync(file)
        finally:
            os.close(file)
        self.found[problem.id] = problem

    def _recover(self) -> Iterator[Generations]:
        """The whole lines; what a kill left of a last one is cut away."""
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self.path, whole)
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            where = f"{self.path}, line {number}"
            try:
                yield parse_row(json.loads(line), where)
            except ValueError as error:
                raise ValueError(f"{where} cannot be read ({error}); delete that line to sample it again") from error


def seed_of(seed: int, name: str) -> int:
    """A seed of 48 bits for a problem, from the run's seed and the problem's id alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}\n{name}".encode("utf-8", "surrogatepass")).digest()[:6])


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    opened: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        raise ValueError(f"{path} is no JSON-lines text ({error})") from error
