"""The summary of the quickstart: as numbers for summary.json, and in words for the terminal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from viprl.analysis.statistics import Estimate
from viprl.quickstart.experiment import ARMS, Experiment
from viprl.quickstart.measure import variance_ratio, zero_advantage_share

DESCRIPTIONS = {
    "default": "default (adaptive)",
    "oracle": "oracle (knows the true success probabilities)",
    "paper": "paper (VIP as published)",
    "random": "random",
    "uniform": "uniform (the same for every prompt)",
}


def summarise(
    variance: Sequence[dict[str, Any]], accuracy: Sequence[dict[str, Any]], experiment: Experiment, seeds: int
) -> dict[str, Any]:
    """The content of summary.json, from the results of `measure_variance` and `measure_accuracy`.

    It has means over batches, steps and seeds, also by step and by seed; predicted and true success probabilities
    ("calibration"); held-out accuracy ("learning"); the settings.
    """
    by_step = {
        str(step): _means([result for result in variance if result["step"] == step])
        for step in sorted({result["step"] for result in variance})
    }
    return {
        **_means(variance),
        "by_step": by_step,
        "by_seed": {str(seed): _means([r for r in variance if r["seed"] == seed]) for seed in range(seeds)},
        "calibration": list(_calibration(variance)),
        "learning": _learning(accuracy, experiment.steps),
        "settings": {**asdict(experiment), "seeds": seeds, "estimator": "rloo"},
    }


def in_words(summary: dict[str, Any]) -> list[str]:
    """The summary as lines for the terminal."""
    ratios, wasted = summary["variance_ratio"], summary["zero_advantage_rollouts"]
    seeds = summary["settings"]["seeds"]
    over = f"{seeds} seeds" if seeds > 1 else f"{ratios['default']['n']} batches"
    order = [*DESCRIPTIONS, *(name for name in ratios if name not in DESCRIPTIONS)]
    return [
        "",
        "Strategies compared at the same number of rollouts:",
        "",
        f"  {'':<46} {'gradient variance':<19} rollouts without",
        f"  {'':<46} {'relative to uniform':<19} a gradient",
        *(
            f"  {DESCRIPTIONS.get(name, name):<46} {ratios[name]['mean']:.2f} ± {_spread(summary, name):<12.2f} "
            f"{wasted[name]['mean']:.0%}"
            for name in order
        ),
        "",
        "Lower is better in both columns. The gradient variance is the noise of a training step.",
        "A rollout has no gradient if all answers to its prompt are right, or if all are wrong.",
        f"±: standard deviation over {over}.",
        *_accuracy_in_words(summary["learning"].get("paired_difference")),
    ]


def _accuracy_in_words(gap: dict[str, Any] | None) -> list[str]:
    if gap is None:
        return []
    line = f"Held-out accuracy, default minus uniform: {gap['mean']:+.3f}"
    if gap["low"] is None:
        return [f"{line} ({gap['n']} {gap['basis']})."]
    clear = "a difference" if gap["low"] > 0 or gap["high"] < 0 else "no clear difference"
    return [f"{line} (95 % interval {gap['low']:+.3f} to {gap['high']:+.3f}, {gap['n']} {gap['basis']}): {clear}."]


def _spread(summary: dict[str, Any], name: str) -> float:
    """Standard deviation of the variance ratio: over the means of the seeds, or over the batches of a single seed."""
    if summary["settings"]["seeds"] == 1:
        return summary["variance_ratio"][name]["sd"] or 0.0
    return _moments([entry["variance_ratio"][name]["mean"] for entry in summary["by_seed"].values()])["sd"]


def _means(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
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
    """Held-out accuracy at the last step, and default minus uniform, paired by seed (by prompt for a single seed)."""
    final = {(r["strategy"], r["seed"]): np.array(r["scores"]) for r in accuracy if r["step"] == last}
    seeds = sorted({seed for _, seed in final})
    learning: dict[str, Any] = {
        name: {"final_eval": _moments([float(final[name, seed].mean()) for seed in seeds])} for name in ARMS
    }
    pairs = [final["default", seed] - final["uniform", seed] for seed in seeds]
    gap = Estimate.of([float(pair.mean()) for pair in pairs] if len(pairs) > 1 else pairs[0])
    if gap is not None:
        basis = "seeds" if len(pairs) > 1 else "held-out prompts of one seed"
        learning["paired_difference"] = {
            "mean": gap.mean, "low": gap.low, "high": gap.high, "n": gap.n, "basis": basis
        }  # fmt: skip
    return learning


def _moments(values: Sequence[float]) -> dict[str, Any]:
    estimate = Estimate.of(values)
    return {"n": 0} if estimate is None else {key: getattr(estimate, key) for key in ("mean", "sd", "n")}
