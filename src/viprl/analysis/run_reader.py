"""Reading run folders: what a run logged, as curves and as estimates with their 95 % intervals.

A run folder holds `metrics.jsonl` (one JSON object a line) and, where the run measured more, `summary.json`
and `trajectories.jsonl.gz`. Logs come from runs that may have been killed, so whatever is missing, null, NaN
or cut short is left out and noted in `Run.notes`; only a folder without any usable content is an error.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from viprl.analysis.statistics import Array, Estimate, finite, number
from viprl.runs.history import HISTORY_FILE

METRICS_FILE = "metrics.jsonl"
SUMMARY_FILE = "summary.json"

_HOW_TO_WRITE_ONE = (
    "A run folder is written by `viprl quickstart` or `viprl train --config FILE.yaml`, "
    f"and holds at least {METRICS_FILE} (one JSON object a line with strategy, seed and step)."
)


@dataclass(frozen=True)
class Curve:
    """One metric of one strategy over training."""

    steps: Array
    """Training steps, ascending, shape [T]."""
    rollouts: Array
    """Rollouts spent up to each step, shape [T]; NaN throughout where the run did not log them."""
    values: Array
    """The metric, shape [seeds, T]; NaN where a seed logged nothing."""
    seeds: tuple[int, ...]

    @property
    def mean(self) -> Array:
        """Mean over the seeds that logged the step, shape [T]."""
        counts = np.isfinite(self.values).sum(axis=0)
        totals = np.nansum(self.values, axis=0)
        return np.divide(totals, counts, out=np.full(counts.shape, np.nan), where=counts > 0)

    def last(self) -> dict[int, float]:
        """Each seed's last finite value."""
        finals = {seed: finite(row) for seed, row in zip(self.seeds, self.values, strict=True)}
        return {seed: float(row[-1]) for seed, row in finals.items() if row.size}


@dataclass(frozen=True)
class Run:
    """What one run folder holds."""

    name: str
    path: Path
    rows: tuple[Mapping[str, Any], ...]
    """The objects of `metrics.jsonl`, each with a step."""
    summary: Mapping[str, Any]
    """`summary.json`, empty where there is none."""
    trajectories: tuple[Mapping[str, Any], ...]
    """The objects of `trajectories.jsonl.gz`: id, prompt, rollouts and successes per visit."""
    notes: tuple[str, ...]
    """What could not be read, in words for the reader of the report."""

    @property
    def strategies(self) -> tuple[str, ...]:
        """The strategies that trained, in the order of their first line."""
        return tuple(dict.fromkeys(strategy_of(row) for row in self.rows))

    def shadows(self, strategy: str) -> tuple[str, ...]:
        """The strategies that ran in shadow of `strategy`."""
        keys = dict.fromkeys(key for row in self.rows if strategy_of(row) == strategy for key in row)
        parts = [key.split("/") for key in keys if key.startswith("vip/shadow/")]
        return tuple(part[2] for part in parts if len(part) == 4 and part[3] == "variance_ratio")

    def curve(self, strategy: str, key: str) -> Curve | None:
        """The metric `key` of `strategy`; None where it was never logged. The last line of a step counts."""
        rows = [row for row in self.rows if strategy_of(row) == strategy]
        logged = {
            (_seed(row), number(row["step"])): value for row in rows if math.isfinite(value := number(row.get(key)))
        }
        if not logged:
            return None
        seeds = tuple(sorted({seed for seed, _ in logged}))
        steps = np.array(sorted({step for _, step in logged}))
        values = np.array([[logged.get((seed, step), np.nan) for step in steps] for seed in seeds])
        return Curve(steps, _rollouts_at(steps, rows), values, seeds)

    def estimates(self, key: str) -> dict[str, Estimate]:
        """`summary[key]` as `{strategy: Estimate}`, without the entries that hold no mean."""
        return read_estimates(self.summary.get(key))

    def estimates_by_step(self, key: str) -> dict[str, list[tuple[float, Estimate]]]:
        """`summary["by_step"][step][key]` as `{strategy: [(step, Estimate), ...]}`, steps ascending."""
        return self._numbered("by_step", key)

    def means_by_seed(self, key: str) -> dict[str, dict[int, float]]:
        """`summary["by_seed"][seed][key]` as `{strategy: {seed: mean}}`, seeds ascending."""
        found = self._numbered("by_seed", key)
        return {name: {int(seed): estimate.mean for seed, estimate in pairs} for name, pairs in found.items()}

    def _numbered(self, group: str, key: str) -> dict[str, list[tuple[float, Estimate]]]:
        entries = self.summary.get(group)
        pairs = entries.items() if isinstance(entries, Mapping) else ()
        numbered = [(float(at), entry) for at, entry in pairs if str(at).isdecimal()]
        found: dict[str, list[tuple[float, Estimate]]] = {}
        for at, entry in sorted(numbered, key=lambda pair: pair[0]):
            for name, estimate in read_estimates(entry.get(key) if isinstance(entry, Mapping) else None).items():
                found.setdefault(name, []).append((at, estimate))
        return found

    def calibration(self) -> dict[str, Array] | None:
        """`predicted`, `true`, `count` and `visits` of the measured prompts, shape [P] each."""
        entries = self.summary.get("calibration")
        points = [point for point in entries if isinstance(point, Mapping)] if isinstance(entries, list) else []
        keys = ("predicted", "true", "count", "visits")
        table = np.array([[number(point.get(key)) for key in keys] for point in points]).reshape(-1, 4)
        table = table[np.isfinite(table[:, :2]).all(axis=1)]
        return dict(zip(keys, table.T, strict=True)) if len(table) else None

    def prompts(self) -> list[tuple[str, int, int, int]]:
        """Each logged prompt's (text, visits, rollouts, successes), most rollouts first."""
        found = []
        for row in self.trajectories:
            rollouts, successes = row.get("rollouts"), row.get("successes")
            if isinstance(rollouts, list) and isinstance(successes, list) and len(rollouts) == len(successes):
                spent, right = (int(np.nansum([number(v) for v in part])) for part in (rollouts, successes))
                found.append((str(row.get("prompt") or row.get("id")), len(rollouts), spent, right))
        return sorted((prompt for prompt in found if prompt[2] > 0), key=lambda prompt: -prompt[2])


def load_run(path: Path | str) -> Run:
    """Read a run folder.

    Raises FileNotFoundError or NotADirectoryError where the folder or its `metrics.jsonl` is missing, and
    ValueError where neither a complete line nor a summary is in it.
    """
    folder = Path(path)
    if folder.is_file():
        raise NotADirectoryError(f"{folder} is a file, expected the run folder that holds it. {_HOW_TO_WRITE_ONE}")
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no run folder {folder}. {_HOW_TO_WRITE_ONE}")
    if not (folder / METRICS_FILE).is_file():
        raise FileNotFoundError(f"{folder} holds no {METRICS_FILE}, so it is not a run folder. {_HOW_TO_WRITE_ONE}")
    notes: list[str] = []
    rows = tuple(_read_metrics(folder / METRICS_FILE, notes))
    summary = _read_summary(folder / SUMMARY_FILE, notes)
    trajectories = tuple(_read_trajectories(folder / HISTORY_FILE, notes))
    if not rows and not summary:
        raise ValueError(
            f"{folder / METRICS_FILE} holds no complete line with a step, and there is no {SUMMARY_FILE}: "
            "nothing to report yet. Wait until the run has logged a step, or start it again."
        )
    return Run(folder.resolve().name, folder, rows, summary, trajectories, tuple(notes))


def load_runs(paths: Sequence[Path | str]) -> list[Run]:
    """Read several run folders; folders of the same name are told apart by their parents' names."""
    runs = [load_run(path) for path in paths]
    names = [run.name for run in runs]
    return [
        run if names.count(run.name) == 1 else replace(run, name="/".join(run.path.resolve().parts[-2:]))
        for run in runs
    ]


def strategy_of(row: Mapping[str, Any]) -> str:
    """The strategy that trained this line's step."""
    return str(row.get("strategy") or "unnamed")


def read_estimates(entry: object) -> dict[str, Estimate]:
    """A summary's `{strategy: {"mean", "sd", "n"}}`, without the entries that hold no mean."""
    if not isinstance(entry, Mapping):
        return {}
    found = {str(name): Estimate.read(value) for name, value in entry.items()}
    return {name: estimate for name, estimate in found.items() if estimate is not None}


def _seed(row: Mapping[str, Any]) -> int:
    seed = number(row.get("seed"))
    return int(seed) if math.isfinite(seed) else 0


def _rollouts_at(steps: Array, rows: Sequence[Mapping[str, Any]]) -> Array:
    """Rollouts spent at `steps`: mean over seeds, interpolated where a line (an evaluation) lacks them."""
    spent: dict[float, list[float]] = {}
    for row in rows:
        if math.isfinite(rollouts := number(row.get("rollouts"))):
            spent.setdefault(number(row["step"]), []).append(rollouts)
    if not spent:
        return np.full(steps.shape, np.nan)
    known = sorted(({0.0: [0.0]} | spent).items())
    return np.interp(steps, [step for step, _ in known], [float(np.mean(at)) for _, at in known])


def _json_objects(lines: TextIO, file: str, notes: list[str]) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file; a line that is none is noted and skipped."""
    broken: list[tuple[int, bool]] = []
    for index, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError:
            broken.append((index, line.endswith("\n")))
            continue
        if isinstance(value, dict):
            yield value
        else:
            broken.append((index, True))
    for index, complete in broken:
        why = "is not a JSON object" if complete else "was cut short (a killed run leaves such a line)"
        notes.append(f"{file}: line {index} {why}; it was left out.")


def _read_metrics(path: Path, notes: list[str]) -> Iterator[dict[str, Any]]:
    without_step = 0
    with path.open(encoding="utf-8", errors="replace") as lines:
        for row in _json_objects(lines, path.name, notes):
            if math.isfinite(number(row.get("step"))):
                yield row
            else:
                without_step += 1
    if without_step:
        notes.append(f"{path.name}: {without_step} line(s) without a step were left out.")


def _read_summary(path: Path, notes: list[str]) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        notes.append(f"{path.name} is not a JSON object; what it would add was left out.")
        return {}
    return value


def _read_trajectories(path: Path, notes: list[str]) -> Iterable[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if not path.is_file():
        return found
    try:
        with gzip.open(path, "rt", encoding="utf-8", errors="replace") as lines:
            for row in _json_objects(lines, path.name, notes):
                found.append(row)
    except (EOFError, OSError, zlib.error):
        notes.append(f"{path.name} was cut short; {len(found)} prompts could be read.")
    return found
