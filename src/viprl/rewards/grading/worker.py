"""The program of a guarded process: reads pairs of answers as JSON lines, writes one-word verdicts.

Started by path and alone (see guard.py), so it imports nothing of viprl. A line in is [reference, answer, both ways,
CPU seconds]; the lines out are "ready" once, then for each pair "read" as soon as the reference is understood, and
"equal", "different", "reference" (not understood) or "lost" (out of time or memory).
"""

from __future__ import annotations

import functools
import json
import logging
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any


class OutOfTime(BaseException):
    """Raised by the clock; not an Exception, so that no handler on the way takes it for an ordinary failure."""


class Clock:
    """Counts this process's CPU time, which unlike wall-clock time does not depend on how busy the machine is.

    Its ring stops Python code. A second or two later the kernel ends the process, which also stops what runs in C.
    """

    def __init__(self) -> None:
        self.running = False
        signal.signal(signal.SIGPROF, self._ring)
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)

    def start(self, seconds: float) -> None:
        self.running = True
        limit(resource.RLIMIT_CPU, math.ceil(time.process_time() + seconds) + 1)
        signal.setitimer(signal.ITIMER_PROF, seconds, 0.1)  # again and again, should somebody swallow it

    def stop(self) -> None:
        self.running = False
        signal.setitimer(signal.ITIMER_PROF, 0.0)

    def _ring(self, number: int, frame: FrameType | None) -> None:
        if self.running:
            raise OutOfTime


def limit(kind: int, value: int) -> None:
    """Lower or raise a limit of this process, as far as its own hard limit allows."""
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def checker() -> tuple[Callable[[str], Any], Callable[[Any, Any], bool]]:
    """math-verify's parser (of one answer, LaTeX only) and its comparison, both without their own time-outs."""
    from math_verify import LatexExtractionConfig, parse, verify

    logging.disable(logging.CRITICAL)
    kinds = (LatexExtractionConfig(),)

    @functools.lru_cache(maxsize=256)
    def read(answer: str) -> Any:
        return parse(f"${answer}$", kinds, parsing_timeout=None)

    def same(reference: Any, answer: Any) -> bool:
        return bool(verify(reference, answer, timeout_seconds=None))

    same(read("\\frac{1}{2}"), read("x^2"))  # the first use builds tables
    return read, same


def main(memory: int) -> None:
    """Serve until the input ends."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whatever a library prints is no verdict
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent; its end ends the input
    clock = Clock()
    try:
        read, same = checker()
    except ImportError as error:
        print(f"failed: {error}", file=replies)
        return
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_AS, memory)
    print("ready", file=replies)
    for line in sys.stdin:
        reference, answer, both_ways, seconds = json.loads(line)
        verdict = "reference"
        clock.start(seconds)
        try:
            known = read(reference)
            if known:
                verdict = "lost"
                print("read", file=replies)
                given = read(answer)
                verdict = "equal" if same(known, given) or (both_ways and same(given, known)) else "different"
        except (OutOfTime, Exception):
            pass  # the verdict says how far it came
        finally:
            clock.stop()
        print(verdict, file=replies)
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > memory // 2:
            return  # a fresh process is lighter


if __name__ == "__main__":
    main(int(sys.argv[1]))
