"""Lengths of prompts in tokens, and models that cannot be loaded."""

from __future__ import annotations

import pytest
from data_files import TEMPLATE

import tiny
from refused import refused
from viprl.data.lengths import check_template, load_model_config, load_tokenizer, rendered, token_lengths
from viprl.errors import DataError, InputError

CHAT = [{"role": "user", "content": "a b"}]


def test_lengths_include_the_chat_template():
    tokenizer = tiny.tokenizer()
    with pytest.raises(DataError, match="mine"):
        check_template(["a", CHAT], tokenizer, "mine")
    tokenizer.chat_template = TEMPLATE
    check_template(["a", CHAT], tokenizer, "mine")
    assert rendered(CHAT, tokenizer) == "<user> a b <go>"
    assert token_lengths([CHAT, CHAT], tokenizer).tolist() == [4, 4]
    assert token_lengths(["a b c"], tokenizer).tolist() == [3]


@pytest.mark.parametrize("read", [load_tokenizer, load_model_config])
def test_models_that_cannot_be_loaded(read, tmp_path):
    (tmp_path / "file").touch()
    for name in (tmp_path / "nothing", tmp_path / "file", tmp_path):
        with refused(InputError, name):
            read(str(name))
