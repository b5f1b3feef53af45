"""Reward functions, their names in configuration files, and the form that verl calls."""

from __future__ import annotations

import importlib
import math as stdlib_math
import subprocess
import sys

import numpy as np
import pytest

from refused import refused
from viprl import rewards
from viprl.errors import DataError, InputError, MissingPackageError
from viprl.rewards import compute_score, exact_match, math, math_last_number, resolve_rewards
from viprl.rewards.grading import verifier


def test_rewards_of_texts_and_chats():
    pytest.importorskip("math_verify", reason='needs pip install "viprl[eval]"')
    chat = [{"role": "assistant", "content": r"\boxed{0.5}"}]
    texts = [r"\boxed{1/2}", chat, "0.5", r"\boxed{2}", "", [{"role": "assistant", "content": None}], r"\boxed{1}"]
    solutions = [r"\frac12", "1/2", "0.5", "1/2", "1/2", "1/2", None]
    assert math([""] * 7, texts, solutions) == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, None]
    assert math_last_number([""] * 3, ["so 5 of 7", "7!", "none"], [7, "7", "7"]) == [1.0, 1.0, 0.0]
    assert exact_match([""] * 3, [" a  b", "0.5", "x"], ["a b", "1/2", None]) == [1.0, 0.0, None]


def test_completions_of_other_forms():
    parts = [{"role": "assistant", "content": [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]}]
    completions = [parts, {"role": "assistant", "content": "a b"}, None, [], [{"role": "assistant"}], "a b"]
    solutions = np.array(["a b"] * 6, dtype=object)
    assert exact_match(None, completions, solutions) == [1.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    assert exact_match([""], ["0.00003"], [3e-5]) == [1.0] and exact_match([""] * 2, ["5", "7"], (5.0, ["7"])) == [
        1.0,
        1.0,
    ]
    with refused(InputError, "bytes"):
        exact_match([""], [b"a"], ["a"])


def test_a_missing_column_is_named_with_those_there_are():
    columns = {"level": [1], "answer": ["5"], "completion_ids": [[1]], "trainer_state": object()}
    with refused(InputError, "'solution'", "level, answer", "rename_column('answer', 'solution')"):
        math(prompts=["q"], completions=[r"\boxed{5}"], **columns)
    with refused(InputError, "completions"):
        exact_match(prompts=["q"], solution=["5"])


@pytest.mark.parametrize("solution", ["12", {"a": 1, "b": 2}, {"1", "2"}, 5, ["1"], b"12", np.zeros(())])
def test_a_solution_column_that_is_not_a_list_of_n(solution):
    with pytest.raises(InputError, match="solution"):
        exact_match([""] * 2, ["1", "2"], solution)


def test_an_unusable_solution_is_named_with_its_place():
    with refused(DataError, "position 1 of 2", "dict"):
        exact_match([""] * 2, ["1", "2"], ["1", {"target": "2"}])


@pytest.mark.parametrize(
    ("solution_str", "ground_truth", "mode", "score"),
    [(r"so \boxed{x+1}", "1+x", "boxed", 1.0), ("0.5", None, "boxed", 0.0), ("it is 5", "5", "last_number", 1.0)],
)
def test_scores_as_verl_calls_them(solution_str, ground_truth, mode, score):
    pytest.importorskip("math_verify", reason='needs pip install "viprl[eval]"')
    found = importlib.import_module("viprl.rewards").compute_score(
        data_source="math", solution_str=solution_str, ground_truth=ground_truth, extra_info={"index": 0}, mode=mode
    )
    assert found == score and compute_score.__module__ == "viprl.rewards.verl"


def test_names_and_import_paths(tmp_path, monkeypatch):
    pytest.importorskip("math_verify", reason='needs pip install "viprl[eval]"')
    (tmp_path / "my_rewards.py").write_text("def half(prompts, completions, **_):\n    return [0.5] * len(prompts)\n")
    monkeypatch.chdir(tmp_path)
    names = ["exact_match", "math", "math_last_number", "my_rewards:half"]
    found = resolve_rewards(names)
    assert found[:3] == [exact_match, math, math_last_number] and found[3]([1, 2], ["", ""]) == [0.5, 0.5]
    assert stdlib_math.sqrt(4) == 2 and rewards.math is math


@pytest.mark.parametrize(
    "names", [[], ["exactmatch"], ["rewards.py:f"], ["no_such_module:f"], ["math:no_such_name"], ["math:pi"]]
)
def test_unusable_names(names):
    with pytest.raises(InputError) as error:
        resolve_rewards(names)
    assert not names or names[0] in str(error.value)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("exactmatch", "exact_match"),
        ("pkg.my_rewards.half", "'pkg.my_rewards:half'"),
        ("my_rewards:haff", "half"),
        ("my_reward:half", "my_reward.py"),
    ],
)
def test_a_name_that_is_nearly_right(tmp_path, monkeypatch, name, hint):
    (tmp_path / "my_rewards.py").write_text("def half(prompts, completions, **_):\n    return [0.5] * len(prompts)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_rewards", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with refused(InputError, repr(name), hint):
        resolve_rewards([name])


def test_a_missing_package(monkeypatch):
    monkeypatch.setattr(verifier.importlib.util, "find_spec", lambda name: None)
    with refused(MissingPackageError, 'pip install "viprl[eval]"'):
        resolve_rewards(["math"])
    assert resolve_rewards(["exact_match"]) == [exact_match]


def test_the_package_imports_without_heavy_packages():
    code = (
        "import sys, viprl.rewards; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'datasets', 'sympy', 'math_verify', 'pyarrow')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
