"""What TRL logs about the two waves of a batch, as if it had been one call.

TRL appends means over its call to its metrics, and rows to its table of completions. The mean of two such means is not
that of the batch if the waves have different sizes. So each wave writes into metrics and a table of its own, and the
batch is logged once, with its rollouts prompt by prompt.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from viprl.engines.trl.generation import Sampled
from viprl.engines.trl.ragged_advantages import weighted_total
from viprl.metrics import ROLLOUTS_COLUMN
from viprl.outcomes import scorable
from viprl.utils.arrays import FloatArray, IntArray

TOTAL = "num_tokens"
"""The metric that counts from the start of the training."""


class WaveLogs:
    """The logs of the waves of a batch.

    Args:
        trainer: a TRL trainer, in a training.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.metrics: list[dict[str, list[float]]] = []
        self.tables: list[dict[str, Any]] = []

    @contextlib.contextmanager
    def of_a_wave(self) -> Iterator[None]:
        """While TRL logs the next wave."""
        trainer, kept = self.trainer, (self.trainer._metrics, self.trainer._logs)
        self.metrics.append(defaultdict(list))
        self.tables.append({name: defaultdict(list) if isinstance(old, dict) else [] for name, old in kept[1].items()})
        trainer._metrics, trainer._logs = {**kept[0], "train": self.metrics[-1]}, self.tables[-1]
        try:
            yield
        finally:
            trainer._metrics, trainer._logs = kept

    def log(self, sampled: Sampled) -> None:
        """Log the batch."""
        trainer = self.trainer
        sizes, metrics = [len(wave.group) for wave in sampled.waves], trainer._metrics["train"]
        found = joined_metrics([{name: float(np.mean(v)) for name, v in m.items()} for m in self.metrics], sizes)
        weights = trainer.reward_weights.double().cpu().numpy()
        exact = reward_metrics(sampled.rewards, trainer.reward_func_names, weights)
        for name, value in found.items():
            if name == TOTAL:
                metrics[name] = [value]
            else:
                metrics[name].append(exact.get(name, value))
        for column, rows in joined_columns(self.tables, sizes, sampled.order).items():
            trainer._logs[column].extend(rows)
        for kind in ("rewards", "extra"):
            columns = joined_columns([table[kind] for table in self.tables], sizes, sampled.order)
            if ROLLOUTS_COLUMN in columns:  # the first wave has written those that were planned by then
                columns[ROLLOUTS_COLUMN] = np.repeat(sampled.plan.counts, sampled.plan.counts).tolist()
            for column, rows in columns.items():
                trainer._logs[kind][column].extend(rows)


def joined_metrics(waves: Sequence[Mapping[str, float]], sizes: Sequence[int]) -> dict[str, float]:
    """The metrics of a batch from those of its waves with these numbers of rollouts.

    Lengths, shares of rollouts, and what reward functions log are means over rollouts; a metric that one wave has not
    logged is that of the other. Metrics of vLLM's log probabilities are means over tokens. Means and standard
    deviations of rewards are not: `reward_metrics`.
    """
    found = {}
    for name in dict.fromkeys(name for wave in waves for name in wave):
        logged = [
            (wave[name], _weight(name, wave, size)) for wave, size in zip(waves, sizes, strict=True) if name in wave
        ]
        counted = [(value, weight) for value, weight in logged if weight > 0] or [(logged[0][0], 1)]
        values, weights = zip(*counted, strict=True)
        kind = name.rpartition("/")[2].partition("_")[0] if name.startswith(("completions/", "sampling/")) else ""
        if name == TOTAL:
            found[name] = values[-1]
        elif kind in ("min", "max"):
            found[name] = min(values) if kind == "min" else max(values)
        else:
            found[name] = float(np.average(values, weights=weights))
    return found


def _weight(name: str, wave: Mapping[str, float], size: int) -> float:
    """Of what a metric of a wave is the mean, and how many of these there are; 0 if there is none."""
    if "terminated_length" in name:
        return size * (1 - wave.get("completions/clipped_ratio", 0.0))
    if name == "tools/failure_frequency":
        return size * wave.get("tools/call_frequency", 1.0)
    if name.startswith("sampling/"):
        return size * wave.get("completions/mean_length", 1.0)
    return size


def reward_metrics(rewards: FloatArray, names: Sequence[str], weights: FloatArray) -> dict[str, float]:
    """TRL's metrics of rewards [N, F] of functions with these names and weights [F]."""
    columns = {f"rewards/{name}/": rewards[:, i] for i, name in enumerate(names)}
    found = {}
    for name, column in columns.items():
        found[name + "mean"], found[name + "std"] = _moments(column)
    found["reward"], found["reward_std"] = _moments(weighted_total(rewards, weights)[0])
    return found


def _moments(values: FloatArray) -> tuple[float, float]:
    known = values[scorable(values)]
    return (
        float(known.mean()) if len(known) else float("nan"),
        float(known.std(ddof=1)) if len(known) > 1 else float("nan"),
    )


def joined_columns(
    tables: Sequence[Mapping[str, Any]], sizes: Sequence[int], order: Sequence[int] | IntArray
) -> dict[str, list[Any]]:
    """The columns of the table of a batch from those of its waves, in another order; None where a wave has none.

    Args:
        tables: lists of the length of the wave, or empty.
        sizes: rows of each wave.
        order: [N] positions among the rows of both waves.
    """
    found = {}
    for name in dict.fromkeys(name for table in tables for name in table):
        parts = [table.get(name) or [] for table in tables]
        if any(isinstance(part, dict) for part in parts) or not any(parts):
            continue
        rows = [row for part, size in zip(parts, sizes, strict=True) for row in [*part, *[None] * (size - len(part))]]
        found[name] = [rows[position] for position in order]
    return found
