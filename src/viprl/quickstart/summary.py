"""The summary of the quickstart: as numbers for summary.json, and in words for the terminal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from viprl.analysis.statistics import Estimate, ratio_of_means
from viprl.quickstart.experiment import ARMS, Experiment
from viprl.quickstart.measure import second_moment, variance_ratio, zero_advantage_share

DESCRIPTIONS = {
    "default": "default (adaptive)",
    "oracle": "oracle (knows the true success probabilities)",
    "paper": "paper (VIP as published)",
    "random": "random",
    "uniform": "uniform (the same for every prompt)",
}


def summarise(
    variance: Sequence[dict[str, Any]], success: Sequence[dict[str, Any]], experiment: Experiment, seeds: int
) -> dict[str, Any]:
    """The content of summary.json, from the results of `measure_variance` and `measure_success`.

    It has means over batches, steps and seeds, also by step and by seed: the variance of the rollouts (rho), the whole
    second moment (R) and its parts with uniform allocation; predicted and true success probabilities
    ("calibration"); success on held-out and training prompts ("learning"); the settings.
    """
    pool = experiment.pool
    by_step = {
        str(step): _means([result for result in variance if result["step"] == step], pool)
        for step in sorted({result["step"] for result in variance})
    }
    return {
        **_means(variance, pool),
        "by_step": by_step,
        "by_seed": {str(seed): _means([r for r in variance if r["seed"] == seed], pool) for seed in range(seeds)},
        "calibration": list(_calibration(variance)),
        "learning": _learning(success, experiment.steps),
        "settings": {**asdict(experiment), "seeds": seeds, "estimator": "rloo"},
    }


def in_words(summary: dict[str, Any]) -> list[str]:
    """The summary as lines for the terminal."""
    ratios, wasted = summary["variance_ratio"], summary["zero_advantage_rollouts"]
    moments = summary.get("second_moment_ratio", {})
    seeds = summary["settings"]["seeds"]
    over = f"{seeds} seeds" if seeds > 1 else f"{ratios['default']['n']} batches"
    order = [*DESCRIPTIONS, *(name for name in ratios if name not in DESCRIPTIONS)]
    return [
        "",
        "Strategies compared at the same number of rollouts:",
        "",
        f"  {'':<46} {'gradient':<13} {'second':<13} rollouts without",
        f"  {'':<46} {'variance':<13} {'moment':<13} a gradient",
        *(
            f"  {DESCRIPTIONS.get(name, name):<46} {_with_spread(summary, 'variance_ratio', name):<13} "
            f"{_with_spread(summary, 'second_moment_ratio', name) if name in moments else '':<13} "
            f"{wasted[name]['mean']:.0%}"
            for name in order
        ),
        "",
        "Variance and moment are relative to uniform; lower is better in all columns. The gradient variance is the",
        "noise of a training step from its rollouts; the second moment has also the noise from which prompts are in a",
        "batch. A rollout has no gradient if all answers to its prompt are right, or if all are wrong.",
        f"±: standard deviation over {over}.",
        *_moment_in_words(summary),
        *_learning_in_words(summary),
    ]


def _moment_in_words(summary: dict[str, Any]) -> list[str]:
    """What follows from R."""
    parts, ratio = summary.get("second_moment", {}), summary.get("second_moment_ratio", {}).get("default")
    if not parts or not ratio or not ratio["mean"] > 0:
        return []
    return [
        f"With uniform counts, {parts['rollouts']['mean']:.0%} of the second moment come from the rollouts, which "
        f"counts can lower, and {parts['prompts']['mean']:.0%} from the",
        f"choice of prompts. With Adam, counts alone save a factor of about {ratio['mean'] ** -0.5:.2f} in rollouts "
        "for the same learning.",
    ]


def _learning_in_words(summary: dict[str, Any]) -> list[str]:
    learning, settings = summary["learning"], summary["settings"]
    lines = [
        "",
        f"Learning with {settings['budget']} rollouts a step, default ({settings['default_prompts']} of "
        f"{settings['candidates'] * settings['default_prompts']} prompts) and uniform ({settings['prompts']} prompts):",
    ]
    for name, words in (("pool", "training prompts"), ("held_out", "held-out prompts")):
        ratio = learning["gain_ratio"].get(name)
        if ratio is None:
            continue
        over = "one seed" if ratio["low"] is None else f"95 % interval {ratio['low']:.2f} to {ratio['high']:.2f}"
        lines.append(f"  mean gain in success over the run, {words}: {ratio['mean']:.2f} times uniform's ({over})")
    return [
        *lines,
        "One seed varies by a tenth (training) to a quarter (held-out); 24 seeds: docs/results/learning/README.md.",
    ]


def _with_spread(summary: dict[str, Any], key: str, name: str) -> str:
    """A ratio and its standard deviation: over the means of the seeds, or over the batches of a single seed."""
    entry = summary[key][name]
    sd = entry["sd"]
    if summary["settings"]["seeds"] > 1:
        sd = _moments([one[key][name]["mean"] for one in summary["by_seed"].values()])["sd"]
    return f"{entry['mean']:.2f} ± {sd or 0.0:.2f}"


def _means(results: Sequence[dict[str, Any]], pool: int) -> dict[str, Any]:
    ratios, wasted, moments, parts = (defaultdict(list) for _ in range(4))
    for result in results:
        for batch in result["batches"]:
            for name in batch["counts"]:
                ratios[name].append(variance_ratio(batch, name))
                wasted[name].append(zero_advantage_share(batch, name, result["rollouts"]))
        if "pair_product" not in result:  # measured by an earlier version
            continue
        uniform = second_moment(result, "uniform", pool)
        for part in ("signal", "prompts", "rollouts"):
            parts[part].append(float(getattr(uniform, part) / uniform.total))
        for batch in result["batches"]:
            base = second_moment(result, "uniform", pool, batch).total
            for name in batch["counts"]:
                moments[name].append(float(second_moment(result, name, pool, batch).total / base))
    return {
        "variance_ratio": {name: _moments(values) for name, values in ratios.items()},
        "zero_advantage_rollouts": {name: _moments(values) for name, values in wasted.items()},
        "second_moment_ratio": {name: _moments(values) for name, values in moments.items()},
        "second_moment": {name: _moments(values) for name, values in parts.items()},
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


def _learning(success: Sequence[dict[str, Any]], last: int) -> dict[str, Any]:
    """Success of the held-out prompts at the last step, and default minus uniform, paired by seed (by prompt for one
    seed); the mean gain over the run, default relative to uniform ("gain_ratio")."""
    final = {(r["strategy"], r["seed"]): np.array(r["held_out"]) for r in success if r["step"] == last}
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
    ratios = {name: _gain_ratio(success, name, seeds) for name in ("pool", "held_out")}
    learning["gain_ratio"] = {name: asdict(ratio) for name, ratio in ratios.items() if ratio is not None}
    return learning


def _gain_ratio(success: Sequence[dict[str, Any]], name: str, seeds: Sequence[int]) -> Estimate | None:
    """Mean gain over the run with the default strategy over that with uniform allocation."""
    gains = {arm: np.array([_gain(success, arm, name, seed) for seed in seeds]) for arm in ARMS}
    return ratio_of_means(gains["default"], gains["uniform"])


def _gain(success: Sequence[dict[str, Any]], arm: str, name: str, seed: int) -> float:
    """Mean over the run of the success minus that at the start."""
    points = sorted((r["step"], float(np.mean(r[name]))) for r in success if (r["strategy"], r["seed"]) == (arm, seed))
    steps, means = np.array(points).T
    return float(np.trapezoid(means, steps) / (steps[-1] - steps[0]) - means[0])


def _moments(values: Sequence[float]) -> dict[str, Any]:
    estimate = Estimate.of(values)
    return {"n": 0} if estimate is None else {key: getattr(estimate, key) for key in ("mean", "sd", "n")}
