"""Synthetic run folders for the tests of the report."""

from __future__ import annotations

import gzip
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

Q, C, LOW, HIGH = 32, 256, 2, 48
RATIOS = {
    "default": (0.72, 0.10),
    "paper": (1.04, 0.28),
    "oracle": (0.51, 0.08),
    "random": (1.9, 0.35),
    "uniform": (1, 0),
}
WASTED = {"default": 0.587, "paper": 0.71, "oracle": 0.327, "random": 0.79, "uniform": 0.805}


def moments(values: np.ndarray) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)), "n": len(values)}


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def training_rows(rng: np.random.Generator, strategy: str, seed: int, steps: int = 120) -> list[dict[str, Any]]:
    """The log of one strategy and seed: noisy levels, slow learning, an evaluation every 20 steps."""
    adaptive = strategy != "uniform"
    offset = rng.normal(0, 0.008)
    rows = []
    for step in range(1, steps + 1):
        learned = 1 - np.exp(-step / 30)
        row: dict[str, Any] = {
            "strategy": strategy,
            "seed": seed,
            "step": step,
            "rollouts": step * C,
            "reward": 0.42 + 0.06 * step / steps + offset + rng.normal(0, 0.05),
            "frac_reward_zero_std": float(np.clip(0.74 - 0.1 * learned * adaptive + rng.normal(0, 0.04), 0, 1)),
            "vip/zero_advantage_rollouts": float(np.clip(0.8 - 0.22 * learned * adaptive + rng.normal(0, 0.04), 0, 1)),
            "vip/counts/min": LOW if adaptive else C // Q,
            "vip/counts/mean": C / Q,
            "vip/counts/max": int(rng.integers(24, HIGH + 1)) if adaptive else C // Q,
            "vip/variance_ratio/predicted": 1 - 0.36 * learned + rng.normal(0, 0.02) if adaptive else 1.0,
            "vip/variance_ratio/realised": 1 - 0.28 * learned + rng.normal(0, 0.25) if adaptive else 1.0,
            "vip/brier": 0.2 - 0.09 * learned + rng.normal(0, 0.01),
            "vip/log_loss": 0.62 - 0.27 * learned + rng.normal(0, 0.03),
            "vip/overhead_seconds": float(rng.gamma(8, 0.002)),
        }
        if strategy == "default":
            row["vip/shadow/paper/variance_ratio"] = 1.15 - 0.1 * learned + rng.normal(0, 0.2)
            row["vip/shadow/oracle/variance_ratio"] = 0.5 + rng.normal(0, 0.08)
            row["vip/shadow/random/variance_ratio"] = 1.9 + rng.normal(0, 0.3)
        rows.append(row)
        if step % 20 == 0:
            accuracy = 0.662 + 0.012 * learned + 0.008 * adaptive * learned + offset + rng.normal(0, 0.008)
            rows.append({"strategy": strategy, "seed": seed, "step": step, "eval/mean_at_8": accuracy})
    return rows


def calibration_points(rng: np.random.Generator, seeds: int) -> list[dict[str, Any]]:
    """U-shaped success probabilities, predictions that sharpen with visits, counts by the RLOO rule."""
    points = []
    for seed in range(seeds):
        for step in (40, 80, 120):
            for _ in range(4):
                true = np.clip(rng.beta(0.25, 0.3, size=Q), 0.0005, 0.9995)
                visits = rng.poisson(step / 32, size=Q)
                noise = rng.normal(0, 2.2 / np.sqrt(1 + 2 * visits), size=Q)
                predicted = 1 / (1 + np.exp(-(0.8 * np.log(true / (1 - true)) + noise)))
                share = np.sqrt(predicted * (1 - predicted) + 0.003)
                counts = np.clip(np.round(LOW + share / share.sum() * (C - LOW * Q)), LOW, HIGH)
                points += [
                    {
                        "predicted": float(predicted[q]),
                        "true": float(rng.binomial(96, true[q]) / 96),
                        "count": int(counts[q]),
                        "step": step,
                        "seed": seed,
                        "visits": int(visits[q]),
                    }
                    for q in range(Q)
                ]
    return points


def summary(
    rng: np.random.Generator, seeds: int = 3, ratios: dict[str, tuple[float, float]] = RATIOS
) -> dict[str, Any]:
    batches = 4 * 3 * seeds
    drawn = {name: rng.normal(mean, sd, size=batches) for name, (mean, sd) in ratios.items()}
    wasted = {name: np.clip(rng.normal(mean, 0.05, size=batches), 0, 1) for name, mean in WASTED.items()}
    by_step = {
        str(step): {
            "variance_ratio": {name: moments(values[at::3]) for name, values in drawn.items()},
            "zero_advantage_rollouts": {name: moments(values[at::3]) for name, values in wasted.items()},
        }
        for at, step in enumerate((40, 80, 120))
    }
    return {
        "variance_ratio": {name: moments(values) for name, values in drawn.items()},
        "zero_advantage_rollouts": {name: moments(values) for name, values in wasted.items()},
        "by_step": by_step,
        "by_seed": {
            str(seed): {
                "variance_ratio": {name: moments(values[seed::seeds]) for name, values in drawn.items()},
                "zero_advantage_rollouts": {name: moments(values[seed::seeds]) for name, values in wasted.items()},
            }
            for seed in range(seeds)
        },
        "calibration": calibration_points(rng, seeds),
        "settings": {
            "prompts": Q,
            "budget": C,
            "min_rollouts": LOW,
            "max_rollouts": HIGH,
            "steps": 120,
            "seeds": seeds,
            "estimator": "rloo",
            "pool": 1024,
        },
    }


def histories(rng: np.random.Generator, prompts: int = 200) -> list[dict[str, Any]]:
    rows = []
    for index in range(prompts):
        p = rng.beta(0.3, 0.4)
        rollouts = rng.integers(2, 3 + int(40 * p * (1 - p)) + 6, size=rng.integers(1, 6))
        rows.append(
            {
                "id": str(index),
                "prompt": f"<b>reverse</b> the words: a{index} & b",
                "rollouts": rollouts.tolist(),
                "successes": rng.binomial(rollouts, p).tolist(),
            }
        )
    return rows


def write_history(folder: Path, rows: list[dict[str, Any]]) -> None:
    with gzip.open(folder / "history.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def write_quickstart_run(folder: Path, rng: np.random.Generator, seeds: int = 3) -> Path:
    """A folder as `viprl quickstart` leaves it."""
    strategies = ("default", "uniform")
    rows = [row for s in strategies for seed in range(seeds) for row in training_rows(rng, s, seed)]
    write_lines(folder / "metrics.jsonl", rows)
    (folder / "summary.json").write_text(json.dumps(summary(rng, seeds)))
    write_history(folder, histories(rng))
    return folder


def folder_with(folder: Path, rows: list[dict[str, Any]], summary: dict[str, Any] | None = None) -> Path:
    write_lines(folder / "metrics.jsonl", rows)
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def write_training_run(folder: Path, rng: np.random.Generator, strategy: str = "default", steps: int = 60) -> Path:
    """A folder as `viprl train` leaves it: metrics only, one seed."""
    write_lines(folder / "metrics.jsonl", training_rows(rng, strategy, 0, steps))
    return folder


class Page(HTMLParser):
    """Headings and attributes of a page; checks that every tag is closed in its place."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)

    @property
    def references(self) -> list[str]:
        return [value for name, value in self.attributes if name in ("src", "href", "xlink:href")]


def text_of(html: str) -> str:
    """The words of a page: no markup, no style, no figures."""
    without = re.sub(r"<(style|svg)\b.*?</\1>", " ", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", without))
