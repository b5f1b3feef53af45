"""Answers compared: hand-checked pairs, scores, and classes of equivalent answers."""

from __future__ import annotations

import pytest

pytest.importorskip("math_verify", reason='needs pip install "viprl[eval]"')

import answer_pairs

from viprl.errors import InputError
from viprl.rewards.grading import answers
from viprl.rewards.grading.answers import classes, compare, score
from viprl.rewards.grading.notation import cleaned
from viprl.rewards.grading.quick_verdict import quick_verdict
from viprl.rewards.grading.verifier import Verdict


@pytest.mark.parametrize(("table", "verdict"), [("EQUAL", True), ("DIFFERENT", False)])
def test_hand_checked_pairs(table, verdict, verifier):
    pairs = getattr(answer_pairs, table)
    found = compare([known for known, _ in pairs], [given for _, given in pairs], "boxed", verifier=verifier)
    assert [pair for pair, is_equal in zip(pairs, found, strict=True) if is_equal is not verdict] == []


@pytest.mark.parametrize(("table", "verdict"), [("EQUAL_BOTH_WAYS", True), ("DIFFERENT_BOTH_WAYS", False)])
def test_hand_checked_pairs_in_both_directions(table, verdict, verifier):
    pairs = [pair for one, other in getattr(answer_pairs, table) for pair in ((one, other), (other, one))]
    found = compare([known for known, _ in pairs], [given for _, given in pairs], "boxed", verifier=verifier)
    assert [pair for pair, is_equal in zip(pairs, found, strict=True) if is_equal is not verdict] == []


def test_quick_verdicts_agree_with_math_verify(verifier):
    """On the hand-checked pairs that both can compare; math-verify cannot read those in `only_quick`."""
    only_quick = {
        ("1000", "1 000"), ("5", "５"), ("100000", "100000"), ("60^\\circ", "60°"), ("60", "60°"), ("42", "**42**"),
        ("12", "12。"), ("204", "204."), (r"\text{even}", "neev"), ("1000", r"1\,000"), ("1/3000000", "0.000000"),
        (r"\text{east}", "tsae"), ("18", "$18$"),
        ("3/4", "³⁄₄"), (r"\frac{3}{16}", "³/₁₆"), (r"-\frac{2}{3}", "−²⁄₃"),
    }  # fmt: skip
    quick = [
        (pair, verdict)
        for pair in answer_pairs.EQUAL + answer_pairs.DIFFERENT
        if pair not in only_quick and (verdict := quick_verdict(*map(cleaned, pair))) is not None
    ]
    assert len(quick) > 60
    found = verifier.compare([pair for pair, _ in quick])
    assert [(p, v, a) for (p, v), a in zip(quick, found, strict=True) if v is not (a is Verdict.EQUAL)] == []


def test_most_answers_need_no_process():
    class Unused:
        def compare(self, pairs, *, both_ways=False):
            raise AssertionError(f"asked about {pairs}")

    answers = ["204", "205", "1,000", r"\frac{3}{4}", "-5", "0.5", r"50\%", None, "x" * 5000]
    assert score([rf"\boxed{{{a}}}" if a else "" for a in answers], ["204"] * 9, verifier=Unused()) == [1.0] + [0.0] * 8


@pytest.mark.parametrize("length", [150, 1900, 20_000])
def test_a_loop_is_wrong_without_the_parser(length):
    class OnlyShort:
        def compare(self, pairs, *, both_ways=False):
            assert max(len(text) for pair in pairs for text in pair) < 50
            return [Verdict.DIFFERENT] * len(pairs)

    loops = [(unit * length)[:length] for unit in answer_pairs.LOOPS]
    boxes = [rf"so \boxed{{x{loop}}}" for loop in loops] + [rf"\boxed{{{loop}" for loop in loops]
    assert set(score(boxes, ["42"] * len(boxes), verifier=OnlyShort())) == {0.0}
    assert 1.0 not in score(boxes, ["42"] * len(boxes), "last_number", verifier=OnlyShort())
    if length < 2000:
        assert len(set(classes([[f"x{loop}" for loop in loops]], "boxed", verifier=OnlyShort())[0])) > len(loops) / 2


def test_an_answer_much_longer_than_its_reference_is_compared_as_text(monkeypatch):
    seen = []
    monkeypatch.setattr(answers, "quick_verdict", lambda *pair: seen.append(pair))
    long = "+".join(f"x_{i}" for i in range(200))
    assert compare(["5", long, long], [long, long, "5" * 3000], "boxed") == [False, True, False] and seen == []


def test_completions_of_an_unusable_solution_are_unscorable(verifier):
    nested = r"\sin(" * 60 + "x" + ")" * 60
    texts = [r"\boxed{5x}", r"\boxed{9^{9^{9^9}}}", rf"\boxed{{{nested}}}"]
    assert score(texts, [nested] * 3, verifier=verifier) == [None, None, 1.0]


def test_an_unknown_mode():
    with pytest.raises(InputError, match="boxd"):
        score(["5"], ["5"], "boxd")


def test_classes_do_not_depend_on_the_order(verifier):
    answers = ["1/2", "0.5", "3", r"\frac{3}{1}", "x+1", "1+x", "7", r"\dfrac12", "2x"]
    labels = [0, 0, 1, 1, 2, 2, 3, 0, 4]
    assert classes([answers, ["5"], []], "boxed", verifier=verifier) == [labels, [0], []]
    backwards = classes([answers[::-1]], "boxed", verifier=verifier)[0][::-1]
    assert {tuple(i for i, x in enumerate(backwards) if x == c) for c in backwards} == {
        tuple(i for i, x in enumerate(labels) if x == c) for c in labels
    }
    assert classes([answers], "boxed", algebra=[False]) == [[0, 0, 1, 1, 2, 3, 4, 0, 5]]
    assert classes([["a b", "a  b", "1/2", "0.5"]], "exact") == [[0, 0, 1, 2]]
