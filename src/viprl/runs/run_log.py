"""Writes the logs of a training run, so that the run can be killed and resumed at any time.

metrics.jsonl    one row for each step: strategy, seed, step, rollouts (total so far) and what the trainer logged
outcomes.jsonl   one row for each generation batch: step, and for each prompt its id, rollouts, successes (null where
                 success is undefined) and scorable rollouts. Where these do not say all, because rewards are not 0/1 or
                 -1/+1, also the scorable total rewards of each prompt. With lengths, one for each scorable rollout:
                 in the order of the rewards or, without these, successes first
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from viprl.errors import DataError, FileError
from viprl.runs.files import LOCK_FILE, METRICS_FILE, OUTCOMES_FILE
from viprl.runs.visits import plain_lengths, successes_first
from viprl.utils.arrays import FloatArray
from viprl.utils.files import locked, make_folder, writing
from viprl.utils.json_lines import append_json_line, read_json_lines, write_json_lines
from viprl.utils.numerics import number
from viprl.utils.sequences import short


class RunLog:
    """Appends to metrics.jsonl and outcomes.jsonl of a run folder.

    A resumed run calls `rewind` first: then every step is logged once, and a line that was cut short is removed.

    Args:
        folder: the run folder; created if it does not exist.
        strategy: name of the strategy that trains.
        seed: seed of the run.
    """

    def __init__(self, folder: str | Path, *, strategy: str, seed: int) -> None:
        self.folder = Path(folder)
        make_folder(self.folder)
        self.strategy, self.seed, self.rollouts = strategy, seed, 0
        self._rewarded = False  # whether a row has rewards

    def rewind(self, step: int) -> None:
        """Keep only the rows of steps 1 to `step`."""
        cut_back(self.folder / METRICS_FILE, step)
        kept = cut_back(self.folder / OUTCOMES_FILE, step, counts=list)
        self.rollouts = int(sum(number(n) for row in kept for n in row["counts"] if number(n) > 0))
        self._rewarded = any("rewards" in row for row in kept)

    def metrics(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one row. Values other than finite numbers, text and booleans become null."""
        row = {"strategy": self.strategy, "seed": self.seed, "step": step, "rollouts": self.rollouts}
        known = {key: value if isinstance(value, str | int | float | bool) else None for key, value in values.items()}
        append_json_line(self.folder / METRICS_FILE, row | known)

    def outcomes(
        self,
        step: int,
        ids: Sequence[str],
        counts: Sequence[int],
        successes: Iterable[float],
        scorable: Iterable[float],
        rewards: Sequence[FloatArray] = (),
        lengths: Sequence[FloatArray] | None = None,
    ) -> None:
        """Append one generation batch.

        Args:
            step: the training step.
            ids: [Q] identities of the prompts.
            counts: [Q] rollouts.
            successes: [Q] successful rollouts; NaN where success is undefined.
            scorable: [Q] rollouts whose reward could be read.
            rewards: [Q] the rewards of these rollouts, [n]; without them, successes must say them.
            lengths: [Q] their lengths, [n], in the order of the rewards; None if unknown.
        """
        self.rollouts += int(sum(counts))
        n = [int(value) for value in scorable]
        k = [int(k) if k == k else None if n > 0 else 0 for k, n in zip(successes, n, strict=True)]  # k == k: not NaN
        row: dict[str, Any] = {"step": step, "ids": list(ids), "counts": [int(count) for count in counts]}
        row |= {"successes": k, "scorable": n}
        if not self._said(k, rewards):
            self._rewarded = True
            row["rewards"] = [_shortest(group) for group in rewards]
        elif lengths is not None:
            lengths = [successes_first(length, group == 1) for length, group in zip(lengths, rewards, strict=True)]
        if lengths is not None:
            row["lengths"] = list(map(plain_lengths, lengths))
        append_json_line(self.folder / OUTCOMES_FILE, row)

    def _said(self, successes: Sequence[int | None], rewards: Sequence[FloatArray]) -> bool:
        """Whether the successes say all about rewards: 0/1, or -1/+1 if all rows so far were plain."""
        values = set(np.concatenate([np.empty(0), *rewards]).tolist())
        if not values <= {0.0, 1.0} and (self._rewarded or not values <= {-1.0, 1.0}):
            return False
        pairs = zip(successes, rewards, strict=True) if rewards else ()
        return all(len(group) == 0 or k == (group == 1).sum() for k, group in pairs)


def _shortest(rewards: FloatArray) -> list[float]:
    """Rewards with the digits that 32 bits hold: .1 for 0.10000000149."""
    return [float(str(value)) for value in rewards.astype(np.float32)]


def cut_back(path: Path, step: int, **fields: type) -> list[dict[str, Any]]:
    """Keep only the rows of steps 1 to `step` of a log, which may not exist yet, and return them.

    Lines that a killed run cut short are removed. Raises DataError for a row without a step, or whose `fields` are not
    of their types.
    """
    kept = []
    for at, row in read_json_lines(path, bad=lambda *_: None) if path.exists() else ():
        for name, kind in {"step": int, **fields}.items():
            if not isinstance(row.get(name), kind):
                raise DataError(f"{path}, row {at}: {name} is {short(row.get(name))}; fix or delete the row")
        if row["step"] <= step:
            kept.append(row)
    write_json_lines(path, kept)
    return kept


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Lock a run folder, so that two processes never write the same run. Raises FileError if it is locked."""
    make_folder(folder)
    with writing(folder / LOCK_FILE):
        file = (folder / LOCK_FILE).open("w")
    with file, ExitStack() as stack:
        try:
            stack.enter_context(locked(file))
        except OSError as error:
            raise FileError(f"another process is writing {folder}; wait for it, or choose another folder") from error
        yield
