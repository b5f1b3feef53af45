"""What counts as a prompt, as the same prompt, and as its text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from viprl.prompts import identity, text

SYSTEM = {"role": "system", "content": "You are good at sums."}
QUESTION = {"role": "user", "content": "What is 2 + 2?"}


def parts(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": one} for one in texts]


class TestIdentity:
    def test_of_a_string_is_known(self) -> None:
        # sha256 of the JSON string "x", quotes included: computed with a shell, `printf '"x"' | sha256sum`
        assert identity("x") == "sha:ba2df4903a2c14e86dc3bcca58911b44ac1d2514b7227bf6eb08cfb978f55a1b"

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ([QUESTION], [dict(reversed(QUESTION.items()))]),
            ([QUESTION], (QUESTION,)),
            ([QUESTION], np.array([QUESTION], dtype=object)),
            ([QUESTION], [QUESTION | {"tool_calls": None}]),
            ([QUESTION], [{"role": "user", "content": parts("What is 2 + 2?")}]),
            ([QUESTION], {"prompt": [QUESTION], "id": None, "solution": "4"}),
            ("x", {"prompt": "x", "solution": "4"}),
            ({"prompt": "x", "id": 7}, {"prompt": [QUESTION], "id": "7"}),
            ({"prompt": "x", "id": 7}, {"prompt": "x", "id": np.int64(7)}),
        ],
    )
    def test_same(self, one: object, other: object) -> None:
        assert identity(one) == identity(other)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("x", [{"role": "user", "content": "x"}]),
            ("x", "x "),
            ("x", {"prompt": "x", "id": 0}),
            ({"prompt": "x", "id": 0}, {"prompt": "x", "id": 1}),
            ([QUESTION], [SYSTEM, QUESTION]),
            ([SYSTEM, QUESTION], [QUESTION, SYSTEM]),
            ([{"role": "user", "content": "a\nb"}], [{"role": "user", "content": parts("a", "b")}]),
            ('{"a":1}', [{"role": "user", "content": '{"a":1}'}]),
            ("é", "e\u0301"),
            ("\ud800", "\ud801"),
        ],
    )
    def test_different(self, one: object, other: object) -> None:
        assert identity(one) != identity(other)

    def test_pictures_count(self) -> None:
        chats = [
            [{"role": "user", "content": [{"type": "image", "url": url}, *parts("What is this?")]}]
            for url in ("a.png", "b.png")
        ]
        assert identity(chats[0]) != identity(chats[1])
        assert text(chats[0]) == text(chats[1]) == "What is this?"

    def test_a_picture_that_is_no_json_needs_an_id(self) -> None:
        chat = [{"role": "user", "content": [{"type": "image", "image": object()}]}]
        with pytest.raises(TypeError, match=r"holds a object.*'id'"):
            identity(chat)
        assert identity({"prompt": chat, "id": "p1"}) == "id:p1"

    @given(st.text(), st.text())
    def test_strings_share_an_identity_only_when_equal(self, one: str, other: str) -> None:
        assert (identity(one) == identity(other)) == (one == other)

    def test_leaves_the_prompt_alone(self) -> None:
        chat = [{"role": "user", "content": "x", "name": None}]
        identity(chat)
        assert chat == [{"role": "user", "content": "x", "name": None}]


class TestText:
    @pytest.mark.parametrize(
        ("prompt", "expected"),
        [
            ("  as it is\n", "  as it is\n"),
            ("", ""),
            ({"prompt": "x", "id": 3}, "x"),
            ([SYSTEM, QUESTION], "What is 2 + 2?"),
            ({"prompt": [SYSTEM, QUESTION]}, "What is 2 + 2?"),
            (
                [QUESTION, {"role": "assistant", "content": "4"}, {"role": "user", "content": "Sure?"}],
                "What is 2 + 2?\nSure?",
            ),
            ([SYSTEM, {"role": "assistant", "content": "Well"}], "You are good at sums.\nWell"),
            ([{"role": "user", "content": parts("one", "two")}], "one\ntwo"),
            (
                [{"role": "assistant", "content": None, "tool_calls": []}, {"role": "tool", "content": "4"}],
                "\n4",
            ),
        ],
    )
    def test_of(self, prompt: object, expected: str) -> None:
        assert text(prompt) == expected


@pytest.mark.parametrize("function", [identity, text])
@pytest.mark.parametrize(
    ("prompt", "error", "message"),
    [
        (None, TypeError, "type NoneType"),
        (3, TypeError, "type int"),
        (b"x", TypeError, "type bytes"),
        ([], ValueError, "without messages"),
        ({"text": "x"}, ValueError, r"keys \['text'\]"),
        (QUESTION, ValueError, "single message into a list"),
        ({"prompt": {"prompt": "x"}}, TypeError, "type dict"),
        ({"prompt": "x", "id": 1.5}, TypeError, "id of type float"),
        ({"prompt": "x", "id": True}, TypeError, "id of type bool"),
        ({"prompt": "x", "id": ""}, ValueError, "empty prompt id"),
        (["x", "y"], TypeError, "message 0 .* type str"),
        ([QUESTION, {"content": "x"}], ValueError, "message 1 .* 'role'"),
        ([{"role": "user"}], TypeError, "content of message 0 .* NoneType"),
        ([{"role": "user", "content": 3}], TypeError, "content of message 0 .* int"),
        ([{"role": "user", "content": ["x"]}], TypeError, "message 0 .* part"),
        ([{"role": "user", "content": [{"type": "text"}]}], TypeError, "'text' is of type NoneType"),
    ],
)
def test_what_is_no_prompt(function: object, prompt: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        function(prompt)  # type: ignore[operator]
