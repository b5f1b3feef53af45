"""The results of `viprl variance`: a table, plain sentences, and all numbers as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.table import Table

from viprl.analysis.laboratory import PARTS, Outcome, Step
from viprl.analysis.statistics import Estimate
from viprl.evaluate.gradients import Found

NAMES = {"uniform": "uniform", "counts": "best counts", "match": "cheapest counts", "selection": "best selection"}
"""Designs of `viprl.analysis.laboratory.usual_designs` in words; others have the name of their strategy."""
ORIGIN = {
    "signal": "the mean gradient of the pool (S)",
    "prompts": "which prompts are in the batch (V_b)",
    "rollouts": "the rollouts of these prompts (V_w)",
}


def parts_table(uniform: Outcome) -> Table:
    """Where the second moment of a uniform step comes from."""
    table = Table("second moment of the batch gradient, from", "share, %", "value")
    for part, words in ORIGIN.items():
        table.add_row(words, _cell(uniform.shares[part], 100, ".0f"), f"{uniform.parts[part].mean:.3g}")
    return table


def designs_table(outcomes: Sequence[Outcome]) -> Table:
    """rho, R and tokens of each design."""
    table = Table("design", "rho (rollouts)", "R (second moment)", "R^(-1/2)", "tokens", "rho x tokens")
    for outcome in outcomes:
        cells = _cell(outcome.rollouts_ratio), _cell(outcome.ratio), f"{speed_up(outcome):.2f}"
        tokens = ("", "") if outcome.tokens is None else (f"{outcome.tokens:.2f}", f"{per_token(outcome):.2f}")
        first = outcome is outcomes[0]
        table.add_row(NAMES.get(outcome.name, outcome.name), *(("1", "1", "1") if first else cells), *tokens)
    return table


def sentences(outcomes: Sequence[Outcome]) -> list[str]:
    """What follows from the numbers, in plain words."""
    uniform, *others = outcomes
    limit = uniform.shares["signal"].mean + uniform.shares["prompts"].mean
    found = [
        f"{_percent(uniform.shares['rollouts'])} of the second moment come from the rollouts. Counts lower this part "
        f"alone: R cannot fall below {max(limit, 0.0):.2f}, however well they are chosen."
    ]
    for outcome in others:
        who = NAMES.get(outcome.name, outcome.name)
        if outcome.name == "match":
            found.append(f"{who}: {outcome.tokens:.2f} of the tokens, at rho = {_cell(outcome.rollouts_ratio)}.")
            continue
        if outcome.ratio.against(1.0) == "lower":
            gain = f"with Adam, expect training to need up to {speed_up(outcome):.2f} times fewer rollouts"
        else:
            gain = "no clear change"
        found.append(f"{who}: R = {_cell(outcome.ratio)}: {gain}.")
    found.append(
        "With Adam at a fixed learning rate, the speed-up that was measured is about R^(-1/2); with SGD at a small "
        "rate there was none."
    )
    return found


def remarks(found: Found, step: Step) -> list[str]:
    """What the numbers are based on."""
    varied = sum(len(np.unique(r)) > 1 for r in found.rewards)
    rewards = float(np.mean([r.mean() for r in found.rewards]))
    n, pool = len(found.problems), int(found.measurement.pool)
    how = "whole gradients" if found.buckets is None else f"gradients sketched to {found.buckets:,} numbers"
    error = "" if found.buckets is None else f" (error of an inner product about {1 / math.sqrt(found.buckets):.1%})"
    return [
        f"{n} of {pool:,} prompts, {len(found.rewards[0])} rollouts each; mean reward {rewards:.3f}; rewards vary in "
        f"{varied} prompts; {found.parameters:,} parameters, {how}{error}",
        f"step: {step.prompts} prompts drawn from the data set without replacement, {step.budget} rollouts; best "
        f"selection: from {step.candidates} candidates; the best designs know each prompt's reward variance from "
        "further rollouts",
        "brackets: 95 % intervals over prompts",
    ]


def document(outcomes: Sequence[Outcome], step: Step, found: Found, settings: Mapping[str, Any]) -> dict[str, Any]:
    """All numbers, for a JSON file."""
    laws = found.measurement.laws
    prompts = [
        {
            "id": problem.id, "reward_mean": float(rewards.mean()), "rollouts": len(rewards), "A": A, "B": B,
            "squared_gradient": squared, "known_reward_variance": known,
        }
        for problem, rewards, A, B, squared, known in zip(
            found.problems, found.rewards, *(np.asarray(x).tolist() for x in (laws.A, laws.B, laws.squared_gradient)),
            found.measurement.belief.mean.tolist(), strict=True,
        )
    ]  # fmt: skip
    return {
        "designs": {
            outcome.name: {
                "R": _numbers(outcome.ratio),
                "rho": _numbers(outcome.rollouts_ratio),
                "tokens": outcome.tokens,
                "variance_per_token": per_token(outcome),
                "second_moment": {part: _numbers(outcome.parts[part]) for part in (*PARTS, "total")},
                "share_of_uniform": {part: _numbers(outcome.shares[part]) for part in (*PARTS, "total")},
            }
            for outcome in outcomes
        },
        "step": {key: value if math.isfinite(value) else None for key, value in asdict(step).items()},
        "pool": found.measurement.pool,
        "parameters": found.parameters,
        "buckets": found.buckets,
        "prompts": prompts,
        "settings": dict(settings),
    }


def per_token(outcome: Outcome) -> float | None:
    """Variance of the rollouts, relative to uniform allocation, at the same tokens."""
    return None if outcome.tokens is None else outcome.rollouts_ratio.mean * outcome.tokens


def speed_up(outcome: Outcome) -> float:
    """R^(-1/2)."""
    return outcome.ratio.mean**-0.5 if outcome.ratio.mean > 0 else math.inf


def _numbers(e: Estimate) -> dict[str, float | None]:
    return {"value": e.mean, "low": e.low, "high": e.high}


def _percent(e: Estimate) -> str:
    return f"{100 * e.mean:.0f} %"


def _cell(e: Estimate, factor: float = 1.0, form: str = ".2f") -> str:
    value = f"{factor * e.mean:{form}}"
    if e.interval is None:
        return value
    low, high = (factor * end for end in e.interval)
    return f"{value}  [{low:{form}}, {high:{form}}]"
