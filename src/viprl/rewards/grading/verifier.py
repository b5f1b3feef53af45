"""math-verify in separate processes, so that an answer that hangs, crashes or exhausts memory only loses itself.

Each thread of a small pool talks to a process of its own. The process is a fresh interpreter, not a fork: the parent
may use CUDA, threads or Ray, and its main script is not imported again. The limits of a process:

- CPU time, first by a signal that stops Python code, then by the kernel, which stops everything;
- address space;
- wall-clock time, generous because machines can be busy.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import json
import logging
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path

from viprl.errors import MissingPackageError

logger = logging.getLogger(__name__)

PROGRAM = Path(__file__).with_name("worker.py")
CPU_SECONDS = 2.0
"""CPU time of one pair. Ordinary answers take 1 to 300 ms."""
SHORT_CPU_SECONDS = 0.25
"""The limit while `CREDIT` is used up: a policy whose answers all hang slows training but does not stop it."""
CREDIT = 60.0
"""CPU seconds that slow answers may use, beyond `REFUND` each; quick ones give some of it back."""
REFUND = 0.1
WALL_FACTOR, WALL_SLACK = 30.0, 5.0
"""A process is killed after FACTOR x CPU limit + SLACK seconds of wall-clock time: it may wait instead of compute."""
MEMORY = 1 << 30
"""Address space of a process, in bytes."""
START_SECONDS = 120.0
CACHED_VERDICTS = 1 << 16


class Verdict(StrEnum):
    """The result for a pair of a reference and an answer."""

    EQUAL = "equal"
    DIFFERENT = "different"
    LOST = "lost"
    """The answer made the process run out of time or memory, or crash."""
    REFERENCE = "reference"
    """The reference cannot be parsed."""


def require_math_verify() -> None:
    """Raise MissingPackageError (an ImportError) if math-verify is not installed."""
    if importlib.util.find_spec("math_verify") is None:
        raise MissingPackageError('mathematical answers are compared by math-verify: pip install "viprl[eval]"')


class _Died(Exception):
    """The process ended, or was ended, before its verdict."""


class _Process:
    """One interpreter that runs worker.py."""

    def __init__(self, memory: int) -> None:
        command = [sys.executable, "-P", "-X", "utf8", str(PROGRAM), str(memory)]
        self.popen = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
        self._rest = b""
        try:
            greeting = self._line(time.monotonic() + START_SECONDS)
        except _Died:
            greeting = "it ended at once"
        if greeting != "ready":
            self.kill()
            raise RuntimeError(f"the process that compares answers did not start ({greeting}); command: {command}")

    def ask(self, reference: str, answer: str, both_ways: bool, seconds: float) -> tuple[Verdict, float]:
        """The verdict and the CPU seconds. Raises `_Died` if the process ends before it has parsed the reference."""
        deadline = time.monotonic() + WALL_FACTOR * seconds + WALL_SLACK
        read = False
        try:
            self.popen.stdin.write(json.dumps([reference, answer, both_ways, seconds]).encode() + b"\n")  # type: ignore[union-attr]
            while (word := self._line(deadline)) == "read":
                read = True
            verdict, spent = word.split()
            return Verdict(verdict), float(spent)
        except (_Died, OSError, ValueError) as error:  # ValueError: an unknown word, the two ends are out of step
            self.kill()
            if read:
                return Verdict.LOST, seconds
            raise _Died from error

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe is not None:
                pipe.close()

    def _line(self, deadline: float) -> str:
        out = self.popen.stdout.fileno()  # type: ignore[union-attr]
        waiter = select.poll()
        waiter.register(out, select.POLLIN)
        while b"\n" not in self._rest:
            left = deadline - time.monotonic()
            if left <= 0 or not waiter.poll(1000 * left):
                raise _Died
            if not (more := os.read(out, 4096)):
                raise _Died
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()


class Verifier:
    """A pool of processes that compare answers. They start when they are needed.

    Threads may share a pool; processes may not (see `shared_verifier`).

    Args:
        workers: number of processes. Default: `default_workers()`.
        cpu_seconds: limit of the CPU time of one pair.
        memory: limit of the address space of one process, in bytes.
        credit: CPU seconds that slow answers may use before the limit becomes `SHORT_CPU_SECONDS`.

    Raises MissingPackageError (an ImportError) if math-verify is not installed, RuntimeError if no process can start.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        cpu_seconds: float = CPU_SECONDS,
        memory: int = MEMORY,
        credit: float = CREDIT,
    ) -> None:
        require_math_verify()
        self._cpu_seconds, self._memory, self._full_credit, self._credit = cpu_seconds, memory, credit, credit
        self._known: dict[tuple[tuple[str, str], bool], Verdict] = {}
        self._threads = ThreadPoolExecutor(workers or default_workers(), thread_name_prefix="viprl-answers")
        self._mine = threading.local()
        self._processes: set[_Process] = set()
        self._lock = threading.Lock()
        self._owner, self._warned = os.getpid(), False

    def compare(self, pairs: Sequence[tuple[str, str]], *, both_ways: bool = False) -> list[Verdict]:
        """A verdict for each (reference, answer).

        With `both_ways`, a pair is equal if it is in one of the two orders: math-verify is not symmetric.
        """
        found = {pair: self._known.get((pair, both_ways)) for pair in pairs}
        asked = [pair for pair, verdict in found.items() if verdict is None]
        answered = self._threads.map(lambda pair: self._check(pair, both_ways), asked)
        decided = found | dict(zip(asked, answered, strict=True))
        return [verdict for pair in pairs if (verdict := decided[pair]) is not None]

    def close(self) -> None:
        """End the processes."""
        if os.getpid() != self._owner:
            return  # a forked copy: the processes belong to the parent
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            for process in self._processes:
                process.kill()
            self._processes.clear()

    def _check(self, pair: tuple[str, str], both_ways: bool) -> Verdict:
        short = self._credit <= 0
        seconds = min(SHORT_CPU_SECONDS, self._cpu_seconds) if short else self._cpu_seconds
        verdict, spent = self._ask(*pair, both_ways, seconds)
        with self._lock:
            self._credit = min(self._full_credit, self._credit + REFUND - spent)
            if verdict is Verdict.LOST and not self._warned:
                logger.warning("an answer exceeded its limits of time or memory and is wrong: %.80r", pair[1])
                self._warned = True
            if verdict is not Verdict.LOST or not short:
                if len(self._known) >= CACHED_VERDICTS:
                    self._known.clear()
                self._known[(pair, both_ways)] = verdict
        return verdict

    def _ask(self, reference: str, answer: str, both_ways: bool, seconds: float) -> tuple[Verdict, float]:
        for _ in range(2):  # the system may have killed the process; if it dies twice, the reference is the cause
            with contextlib.suppress(_Died):
                return self._process().ask(reference, answer, both_ways, seconds)
        return Verdict.REFERENCE, seconds

    def _process(self) -> _Process:
        """The process of the calling thread; a new one if the last one has ended."""
        process: _Process | None = getattr(self._mine, "process", None)
        if process is None or process.popen.poll() is not None:
            fresh = _Process(self._memory)
            with self._lock:
                self._processes -= {process}
                self._processes.add(fresh)
            self._mine.process = process = fresh
        return process


def default_workers() -> int:
    """Up to four processes, fewer if several trainer ranks share the machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(4, cores // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))))


def shared_verifier() -> Verifier:
    """The pool of this process, created at first use and closed at exit. A forked child gets its own."""
    return _pool_of(os.getpid())


@functools.cache
def _pool_of(process: int) -> Verifier:
    pool = Verifier()
    atexit.register(pool.close)
    return pool
