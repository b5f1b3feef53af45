"""The program of a process that compares answers. It reads pairs as JSON lines and writes verdicts of one word.

verifier.py starts it by its path, so it imports nothing of viprl. An input line is [reference, answer, both ways, CPU
seconds]. The output is "ready" once; then for each pair "read" as soon as the reference is parsed, followed by "equal",
"different", "reference" (not parsed) or "lost" (out of time or memory), and the CPU seconds spent.
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
import zlib
from collections.abc import Callable
from types import FrameType
from typing import Any

import sympy

DIGITS = 40
"""Digits in which two exact numbers must agree."""
SLOW = (sympy.Derivative, sympy.Integral, sympy.Limit, sympy.Product, sympy.Sum)


class OutOfTime(BaseException):
    """Raised by the clock. Not an Exception, so that `except Exception` in a library does not swallow it."""


class Clock:
    """A limit on CPU time, which unlike wall-clock time does not depend on how busy the machine is.

    At the limit, a signal stops Python code. One or two seconds later the kernel ends the process, which also stops C
    code.
    """

    def __init__(self) -> None:
        self.running = False
        signal.signal(signal.SIGPROF, self._ring)
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)

    def start(self, seconds: float) -> None:
        self.running = True
        limit(resource.RLIMIT_CPU, math.ceil(time.process_time() + seconds) + 1)
        signal.setitimer(signal.ITIMER_PROF, seconds, 0.1)  # repeated, in case a handler swallows it

    def stop(self) -> None:
        self.running = False
        signal.setitimer(signal.ITIMER_PROF, 0.0)

    def _ring(self, number: int, frame: FrameType | None) -> None:
        if self.running:
            raise OutOfTime


def limit(kind: int, value: int) -> None:
    """Set a resource limit of this process, up to its hard limit."""
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def resident() -> int:
    """Resident memory of this process in bytes; 0 if the system does not report it.

    `ru_maxrss` is not used: it starts at the size of the parent, which may be a trainer with many gigabytes.
    """
    try:
        with open("/proc/self/statm") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def checker() -> tuple[Callable[[str], Any], Callable[[Any, Any], bool]]:
    """math-verify's parser (LaTeX only) and its comparison, both without their own time-outs."""
    from math_verify import LatexExtractionConfig, parse, verify

    logging.disable(logging.CRITICAL)
    kinds = (LatexExtractionConfig(),)

    @functools.lru_cache(maxsize=256)
    def read(answer: str) -> Any:
        return parse(f"${answer}$", kinds, parsing_timeout=None)

    def same(reference: Any, answer: Any) -> bool:
        return bool(verify(reference, answer, timeout_seconds=None))

    same(read("\\frac{1}{2}"), read("x^2"))  # the first call builds tables
    return read, same


def differ(known: Any, given: Any) -> bool:
    """Whether two parsed answers are numbers, or lists of numbers, that differ although math-verify merges them.

    It subtracts and takes what is below 1e-15 for zero, so that 2^-60 is 2^-61 and 0. Here the difference is relative.
    Variables get the same value on both sides. False where this does not apply.
    """
    one, other = values(known), values(given)
    if one is None or other is None or one[0] != other[0] or len(one[1]) != len(other[1]):
        return False
    decimals = known.atoms(sympy.Float) | given.atoms(sympy.Float)
    tolerance = sympy.Rational(1, 2000) if decimals else sympy.Rational(1, 10**DIGITS)
    return any(
        bool(abs(a - b).evalf(9) > (tolerance * max(abs(a).evalf(9), abs(b).evalf(9))).evalf(9))
        for a, b in zip(one[1], other[1], strict=True)
    )


def values(answer: Any) -> tuple[set[str], list[Any]] | None:
    """The names of the variables, and the values of the elements in increasing order; None for what has no values."""
    if isinstance(answer, sympy.Eq) and answer.lhs.is_Symbol:
        answer = answer.rhs
    if isinstance(answer, sympy.Interval):
        parts = [answer.start, answer.end]
    elif isinstance(answer, sympy.MatrixBase):
        parts = list(answer.flat())
    else:
        parts = list(answer.args) if isinstance(answer, sympy.FiniteSet | sympy.Tuple) else [answer]
    names, found = set(), []
    for part in parts:
        if not isinstance(part, sympy.Expr) or part.has(*SLOW, sympy.UnevaluatedExpr):  # the latter is a percentage
            return None
        at = {symbol: sample(symbol.name.lower()) for symbol in part.free_symbols}
        names |= {symbol.name.lower() for symbol in at}
        value = part.subs(at).evalf(DIGITS + 10)
        if not value.is_number or not value.is_finite:
            return None
        found.append(sympy.S.Zero if value.is_Float and value._prec == 1 else value)  # zero, as far as can be computed
    return names, sorted(found, key=lambda value: value.as_real_imag())


def sample(name: str) -> Any:
    """A positive rational number for a variable."""
    return sympy.Rational(zlib.crc32(name.encode()) % 1000 + 1500, 997)


def main(memory: int) -> None:
    """Answer until the input ends."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what libraries print must not be taken for a verdict
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and that ends the input
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
        began = time.process_time()
        clock.start(seconds)
        try:
            known = read(reference)
            if known:
                verdict = "lost"
                print("read", file=replies)
                given = read(answer)
                verdict = "equal" if same(known, given) or (both_ways and same(given, known)) else "different"
                if verdict == "equal" and differ(known[0], given[0]):
                    verdict = "different"
        except (OutOfTime, Exception):
            pass  # `verdict` already holds the result of a failure at this point
        finally:
            clock.stop()
        print(verdict, f"{time.process_time() - began:.3f}", file=replies)
        if resident() > memory // 2:
            return  # the next process starts with little memory


if __name__ == "__main__":
    main(int(sys.argv[1]))
