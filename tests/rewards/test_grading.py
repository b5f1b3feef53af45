"""Answers: found, compared with hand-checked pairs, and never able to hang or kill the run that asks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

pytest.importorskip("math_verify", reason='needs pip install "viprl[eval]"')

import answer_pairs

from viprl.rewards.functions import compute_score, compute_scores, exact_match, math, math_last_number, resolve_rewards
from viprl.rewards.grading import process as guard
from viprl.rewards.grading.extract import boxed, last_number, reference
from viprl.rewards.grading.plain import cleaned, quick_verdict
from viprl.rewards.grading.process import Verdict, Verifier
from viprl.rewards.grading.score import classes, compare, score


@pytest.fixture(scope="module")
def verifier():
    """One process with little patience for the whole module."""
    pool = Verifier(1, cpu_seconds=1.0)
    yield pool
    pool.close()


# --- where the answer stands ---


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{5}.", "5"), (r"\boxed{1} no, \boxed{2}", "2"), (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"), (r"\boxed{\left\{1,2\right.}", r"\left\{1,2\right."), (r"\fbox{7}", "7"),
        (r"\boxed 5", "5"), (r"\boxed {5}", "5"), (r"\boxed{\boxed{5}}", "5"), (r"\boxed{ 5 }", "5"),
        (r"\boxed{}", ""),
        (r"\boxed{1} and \boxed{2", None), (r"\boxed{5\}", None), ("5", None), ("", None), (r"\boxedx{5}", None),
        (r"\boxed{" + "{" * 10_000_000, None), (r"\boxed{5}" + "x" * 1_000_000, "5"), (r"\boxed{\\}", r"\\"),
    ],
)  # fmt: skip
def test_boxed(text, answer):
    assert boxed(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 5.", "5"), ("5 and then 1,234.50 dollars", "1,234.50"), ("x = -3", "-3"), ("5-3", "3"),
        ("= −3", "−3"),
        ("$18", "$18"), (r"\$18.", r"\$18"), ("it is 3/4 of it", "3/4"), (r"\frac{3}{4}$", r"\frac{3}{4}"),
        (r"half, \frac12.", r"\frac12"), (r"\dfrac 1{20}", r"\dfrac 1{20}"), (r"\boxed{-\tfrac{1}2}", r"-\tfrac{1}2"),
        ("50%", "50%"),
        (r"50\%", r"50\%"), (".5", ".5"), ("no number", None), ("", None), ("#### 18", "18"),
        ("7 " + "x" * 100_000, "7"),
        ("9" * 10_000_000, None), ("1,2", "2"), ("12,345,678", "12,345,678"), (r"\boxed{42}", "42"), ("٣", None),
    ],
)  # fmt: skip
def test_last_number(text, answer):
    assert last_number(text) == answer


@pytest.mark.parametrize(
    ("solution", "answer"),
    [(5, "5"), (2.5, "2.5"), (" 5 ", "5"), ("so 5\n#### 18", "18"), (r"thus \boxed{\frac12}", r"\frac12"), ("", None),
     (None, None), (float("nan"), None), ("#### ", None)],
)  # fmt: skip
def test_reference(solution, answer):
    assert reference(solution) == answer


def test_a_solution_of_a_strange_kind():
    with pytest.raises(ValueError, match="of type list; expected a text or a number"):
        reference(["5"])


# --- the hand-checked pairs ---


def test_the_tables_are_large_enough():
    assert len(answer_pairs.EQUAL) + len(answer_pairs.DIFFERENT) + len(answer_pairs.BREAKERS) >= 200


@pytest.mark.parametrize(("table", "verdict"), [("EQUAL", True), ("DIFFERENT", False)])
def test_hand_checked_pairs(table, verdict, verifier):
    pairs = getattr(answer_pairs, table)
    found = compare([known for known, _ in pairs], [given for _, given in pairs], "boxed", verifier=verifier)
    assert [pair for pair, is_equal in zip(pairs, found, strict=True) if is_equal is not verdict] == []


def test_cheap_verdicts_are_those_of_math_verify(verifier):
    """Where both have a verdict, on all pairs of the tables' answers that are cheap and which math-verify can read."""
    ours = {
        ("1000", "1 000"), ("5", "５"), ("100000", "100000"), ("60^\\circ", "60°"), ("60", "60°"), ("42", "**42**"),
        ("12", "12。"), ("204", "204."), (r"\text{even}", "neev"), ("1000", r"1\,000"), ("1/3000000", "0.000000"),
        (r"\text{east}", "tsae"), ("18", "$18$"),
    }  # fmt: skip
    cheap = [
        (pair, verdict)
        for pair in answer_pairs.EQUAL + answer_pairs.DIFFERENT
        if pair not in ours and (verdict := quick_verdict(*map(cleaned, pair))) is not None
    ]
    assert len(cheap) > 60
    asked = verifier.compare([pair for pair, _ in cheap])
    assert [(p, v, a) for (p, v), a in zip(cheap, asked, strict=True) if v is not (a is Verdict.EQUAL)] == []


def test_most_answers_never_reach_a_process():
    class Nobody:
        def compare(self, pairs, *, both_ways=False):
            raise AssertionError(f"asked about {pairs}")

    answers = ["204", "205", "1,000", r"\frac{3}{4}", "-5", "0.5", r"50\%", None, "x" * 5000]
    assert score([rf"\boxed{{{a}}}" if a else "" for a in answers], ["204"] * 9, verifier=Nobody()) == [1.0] + [0.0] * 8


# --- rewards ---


def test_rewards_of_texts_and_chats():
    chat = [{"role": "assistant", "content": r"\boxed{0.5}"}]
    texts = [r"\boxed{1/2}", chat, "0.5", r"\boxed{2}", "", [{"role": "assistant", "content": None}], r"\boxed{1}"]
    solutions = [r"\frac12", "1/2", "0.5", "1/2", "1/2", "1/2", None]
    assert math([""] * 7, texts, solutions) == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, None]
    assert math_last_number([""] * 3, ["so 5 of 7", "7!", "none"], [7, "7", "7"]) == [1.0, 1.0, 0.0]
    assert exact_match([""] * 3, [" a  b", "0.5", "x"], ["a b", "1/2", None]) == [1.0, 0.0, None]
    assert [f.__name__ for f in resolve_rewards(["math", "math_last_number"])] == ["math", "math_last_number"]


def test_rewards_for_verl():
    assert compute_score("math", r"so \boxed{\frac{1}{2}}", "0.5", {"index": 0}) == 1.0
    assert compute_score("math", r"so \boxed{x+1}", "1+x") == 1.0
    assert compute_score("math", "0.5", "0.5") == 0.0
    assert compute_score("math", "0.5", None) == 0.0
    assert compute_scores(["a"] * 2, ["is 5", "is 6"], ["5", "5"], mode="last_number") == [1.0, 0.0]


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(guard.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "viprl\[eval\]"'):
        resolve_rewards(["math"])
    assert resolve_rewards(["exact_match"]) == [exact_match]


def test_an_unusable_solution_is_not_graded(verifier):
    """None, not 0: no completion could have been right. The same text is still accepted as right."""
    assert (
        score([r"\boxed{5x}", r"\boxed{9^{9^{9^9}}}"], [r"\sin(" * 60 + "x" + ")" * 60] * 2, verifier=verifier)
        == [None] * 2
    )


# --- hang, crash, memory ---


def test_breakers_are_wrong_and_do_no_harm():
    pool = Verifier(2, cpu_seconds=0.2, credit=1.0)
    asked = [*answer_pairs.BREAKERS, "x \\cdot 5"]
    assert compare(["5x"] * len(asked), asked, "boxed", verifier=pool) == [False] * len(answer_pairs.BREAKERS) + [True]
    pool.close()


def test_an_answer_that_equals_its_reference_never_breaks_anything(verifier):
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
    print("equal" if known == given else "different", flush=True)
"""


def test_a_process_that_hangs_or_dies_is_replaced(tmp_path, monkeypatch):
    """A program that heeds no signal, as C code does not: only the wall-clock limit helps."""
    program = tmp_path / "fake.py"
    program.write_text(FAKE)
    monkeypatch.setattr(guard, "PROGRAM", program)
    monkeypatch.setattr(guard, "WALL_SLACK", 0.5)
    pool = Verifier(1, cpu_seconds=0.05)
    asked = ["a", "hang", "a", "crash", "a", "rubbish", "b"]
    lost = Verdict.LOST
    expected = [Verdict.EQUAL, lost, Verdict.EQUAL, lost, Verdict.EQUAL, lost, Verdict.DIFFERENT]
    assert pool.compare([("a", given) for given in asked]) == expected
    assert pool.compare([("bad reference", "a"), ("a", "a")]) == [Verdict.REFERENCE, Verdict.EQUAL]
    processes = [process._popen for process in pool._processes]
    pool.close()
    assert len(processes) == 1 and processes[0].poll() is not None


def test_a_process_that_the_machine_took_is_replaced_without_a_verdict():
    pool = Verifier(1)
    assert pool.compare([("x+1", "1+x")]) == [Verdict.EQUAL]
    for process in pool._processes:
        os.kill(process._popen.pid, 9)
    assert pool.compare([("x+2", "2+x")]) == [Verdict.EQUAL]
    pool.close()


def test_memory_is_limited(tmp_path):
    """The worker's own limit holds: reading a list of a billion numbers fails instead of filling the machine."""
    out = subprocess.run(
        [sys.executable, "-c", "import runpy, sys, resource\n"
         f"worker = runpy.run_path({str(guard.PROGRAM)!r})\n"
         "sys.stdin = open('/dev/null')\n"
         f"worker['main']({1 << 30})\n"
         "try:\n    bytearray(2 << 30)\nexcept MemoryError:\n    sys.stderr.write('limited')\n"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert out.stdout == "ready\n" and out.stderr == "limited"


def test_the_kernel_stops_what_runs_in_c():
    """An endless loop in one C call, where Python's signal handlers do not run."""
    out = subprocess.run(
        [sys.executable, "-c", "import collections, itertools, runpy\n"
         f"worker = runpy.run_path({str(guard.PROGRAM)!r})\n"
         "clock = worker['Clock']()\nclock.start(0.1)\ncollections.deque(itertools.repeat(0), maxlen=0)\n"],
        capture_output=True, timeout=300,
    )  # fmt: skip
    assert out.returncode == -signal.SIGXCPU


def test_credit_shortens_the_limit_and_comes_back(monkeypatch):
    pool = Verifier(1, cpu_seconds=1.0, credit=0.5)
    limits = []
    monkeypatch.setattr(
        pool,
        "_ask",
        lambda r, a, both, seconds: (limits.append(seconds), Verdict.LOST if a == "slow" else Verdict.EQUAL)[1],
    )
    pool.compare([("r", "slow")])
    pool.compare([("r", str(i)) for i in range(8)])
    assert limits[:3] == [1.0, 0.25, 0.25] and limits[-1] == 1.0
    pool.close()


def test_off_the_main_thread_and_many_at_once(verifier):
    found: dict[int, list[bool | None]] = {}

    def ask(i: int) -> None:
        found[i] = compare([f"x+{i}"] * 2, [f"{i}+x", f"{i}-x"], "boxed", verifier=verifier)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {i: [True, False] for i in range(1, 5)}


def _in_a_fork(queue) -> None:
    queue.put(score([r"\boxed{x+1}", r"\boxed{x+2}"], ["1+x"] * 2))


def test_a_forked_child_has_processes_of_its_own():
    assert score([r"\boxed{x+1}"], ["1+x"]) == [1.0]
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=_in_a_fork, args=(queue,)) for _ in range(2)]
    for child in children:
        child.start()
    assert [queue.get(timeout=120) for _ in children] == [[1.0, 0.0]] * 2
    for child in children:
        child.join()
    assert score([r"\boxed{x+3}"], ["3+x"]) == [1.0]


def test_a_script_without_a_main_guard_is_not_run_twice_and_leaves_nothing(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "print('once')\n"
        "from viprl.rewards.grading import guard\n"
        "from viprl.rewards.grading.score import score\n"
        "print(score([r'\\boxed{x+1}'], ['1+x']))\n"
        "print([p._popen.pid for p in guard.shared()._processes])\n"
    )
    out = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=True)
    once, rewards, pids = out.stdout.splitlines()
    assert (once, rewards) == ("once", "[1.0]")
    assert _gone(int(pids.strip("[]")))


def test_processes_end_with_a_parent_that_is_killed(tmp_path):
    script = (
        "import os, sys\nfrom viprl.rewards.grading import guard\n"
        "guard.shared().compare([('x+1', '1+x')])\n"
        "print([p._popen.pid for p in guard.shared()._processes][0], flush=True)\n"
        "guard.shared().compare([('5x', '9^{9^{9^9}}')])\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert _gone(child)


def _gone(pid: int) -> bool:
    """Whether a process ends (a zombie has)."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


# --- classes of answers ---


def test_classes_are_merged_whatever_the_order(verifier):
    answers = ["1/2", "0.5", "3", r"\frac{3}{1}", "x+1", "1+x", "7", r"\dfrac12", "2x"]
    labels = [0, 0, 1, 1, 2, 2, 3, 0, 4]
    assert classes([answers, ["5"], []], "boxed", verifier=verifier) == [labels, [0], []]
    backwards = classes([answers[::-1]], "boxed", verifier=verifier)[0][::-1]
    assert {tuple(i for i, x in enumerate(backwards) if x == c) for c in backwards} == {
        tuple(i for i, x in enumerate(labels) if x == c) for c in labels
    }
    assert classes([answers], "boxed", algebra=False) == [[0, 0, 1, 1, 2, 3, 4, 0, 5]]
    assert classes([["a b", "a  b", "1/2", "0.5"]], "exact") == [[0, 0, 1, 2]]
