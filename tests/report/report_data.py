"""Synthetic run folders for the tests of the report, and a parser of its pages."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np

from log_files import write_lines

Q, C, MIN_ROLLOUTS, MAX_ROLLOUTS = 32, 256, 2, 48
RATIOS = {"default": 0.72, "paper": 1.04, "oracle": 0.51, "random": 1.9, "uniform": 1.0}
MOMENTS = {"default": 0.81, "paper": 1.02, "oracle": 0.7, "random": 1.5, "uniform": 1.0}
SHARES = {"signal": 0.05, "prompts": 0.35, "rollouts": 0.6}
WASTED = {"default": 0.587, "paper": 0.71, "oracle": 0.327, "random": 0.79, "uniform": 0.805}


def training_rows(rng, strategy, seed, steps=120):
    """The log of one strategy and seed, with an evaluation every 20 steps."""
    adaptive = strategy != "uniform"
    rows = []
    for step in range(1, steps + 1):
        learned, noise = 1 - np.exp(-step / 30), rng.normal(size=6)
        where = {"strategy": strategy, "seed": seed, "step": step}
        row = where | {
            "rollouts": step * C,
            "reward": 0.42 + 0.06 * step / steps + 0.05 * noise[0],
            "vip/zero_advantage_rollouts": 0.75 - 0.2 * learned * adaptive + 0.04 * noise[1],
            "vip/counts/min": MIN_ROLLOUTS if adaptive else C // Q,
            "vip/counts/mean": C / Q,
            "vip/counts/max": int(rng.integers(24, MAX_ROLLOUTS + 1)) if adaptive else C // Q,
            "vip/variance_ratio/predicted": 1 - 0.36 * learned * adaptive,
            "vip/variance_ratio/realised": 1 - 0.28 * learned * adaptive + 0.2 * noise[2] * adaptive,
            "vip/brier": 0.2 - 0.09 * learned + 0.01 * noise[3],
            "vip/log_loss": 0.62 - 0.27 * learned + 0.03 * noise[4],
            "vip/overhead_seconds": 0.02,
        }
        if strategy == "default":
            row |= {f"vip/shadow/{name}/variance_ratio": RATIOS[name] + 0.2 * noise[5] for name in ("paper", "random")}
        rows.append(row)
        if step % 20 == 0:
            rows.append(where | {"eval/held_out_success": 0.66 + 0.012 * learned + 0.008 * rng.normal()})
    return rows


def calibration_points(rng, seed):
    """Prompts with U-shaped success probabilities; predictions get better with visits."""
    points = []
    for step in (40, 80, 120):
        true = rng.beta(0.25, 0.3, size=2 * Q)
        visits = rng.poisson(step / 32, size=2 * Q)
        predicted = np.clip(true + rng.normal(0, 0.3 / np.sqrt(1 + visits)), 0, 1)
        counts = np.clip(np.round(4 + 60 * predicted * (1 - predicted)), MIN_ROLLOUTS, MAX_ROLLOUTS)
        table = zip(predicted.tolist(), true.tolist(), counts.tolist(), visits.tolist(), strict=True)
        keys = ("predicted", "true", "count", "visits", "step", "seed")
        points += [dict(zip(keys, (*row, step, seed), strict=True)) for row in table]
    return points


def summary(rng, seeds=3):
    """A summary as of the quickstart: 4 batches at each of 3 steps and for each seed."""
    draws = {
        key: {name: mean + rng.normal(0, 0.05, size=(seeds, 3, 4)) for name, mean in means.items()}
        for key, means in (
            ("variance_ratio", RATIOS),
            ("zero_advantage_rollouts", WASTED),
            ("second_moment_ratio", MOMENTS),
            ("second_moment", SHARES),
        )
    }

    def moments(*part):
        return {
            key: {
                name: {"mean": float(v[part].mean()), "sd": float(v[part].std(ddof=1)), "n": v[part].size}
                for name, v in found.items()
            }
            for key, found in draws.items()
        }

    return moments(slice(None)) | {
        "by_step": {step: moments(slice(None), at) for at, step in enumerate(("40", "80", "120"))},
        "by_seed": {str(seed): moments(seed) for seed in range(seeds)},
        "calibration": [point for seed in range(seeds) for point in calibration_points(rng, seed)],
        "settings": {"prompts": Q, "budget": C, "steps": 120, "seeds": seeds, "estimator": "rloo"},
    }


def histories(rng, prompts=200):
    rows = []
    for index, p in enumerate(rng.beta(0.3, 0.4, size=prompts).tolist()):
        rollouts = rng.integers(2, 9 + int(40 * p * (1 - p)), size=rng.integers(1, 6))
        successes = rng.binomial(rollouts, p).tolist()
        prompt = f"<b>reverse</b> the words: a{index} & b"
        rows.append({"id": str(index), "prompt": prompt, "rollouts": rollouts.tolist(), "successes": successes})
    return rows


def write_quickstart_run(folder, rng, seeds=3):
    """A folder as `viprl quickstart` writes it."""
    rows = [row for s in ("default", "uniform") for seed in range(seeds) for row in training_rows(rng, s, seed)]
    write_lines(folder / "history.jsonl.gz", histories(rng))
    return folder_with(folder, rows, summary(rng, seeds))


def write_training_run(folder, rng, strategy="default", steps=60):
    """A folder as `viprl train` writes it: one seed, no summary."""
    return folder_with(folder, training_rows(rng, strategy, 0, steps))


def folder_with(folder, rows, summary=None):
    write_lines(folder / "metrics.jsonl", rows)
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
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
