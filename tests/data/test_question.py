"""Formats of prompts, and answers of rows."""

from __future__ import annotations

import pytest

from viprl.data.answer import read_answer
from viprl.data.question import Format
from viprl.errors import DataError

CHAT = [{"role": "user", "content": "q"}]
TALK = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]


@pytest.mark.parametrize(
    ("form", "question", "prompt"),
    [
        (Format(), "q", "q"),
        (Format(), CHAT, CHAT),
        (Format("{question} ="), "q", "q ="),
        (Format("Think."), "q", "q\n\nThink."),
        (
            Format("{question} =", "be brief"), "q",
            [{"role": "system", "content": "be brief"}, {"role": "user", "content": "q ="}],
        ),
        (Format(chat=True), "q", CHAT),
        (Format(chat=False), CHAT, "q"),
        (Format("{question}!"), r"\frac{1}{2} {question}", r"\frac{1}{2} {question}!"),
        (Format("{question}!"), TALK, [*TALK[:2], {"role": "user", "content": "c!"}]),
    ],
)  # fmt: skip
def test_formats(form, question, prompt):
    assert form(question) == prompt


@pytest.mark.parametrize(
    ("form", "question"), [(Format(chat=False), TALK), (Format("boxed"), [{"role": "system", "content": "x"}])]
)
def test_chats_that_do_not_fit_the_format(form, question):
    with pytest.raises(DataError):
        form(question)


def test_answers_after_a_mark():
    assert read_answer("a #### b #### 12", "####") == "12"
    assert read_answer("#### -1,234.5", "####") == "-1234.5" and read_answer("#### (1,2)", "####") == "(1,2)"
    assert read_answer(" 7 ", None) == "7"
