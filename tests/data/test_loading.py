"""`load`: columns, answers, duplicates and bad rows of data sets, and named sets."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_files import dapo_rows, lines
from datasets import Dataset

from refused import refused
from shared_data import SHARED
from viprl.data import NAMED, DataSource, load
from viprl.data.named import DAPO_WRAPPER
from viprl.data.question import INSTRUCTIONS
from viprl.errors import DataError, FileError, InputError


@pytest.mark.parametrize(
    ("row", "prompt", "solution"),
    [
        ({"prompt": "q", "solution": "s"}, "q", "s"),
        ({"prompt": "q", "answer": "a", "id": 3}, "q", "a"),
        ({"problem": "q", "solution": "so it is 2", "answer": "2", "year": 2024}, "q", "2"),  # AIME, MATH-500
        ({"question": "q", "answer": "1 + 1 = 2\n#### 1,024"}, "q", "1024"),  # GSM8K
        ({"question": "q", "answer": "Paris"}, "q", "Paris"),
        ({"prompt": "q", "solution": 7}, "q", "7"),
    ],
)
def test_known_columns_are_found(tmp_path, row, prompt, solution):
    data = load(DataSource(lines(tmp_path / "d.jsonl", [row]))).dataset
    assert data[0]["prompt"] == prompt and data[0]["solution"] == solution
    assert set(row) - {"prompt", "problem", "question", "answer", "solution"} <= set(data.column_names)


def test_dapo_columns_wrapper_and_copies(tmp_path):
    table = dapo_rows([("one?", "1"), ("two?", "2"), ("one?", "1"), ("two?", "3")])
    pq.write_table(pa.concat_tables([table] * 5), tmp_path / "d.parquet")
    loaded = load(DataSource(str(tmp_path / "d.parquet"), instruction="boxed", duplicates="drop"))
    found = loaded.findings
    assert (found.rows, found.prompts, found.duplicates, found.repeated) == (20, 2, 18, 2)
    assert [(c.answers, c.row) for c in found.conflicts] == [({"2": 5, "3": 5}, 1)]
    assert [row["solution"] for row in loaded.dataset] == ["1", "2"] and loaded.rows.tolist() == [0, 1]
    assert loaded.dataset[0]["prompt"] == [
        {"content": INSTRUCTIONS["boxed"].replace("{question}", "one?"), "role": "user"}
    ]
    untouched = load(DataSource(str(tmp_path / "d.parquet")))
    assert len(untouched.dataset) == 20 and untouched.dataset[0]["prompt"][0]["content"].endswith(DAPO_WRAPPER[1])


@pytest.mark.parametrize("name", NAMED)
def test_named_sets_read_the_columns_of_the_hub(monkeypatch, name):
    known = NAMED[name]
    table = {
        "dapo-math-17k": dapo_rows([("one?", "42")] * 3),
        "aime24": pa.table({"id": [1], "problem": ["one?"], "solution": ["so 42"], "answer": ["42"], "year": ["2024"]}),
        "aime25": pa.table({"problem": ["one?"], "answer": ["42"], "id": ["0"]}),
        "math500": pa.table({"problem": ["one?"], "solution": ["so 42"], "answer": ["42"], "level": [2]}),
        "gsm8k": pa.table({"question": ["one?"], "answer": ["It is 42.\n#### 42"]}),
    }[name]
    asked = []
    monkeypatch.setattr("datasets.load_dataset", lambda *a, **k: asked.append((*a, k["split"])) or Dataset(table))
    loaded = load(DataSource(name))
    assert asked == [(known.hub, known.subset, known.split)]
    assert len(loaded.dataset) == 1 and loaded.dataset[0]["solution"] == "42"
    text = INSTRUCTIONS["boxed"].replace("{question}", "one?")
    assert loaded.dataset[0]["prompt"] == [{"role": "user", "content": text}]
    assert load(DataSource(name, instruction="none", chat=False)).dataset[0]["prompt"] == "one?"


@pytest.mark.parametrize(
    ("answers", "solutions"),
    [
        ([1, "x"], ["1", "x"]),
        ([5, 0.5], ["5", "0.5"]),
        ([5.0, -3.0], ["5", "-3"]),
        ([5, 10**30], ["5", str(10**30)]),
        ([2**53 + 1, 0.5], [str(2**53 + 1), "0.5"]),
        ([1e300, 0.25], ["1" + 300 * "0", "0.25"]),
    ],
)
def test_whole_numbers_are_written_without_a_fraction(tmp_path, answers, solutions):
    rows = [{"prompt": f"p{i}", "answer": answer} for i, answer in enumerate(answers)]
    assert load(DataSource(lines(tmp_path / "d.jsonl", rows))).dataset["solution"][:] == solutions


@pytest.mark.parametrize(
    ("rows", "keys"),
    [
        ([{"prompt": "a"}, {"prompt": "b"}], "solution_column"),
        ([{"text": "a", "answer": "b"}], "prompt_column"),
        ([{"prompt": "a", "answer": "b", "solution": "c"}], "prompt and answer or prompt and solution"),
        ([{"prompt": "a", "answer": ""}, {"prompt": "b", "answer": None}], "all 2 rows"),
        ([{"prompt": "a", "answer": "1"}, {"prompt": " ", "answer": "1"}], "row 2: the prompt"),
        ([{"prompt": "a", "answer": "1"}] * 3 + [{"prompt": "b"}], "row 4: the answer"),
        ([{"prompt": [{"role": "user"}], "answer": "1"}] * 2, "all 2 rows .* message 0"),
        ([{"question": "a", "answer": "#### 1"}, {"question": "b", "answer": "2"}], "row 2: .*####"),
        ([{"prompt": "a", "answer": ""}] * 3 + [{"prompt": "b", "answer": "1"}], "row 1: .*row 3: "),
        ([], "no rows"),
    ],
)
def test_unusable_data(tmp_path, rows, keys):
    with pytest.raises(DataError, match=keys):
        load(DataSource(lines(tmp_path / "d.jsonl", rows)))


def test_configured_columns_that_do_not_exist(tmp_path):
    rows = [{"prompt": f"p{i}", "label": "s", "reward_model": value} for i, value in enumerate([{"a": 1}, "x"])]
    file = lines(tmp_path / "d.jsonl", rows)
    assert load(DataSource(file, solution_column="label")).layout.solution == "label"
    for column, hint in (
        ("reward_model.b", "solution_column"),
        ("reward_model.a", "row 2: the answer is empty"),
        ("lable", "mean label?"),
    ):
        with refused(DataError, hint):
            load(DataSource(file, solution_column=column))


def test_bad_rows_are_left_out_on_request_unless_all_are_bad(tmp_path):
    rows = [{"prompt": f"p{i}", "answer": None if i % 3 == 0 else "1"} for i in range(60)]
    file = lines(tmp_path / "d.jsonl", rows)
    with pytest.raises(DataError, match=r"20 rows .*row 22: .* 12 more \(25, 28, .*skip_bad_rows"):
        load(DataSource(file))
    loaded = load(DataSource(file, skip_bad_rows=True))
    assert len(loaded.dataset) == 40 and list(loaded.findings.bad) == list(range(0, 60, 3))
    assert loaded.rows.tolist() == [i for i in range(60) if i % 3]
    assert "20 rows" in loaded.notes[0] and "row 22" in loaded.notes[0]
    rows = [{"prompt": "", "answer": "1"}, {"prompt": "a", "answer": ""}]
    with pytest.raises(DataError) as error:
        load(DataSource(lines(tmp_path / "d.jsonl", rows), skip_bad_rows=True))
    assert "skip_bad_rows" not in str(error.value)


@pytest.mark.parametrize(("name", "hint"), [("gsm-8k", "gsm8k"), ("math50", "math500"), ("missing.jsonl", "missing")])
def test_sources_that_are_not_found(name, hint):
    with pytest.raises(FileError, match=hint):
        load(DataSource(name))


def test_a_failed_download(monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("no route\nmore")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    for name, hub in (("gsm8k", "openai/gsm8k"), ("a/b", "a/b")):
        with pytest.raises(FileError) as error:
            load(DataSource(name))
        assert hub in str(error.value) and "no route" in str(error.value) and "more" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ({"duplicates": "dropp"}, "dropp"),
        ({"system": "s", "chat": False}, "system .* chat"),
        ({"instruction": "boxd"}, "boxd.* boxed"),
    ],
)
def test_unusable_options(options, keys):
    with pytest.raises(InputError, match=keys):
        DataSource("x", **options)


SYSTEM = {"role": "system", "content": "Think first."}


@pytest.mark.parametrize(
    "columns", [{}, {"prompt_column": "prompt"}, {"prompt_column": "e.q", "solution_column": "e.a"}]
)
@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("before", [[], [SYSTEM], [SYSTEM, {"role": "user", "content": "x"}]])
def test_instructions_of_the_data_set_are_removed_wherever_they_stand(tmp_path, columns, parts, before):
    def user(text: str) -> dict:
        return {"role": "user", "content": [{"type": "text", "text": text}] if parts else text}

    chat = [*before, user("one?".join(DAPO_WRAPPER))]
    rows = [{"prompt": chat, "reward_model": {"ground_truth": "1"}, "e": {"q": chat, "a": "1"}}]
    file = lines(tmp_path / "d.jsonl", rows)
    asked = INSTRUCTIONS["boxed"].replace("{question}", "one?")
    assert load(DataSource(file, instruction="boxed", **columns)).dataset[0]["prompt"] == [*before, user(asked)]
    assert load(DataSource(file, **columns)).dataset[0]["prompt"] == chat


@pytest.mark.parametrize(
    "columns",
    [{}, {"prompt_column": "question", "solution_column": "answer"}, {"solution_column": "answer"},
     {"prompt_column": "question"}, {"prompt_column": "e.q", "solution_column": "e.a"}],
)  # fmt: skip
def test_answers_after_the_mark_of_gsm8k_whatever_names_the_columns(tmp_path, columns):
    given = "It is 9 * 2 = <<9*2=18>>18.\n#### 1,018"
    rows = [{"question": f"q{i}", "answer": given, "e": {"q": f"q{i}", "a": given}} for i in range(3)]
    loaded = load(DataSource(lines(tmp_path / "d.jsonl", rows), **columns))
    assert loaded.dataset["solution"][:] == ["1018"] * 3 and loaded.source.answer_after == "####"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("a", ["1"]), ("b", ["2"]), ("c", "3")], ["2 rows", "row 1", "['1']"]),
        ([("a", "1"), ("b", "None")], ["1 row ", "row 2", "None"]),
        ([("a", "1"), ("b", '["2"]')], ["1 row ", "row 2", "JSON"]),
        ([("a", "[1, 2]"), ("b", "['2', 'x']"), ("c", '{"k": 1}')], ["2 rows ", "row 2", "['2', 'x']"]),
        ([("a", "1"), ("b", "2"), ("c", "so\n#### 3")], ["row 3", "answer_after"]),
        (
            [([SYSTEM, {"role": "user", "content": "a"}, {"role": "assistant", "content": "1"}], "1")],
            ["row 1", "assistant"],
        ),
        ([('[{"role": "user", "content": "a"}]', "1")], ["row 1", "JSON"]),
    ],
)
def test_remarks(tmp_path, rows, said):
    loaded = load(DataSource(lines(tmp_path / "d.jsonl", [{"prompt": p, "solution": s} for p, s in rows])))
    (remark,) = loaded.findings.remarks
    assert all(word in remark for word in said) and loaded.notes[-1] == remark


def test_texts_and_chats_in_one_file(tmp_path):
    chat = [{"role": "user", "content": "b"}]
    rows = [{"prompt": p, "solution": "1"} for p in ("a", chat, "c", "b")]
    file = lines(tmp_path / "d.jsonl", rows)
    with refused(DataError, "rows 1, 3, 4", "rows 2", "--chat"):
        load(DataSource(file))
    loaded = load(DataSource(file, chat=True))
    assert [row["prompt"][0]["content"] for row in loaded.dataset] == ["a", "b", "c", "b"]
    assert (loaded.findings.prompts, loaded.findings.duplicates) == (3, 1)
    assert load(DataSource(file, chat=False)).dataset["prompt"][:] == ["a", "b", "c", "b"]


@pytest.mark.parametrize("column", ["messages", "conversations", "prompt"])
def test_chats_without_a_column_of_answers(tmp_path, column):
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "1"}]
    with refused(DataError, column, "`solution`"):
        load(DataSource(lines(tmp_path / "d.jsonl", [{column: chat}])))


@pytest.mark.skipif(not (SHARED / "dapo_math_17k_prompts.parquet").exists(), reason="needs the shared data")
@pytest.mark.parametrize(
    ("file", "rows", "prompts", "conflicts"),
    [
        ("dapo_math_17k_prompts.parquet", 17_917, 17_398, 7),
        ("aime24.jsonl.gz", 30, 30, 0),
        ("aime25.jsonl.gz", 30, 30, 0),
        ("math500.jsonl.gz", 500, 500, 0),
        ("gsm8k_test.jsonl.gz", 1_319, 1_319, 0),
    ],
)
def test_real_files(file, rows, prompts, conflicts):
    loaded = load(DataSource(str(SHARED / file), duplicates="drop"))
    found = loaded.findings
    assert (found.rows, found.prompts, len(found.conflicts), found.bad) == (rows, prompts, conflicts, {})
    assert len(loaded.dataset) == prompts == len(set(loaded.dataset["prompt"]))


@pytest.mark.parametrize("row", [{"prompt": "p", "solution": [None, []]}, {"prompt": [{}], "solution": "4"}])
def test_rows_of_odd_structure_are_bad_rows(tmp_path, row):
    with pytest.raises(DataError, match="rows are bad"):
        load(DataSource(name=str(lines(tmp_path / "odd.jsonl", [row]))))
