"""Answers to tasks of reasoning-gym that may reach the task's check, with checks as reasoning-gym has them."""

from __future__ import annotations

import json
import time

import pytest

from viprl.data.gym_answers import evaluates, final_answer, may_be_checked


class Task:
    def evaluating(self, answer, entry):
        return eval(answer)

    def behind_a_lambda(self, answer, entry):
        return (lambda text: exec(text))(answer)

    def plain(self, answer, entry):
        return json.loads(answer) == entry


def test_checks_that_evaluate_are_recognised():
    task = Task()
    assert evaluates(task.evaluating) and evaluates(task.behind_a_lambda)
    assert not evaluates(task.plain)


@pytest.mark.parametrize(
    ("answer", "may"),
    [
        ("6*(98 - 54) - 34", True),
        ("-exp(x)*sin(x)/2 + 3.5*x**2 + C", True),
        ("_ Q _\n Q _ _", True),
        ("[[1, 2], [3, 4]]", True),
        ("['1', '-2.5']", True),
        ("exit()", False),
        ("sin(open('x', 'w'))", False),
        ("sin('ex' + 'it()')", False),
        ("(1).real", False),
        ("[exit][0]()", False),
        ("exit #sin\n()", False),
        ("sin(x)\\\n(2)", False),
        ("e\uff58it()", False),
        ("9**9**9", False),
        ("9**99999", False),
        ("2**(999*999*999)", False),
        ("2**0xfffffff", False),
        ("2**1_000_000_000", False),
        ("((2**999*1)**999*1)**999", False),
        ("2**sqrt(10**20)", False),
        ("2**log(exp(10**9))", False),
        ("exp(10**9*log(2))", False),
        ("E**(10**9*log(2))", False),
        ("2**-~999999999", False),
        ("((E**(999*log(2)))**999)**999", False),
        ("2**1e999", False),
        ("cos(exp(10**9))", False),
        ("tan(cosh(10**9))", False),
        ("exp(1/0.000001)", False),
        ("7 % 4", False),
        ("7 // 4", False),
        ("1<<99999999999", False),
        ("[0]*9999999999", False),
        ("(0,)*9999999999", False),
        ("'a'*9999999999", False),
        ("'%9999999999d' % 1", False),
        ("[0 for a in 'aaaa' for b in 'aaaa']", False),
        ("sin(x, evaluate=False)", False),
        ("sin(*x)", False),
        ("x[0]", False),
        ("lambda: 1", False),
        ("(open('x'))!", False),
        ("-" * 1500 + "1", False),
        ("exp(-(12*x + 25)**2)/24 + (3*x + 1)**(3/2)*log(Abs(x))", True),
        ("-(98 - 54)\n", True),
        ("0x5b993", True),
        ("2**1000*x**999", True),
        ("1 0 1\n0 0 1", True),
        ("1" * 3000, False),
        ("the answer: open()", True),  # that of the task itself
    ],
)
def test_what_may_be_evaluated(answer, may):
    assert may_be_checked(answer, "the answer: open()", Task().evaluating) == may
    assert may_be_checked(answer, "the answer: open()", Task().plain)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>a</answer> <answer> b </answer> <answer>c", "b"),
        ("<answer>a<answer>b</answer></answer>", "a<answer>b"),
        ("</answer>x", "</answer>x"),
        ("so \\boxed{2}", "2"),
    ],
)
def test_the_last_answer_in_tags(text, answer):
    assert final_answer(text) == answer


def test_many_open_tags_take_no_time():
    began = time.process_time()
    assert final_answer("<answer>" * 200_000) != ""
    assert time.process_time() - began < 10
