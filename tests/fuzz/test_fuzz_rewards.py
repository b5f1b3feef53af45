"""Rewards of what models write: graded within its time, never run as code, and as exact fractions grade it."""

from __future__ import annotations

import contextlib
import math
from fractions import Fraction
from typing import Any

import pytest
from fuzzing import anything, fuzz, mostly, objects, or_refused, some_of
from hypothesis import strategies as st

from viprl.data.gym_answers import final_answer, may_be_checked
from viprl.engines.success import SuccessCriterion
from viprl.outcomes import RewardReader
from viprl.rewards import exact_match
from viprl.rewards.calling import check_arguments
from viprl.rewards.grading import extract, inequalities, notation, quick_verdict, rationals
from viprl.rewards.grading.answers import classes, compare, score
from viprl.rewards.grading.verifier import Verifier
from viprl.rewards.returned import returned_rewards
from viprl.utils.comparisons import read_comparison

PIECES = [
    *"0123456789", *"xyeijnπ∞½²√×·−–°%$£<>=|!?:;,.'\"`~#&@_^*/+-()[]{}\\ \n\t\0", "10^", "^{", "\\frac", "\\frac{1}{",
    "\\sqrt{", "\\text{", "\\boxed{", "\\fbox", "\\le", "\\cup", "\\in", "\\int_0^1", "\\sum_{i=1}^{", "\\binom",
    "\\begin{pmatrix}", "\\left(", "\\overline{", "\\circ", "<answer>", "</answer>", "####", " or ", "1,000", "1e9",
    "e-5", "999999999", "**", "!", "__import__('os')", "lambda x:", "\ud800", "\u202e", "٣", "０",
]  # fmt: skip
"""What answers consist of, and what may confuse a reader of them."""
written = st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(max_size=8)
long = st.tuples(st.sampled_from(PIECES), st.integers(1, 3000)).map(lambda pair: pair[0] * pair[1])
answers = mostly(written, long, 20)
EVIL = "open({path!r}, 'w')"


@fuzz(4.0, text=st.one_of(written, long, st.lists(written | long, max_size=3).map("\\boxed{".join)))
def test_readers_of_answers(text: str) -> None:
    """All that is done in the process of the trainer, before computer algebra."""
    for read in (extract.boxed, extract.last_number, extract.whole, final_answer):
        assert isinstance(read(text), str | None)
    cleaned = notation.cleaned(extract.whole(text))
    inequalities.region(cleaned)
    rationals.number(cleaned)
    assert quick_verdict.quick_verdict(cleaned, cleaned) is not False
    for mode in ("boxed", "last_number", "exact"):
        found = score([text], [text], mode) if mode == "exact" else [extract.boxed(text)]
        assert found[0] in (None, 0.0, 1.0) or isinstance(found[0], str)


def spelled(value: Fraction) -> st.SearchStrategy[str]:
    """The ways to write a number exactly."""
    sign, n, d = "-" if value < 0 else "", abs(value.numerator), value.denominator
    ways = [
        f"{sign}\\frac{{{n}}}{{{d}}}",
        f"{sign}{n}/{d}",
        f"{sign}\\dfrac{{{n}}}{{{d}}}",
        f"${sign}\\frac{{{n}}}{{{d}}}$",
    ]
    if d == 1:
        ways += [f"{sign}{n:,}", f"{sign}{n}.0", f"{sign}{n}.", f"\\text{{{sign}{n}}}", f"{sign}{n}e0"]
    if n > d > 1 and n % d:
        ways += [f"{sign}{n // d}\\frac{{{n % d}}}{{{d}}}"]
    if 10**4 % d == 0:
        decimal = f"{n // d}.{(n % d) * 10**4 // d:04d}"
        ways += [sign + decimal, sign + decimal.rstrip("0") + "0", f"{sign}{n * 10**4 // d} \\times 10^{{-4}}"]
    return st.sampled_from(ways)


numbers = st.builds(Fraction, st.integers(-9999, 9999), st.sampled_from([1, 1, 2, 3, 4, 5, 7, 8, 16, 40]))


@fuzz(4.0, data=st.data(), known=numbers, near=st.integers(-1, 1))
def test_numbers_are_graded_as_fractions_are(data: Any, known: Fraction, near: int) -> None:
    given = known + Fraction(near, known.denominator)
    reference, answer = data.draw(spelled(known)), data.draw(spelled(given))
    assert score([f"so \\boxed{{{answer}}}."], [reference]) == [float(known == given)]


@pytest.fixture(scope="module")
def verifier():
    pytest.importorskip("math_verify")
    pool = Verifier(1, cpu_seconds=0.25, credit=0)
    yield pool
    pool.close()


@fuzz(0.06, reference=st.sampled_from(["x+1", "\\sqrt{2}", "(1,2)", "x>3", "\\{1,2\\}"]), answer=answers)
def test_computer_algebra(tmp_path_factory: pytest.TempPathFactory, verifier: Any, reference: str, answer: str) -> None:
    """Answers of any text are right or wrong, and none runs as code."""
    file = tmp_path_factory.getbasetemp() / "ran"
    for text in (answer, answer + EVIL.format(path=str(file))):
        assert compare([reference], [text], "boxed", verifier=verifier)[0] in (True, False)
        assert not file.exists()


@fuzz(group=st.lists(written, max_size=5))
def test_classes_of_answers(group: list[str]) -> None:
    found = classes([group], "boxed", algebra=[False])[0]
    assert len(found) == len(group)
    assert sorted(set(found)) == list(range(len(set(found))))
    assert all(found[i] == found[j] for i in range(len(group)) for j in range(i) if group[i] == group[j])


@fuzz(
    completions=anything | st.lists(anything | written, max_size=3), solution=anything | st.lists(anything, max_size=3)
)
def test_the_built_in_reward(completions: Any, solution: Any) -> None:
    with or_refused() as refused:
        found = exact_match(completions=completions, solution=solution)
    if not refused:
        assert all(value in (None, 0.0, 1.0) for value in found)
        assert len(found) == len(completions)


@fuzz(
    returned=anything | st.lists(mostly(st.sampled_from([0, 1.0, None]), anything, 10), max_size=3), n=st.integers(0, 3)
)
def test_what_a_reward_function_returns(returned: Any, n: int) -> None:
    with or_refused() as refused:
        found = returned_rewards("mine", returned, n)
    if not refused:
        assert len(found) == n
        assert all(isinstance(value, float) for value in found)


@fuzz(
    success=mostly(
        st.sampled_from(["acc", "acc>=0.5", ">1", "0.5", "<lambda>", "==", "a>b", ">=1e999"]) | st.text(max_size=6)
    ),
    rewards=st.lists(anything, max_size=4),
)
def test_what_counts_as_success(success: Any, rewards: list[Any]) -> None:
    with or_refused() as refused:
        criterion = SuccessCriterion(success, [lambda: 0])
    if not refused:
        assert str(criterion)
    if isinstance(success, str):
        with or_refused():
            read_comparison(success)
    reader = RewardReader(0.5)
    found = reader(rewards)
    assert len(found) == len(rewards)
    assert all(value in (0.0, 1.0) or math.isnan(value) for value in found.tolist())


@fuzz(answer=written, given=some_of(a=objects, solution=objects))
def test_arguments_and_answers_of_tasks(answer: str, given: dict[str, Any]) -> None:
    with or_refused():
        check_arguments(lambda completions, a=1, **_: None, list(given))
    if may_be_checked(answer, "4", lambda answer, entry: eval(answer)):
        wrong = (SyntaxError, NameError, TypeError, ValueError, ArithmeticError, LookupError)
        with contextlib.suppress(*wrong):  # not what an answer that does something would raise
            eval(compile(answer, "answer", "eval"), {"__builtins__": {}})


@pytest.mark.parametrize("text", ["(" * 50_000, "\\boxed{" * 20_000, "1," * 50_000, "<answer>" * 100_000, "{" * 10**5])
def test_long_completions_take_no_time(text: str) -> None:
    assert score([text], ["4"]) == [0.0]
    assert score([text], ["4"], "last_number")[0] == 0.0
    assert isinstance(final_answer(text), str)
