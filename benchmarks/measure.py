"""Measurements of time, of its parts, and of memory."""

from __future__ import annotations

import functools
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Times:
    """Milliseconds of repeated calls."""

    wall: list[float]
    cpu: list[float]
    """Processor time of all threads of the process. It depends little on other work of the machine."""

    def summary(self) -> dict[str, float]:
        low, middle, high = np.percentile(self.wall, [25, 50, 75])
        return {
            "min": float(min(self.wall)),
            "median": float(middle),
            "q25": float(low),
            "q75": float(high),
            "cpu_median": float(np.median(self.cpu)),
            "cpu_min": float(min(self.cpu)),
            "repetitions": len(self.wall),
        }


def timed(function: Callable[[], Any], repetitions: int) -> Times:
    """Times of `function`."""
    times = Times([], [])
    for _ in range(repetitions):
        wall, cpu = time.perf_counter(), time.process_time()
        function()
        times.wall.append(1e3 * (time.perf_counter() - wall))
        times.cpu.append(1e3 * (time.process_time() - cpu))
    return times


def noise() -> dict[str, float]:
    """Milliseconds of a fixed piece of work, repeated 400 times on one thread. Their spread is the machine's noise."""
    from viprl.utils.threads import single_threaded

    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(512, 386)), rng.normal(size=(386, 128))
    wall = timed(single_threaded(lambda: [a @ b for _ in range(5)]), 400).wall
    return {
        "min": float(min(wall)),
        "median": float(np.median(wall)),
        "p90": float(np.percentile(wall, 90)),
        "load": os.getloadavg()[0],
        "cores": os.cpu_count() or 1,
    }


def megabytes(of: str = "RssAnon") -> float:
    """Memory of this process (Linux). RssAnon leaves out mapped files, whose memory the system can take back."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(of + ":"):
            return int(line.split()[1]) / 1024
    return float("nan")


class Shares:
    """Milliseconds inside some functions, without the time in others of them that they call."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = defaultdict(float)
        self._stack: list[float] = []

    @contextmanager
    def of(self, functions: Sequence[tuple[str, Any, str]]) -> Iterator[None]:
        """Within this context, measure the functions (label, owner, attribute)."""
        before = [(owner, attribute, getattr(owner, attribute)) for _, owner, attribute in functions]
        for label, owner, attribute in functions:
            setattr(owner, attribute, self._watched(label, getattr(owner, attribute)))
        try:
            yield
        finally:
            for owner, attribute, function in before:
                setattr(owner, attribute, function)

    def _watched(self, label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def watched(*args: Any, **kwargs: Any) -> Any:
            self._stack.append(0.0)
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                elapsed = 1e3 * (time.perf_counter() - began)
                self.milliseconds[label] += elapsed - self._stack.pop()
                if self._stack:
                    self._stack[-1] += elapsed

        return watched
