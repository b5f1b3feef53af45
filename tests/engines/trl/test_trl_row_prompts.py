"""What makes two rows of a TRL data set different prompts."""

from __future__ import annotations

import io
import json
from datetime import date

import numpy as np
import PIL.Image
import pytest
import torch
from datasets import Dataset

from viprl.engines.trl.row_prompts import reset_columns, row_prompt, task_names
from viprl.engines.trl.training_set import PromptVariety
from viprl.errors import InputError
from viprl.prompts import identity, text


def picture(colour: int, mode: str = "RGB") -> PIL.Image.Image:
    return PIL.Image.fromarray(np.full((4, 4, 3), colour, dtype=np.uint8)).convert(mode)


def encoded(colour: int) -> bytes:
    file = io.BytesIO()
    picture(colour).save(file, "png")
    return file.getvalue()


def palette(colour: int) -> PIL.Image.Image:
    image = PIL.Image.new("P", (4, 4))
    image.putpalette([colour] * 768)
    return image


QUESTION = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How many?"}]}]
FORMS = {
    "PIL": picture,
    "grey": lambda colour: picture(colour, "L"),
    "palette": palette,
    "bytes": encoded,
    "encoded": lambda colour: {"bytes": encoded(colour), "path": None},
    "path": lambda colour: f"/data/{colour}.png",
    "file": lambda colour: {"bytes": None, "path": f"/data/{colour}.png"},
    "array": lambda colour: np.full((4, 4, 3), colour),
    "tensor": lambda colour: torch.full((3, 4, 4), float(colour)),
    "bfloat16": lambda colour: torch.full((3, 4, 4), colour, dtype=torch.bfloat16),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "row",
    [
        lambda one: {"prompt": QUESTION, "images": [one]},
        lambda one: {"prompt": QUESTION, "image": one},
        lambda one: {"prompt": "How many?", "images": ["first", one]},
        lambda one: {"prompt": [{"role": "user", "content": [{"type": "image", "image": one}]}]},
    ],
)
def test_pictures_identify_a_prompt_by_their_content(form, row):
    kept = [FORMS[form](colour) for colour in (1, 1, 2)]  # all alive: nothing may depend on where an object lies
    one, same, other = (row_prompt(row(picture), None) for picture in kept)
    assert identity(one) == identity(same) != identity(other)
    assert json.loads(json.dumps(one)) == same, "a prompt can be written to a log"


def test_the_text_and_other_columns_stay_as_they_are():
    row = {"prompt": QUESTION, "images": [picture(1)], "solution": "3"}
    assert text(row_prompt(row, None)) == "How many?"
    assert identity(row_prompt(row | {"solution": "4"}, None)) == identity(row_prompt(row, None))
    assert row_prompt({"prompt": "a", "images": None}, None) == row_prompt({"prompt": "a", "image": None}, None) == "a"
    assert identity(row_prompt(row | {"uid": 7}, "uid")) == "id:7"
    moved = [{"bytes": b"x", "path": path} for path in ("/a", "/b")]
    assert len({identity(row_prompt({"prompt": "p", "images": [one]}, None)) for one in moved}) == 1


def test_an_unknown_object_in_a_message_is_refused_with_the_option_that_helps():
    row = {"prompt": [{"role": "user", "content": [{"type": "video", "video": object()}]}], "uid": 7}
    with pytest.raises(InputError, match="vip_id_column"):
        row_prompt(row, None)
    assert identity(row_prompt(row, "uid")) == "id:7"


class Task:
    def reset(self, task, level=0, **_): ...


class Anything:
    def reset(self, **row): ...


class Nothing:
    def reset(self): ...


def test_the_columns_that_reset_reads_identify_a_task():
    assert reset_columns([Task()]) == {"task", "level", "environment"}
    assert reset_columns([Task(), Nothing()]) == {"task", "level", "environment"}
    assert reset_columns([Task(), Anything()]) is None
    assert task_names(["prompt", "task", "uid"], None) == ["task", "uid"]
    days = (("a", 1), ("b", 1), ("b", 2))
    rows = [{"prompt": "Play.", "task": task, "when": date(2026, 1, day)} for task, day in days]
    for tasks, distinct in ((reset_columns([Task()]), 2), (reset_columns([Anything()]), 3), (set(), 1)):
        assert len({identity(row_prompt(row, None, tasks)) for row in rows}) == distinct


@pytest.mark.parametrize(
    ("rows", "column", "tasks", "warned"),
    [
        ([{"prompt": "a"}] * 9, None, set(), True),
        ([{"prompt": "a"}] * 9, "uid", set(), False),
        ([{"prompt": "a"}] * 8 + [{"prompt": "b"}], None, set(), False),
        ([{"prompt": "a", "task": i} for i in range(9)], None, {"task"}, True),
        ([{"prompt": "a", "images": [str(i)]} for i in range(9)], None, set(), False),
        ([{"environment": "x"}] * 4, None, None, True),
        ([{"prompt": "a"}], None, set(), False),
    ],
)
def test_rows_that_look_the_same_cause_one_warning(rows, column, tasks, warned, caplog):
    variety = PromptVariety(column, tasks)
    variety.look_at_data(Dataset.from_list(rows))
    variety.look(rows[:4])
    assert len(caplog.records) == warned and ("vip_id_column" in caplog.text) == warned


def test_a_stream_is_checked_by_its_first_batches(caplog):
    variety = PromptVariety(None, set())
    for _ in range(PromptVariety.ROWS):
        assert not caplog.records
        variety.look([{"prompt": "a"}])
    assert len(caplog.records) == 1
