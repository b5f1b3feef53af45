"""What a pair of runs shows: variance with measured success rates, wasted rollouts, held-out accuracy.

    python -m examples.smollm2.measure runs/smollm2 OUT

reads the run folders `default-SEED` and `uniform-SEED` below runs/smollm2 and the answers of `evaluate` in
runs/smollm2/answers: `start-train` and ARM-SEED-`train` (how often each model solves each training problem, from fresh
samples), `start-held_out` and ARM-SEED-`held_out`. Writes OUT/summary.json and a trajectories file a run for
`viprl replay`.

Variance: a step with n_q rollouts of prompt q leaves sum_q v_q / (n_q - 1) (RLOO's law), v_q the reward variance
p (1 - p). It is judged twice, each without bias from k successes among m samples, k (m - k) / (m (m - 1)):
  own     by the outcomes of the group itself, which no strategy knew when it allocated
  fresh   by the samples of the models at the start and at the end, interpolated in between; less noise, but training
          does not move evenly
Ratios are to the same sum at C/Q rollouts each; intervals are bootstraps over prompts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from examples.smollm2.evaluate import bootstrap, success_rates
from examples.smollm2.problems import last_number

from viprl import VIP, allocate
from viprl.runs.history import history_of_outcomes, save_history
from viprl.utils.arrays import FloatArray
from viprl.utils.files import write_text
from viprl.utils.json_lines import log_rows

WATCHED = ("default", "paper", "learned_beta", "ema", "random")
LOW, HIGH = 2, 32
Steps = Sequence[Mapping[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Numbers of a default and a uniform run.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    answers, rng = args.folder / "answers", np.random.default_rng(0)
    prompts = {f"id:{row['id']}": row["prompt"] for row in log_rows(args.folder / "train.jsonl")}
    summary: dict[str, Any] = {"seed": args.seed, "success_at_start": describe(answers / "start-train.jsonl", rng)}
    held_out = {"start": success_rates(answers / "start-held_out.jsonl")}
    for arm in ("default", "uniform"):
        name = f"{arm}-{args.seed}"
        steps = list(log_rows(args.folder / name / "outcomes.jsonl"))
        history = history_of_outcomes([args.folder / name / "outcomes.jsonl"], prompts)
        save_history(args.out / f"{arm}.jsonl.gz", history)
        sources = answers / "start-train.jsonl", answers / f"{name}-train.jsonl"
        counts = {"default": [row["counts"] for row in steps]} if arm == "default" else watch(steps, prompts, args.seed)
        counts["told"] = told_counts(interpolated(believed_variance, *sources, steps), steps)
        truth = {"own": own_variance(steps), "fresh": interpolated(reward_variance, *sources, steps)}
        rows = {who: {source: ratios(v, ns, steps, rng) for source, v in truth.items()} for who, ns in counts.items()}
        summary[arm] = {
            "steps": len(steps),
            "rollouts": sum(sum(row["counts"]) for row in steps),
            "wasted": [wasted(row) for row in steps],
            "training_success": [sum(row["successes"]) / sum(row["scorable"]) for row in steps],
            "logged": logged(args.folder / name / "metrics.jsonl"),
            "variance_ratio": rows,
        }
        held_out[arm] = success_rates(answers / f"{name}-held_out.jsonl")
    summary["held_out"] = {name: estimate(rates, rng) for name, rates in held_out.items()}
    for one, other in (("default", "start"), ("uniform", "start"), ("default", "uniform")):
        summary["held_out"][f"{one} - {other}"] = estimate(held_out[one] - held_out[other], rng)
    write_text(args.out / "summary.json", json.dumps(summary, indent=1) + "\n")
    print(json.dumps(summary, indent=1))


def estimate(values: FloatArray, rng: np.random.Generator) -> dict[str, float]:
    """Mean over problems and its 95 % bootstrap interval."""
    low, high = bootstrap(values, rng)
    return {"value": float(values.mean()), "low": low, "high": high, "problems": len(values)}


def describe(generations: Path, rng: np.random.Generator) -> dict[str, Any]:
    """Success rates of a set of problems: mean, how many lie where, mean of every level."""
    rates = success_rates(generations)
    levels: dict[str, list[float]] = {}
    for row, rate in zip(log_rows(generations), rates, strict=True):
        levels.setdefault(row["level"], []).append(float(rate))
    edges = {"0": rates == 0, "(0, .2]": (rates > 0) & (rates <= 0.2), "(.2, .8)": (rates > 0.2) & (rates < 0.8)}
    edges |= {"[.8, 1)": (rates >= 0.8) & (rates < 1), "1": rates == 1}
    return estimate(rates, rng) | {
        "where": {name: int(mask.sum()) for name, mask in edges.items()},
        "levels": {name: float(np.mean(values)) for name, values in sorted(levels.items())},
    }


ODD, EVEN = slice(0, None, 2), slice(1, None, 2)
"""Samples that "told" knows, and those that judge."""


def reward_variance(generations: Path) -> dict[str, float]:
    """Identity -> p (1 - p) without bias, from the even samples."""
    return {key: k * (m - k) / (m * (m - 1)) for key, (k, m) in successes(generations, EVEN).items()}


def believed_variance(generations: Path) -> dict[str, float]:
    """Identity -> E[p (1 - p)] given the odd samples, prior Beta(1/2, 1/2): none in m is not taken for never."""
    counts = successes(generations, ODD)
    return {key: (k + 0.5) * (m - k + 0.5) / ((m + 1) * (m + 2)) for key, (k, m) in counts.items()}


def successes(generations: Path, part: slice) -> dict[str, tuple[int, int]]:
    """Identity -> right answers and samples."""
    found = {}
    for row in log_rows(generations):
        texts = row["completions"][part]
        right = last_number([None] * len(texts), texts, [row["answer"]] * len(texts))
        found[f"id:{row['id']}"] = sum(map(bool, right)), len(texts)
    return found


def interpolated(
    measure: Callable[[Path], Mapping[str, float]], start: Path, end: Path, steps: Steps
) -> list[FloatArray]:
    """[T][Q] a quantity of every group of a run, between its values at the start and at the end."""
    a, b = measure(start), measure(end)
    weights = [(row["step"] - 0.5) / len(steps) for row in steps]
    return [np.array([(1 - w) * a[i] + w * b[i] for i in row["ids"]]) for w, row in zip(weights, steps, strict=True)]


def own_variance(steps: Steps) -> list[FloatArray]:
    """[T][Q] the same from each group's own outcomes."""
    groups = [(np.array(row["successes"]), np.array(row["scorable"])) for row in steps]
    return [k * (m - k) / (m * (m - 1)) for k, m in groups]


def told_counts(known: Sequence[FloatArray], steps: Steps) -> list[list[int]]:
    """What the best rule would do that is told reward variances [T][Q], up to the noise of the samples behind them."""
    rates = [(1 - np.sqrt(1 - 4 * np.clip(v, 0, 0.25))) / 2 for v in known]
    return [
        allocate(p, budget=sum(row["counts"]), min_rollouts=LOW, max_rollouts=HIGH).counts.tolist()
        for p, row in zip(rates, steps, strict=True)
    ]


def watch(steps: Steps, prompts: Mapping[str, str], seed: int) -> dict[str, list[list[int]]]:
    """What each strategy would have done at every step, having seen the outcomes of the steps before."""
    vip = VIP(min_rollouts=LOW, max_rollouts=HIGH, strategy="uniform", shadow=WATCHED, seed=seed)
    vip.register([_prompt(key, prompts) for key in prompts])
    counts: dict[str, list[list[int]]] = {name: [] for name in WATCHED}
    for row in steps:
        batch = [_prompt(key, prompts) for key in row["ids"]]
        proposals = vip.propose(batch, sum(row["counts"]), rng=np.random.default_rng([seed, row["step"]]))
        for name in WATCHED:
            counts[name].append(proposals[name].counts.tolist())
        vip.allocate(batch, sum(row["counts"]))  # so that the guard can review what it would have bought
        rewards = zip(row["successes"], row["scorable"], strict=True)
        vip.observe(batch, [[1.0] * k + [0.0] * (n - k) for k, n in rewards])
    return counts


def ratios(
    variance: Sequence[FloatArray], counts: Sequence[Sequence[int]], steps: Steps, rng: np.random.Generator
) -> dict[str, Any]:
    """Variance against uniform: all steps, and those visits alone whose prompt had been visited before."""
    seen: set[str] = set()
    rows: list[tuple[str, bool, float, float]] = []  # prompt, visited before, variance left by the strategy, by uniform
    for v, n, row in zip(variance, counts, steps, strict=True):
        even = sum(row["counts"]) / len(row["counts"])
        for key, value, share in zip(row["ids"], v, n, strict=True):
            rows.append((key, key in seen, value / (share - 1), value / (even - 1)))
        seen |= set(row["ids"])
    return {"all": _ratio(rows, rng), "visited_before": _ratio([row for row in rows if row[1]], rng)}


def _ratio(
    rows: Sequence[tuple[str, bool, float, float]], rng: np.random.Generator, draws: int = 2000
) -> dict[str, float]:
    """Ratio of sums with its 95 % bootstrap interval over prompts."""
    keys = {key: i for i, key in enumerate(dict.fromkeys(row[0] for row in rows))}
    sums = np.zeros((len(keys), 2))
    for key, _, own, even in rows:
        sums[keys[key]] += own, even
    drawn = sums[rng.integers(len(sums), size=(draws, len(sums)))].sum(axis=1)
    drawn = drawn[drawn[:, 1] != 0]  # a draw of prompts without variance has no ratio
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], (0.025, 0.975))
    own, even = sums.sum(axis=0)
    return {"value": float(own / even), "low": float(low), "high": float(high)}


def wasted(row: Mapping[str, Any]) -> float:
    """Share of a step's rollouts in groups that are all right or all wrong."""
    n, k = np.array(row["scorable"]), np.array(row["successes"])
    return float(n[(k == 0) | (k == n)].sum() / n.sum())


def logged(metrics: Path) -> dict[str, float | None]:
    """What the run itself logged of its variance against uniform: believed before sampling, mean over the steps, and
    realised by the batches' own outcomes, summed over the run."""
    rows = list(log_rows(metrics))
    predicted = [row["vip/variance_ratio/predicted"] for row in rows if row.get("vip/variance_ratio/predicted")]
    return {"predicted": float(np.mean(predicted)), "realised": rows[-1].get("vip/variance_ratio/running")}


def _prompt(key: str, prompts: Mapping[str, str]) -> dict[str, str]:
    return {"prompt": prompts[key], "id": key.removeprefix("id:")}


if __name__ == "__main__":
    main()
