"""`viprl data show`."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_files import TEMPLATE, lines
from typer.testing import CliRunner

import tiny
from viprl.cli import app
from viprl.data import NAMED
from viprl.errors import DataError, InputError


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model with a context of 64 tokens."""
    return tiny.save(tmp_path_factory.mktemp("model"))


def show(*arguments: object) -> str:
    """What the command prints, in one line."""
    result = CliRunner().invoke(app, ["data", "show", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_the_summary_of_a_data_set(tmp_path, model):
    rows = [{"problem": "a b", "answer": "1"}, {"problem": "a b", "answer": "2"}, {"problem": "c", "answer": None}]
    file = lines(tmp_path / "d.jsonl", [*rows, {"problem": "a " * 30, "answer": "3"}])
    tiny.save(tmp_path / "chat")
    tiny.tokenizer(chat_template=TEMPLATE).save_pretrained(tmp_path / "chat")
    found = show(file, "--chat", "--skip-bad-rows", "--model", tmp_path / "chat", "--completion", 33)
    for words in (
        "prompt: problem", "answer: answer", "rows 4", "prompts 2", "duplicates 1 ", "row 1: 1 (1), 2 (1)",
        "1 row is bad: row 3: ", "longest 32", "64 tokens; 1 prompts", "<user> a b <go>", "to train on 2 rows",
        "1 bad row and 1 overlong row", "answer 1",
    ):  # fmt: skip
        assert words in found, words


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), ("none", "1 bad row", "skip_bad_rows", "2 rows")),
        (("--skip-bad-rows",), ("2 rows", "1 bad row")),
        (("--model", "MODEL", "--completion", "62"), ("none", "1 bad row and 1 overlong row", "1 rows")),
        (("--model", "MODEL", "--completion", "63"), ("none", "1 bad row and 2 overlong rows")),
    ],
)
def test_what_training_would_do_with_bad_and_overlong_rows(tmp_path, model, options, words):
    rows = [{"prompt": "a b", "answer": "1"}, {"prompt": "c d e", "answer": "2"}, {"prompt": "", "answer": "1"}]
    given = [str(model) if option == "MODEL" else option for option in options]
    found = show(lines(tmp_path / "d.jsonl", rows), *given).partition("to train on")[2]
    assert all(word in found for word in words)


def test_options_of_the_columns(tmp_path):
    file = lines(tmp_path / "d.jsonl", [{"q": "a", "right": "x: 5"}])
    found = show(file, "--prompt-column", "q", "--solution-column", "right", "--answer-after", ":")
    assert "to train on 1 rows (duplicates: keep)" in found and found.endswith("answer 5")


def test_options_of_the_chat_template(tmp_path, model):
    tiny.save(tmp_path / "chat")
    thinking = TEMPLATE + "{% if enable_thinking is defined and not enable_thinking %}<quick>{% endif %}"
    tiny.tokenizer(chat_template=thinking).save_pretrained(tmp_path / "chat")
    command = [lines(tmp_path / "d.jsonl", [{"prompt": "a", "answer": "1"}]), "--chat", "--model", tmp_path / "chat"]
    assert "<go><quick>" not in show(*command)
    for given in ('{"enable_thinking": false}', "{enable_thinking: false}", "enable_thinking: false"):
        assert "<go><quick>" in show(*command, "--chat-template-kwargs", given)
    for given in ("[1]", "{a", "x", "{1: 2}"):
        result = CliRunner().invoke(app, ["data", "show", *map(str, command), "--chat-template-kwargs", given])
        assert isinstance(result.exception, InputError) and given in str(result.exception)


def test_a_template_that_fails(tmp_path):
    tiny.save(tmp_path / "chat")
    tiny.tokenizer(chat_template="{{ raise_exception('roles') }}").save_pretrained(tmp_path / "chat")
    file = lines(tmp_path / "d.jsonl", [{"prompt": "a", "answer": "1"}])
    result = CliRunner().invoke(app, ["data", "show", file, "--chat", "--model", str(tmp_path / "chat")])
    assert isinstance(result.exception, DataError) and "prompt 1" in str(result.exception)


def test_the_list_of_named_sets():
    found = show()
    assert all(name in found for name in NAMED)
