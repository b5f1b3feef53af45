"""Prompts: their identity, their text, and batches of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from viprl.errors import InputError
from viprl.prompts import PromptBatch, identity, text

SYSTEM = {"role": "system", "content": "You are good at sums."}
QUESTION = {"role": "user", "content": "What is 2 + 2?"}


def parts(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": one} for one in texts]


class TestIdentity:
    def test_of_a_string(self) -> None:
        # sha256 of the JSON string "x", quotes included: printf '"x"' | sha256sum
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

    def test_images_count(self) -> None:
        chats = [
            [{"role": "user", "content": [{"type": "image", "url": url}, *parts("What is this?")]}]
            for url in ("a.png", "b.png")
        ]
        assert identity(chats[0]) != identity(chats[1])
        assert text(chats[0]) == text(chats[1]) == "What is this?"

    def test_an_image_that_is_not_json_needs_an_id(self) -> None:
        chat = [{"role": "user", "content": [{"type": "image", "image": object()}]}]
        with pytest.raises(TypeError, match=r"object.*'id'"):
            identity(chat)
        assert identity({"prompt": chat, "id": "p1"}) == "id:p1"

    @pytest.mark.parametrize(
        ("one", "other"),
        [(b"one", b"other"), (np.zeros((2, 3)), np.zeros((3, 2))), (np.zeros((2, 2)), np.ones((2, 2))),
         (np.zeros((2, 2), dtype=np.uint8), np.zeros((2, 2), dtype=np.int8)), ("a.png", "b.png")],
    )  # fmt: skip
    def test_images_count_by_their_content(self, one: object, other: object) -> None:
        def chat(image: object) -> list:
            return [{"role": "user", "content": [{"type": "image", "image": image}, *parts("What is this?")]}]

        copy = one.copy() if isinstance(one, np.ndarray) else one
        assert identity(chat(one)) == identity(chat(copy)) != identity(chat(other))
        assert text(chat(one)) == "What is this?"

    def test_images_of_pil_and_tensors_count_by_their_content(self) -> None:
        image, torch = pytest.importorskip("PIL.Image"), pytest.importorskip("torch")

        def key(content: object) -> str:
            return identity([{"role": "user", "content": [{"type": "image", "image": content}]}])

        red, blue = (image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
        assert key(red) == key(red.copy()) != key(blue)
        assert key(red) != key(red.resize((2, 8)))
        assert key(torch.zeros(2, 2)) == key(torch.zeros(2, 2)) != key(torch.ones(2, 2))

    @given(st.text(), st.text())
    def test_strings_share_an_identity_only_when_equal(self, one: str, other: str) -> None:
        assert (identity(one) == identity(other)) == (one == other)

    def test_does_not_change_the_prompt(self) -> None:
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


def test_a_batch_merges_the_positions_of_a_prompt() -> None:
    batch = PromptBatch(["a", [QUESTION], "a"], text)
    assert batch.keys == (identity("a"), identity([QUESTION]), identity("a")) and batch.distinct == batch.keys[:2]
    assert batch.texts == ["a", "What is 2 + 2?"] and batch.rows.tolist() == [0, 1, 0]
    assert batch.summed(np.array([1.0, 2, 4])).tolist() == [5, 2]
    groups = batch.merged([[1, None], [0], [0]])
    np.testing.assert_array_equal(groups[0], [1, np.nan, 0])
    assert groups[1].tolist() == [0]
    with pytest.raises(TypeError):
        PromptBatch("ab", text)


@pytest.mark.parametrize("function", [identity, text])
@pytest.mark.parametrize(
    ("prompt", "error", "keys"),
    [
        (None, TypeError, "type NoneType"),
        (3, TypeError, "type int"),
        (b"x", TypeError, "type bytes"),
        ([], InputError, "without messages"),
        ({"text": "x"}, InputError, r"keys \['text'\]"),
        (QUESTION, InputError, "list"),
        ({"prompt": {"prompt": "x"}}, TypeError, "type dict"),
        ({"prompt": "x", "id": 1.5}, TypeError, "id of type float"),
        ({"prompt": "x", "id": True}, TypeError, "id of type bool"),
        ({"prompt": "x", "id": ""}, InputError, "id"),
        (["x", "y"], TypeError, "message 0 .* type str"),
        ([QUESTION, {"content": "x"}], InputError, "message 1 .* 'role'"),
        ([{"role": "user"}], TypeError, "content of message 0 .* NoneType"),
        ([{"role": "user", "content": 3}], TypeError, "content of message 0 .* int"),
        ([{"role": "user", "content": ["x"]}], TypeError, "message 0 .* part"),
        ([{"role": "user", "content": [{"type": "text"}]}], TypeError, "'text' is of type NoneType"),
    ],
)
def test_unusable_prompts(function: object, prompt: object, error: type[Exception], keys: str) -> None:
    with pytest.raises(error, match=keys):
        function(prompt)  # type: ignore[operator]


CALL = {"tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}]}


@pytest.mark.parametrize("content", [{}, {"content": None}, {"content": ""}, {"content": []}, {"content": "I add."}])
@pytest.mark.parametrize(
    "instead", [CALL, {"function_call": {"name": "add"}}, {"reasoning_content": "hm"}, {"thinking": "hm"}]
)
def test_turns_of_the_assistant_without_content(content: dict, instead: dict) -> None:
    chat = [QUESTION, {"role": "assistant", **content, **instead}, {"role": "tool", "name": "add", "content": "4"}]
    assert identity(chat) != identity([QUESTION, chat[2]])
    assert text(chat) == text([QUESTION])
    assert text(chat[1:]) == "\n".join([content.get("content") or "", "4"])
    assert PromptBatch([chat, chat], text).rows.tolist() == [0, 0]


@pytest.mark.parametrize(
    "content", [{}, {"content": None}, {"content": 5}, {"content": {"text": "x"}}, {"content": ["x"]}]
)
def test_other_turns_need_content(content: dict) -> None:
    for role in ("user", "assistant"):
        with pytest.raises(InputError, match="message 1"):
            identity([QUESTION, {"role": role, **content}])


def test_a_text_function_must_return_a_text() -> None:
    with pytest.raises(InputError, match="text gave"):
        PromptBatch(["x"], lambda prompt: None)  # type: ignore[arg-type, return-value]


def test_prompts_without_end() -> None:
    message: dict = {"role": "user", "content": "x"}
    message["again"] = [message]
    with pytest.raises(InputError, match="id"):
        identity([message])
    assert identity({"prompt": [message], "id": 7}) == "id:7"
