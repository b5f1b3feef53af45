"""The processes that compare answers: no answer can hang or crash the process that asks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("math_verify", reason='needs pip install "viprl[eval]"')

import answer_pairs

from child_processes import gone
from viprl.rewards.grading import verifier as module
from viprl.rewards.grading.answers import compare, score
from viprl.rewards.grading.verifier import Verdict, Verifier


def test_answers_that_break_the_comparison_are_wrong():
    pool = Verifier(2, cpu_seconds=0.2, credit=1.0)
    asked = [*answer_pairs.BREAKERS, "x \\cdot 5"]
    assert compare(["5x"] * len(asked), asked, "boxed", verifier=pool) == [False] * len(answer_pairs.BREAKERS) + [True]
    pool.close()


def test_the_text_of_the_reference_is_right_without_a_comparison(verifier):
    for text in ("9^{9^{9^9}}", "9" * 3000, "{" * 500 + "5" + "}" * 500):
        assert compare([text], [text], "boxed", verifier=verifier) == [True]


FAKE = """
import json, os, signal, sys, time
print("ready", flush=True)
for line in sys.stdin:
    known, given, both, seconds = json.loads(line)
    if known == "bad reference":
        os._exit(3)
    print("read", flush=True)
    if given == "hang":
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPROF, signal.SIGTERM])
        time.sleep(1000)
    if given == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if given == "rubbish":
        print("what?", flush=True)
    print("equal 0.001" if known == given else "different 0.001", flush=True)
"""


def test_a_process_that_hangs_or_dies_is_replaced(tmp_path, monkeypatch):
    """The program ignores signals, as C code does: only the wall-clock limit ends it."""
    program = tmp_path / "fake.py"
    program.write_text(FAKE)
    monkeypatch.setattr(module, "PROGRAM", program)
    monkeypatch.setattr(module, "WALL_SLACK", 0.5)
    pool = Verifier(1, cpu_seconds=0.05)
    asked = ["a", "hang", "a", "crash", "a", "rubbish", "b"]
    lost = Verdict.LOST
    expected = [Verdict.EQUAL, lost, Verdict.EQUAL, lost, Verdict.EQUAL, lost, Verdict.DIFFERENT]
    assert pool.compare([("a", given) for given in asked]) == expected
    assert pool.compare([("bad reference", "a"), ("a", "a")]) == [Verdict.REFERENCE, Verdict.EQUAL]
    processes = [process.popen for process in pool._processes]
    pool.close()
    assert len(processes) == 1 and processes[0].poll() is not None


def test_a_process_serves_many_pairs_below_a_large_parent_until_the_system_kills_it():
    ballast = b"x" * (300 << 20)
    pool = Verifier(1, memory=512 << 20)
    used = set()
    for i in range(3):
        assert pool.compare([(f"x+{i}", f"{i}+x")]) == [Verdict.EQUAL]
        used |= {process.popen.pid for process in pool._processes}
    assert len(used) == 1 and len(ballast) == 300 << 20
    os.kill(used.pop(), signal.SIGKILL)
    assert pool.compare([("x+9", "9+x")]) == [Verdict.EQUAL]
    pool.close()


def test_memory_is_limited():
    """In the worker, an allocation beyond the limit raises MemoryError."""
    out = subprocess.run(
        [sys.executable, "-c", "import runpy, sys, resource\n"
         f"worker = runpy.run_path({str(module.PROGRAM)!r})\n"
         "sys.stdin = open('/dev/null')\n"
         f"worker['main']({1 << 30})\n"
         "try:\n    bytearray(2 << 30)\nexcept MemoryError:\n    sys.stderr.write('limited')\n"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert out.stdout == "ready\n" and out.stderr == "limited"


def test_the_kernel_stops_what_runs_in_c():
    """An endless loop in one C call, in which Python's signal handlers do not run."""
    out = subprocess.run(
        [sys.executable, "-c", "import collections, itertools, runpy\n"
         f"worker = runpy.run_path({str(module.PROGRAM)!r})\n"
         "clock = worker['Clock']()\nclock.start(0.1)\ncollections.deque(itertools.repeat(0), maxlen=0)\n"],
        capture_output=True, timeout=300,
    )  # fmt: skip
    assert out.returncode == -signal.SIGXCPU


def test_the_limit_is_short_while_the_credit_is_used_up(monkeypatch):
    pool = Verifier(1, cpu_seconds=1.0, credit=0.5)
    limits = []

    def ask(reference: str, answer: str, both_ways: bool, seconds: float) -> tuple[Verdict, float]:
        limits.append(seconds)
        return (Verdict.EQUAL, 0.01) if answer.isdigit() else (Verdict[answer], seconds)

    monkeypatch.setattr(pool, "_ask", ask)
    for slow in ("LOST", "DIFFERENT"):  # also an answer that is decided, but slowly
        pool.compare([("r", slow)])
        pool.compare([(slow, str(i)) for i in range(12)])
        assert limits[:3] == [1.0, 0.25, 0.25] and limits[-1] == 1.0
        limits.clear()
    pool.close()


def test_several_threads_share_a_pool(verifier):
    def ask(i: int) -> list[bool | None]:
        return compare([f"x+{i}"] * 2, [f"{i}+x", f"{i}-x"], "boxed", verifier=verifier)

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(ask, range(1, 5))) == [[True, False]] * 4


def _in_a_fork(queue) -> None:
    queue.put(score([r"\boxed{x+1}", r"\boxed{x+2}"], ["1+x"] * 2))


def test_a_forked_child_has_its_own_processes():
    assert score([r"\boxed{x+1}"], ["1+x"]) == [1.0]
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_a_fork, args=(queue,))
    child.start()
    assert queue.get(timeout=120) == [1.0, 0.0]
    child.join()
    assert score([r"\boxed{x+3}"], ["3+x"]) == [1.0]


def test_a_script_without_a_main_guard_runs_once_and_leaves_no_process(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "print('once')\n"
        "from viprl.rewards.grading.verifier import shared_verifier\n"
        "from viprl.rewards.grading.answers import score\n"
        "print(score([r'\\boxed{x+1}'], ['1+x']))\n"
        "print([p.popen.pid for p in shared_verifier()._processes])\n"
    )
    out = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=True)
    once, rewards, pids = out.stdout.splitlines()
    assert (once, rewards) == ("once", "[1.0]")
    assert gone(int(pids.strip("[]")))


def test_processes_end_when_their_parent_is_killed():
    script = (
        "from viprl.rewards.grading.verifier import shared_verifier as shared\n"
        "shared().compare([('x+1', '1+x')])\n"
        "print([p.popen.pid for p in shared()._processes][0], flush=True)\n"
        "shared().compare([('5x', '9^{9^{9^9}}')])\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(child)
