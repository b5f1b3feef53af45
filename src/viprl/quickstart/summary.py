"""From the quickstart's measurements to `summary.json`, and to the words at the end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from viprl.analysis.statistics import Estimate
from viprl.quickstart.measure import variance_ratio, zero_advantage_share
from viprl.quickstart.scale import Settings


def summarise(
    variance: Sequence[dict[str, Any]], accuracy: Sequence[dict[str, Any]], settings: Settings, seeds: int
) -> dict[str, Any]:
    """The summary: estimates over batches, steps and seeds; by step; predictions beside truth; held-out accuracy."""
    by_step = {
        str(step): _estimates([result for result in variance if result["step"] == step])
        for step in sorted({result["step"] for result in variance})
    }
    return {
        **_estimates(variance),
        "by_step": by_step,
        "by_seed": {str(seed): _estimates([r for r in variance if r["seed"] == seed]) for seed in range(seeds)},
        "calibration": list(_calibration(variance)),
        "learning": _learning(accuracy, settings.steps),
        "settings": {**asdict(settings), "seeds": seeds, "estimator": "rloo"},
    }


def _estimates(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    ratios, wasted = defaultdict(list), defaultdict(list)
    for result in results:
        for batch in result["batches"]:
            for name in batch["counts"]:
                ratios[name].append(variance_ratio(batch, name))
                wasted[name].append(zero_advantage_share(batch, name, result["rollouts"]))
    return {
        "variance_ratio": {name: _moments(values) for name, values in ratios.items()},
        "zero_advantage_rollouts": {name: _moments(values) for name, values in wasted.items()},
    }


def _calibration(results: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    for result in results:
        for batch in result["batches"]:
            for i in range(len(batch["ids"])):
                yield {
                    "predicted": batch["predicted"]["default"][i],
                    "true": batch["truth"][i],
                    "count": batch["counts"]["default"][i],
                    "visits": batch["visits"][i],
                    "step": result["step"],
                    "seed": result["seed"],
                }


def _learning(accuracy: Sequence[dict[str, Any]], last: int) -> dict[str, Any]:
    """Held-out mean@8 at the last step, and default minus uniform, paired by seed (one seed: by prompt)."""
    final = {(r["strategy"], r["seed"]): np.array(r["scores"]) for r in accuracy if r["step"] == last}
    seeds = sorted({seed for _, seed in final})
    pairs = [final["default", s] - final["uniform", s] for s in seeds if {("default", s), ("uniform", s)} <= set(final)]
    learning: dict[str, Any] = {
        name: {"final_eval": _moments([float(final[name, s].mean()) for s in seeds if (name, s) in final])}
        for name in ("default", "uniform")
    }
    if pairs:
        values = [float(pair.mean()) for pair in pairs] if len(pairs) > 1 else pairs[0]
        gap = Estimate.of(values)
        if gap is not None:
            basis = "seeds" if len(pairs) > 1 else "held-out prompts of one seed"
            learning["paired_difference"] = {
                "mean": gap.mean, "low": gap.low, "high": gap.high, "n": gap.n, "basis": basis
            }  # fmt: skip
    return learning


def _moments(values: Sequence[float]) -> dict[str, Any]:
    return {
        "mean": float(np.mean(values)),
        "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "n": len(values),
    }
