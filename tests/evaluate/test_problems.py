"""Problems of data sets, in the format of a model."""

from __future__ import annotations

import json

import pytest

import tiny
from refused import refused
from viprl.data import DataSource
from viprl.errors import DataError, InputError
from viprl.evaluate.problems import check_fit, formatted_for, load_problems, tokenized
from viprl.utils.json_lines import write_json_lines

TEMPLATE = "{% for m in messages %}{{ m['content'] }} {% endfor %}"


def test_ids_and_bad_rows(tmp_path, caplog):
    rows = [{"prompt": "q0", "answer": 5.0}, {"prompt": "q1", "answer": None}, {"prompt": "q2", "answer": 0.5}]
    data = tmp_path / "data.jsonl"
    write_json_lines(data, rows)
    source = DataSource(str(data), skip_bad_rows=True)
    assert [(p.id, p.answer) for p in load_problems(source)] == [("0", "5"), ("2", "0.5")]
    assert "row 2" in caplog.text
    write_json_lines(data, [row | {"id": f"p{i}"} for i, row in enumerate(rows)])
    assert [p.id for p in load_problems(source, 1)] == ["p0"]
    write_json_lines(data, [row | {"id": "a"} for row in rows])
    with pytest.raises(DataError, match=r"rows 1 and 3 .*'a'"):
        load_problems(source)
    with pytest.raises(DataError, match="row 2"):
        load_problems(DataSource(str(data)))


def test_an_endless_data_set_is_refused_before_a_row_is_generated(monkeypatch):
    monkeypatch.setattr("viprl.data.gym._generator", lambda *_: pytest.fail("a row was generated"))
    source = DataSource("reasoning-gym:chain_sum")
    for read in (load_problems, lambda source: formatted_for(source, tiny.tokenizer(), True)):
        with pytest.raises(InputError, match="chain_sum"):
            read(source)


def test_the_format_that_suits_a_model(tmp_path):
    source = DataSource(str(tmp_path / "data.jsonl"))
    (tmp_path / "data.jsonl").write_text(json.dumps({"prompt": "a a", "solution": "a"}) + "\n")
    tokenizer = tiny.tokenizer()
    assert formatted_for(source, tokenizer, False) == source
    (plain,) = load_problems(formatted_for(source, tokenizer, True))
    assert plain.prompt.startswith("a a") and "\\boxed" in plain.prompt
    tokenizer.chat_template = TEMPLATE
    problems = load_problems(formatted_for(source, tokenizer, True))
    assert problems[0].prompt[0]["role"] == "user" and "\\boxed" in problems[0].prompt[0]["content"]
    assert tokenized(problems, tokenizer, "m")[0].tokens[:2] == (3, 3)
    (tmp_path / "data.jsonl").write_text(json.dumps({"prompt": "say \\boxed", "solution": "a"}) + "\n")
    assert load_problems(formatted_for(source, tokenizer, True))[0].prompt[0]["content"] == "say \\boxed"
    with pytest.raises(DataError, match="mine"):
        tokenized(problems, tiny.tokenizer(), "mine")


def test_prompts_that_do_not_fit_the_context(tmp_path):
    write_json_lines(tmp_path / "data.jsonl", [{"id": "p", "prompt": "a b", "solution": "a"}])
    problems = tokenized(load_problems(DataSource(str(tmp_path / "data.jsonl"))), tiny.tokenizer(), "mine")
    check_fit(problems, 64, 62, "mine")
    check_fit(problems, None, 10**6, "mine")
    for context, fix in ((64, "--max-new-tokens to at most 62"), (2, "longer context")):
        with refused(DataError, "'p'", fix):
            check_fit(problems, context, 63, "mine")
