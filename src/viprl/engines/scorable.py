"""Which rewards can be trained on."""

from __future__ import annotations

from typing import Any

LARGEST = 1e30
"""Rewards beyond it, infinite ones included, are unscorable: weights in 32 bits would become infinite or NaN."""


def scorable(rewards: Any) -> Any:
    """Whether each reward (an array or a tensor) can be trained on: not NaN, and not beyond `LARGEST`."""
    return abs(rewards) <= LARGEST
