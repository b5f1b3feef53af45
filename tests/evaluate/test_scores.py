"""Metrics of files of completions, and what is written of them."""

from __future__ import annotations

import json

import pyarrow.parquet
import pytest

from known_generations import KNOWN, known_file
from shared_data import SHARED
from viprl.data import DataSource
from viprl.errors import DataError, InputError
from viprl.evaluate.evaluation import evaluate_generations
from viprl.evaluate.generations import Generations
from viprl.evaluate.graded import grade
from viprl.evaluate.results import remarks, write_results
from viprl.evaluate.scores import chosen_ks, scores
from viprl.utils.json_lines import log_rows, write_json_lines


def test_known_completions(tmp_path):
    result = evaluate_generations(known_file(tmp_path), [1, 2, 4], "math")
    found = {name: [by_k[k].mean for k in (1, 2, 4)] for name, by_k in result.metrics.items()}
    assert found["pass@k"] == pytest.approx([1 / 4, 4 / 9, 2 / 3], abs=1e-15)
    assert found["mean@k"] == pytest.approx([1 / 4] * 3, abs=1e-15)
    assert found["maj@k"] == pytest.approx([1 / 4, (2 / 3 + 1 / 4) / 3, 1 / 3], abs=1e-15)
    columns = {key: [row[key] for row in result.problems] for key in result.problems[0]}
    assert columns["id"] == ["a", "b", "c"] and columns["correct"] == [2, 1, 0] and columns["unreadable"] == [1, 0, 0]
    assert columns["classes"] == [2, 3, 1] and columns["majority"] == ["1/2", "x+1", "4"]
    assert columns["maj@2"] == pytest.approx([2 / 3, 1 / 4, 0])

    write_results(result, {"verify": "math"}, tmp_path / "deep" / "out.json", tmp_path / "out")
    written = json.loads((tmp_path / "deep" / "out.json").read_text())
    assert written == json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert list(written) == ["pass@k", "mean@k", "maj@k", "problems", "unscorable", "settings"]
    assert list(written["pass@k"]) == ["1", "2", "4"] and set(written["pass@k"]["1"]) == {"value", "low", "high"}
    assert written["problems"] == result.problems == list(log_rows(tmp_path / "out" / "problems.jsonl"))
    assert pyarrow.parquet.read_table(tmp_path / "out" / "problems.parquet").to_pylist() == result.problems


def test_problems_with_an_unusable_answer_are_left_out(tmp_path):
    file, texts = tmp_path / "file.jsonl", [r"\boxed{7}", r"\boxed{x+1}", "no answer"]
    rows = [{"id": name, "answer": answer, "completions": texts} for name, answer in (("bad", "$$"), ("good", "7"))]
    write_json_lines(file, rows)
    result = evaluate_generations(file, [1], "math")
    assert result.unscorable == ("bad",) and [row["id"] for row in result.problems] == ["good"]
    assert result.metrics["pass@k"][1].mean == pytest.approx(1 / 3)
    assert any("bad" in line for line in remarks(result))
    write_results(result, {}, tmp_path / "out.json", None)
    assert json.loads((tmp_path / "out.json").read_text())["unscorable"] == ["bad"]
    write_json_lines(file, rows[:1])
    with pytest.raises(DataError, match="1 problem"):
        evaluate_generations(file, [1], "math")


def test_maj_does_not_depend_on_the_order_of_completions():
    rows = [Generations(row["id"], str(row["answer"]), tuple(row["completions"])) for row in KNOWN]
    turned = [Generations(row.id, row.answer, row.completions[::-1]) for row in rows]
    first, second = (scores(grade(group, "boxed"), [1, 2, 3, 4], 0) for group in (rows, turned))
    assert first.metrics == second.metrics


def test_usual_ks():
    found = {n: chosen_ks(None, n) for n in (32, 6, 1)}
    assert found == {32: [1, 2, 4, 8, 16, 32], 6: [1, 2, 4, 6], 1: [1]}


@pytest.mark.parametrize("ks", [[5], [0], [2, 2]])
def test_unusable_ks(tmp_path, ks):
    with pytest.raises(InputError, match=str(ks[0])):
        evaluate_generations(known_file(tmp_path), ks, "math")


def test_completions_of_the_problems_of_a_data_set(tmp_path):
    file, data = known_file(tmp_path), tmp_path / "data.jsonl"
    rows = [("a", "1/2"), ("b", "7"), ("c", "3"), ("d", "0.25")]  # a fraction makes the whole column floats
    write_json_lines(data, [{"id": i, "prompt": f"q{i}", "answer": a} for i, a in rows])
    assert evaluate_generations(file, [1], "math", data=DataSource(str(data)), limit=3).n == 4
    with pytest.raises(DataError, match="3 of the 4 problems"):
        evaluate_generations(file, [1], "math", data=DataSource(str(data)))
    with pytest.raises(InputError, match="--dataset"):
        evaluate_generations(file, [1], "math", limit=3)


@pytest.mark.skipif(not (SHARED / "math500.jsonl.gz").exists(), reason="needs the shared data")
def test_references_of_math500_are_right():
    rows = log_rows(SHARED / "math500.jsonl.gz")
    problems = [
        Generations(str(i), row["answer"], (rf"so \boxed{{{row['answer']}}}", "?")) for i, row in enumerate(rows)
    ]
    assert [p.answer for p in grade(problems, "boxed") if p.correct != (True, False)] == []
