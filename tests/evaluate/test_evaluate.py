"""The estimators against brute force and a known table; the file of completions; what is refused."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("math_verify", reason='needs pip install "viprl[eval]"')
pytest.importorskip("pyarrow", reason='needs pip install "viprl[eval]"')

from viprl.cli import main
from viprl.data import DataSource
from viprl.evaluate import metrics
from viprl.evaluate.evaluation import evaluate_generations, usual_ks, write_results
from viprl.evaluate.generations import Generations, Store, read_generations, seed_of
from viprl.evaluate.grading import grade, scores
from viprl.evaluate.pass_at_k import maj_at_k, mean_at_k, over_problems, pass_at_k
from viprl.evaluate.problems import load_problems
from viprl.evaluate.tables import remarks

DATA = Path(os.environ.get("VIPRL_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


def voted(labels: tuple, k: int) -> float:
    """Mean over all subsets of the right answer's share; label 0 is right, None has no vote."""
    total = Fraction(0)
    for subset in itertools.combinations(labels, k):
        votes = {label: subset.count(label) for label in subset if label is not None}
        winners = [label for label in votes if votes[label] == max(votes.values())]
        total += Fraction(int(0 in winners), max(1, len(winners)))
    return float(total / math.comb(len(labels), k))


LABELS = st.lists(st.sampled_from([0, 0, 1, 2, 3, None]), min_size=1, max_size=9).map(tuple)


@given(LABELS, st.data())
@settings(max_examples=150, deadline=None)
def test_each_estimator_against_all_subsets(labels, data):
    n = len(labels)
    k = data.draw(st.integers(1, n))
    subsets = list(itertools.combinations(labels, k))
    right = labels.count(0)
    wrong = [labels.count(x) for x in (1, 2, 3) if x in labels]
    assert pass_at_k(n, right, k) == pytest.approx(np.mean([0 in s for s in subsets]), abs=1e-12)
    assert mean_at_k(n, right, k) == pytest.approx(np.mean([s.count(0) / k for s in subsets]), abs=1e-12)
    assert maj_at_k(right, wrong, labels.count(None), k) == pytest.approx(voted(labels, k), abs=1e-12)


@pytest.mark.parametrize(
    ("n", "c", "k", "value"),
    [(10, 3, 1, 0.3), (10, 3, 2, 1 - 21 / 45), (10, 3, 7, 119 / 120), (10, 3, 8, 1.0), (5, 0, 5, 0.0), (4, 4, 1, 1.0),
     (32, 1, 8, 0.25), (32, 2, 16, 1 - 120 / 496), (100_000, 1, 1, 1e-5)],
)  # fmt: skip
def test_pass_at_k_by_hand(n, c, k, value):
    assert pass_at_k(n, c, k) == value


def test_pass_at_k_keeps_its_digits_where_binomials_overflow():
    """Against exact fractions; C(4000, 2000) has 1,203 digits."""
    exact = 1 - Fraction(math.comb(3999, 2000), math.comb(4000, 2000))
    assert pass_at_k(4000, 1, 2000) == float(exact) == 0.5
    assert pass_at_k(4000, 1, 1) == 1 / 4000


@pytest.mark.parametrize(
    ("right", "wrong", "unreadable", "k", "value"),
    [
        (2, [1], 0, 1, 2 / 3), (2, [1], 0, 2, 1 / 3 + 2 / 3 / 2), (2, [1], 0, 3, 1.0),
        (1, [1, 1], 0, 3, 1 / 3), (1, [2], 0, 3, 0.0), (2, [2], 0, 4, 0.5), (1, [], 3, 4, 1.0), (1, [], 3, 1, 0.25),
        (0, [3], 1, 2, 0.0), (3, [3, 2], 0, 8, 0.5), (2, [], 2, 2, 5 / 6),
    ],
)  # fmt: skip
def test_maj_at_k_by_hand(right, wrong, unreadable, k, value):
    assert maj_at_k(right, wrong, unreadable, k) == pytest.approx(value, abs=1e-12)


def test_drawn_votes_agree_with_counted_ones_and_repeat(monkeypatch):
    case = {"right": 12, "wrong": [9, 4, 3, 1, 1], "unreadable": 2, "k": 16}
    counted = maj_at_k(**case, rng=np.random.default_rng(0))
    monkeypatch.setattr(metrics, "EXACT_WORK", 0.0)
    drawn = [maj_at_k(**case, rng=np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0] != counted and drawn[0] == pytest.approx(counted, abs=0.02)


def test_many_completions_are_drawn_and_not_counted():
    value = maj_at_k(1000, [500] * 2, 48, 32, np.random.default_rng(0))
    assert 0.9 < value <= 1.0


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 2, 0), (4, 2, 5)])
def test_impossible_numbers(n, c, k):
    with pytest.raises(ValueError, match="expected"):
        pass_at_k(n, c, k)


def test_intervals_cover_and_repeat():
    """Of 400 samples of 30 problems, the 95 % interval holds the true mean in about 95 %."""
    rng = np.random.default_rng(0)
    estimates = over_problems(rng.random((30, 400)), 0)
    assert all(estimate.low <= estimate.value <= estimate.high for estimate in estimates)
    assert 360 <= sum(estimate.low <= 0.5 <= estimate.high for estimate in estimates) <= 395
    values = rng.random((20, 2))
    assert over_problems(values, 3) == over_problems(values, 3) != over_problems(values, 4)
    point = over_problems(np.array([[0.25]]), 0)[0]
    assert (point.low, point.value, point.high) == (0.25, 0.25, 0.25)


# --- a known table ---

KNOWN = [
    {"id": "a", "answer": "1/2", "completions": [r"\boxed{0.5}", r"\boxed{\frac12}", r"\boxed{2}", "dunno"]},
    {"id": "b", "answer": 7, "completions": [r"\boxed{x+1}", r"\boxed{1+x}", r"\boxed{7}", r"\boxed{8}"]},
    {"id": "c", "answer": "3", "completions": [r"\boxed{4}"] * 4},
]
"""By hand. a: 2 right, 1 wrong, 1 without an answer. b: 1 right, wrong classes of 2 and 1. c: nothing right.
Pass@1: 1/2, 1/4, 0; Pass@2: 5/6, 1/2, 0; Pass@4: 1, 1, 0. Mean: 1/2, 1/4, 0.
Maj@1 as Pass@1. Maj@2: a: pairs rr 1; rw 1/2, twice; r- 1, twice; w- 0: (1+1+2)/6 = 2/3; b: r with each of three
others, always a tie: 3/2 / 6 = 1/4. Maj@4: a: 2 against 1: 1; b: 1 against 2: 0."""


@pytest.fixture
def known(tmp_path) -> Path:
    file = tmp_path / "known.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in KNOWN))
    return file


def test_a_known_table_to_the_digit(known, tmp_path):
    result = evaluate_generations(known, [1, 2, 4], "math")
    found = {name: [by_k[k].value for k in (1, 2, 4)] for name, by_k in result.metrics.items()}
    assert found["pass@k"] == pytest.approx([1 / 4, 4 / 9, 2 / 3], abs=1e-15)
    assert found["mean@k"] == pytest.approx([1 / 4] * 3, abs=1e-15)
    assert found["maj@k"] == pytest.approx([1 / 4, (2 / 3 + 1 / 4) / 3, 1 / 3], abs=1e-15)
    rows = {row["id"]: row for row in result.problems}
    assert [rows[i]["correct"] for i in "abc"] == [2, 1, 0] and [rows[i]["unreadable"] for i in "abc"] == [1, 0, 0]
    assert [rows[i]["classes"] for i in "abc"] == [2, 3, 1] and [rows[i]["majority"] for i in "abc"] == [
        "1/2",
        "x+1",
        "4",
    ]
    assert rows["a"]["maj@2"] == pytest.approx(2 / 3) and rows["b"]["maj@2"] == pytest.approx(1 / 4)

    import pyarrow.parquet

    write_results(result, {"verify": "math"}, tmp_path / "deep" / "out.json", tmp_path / "out")
    written = json.loads((tmp_path / "deep" / "out.json").read_text())
    assert list(written) == ["pass@k", "mean@k", "maj@k", "problems", "unscorable", "settings"]
    assert list(written["pass@k"]) == ["1", "2", "4"] and set(written["pass@k"]["1"]) == {"value", "low", "high"}
    assert written["problems"] == result.problems == [json.loads(x) for x in (tmp_path / "out/problems.jsonl").open()]
    assert pyarrow.parquet.read_table(tmp_path / "out" / "problems.parquet").to_pylist() == result.problems


def test_problems_whose_answer_the_checker_cannot_use_are_left_out_and_named(tmp_path):
    file = tmp_path / "file.jsonl"
    boxed = [rf"\boxed{{{text}}}" for text in ("7", "x+1")]
    texts = {"bad": [*boxed, "no answer"], "good": [*boxed, "no answer"]}
    rows = [{"id": i, "answer": {"bad": "$$", "good": "7"}[i], "completions": texts[i]} for i in texts]
    file.write_text(lines(*rows))
    result = evaluate_generations(file, [1], "math")
    assert result.unscorable == ("bad",) and [row["id"] for row in result.problems] == ["good"]
    assert result.metrics["pass@k"][1].value == pytest.approx(1 / 3)
    assert "1 more are left out: the checker cannot use their answers (bad)" in remarks(result)
    write_results(result, {}, tmp_path / "out.json", None)
    assert json.loads((tmp_path / "out.json").read_text())["unscorable"] == ["bad"]
    file.write_text(lines(rows[0]))
    with pytest.raises(ValueError, match="the checker can use none of the 1 problems' answers"):
        evaluate_generations(file, [1], "math")


def test_a_whole_number_is_the_same_answer_in_every_column(tmp_path):
    file, data = tmp_path / "file.jsonl", tmp_path / "data.jsonl"
    file.write_text(lines({"id": "a", "answer": 5.0, "completions": ["5", "x"]}))
    data.write_text(lines({"id": "a", "prompt": "p", "answer": 5}, {"id": "b", "prompt": "q", "answer": 0.5}))
    assert (
        evaluate_generations(file, [1], "exact_match", data=DataSource(str(data)), limit=1).problems[0]["correct"] == 1
    )


def test_maj_does_not_depend_on_the_order_of_completions(known):
    rows = [Generations(row["id"], str(row["answer"]), tuple(row["completions"])) for row in KNOWN]
    turned = [Generations(row.id, row.answer, row.completions[::-1]) for row in rows]
    first, second = (scores(grade(group, "boxed"), [1, 2, 3, 4], 0) for group in (rows, turned))
    assert first.metrics == second.metrics


def test_usual_ks():
    assert usual_ks(32) == (1, 2, 4, 8, 16, 32) and usual_ks(6) == (1, 2, 4, 6) and usual_ks(1) == (1,)


# --- what is refused ---


def lines(*rows: dict | str) -> str:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


GOOD = {"id": "a", "answer": "1", "completions": ["x", "y"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (lines(), "holds no problems"),
        (lines(GOOD, "{oops"), "line 2 is not valid JSON"),
        (lines(GOOD) + '{"id": "b", "comp', "line 2 is not valid JSON .*the file ends within this line"),
        (lines([1]), "line 1 is a list; expected an object"),
        (lines({"id": "a", "completions": ["x"]}), "line 1 has no answer; its keys are id, completions"),
        (lines({**GOOD, "answer": None}), "problem 'a' has the answer None"),
        (lines({**GOOD, "answer": " "}), "problem 'a' has the answer ' '"),
        (lines({**GOOD, "id": None}), "the id is None"),
        (lines({**GOOD, "completions": []}), "problem 'a' has no completions"),
        (lines({**GOOD, "completions": "xy"}), "the completions of problem 'a' are a text; expected a list of texts"),
        (lines({**GOOD, "completions": ["x", None]}), "completion 1 of problem 'a' is of type NoneType"),
        (lines(GOOD, {**GOOD, "answer": "2"}), "line 2: the id 'a' stands in line 1 already"),
        (
            lines(GOOD, {**GOOD, "id": "b", "completions": ["x"]}),
            "problem 'b' has 1 completions, but problem 'a' has 2",
        ),
        (lines({**GOOD, "completions": ["", " "]}), "every completion is empty"),
    ],
)
def test_files_that_are_no_generations(tmp_path, text, message):
    file = tmp_path / "file.jsonl"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_generations(file)


def test_a_file_that_is_missing_or_no_text(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        read_generations(tmp_path / "nothing.jsonl")
    with pytest.raises(ValueError, match="a folder; expected a file"):
        read_generations(tmp_path)
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="no JSON-lines text"):
        read_generations(tmp_path / "bytes.jsonl")


@pytest.mark.parametrize("ks", [[5], [0], [1, 1], []])
def test_ks_that_do_not_fit(known, ks):
    with pytest.raises(ValueError, match=r"completions a problem, but there are 4|at least 1$|different whole numbers"):
        evaluate_generations(known, ks or [2, 2], "math")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "1/2"), ("b", "7"), ("x", "3")], "1 of its 3 ids are not in .*'c'"),
        ([("a", "1/2"), ("b", "9"), ("c", "3")], "problem 'b' has the answer '7' there and '9' in"),
        ([("a", "1/2"), ("b", "7"), ("c", "3"), ("d", "4")], "lacks 1 of the 4 problems"),
        ([("a", "1/2"), ("a", "1/2"), ("c", "3")], "rows 0 and 1 have the same id 'a'"),
        ([("a", "1/2"), ("b", None), ("c", "3")], "row 1: the answer is empty"),
    ],
)
def test_generations_of_another_dataset(known, tmp_path, rows, message):
    data = tmp_path / "data.jsonl"
    data.write_text(
        "".join(json.dumps({"id": i, "prompt": f"q{n}", "answer": a}) + "\n" for n, (i, a) in enumerate(rows))
    )
    with pytest.raises(ValueError, match=message):
        evaluate_generations(known, [1], "math", data=DataSource(str(data)))


def test_generations_of_the_dataset(known, tmp_path):
    data = tmp_path / "data.jsonl"
    rows = [("a", "1/2"), ("b", "7"), ("c", "3"), ("d", "4")]
    data.write_text("".join(json.dumps({"id": i, "prompt": f"q{i}", "answer": a}) + "\n" for i, a in rows))
    assert evaluate_generations(known, [1], "math", data=DataSource(str(data)), limit=3).n == 4


def test_bad_rows_of_the_dataset_are_left_out_on_demand_and_named(known, tmp_path, caplog):
    data = tmp_path / "data.jsonl"
    rows = [("a", "1/2"), ("x", ""), ("b", "7"), ("c", "3")]
    data.write_text(lines(*({"id": i, "prompt": f"q{i}", "answer": a} for i, a in rows)))
    spec = DataSource(str(data), skip_bad_rows=True)
    assert evaluate_generations(known, [1], "math", data=spec).n == 4
    assert "left out: 1 row is bad (counted from 0): row 1: the answer is empty" in caplog.text
    data.write_text(lines(*({"prompt": f"q{i}", "answer": a} for i, a in rows)))
    assert [problem.id for problem in load_problems(spec, 2)] == ["0", "2"]  # the same when row 1 is mended


# --- the growing file ---


def test_a_torn_last_line_is_cut_away_and_nothing_else(tmp_path):
    file = tmp_path / "samples.jsonl"
    store = Store(file)
    rows = [Generations(f"p{i}", "1", ("a\n", "\udcff é"), i) for i in range(3)]
    for row in rows:
        store.append(row)
    whole = file.read_bytes()
    third = whole[:-1].rfind(b"\n") + 1
    for cut in range(third, len(whole)):
        file.write_bytes(whole[:cut])
        assert list(Store(file).found.values()) == rows[:2]
        assert file.read_bytes() == whole[:third]
    Store(file).append(rows[2])
    assert file.read_bytes() == whole
    file.write_bytes(b"{rubbish}\n" + whole)
    with pytest.raises(ValueError, match="line 1 cannot be read"):
        Store(file)


def test_seeds_depend_on_seed_and_id_alone():
    seeds = {seed_of(s, name) for s in (0, 1) for name in ("a", "b", "1", "11")}
    assert len(seeds) == 8 and seed_of(0, "a") == seed_of(0, "a") and max(seeds) < 2**48


# --- the command ---


def viprl(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "viprl", "evaluate", *map(str, arguments)], capture_output=True, text=True, timeout=300
    )


def test_the_command_scores_a_file(known, tmp_path):
    out = viprl("--generations", known, "--k", "1,4", "--json", tmp_path / "out.json")
    assert out.returncode == 0, out.stderr
    assert "66.67" in out.stdout and "8.3% of the completions have no answer" in out.stdout
    assert json.loads((tmp_path / "out.json").read_text())["pass@k"]["4"]["value"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give either --generations FILE, or --model"),
        (("--generations", "nothing.jsonl"), "nothing.jsonl: no such file"),
        (("--generations", "KNOWN", "--k", "64"), "k = 64 needs at least 64 completions a problem, but there are 4"),
        (("--generations", "KNOWN", "--k", "one"), "expected whole numbers separated by commas"),
        (("--generations", "KNOWN", "--verify", "maths"), "expected exact_match, math, math_last_number"),
        (("--generations", "KNOWN", "--limit", "2"), "name it with --dataset"),
        (("--generations", "KNOWN", "--k", "0"), "k is 0; k must be at least 1"),
        (("--generations", "KNOWN", "--n", "4", "--top-p", "0.7"), "--n, --top-p: the completions of --generations"),
        (("--generations", "KNOWN", "--no-chat"), "--chat: the completions of --generations are there already"),
        (("--generations", "KNOWN", "--dataset", "BAD"), "1 row is bad (counted from 0): row 1"),
        (("--generations", "KNOWN", "--dataset", "BAD"), "--skip-bad-rows as an option"),
    ],
)
def test_mistakes_are_one_line(known, arguments, message, monkeypatch, capsys):
    bad = known.with_name("bad.jsonl")
    bad.write_text(lines({"prompt": "q", "answer": "1"}, {"prompt": "", "answer": "2"}))
    given = [{"KNOWN": str(known), "BAD": str(bad)}.get(a, a) for a in arguments]
    monkeypatch.setattr(sys, "argv", ["viprl", "evaluate", *given])
    with pytest.raises(SystemExit) as end:
        main()
    error = capsys.readouterr().err
    assert end.value.code == 2 and message in error and len(error.strip().splitlines()) == 1


# --- real problems ---


@pytest.mark.skipif(not (DATA / "math500.jsonl.gz").exists(), reason="needs shared/data with MATH-500")
def test_references_of_math500_are_right_as_they_stand_and_wrong_for_each_other():
    import gzip

    with gzip.open(DATA / "math500.jsonl.gz", "rt") as file:
        answers = [json.loads(line)["answer"] for line in file]
    problems = [Generations(str(i), a, (rf"so \boxed{{{a}}}", "?")) for i, a in enumerate(answers)]
    graded = grade(problems, "boxed")
    assert [p.answer for p in graded if p.correct != (True, False)] == []
