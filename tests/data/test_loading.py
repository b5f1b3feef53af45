"""Reading prompts: what is understood, what is refused and by which row, what the model sees."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("datasets", reason='needs pip install "viprl[trl]"')

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict
from rich.console import Console
from typer.testing import CliRunner

import tiny
from viprl.cli import app
from viprl.data import NAMED, DataSource, load
from viprl.data.gym import _answer, canonical, parse, solved
from viprl.data.layout import equal_values, first_copies
from viprl.data.lengths import rendered, token_lengths
from viprl.data.named import DAPO_WRAPPER
from viprl.data.question import INSTRUCTIONS, Format, read_answer
from viprl.data.show import show_data

SHARED = Path(__file__).parents[3] / "shared" / "data"
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}<go>{% endif %}"
)


def lines(path: Path, rows: list) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def dapo_rows(pairs: list[tuple[str, str]]) -> pa.Table:
    """Rows with the columns of the hub's file."""
    before, after = DAPO_WRAPPER
    return pa.table(
        {
            "data_source": ["math_dapo"] * len(pairs),
            "prompt": [[{"content": before + q + after, "role": "user"}] for q, _ in pairs],
            "reward_model": [{"ground_truth": a, "style": "rule"} for _, a in pairs],
            "extra_info": [{"index": str(i)} for i in range(len(pairs))],
        }
    )


# --- columns and answers ----------------------------------------------------------------------------------------------


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


def test_dapo_s_columns_wrapper_and_copies(tmp_path):
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


def test_the_same_rows_in_every_kind_of_file(tmp_path):
    rows = [{"problem": f"p{i}", "answer": str(i), "solution": "long"} for i in range(4)]
    data = Dataset.from_list(rows)
    lines(tmp_path / "d.jsonl", rows)
    (tmp_path / "d.json").write_text(json.dumps(rows))
    with gzip.open(tmp_path / "d.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    data.to_parquet(tmp_path / "d.parquet")
    DatasetDict({"test": data}).save_to_disk(tmp_path / "saved")
    (tmp_path / "copy" / "data").mkdir(parents=True)
    data.to_parquet(tmp_path / "copy" / "data" / "test-00000-of-00001.parquet")
    places = ["d.jsonl", "d.json", "d.jsonl.gz", "d.parquet", "saved", "copy"]
    read = [load(DataSource(str(tmp_path / place), split="test")).dataset.to_list() for place in places]
    assert all(found == [{"prompt": f"p{i}", "solution": str(i)} for i in range(4)] for found in read)


@pytest.mark.parametrize("name", NAMED)
def test_named_sets_read_the_hub_s_columns(monkeypatch, name):
    """The hub's place is taken by a table of the same columns."""
    known = NAMED[name]
    table = {
        "dapo-math-17k": dapo_rows([("one?", "42")] * 3),
        "aime24": pa.table({"id": [1], "problem": ["one?"], "solution": ["so 42"], "answer": ["42"], "year": ["2024"]}),
        "aime25": pa.table({"problem": ["one?"], "answer": ["42"], "id": ["0"]}),
        "math500": pa.table({"problem": ["one?"], "solution": ["so 42"], "answer": ["42"], "level": [2]}),
        "gsm8k": pa.table({"question": ["one?"], "answer": ["It is 42.\n#### 42"]}),
    }[name]
    asked = []
    monkeypatch.setattr(
        "datasets.load_dataset", lambda *a, **k: asked.append((*a, k["split"])) or Dataset(table), raising=True
    )
    loaded = load(DataSource(name))
    assert asked == [(known.hub, known.subset, known.split)]
    assert len(loaded.dataset) == 1 and loaded.dataset[0]["solution"] == "42"
    text = INSTRUCTIONS["boxed"].replace("{question}", "one?")
    assert loaded.dataset[0]["prompt"] == [{"role": "user", "content": text}]
    assert load(DataSource(name, instruction="none", chat=False)).dataset[0]["prompt"] == "one?"


def test_values_of_several_types_in_one_column(tmp_path):
    file = lines(
        tmp_path / "d.jsonl", [{"prompt": "a", "answer": 1, "id": 0}, {"prompt": "b", "answer": "x", "id": "t"}]
    )
    data = load(DataSource(file)).dataset
    assert data["solution"][:] == ["1", "x"] and data["id"][:] == ["0", "t"]


@pytest.mark.parametrize(
    ("answers", "solutions"),
    [
        ([5, 0.5], ["5", "0.5"]),
        ([5.0, -3.0], ["5", "-3"]),
        ([5, 10**30], ["5", str(10**30)]),
        ([2**53 + 1, 0.5], [str(2**53 + 1), "0.5"]),
        ([1e300, 0.25], ["1e+300", "0.25"]),
    ],
)
def test_whole_numbers_stay_whole_whatever_stands_beside_them(tmp_path, answers, solutions):
    rows = [{"prompt": f"p{i}", "answer": answer} for i, answer in enumerate(answers)]
    assert load(DataSource(lines(tmp_path / "d.jsonl", rows))).dataset["solution"][:] == solutions


def test_whole_numbers_in_a_column_of_floats(tmp_path):
    pq.write_table(pa.table({"prompt": ["a", "b"], "answer": pa.array([5.0, 7.5])}), tmp_path / "f.parquet")
    assert load(DataSource(str(tmp_path / "f.parquet"))).dataset["solution"][:] == ["5", "7.5"]


def test_a_column_that_is_no_struct_has_no_fields(tmp_path):
    """Values of several types become texts, `reward_model` among them."""
    rows = [{"prompt": f"p{i}", "solution": "s", "reward_model": value} for i, value in enumerate([{"a": 1}, "x"])]
    file = lines(tmp_path / "d.jsonl", rows)
    assert load(DataSource(file)).layout.solution == "solution"
    with pytest.raises(ValueError, match=r"no `solution\.value` .*; set `solution_column`"):
        load(DataSource(file, solution_column="solution.value"))


def test_a_named_set_out_of_reach_says_so(monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("no route\nmore")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    with pytest.raises(ValueError, match=r"^openai/gsm8k cannot be had .*no route\); name a local copy"):
        load(DataSource("gsm8k"))
    with pytest.raises(ValueError, match="'a/b' is neither a named set"):
        load(DataSource("a/b"))


def test_copies_are_found_as_python_finds_them():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 5, (200, 2))
    columns = [
        pa.chunked_array([[str(v) if v else None for v in part] for part in np.split(col, 4)]) for col in values.T
    ]
    first, copy_of = first_copies(columns)
    pairs = list(zip(*(column.to_pylist() for column in columns), strict=True))
    assert first.tolist() == [pairs.index(pair) for pair in dict.fromkeys(pairs)]
    assert all(pairs[first[u]] == pair for u, pair in zip(copy_of, pairs, strict=True))
    chats = [[{"role": r, "content": c}] for r, c in [("user", "a"), ("user", "b"), ("tool", "a"), ("user", "a")]]
    assert equal_values(pa.chunked_array([chats])).tolist()[0] == equal_values(pa.chunked_array([chats])).tolist()[3]
    assert len(set(equal_values(pa.chunked_array([chats])).tolist())) == 3
    longer = [*chats, [{"role": "user", "content": "a"}] * 2]
    assert len(set(equal_values(pa.chunked_array([longer])).tolist())) == 4


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "a"}, {"prompt": "b"}], "no column that is known to hold the answer; set `solution_column`"),
        ([{"text": "a", "answer": "b"}], "no column that is known to hold the prompt; set `prompt_column`"),
        ([{"prompt": "a", "answer": ""}, {"prompt": "b", "answer": None}], "all 2 rows are bad: the answer is empty"),
        ([{"prompt": "a", "answer": "b", "solution": "c"}], "could be prompt and answer or prompt and solution; set"),
        ([{"prompt": "a", "answer": "1"}, {"prompt": " ", "answer": "1"}], "1 row is bad .*row 1: the prompt is empty"),
        ([{"prompt": "a", "answer": "1"}] * 3 + [{"prompt": "b"}], "row 3: the answer is empty"),
        ([{"prompt": "a", "answer": "1"}, "{broken"], "line 2 is not valid JSON"),
        ([{"prompt": "a", "answer": "1"}, "[1]"], "line 2 is no JSON object"),
        ([{"prompt": [{"role": "user"}], "answer": "1"}] * 2, "all 2 rows are bad: the content of message 0"),
        ([{"question": "a", "answer": "#### 1"}, {"question": "b", "answer": "2"}], "row 1: the answer has no '####'"),
        ([{"prompt": "a", "answer": ""}] * 3 + [{"prompt": "b", "answer": "1"}], "3 rows are bad .*row 0: .*row 2: "),
        ([], "holds no rows"),
    ],
)
def test_bad_data_is_named(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        load(DataSource(lines(tmp_path / "d.jsonl", rows)))


def test_many_bad_rows_are_counted_and_left_out_on_demand(tmp_path):
    rows = [{"prompt": f"p{i}", "answer": None if i % 3 == 0 else "1"} for i in range(60)]
    file = lines(tmp_path / "d.jsonl", rows)
    with pytest.raises(ValueError, match=r"20 rows are bad .*row 21: .* and 12 more \(24, 27, .*skip_bad_rows"):
        load(DataSource(file))
    loaded = load(DataSource(file, skip_bad_rows=True))
    assert len(loaded.dataset) == 40 and list(loaded.findings.bad) == list(range(0, 60, 3))
    assert loaded.rows.tolist() == [i for i in range(60) if i % 3]
    assert "left out: 20 rows are bad" in loaded.notes[0]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("gsm-8k", "did you mean gsm8k"),
        ("math50", "did you mean math500"),
        ("missing.jsonl", "no such file"),
        ("reasoning-gym:chainsum", "did you mean chain_sum"),
        ("reasoning-gym", "names no task"),
        ("reasoning-gym:chain_sum?level=99", "levels 0 to 10; got 99"),
        ("reasoning-gym:chain_sum?level=x", "expected a number such as 2"),
        ("reasoning-gym:chain_sum?level=1&levels=0-2", "both level and levels"),
        ("reasoning-gym:chain_sum?min_term=3", "unexpected keyword argument 'min_term'"),
        ("reasoning-gym:chain_sum?seed=-1", "expected 0 to"),
    ],
)
def test_unknown_sources(source, message):
    if source.startswith("reasoning-gym:"):
        pytest.importorskip("reasoning_gym", reason='needs pip install "viprl[gym]"')
    with pytest.raises(ValueError, match=message):
        load(DataSource(source))


def test_options_that_contradict_each_other():
    with pytest.raises(ValueError, match="duplicates is 'dropp'"):
        DataSource("x", duplicates="dropp")
    with pytest.raises(ValueError, match="system is a message of a chat"):
        DataSource("x", system="s", chat=False)
    with pytest.raises(ValueError, match="instruction is 'boxd'; did you mean boxed"):
        DataSource("x", instruction="boxd")


# --- what the model sees ----------------------------------------------------------------------------------------------


def test_formats():
    chat = [{"role": "user", "content": "q"}]
    assert Format()("q") == "q" and Format()(chat) == chat
    assert Format("{question} =")("q") == "q =" and Format("Think.")("q") == "q\n\nThink."
    assert Format("{question} =", "be brief")("q") == [
        {"role": "system", "content": "be brief"}, {"role": "user", "content": "q ="}
    ]  # fmt: skip
    assert Format(chat=True)("q") == chat and Format(chat=False)(chat) == "q"
    braces = r"\frac{1}{2} {question}"
    assert Format("boxed")(braces).startswith(braces)
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    assert [m["content"] for m in Format("{question}!")(talk)] == ["a", "b", "c!"]
    with pytest.raises(ValueError, match="chat of 3 messages"):
        Format(chat=False)(talk)


def test_answers_after_a_mark():
    assert read_answer("a #### b #### 12", "####") == "12"
    assert read_answer("#### -1,234.5", "####") == "-1234.5" and read_answer("#### (1,2)", "####") == "(1,2)"
    assert read_answer(" 7 ", None) == "7"


def test_lengths_are_those_of_the_template():
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = TEMPLATE
    chat = [{"role": "user", "content": "a b"}]
    assert rendered(chat, tokenizer) == "<user> a b <go>"
    assert token_lengths([chat, chat], tokenizer).tolist() == [4, 4]
    assert token_lengths(["a b c"], tokenizer).tolist() == [3]


# --- reasoning-gym ----------------------------------------------------------------------------------------------------


@pytest.fixture
def gym():
    return pytest.importorskip("reasoning_gym", reason='needs pip install "viprl[gym]"')


def test_a_row_depends_on_seed_and_number_alone(gym):
    forwards = load(DataSource("reasoning-gym:chain_sum+gcd?levels=0-2&seed=3")).dataset
    backwards = load(DataSource("reasoning-gym:chain_sum+gcd?levels=0-2&seed=3")).dataset
    rows = [forwards[i] for i in range(12)]
    assert [backwards[i] for i in reversed(range(12))] == rows[::-1]
    assert backwards[4:6]["prompt"] == [rows[4]["prompt"], rows[5]["prompt"]]
    assert [(row["task"], row["level"]) for row in rows[:6]] == [
        ("chain_sum", 0), ("gcd", 0), ("chain_sum", 1), ("gcd", 1), ("chain_sum", 2), ("gcd", 2)
    ]  # fmt: skip
    long_sums = [load(DataSource(f"reasoning-gym:chain_sum?level=9&seed={seed}")).dataset for seed in (3, 4)]
    texts = [{data[i]["prompt"] for i in range(40)} for data in long_sums]
    assert len(texts[0]) == len(texts[1]) == 40 and not texts[0] & texts[1]


def test_levels_are_graded(gym):
    def mean_length(level: int) -> float:
        data = load(DataSource(f"reasoning-gym:chain_sum?level={level}", instruction="none")).dataset
        return float(np.mean([len(data[i]["prompt"]) for i in range(50)]))

    assert mean_length(0) < mean_length(3) < mean_length(9)


def test_the_reward_asks_the_task(gym):
    data = load(DataSource("reasoning-gym:chain_sum?level=1")).dataset
    row = data[0]
    right, columns = row["solution"], {key: [row[key]] * 5 for key in ("solution", "task", "metadata")}
    given = [f"<answer>{right}</answer>", f"so \\boxed{{{right}}}", right, "<answer>nothing</answer>", ""]
    assert solved([row["prompt"]] * 5, given, **columns) == [1.0, 1.0, 1.0, 0.0, 0.0]
    assert _answer("\\boxed{1} or \\boxed{\\frac{1}{2}}.") == "\\frac{1}{2}"
    chat = [[{"role": "assistant", "content": given[0]}]]
    assert solved([row["prompt"]], chat, **{key: value[:1] for key, value in columns.items()}) == [1.0]


def test_the_mapping_says_the_same(gym):
    text = canonical({"reasoning-gym": ["chain_sum", "gcd"], "levels": [0, 3], "seed": 2})
    assert text == "reasoning-gym:chain_sum+gcd?levels=0-3&seed=2"
    assert str(parse(text)) == text
    assert parse("reasoning-gym:chain_sum?min_terms=3&allow_negation=true").options == (
        ("min_terms", 3), ("allow_negation", True)
    )  # fmt: skip


# --- data show --------------------------------------------------------------------------------------------------------


def test_show_tells_what_was_understood(tmp_path):
    rows = [{"problem": "a b", "answer": "1"}, {"problem": "a b", "answer": "2"}, {"problem": "c", "answer": None}]
    rows += [{"problem": "a " * 30, "answer": "3"}]
    file = lines(tmp_path / "d.jsonl", rows)
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(tmp_path / "model")
    tiny.model().save_pretrained(tmp_path / "model")
    console = Console(width=200, record=True, file=(tmp_path / "out").open("w"))
    show_data(DataSource(file, chat=True, skip_bad_rows=True), console, str(tmp_path / "model"), completion=33)
    said = console.export_text()
    for words in (
        "prompt: problem · answer: answer", "rows         4", "prompts      2", "1 rows repeat", "row 0: 1 (1), 2 (1)",
        "row 2: the answer is empty", "longest 32", "64 tokens; 1 prompts exceed it", "<user> a b <go>",
        "to train on  2 rows (duplicates: keep); 1 bad row and 1 overlong row left out",
        "answer 1",
    ):  # fmt: skip
        assert words in said, words


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "none as it is: training refuses 1 bad row. Mend them, or leave them out (skip_bad_rows: true"),
        (("--skip-bad-rows",), "2 rows (duplicates: keep); 1 bad row left out"),
        (("--model", "MODEL", "--completion", "62"), "training refuses 1 bad row and 1 overlong row"),
        (("--model", "MODEL", "--completion", "63"), "none: training refuses 1 bad row and 2 overlong rows"),
    ],
)
def test_show_says_what_training_will_do_with_bad_and_overlong_rows(tmp_path, options, words):
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    tiny.model().save_pretrained(tmp_path / "model")
    rows = [{"prompt": "a b", "answer": "1"}, {"prompt": "c d e", "answer": "2"}, {"prompt": "", "answer": "1"}]
    given = [str(tmp_path / "model") if option == "MODEL" else option for option in options]
    told = CliRunner().invoke(app, ["data", "show", lines(tmp_path / "d.jsonl", rows), *given])
    assert told.exit_code == 0 and words in " ".join(told.output.split())


def test_a_good_file_is_trained_on(tmp_path):
    told = CliRunner().invoke(app, ["data", "show", lines(tmp_path / "d.jsonl", [{"prompt": "a", "answer": "1"}])])
    assert "to train on  1 rows (duplicates: keep)\n" in told.output


def test_a_file_without_a_good_row_offers_nothing_that_would_not_help(tmp_path):
    rows = [{"prompt": "", "answer": "1"}, {"prompt": "a", "answer": ""}]
    with pytest.raises(ValueError, match=r"Mend the rows$"):
        load(DataSource(lines(tmp_path / "d.jsonl", rows), skip_bad_rows=True))


def test_a_near_column_is_suggested(tmp_path):
    file = lines(tmp_path / "d.jsonl", [{"prompt": "a", "label": "1"}])
    with pytest.raises(ValueError, match=r"no `lable` \(did you mean `label`\?\)"):
        load(DataSource(file, solution_column="lable"))


def test_show_on_the_command_line(tmp_path):
    listed = CliRunner().invoke(app, ["data", "show"])
    assert listed.exit_code == 0 and all(name in listed.output for name in NAMED)
    file = lines(tmp_path / "d.jsonl", [{"q": "a", "right": "x: 5"}])
    told = CliRunner().invoke(
        app, ["data", "show", file, "--prompt-column", "q", "--solution-column", "right", "--answer-after", ":"]
    )
    assert told.exit_code == 0 and "answer 5" in told.output


# --- real files -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (SHARED / "dapo_math_17k_prompts.parquet").exists(), reason="the shared data is not here")
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
