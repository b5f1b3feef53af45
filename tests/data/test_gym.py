"""reasoning-gym as a data set: rows, levels, names and the reward."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("reasoning_gym", reason='needs pip install "viprl[gym]"')

from viprl.data import DataSource, load
from viprl.data.gym import canonical, final_answer, parse, solved
from viprl.errors import InputError


def test_a_row_depends_on_seed_and_index_alone():
    forwards = load(DataSource("reasoning-gym:chain_sum+gcd?levels=0-2&seed=3")).dataset
    backwards = load(DataSource("reasoning-gym:chain_sum+gcd?levels=0-2&seed=3")).dataset
    rows = [forwards[i] for i in range(12)]
    assert [backwards[i] for i in reversed(range(12))] == rows[::-1]
    assert backwards[4:6]["prompt"] == [rows[4]["prompt"], rows[5]["prompt"]]
    assert [(row["task"], row["level"]) for row in rows[:6]] == [
        ("chain_sum", 0), ("gcd", 0), ("chain_sum", 1), ("gcd", 1), ("chain_sum", 2), ("gcd", 2)
    ]  # fmt: skip
    long_sums = [load(DataSource(f"reasoning-gym:chain_sum?level=9&seed={seed}")).dataset for seed in (3, 4)]
    texts = [{data[i]["prompt"] for i in range(40)} for data in long_sums]
    assert len(texts[0]) == len(texts[1]) == 40 and not texts[0] & texts[1]


def test_levels_are_graded():
    def mean_length(level: int) -> float:
        data = load(DataSource(f"reasoning-gym:chain_sum?level={level}", instruction="none")).dataset
        return float(np.mean([len(data[i]["prompt"]) for i in range(50)]))

    assert mean_length(0) < mean_length(3) < mean_length(9)


def test_the_reward_is_the_score_of_the_task():
    row = load(DataSource("reasoning-gym:chain_sum?level=1")).dataset[0]
    right, columns = row["solution"], {key: [row[key]] * 5 for key in ("solution", "task", "metadata")}
    given = [f"<answer>{right}</answer>", f"so \\boxed{{{right}}}", right, "<answer>nothing</answer>", ""]
    assert solved([row["prompt"]] * 5, given, **columns) == [1.0, 1.0, 1.0, 0.0, 0.0]
    assert final_answer("\\boxed{1} or \\boxed{\\frac{1}{2}}.") == "\\frac{1}{2}"
    chat = [[{"role": "assistant", "content": given[0]}]]
    assert solved([row["prompt"]], chat, **{key: value[:1] for key, value in columns.items()}) == [1.0]


@pytest.mark.parametrize("task", ["string_insertion", "spiral_matrix", "n_queens", "countdown", "simple_integration"])
def test_no_answer_runs_as_code(task, tmp_path):
    row, file = load(DataSource(f"reasoning-gym:{task}")).dataset[0], tmp_path / "ran"
    columns = {key: [row[key]] for key in ("task", "metadata")}
    for code in (f"open({str(file)!r}, 'w')", f"sin(open({str(file)!r}, 'w'))", "exit()"):
        assert solved([""], [f"<answer>{code}</answer>"], [row["solution"]], **columns) == [0.0]
    assert not file.exists()
    assert solved([""], [f"<answer>{row['solution']}</answer>"], [row["solution"]], **columns) == [1.0]


def test_equal_answers_in_other_words_still_count():
    row = load(DataSource("reasoning-gym:polynomial_multiplication")).dataset[0]
    columns = {key: [row[key]] * 2 for key in ("solution", "task", "metadata")}
    other = " + ".join(reversed(row["solution"].replace("- ", "+ -").split(" + ")))
    assert solved([""] * 2, [other, other + " + 1"], **columns) == [1.0, 0.0]


def test_a_mapping_has_the_same_meaning_as_a_name():
    name = canonical({"reasoning-gym": ["chain_sum", "gcd"], "levels": [0, 3], "seed": 2})
    assert name == "reasoning-gym:chain_sum+gcd?levels=0-3&seed=2" == str(parse(name))
    options = parse("reasoning-gym:chain_sum?min_terms=3&allow_negation=true").options
    assert options == (("min_terms", 3), ("allow_negation", True))
    with pytest.raises(InputError, match="gym, level"):
        canonical({"gym": "chain_sum", "level": 3})


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("reasoning-gym:chainsum", "chain_sum"),
        ("reasoning-gym", "reasoning-gym:TASK"),
        ("reasoning-gym:chain_sum?level=99", "0 to 10; got 99"),
        ("reasoning-gym:chain_sum?level=x", "'x'"),
        ("reasoning-gym:chain_sum?level=1&levels=0-2", "level and levels"),
        ("reasoning-gym:chain_sum?min_term=3", "min_term"),
        ("reasoning-gym:chain_sum?seed=-1", "'-1'"),
        ("reasoning-gym:chain_sum?seed=" + "1" * 5000, "0 to"),
        ("reasoning-gym:chain_sum?levels=0-999999999999", "range such as"),
        ("reasoning-gym:chain_sum?min_terms=[", "min_terms"),
        ("reasoning-gym:chain_sum?min_terms=[1]", "min_terms"),
    ],
)
def test_unusable_names(name, keys):
    with pytest.raises(InputError, match=keys):
        load(DataSource(name))
