"""Data sets and configurations of any content; and reports, which show what models and files say as text."""

from __future__ import annotations

import contextlib
import json
import warnings
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fuzzing import damaged, fuzz, json_values, mutated, or_refused, some_of
from hypothesis import strategies as st

from viprl.utils.json_lines import read_json_lines

pytest.importorskip("pyarrow")
pytest.importorskip("datasets")
yaml = pytest.importorskip("yaml")

from viprl.data.loading import DataSource, load  # noqa: E402
from viprl.train.config import load_config, parse_config  # noqa: E402
from viprl.utils.safe_yaml import parse_yaml  # noqa: E402

ROWS = [
    {"prompt": "What is 2 + 2?", "solution": "4", "level": 1},
    {"prompt": [{"role": "user", "content": "x"}], "solution": "\\boxed{4}", "level": None},
    {"problem": "1", "answer": 1.5},
]
CONFIG = {
    "model": "m",
    "dataset": {"name": "d.jsonl", "instruction": "boxed"},
    "output_dir": "runs/x",
    "reward": ["exact_match"],
    "vip_min_rollouts": 2,
    "vip_max_rollouts": 8,
    "learning_rate": 1e-5,
    "lora": {"r": 8},
}


@fuzz(
    rows=mutated(ROWS[:1]) | mutated(ROWS[1:2]) | mutated(ROWS, most=4) | st.just(ROWS[:1]),
    spoil=st.none() | st.integers(0, 10**6),
    suffix=st.sampled_from([".jsonl", ".json"]),
    options=some_of(
        skip_bad_rows=st.booleans(),
        duplicates=st.sampled_from(["keep", "drop"]),
        prompt_column=st.sampled_from(["prompt", "prompt.x", "none", "."]),
        answer_after=st.sampled_from(["####", ""]),
        instruction=st.sampled_from(["boxed", "none", "{question}!"]),
        chat=st.booleans(),
    ),
)
def test_data_sets(
    tmp_path_factory: pytest.TempPathFactory, rows: Any, spoil: int | None, suffix: str, options: dict[str, Any]
) -> None:
    rows = rows if isinstance(rows, list) else [rows]
    text = "".join(json.dumps(row) + "\n" for row in rows) if suffix == ".jsonl" else json.dumps(rows)
    data = bytearray(text.encode())
    if spoil is not None and data:
        data[spoil % len(data)] = spoil % 251
    path = tmp_path_factory.getbasetemp() / f"data{suffix}"
    path.write_bytes(bytes(data))
    with or_refused() as refused:
        loaded = load(DataSource(name=str(path), **options))
    if not refused:
        assert 1 <= len(loaded.dataset) <= len(rows) + 1
        for row in loaded.dataset:
            assert isinstance(row["solution"], str)
            assert isinstance(row["prompt"], str | list)


@fuzz(2.0, text=damaged(yaml.safe_dump(CONFIG).encode()) | st.text(alphabet="&*a: []{}-!\n?|>'\"#%@", max_size=30))
def test_yaml(tmp_path_factory: pytest.TempPathFactory, text: bytes | str) -> None:
    path = tmp_path_factory.getbasetemp() / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with or_refused():
        load_config(path)
    with contextlib.suppress(yaml.YAMLError):
        parse_yaml(path.read_bytes().decode("utf-8", "replace"))


@fuzz(config=mutated(CONFIG) | mutated(CONFIG, most=4))
def test_configurations(config: Any) -> None:
    if isinstance(config, dict):
        with or_refused():
            parse_config(config)


@fuzz(4.0, data=damaged(b'{"a": [1, 2.5, null], "b": "\\u00e9"}\r\n\n{"a": 1e400}\n') | st.binary(max_size=60))
def test_json_lines(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path, bad = tmp_path_factory.getbasetemp() / "rows.jsonl", []
    path.write_bytes(data)
    with or_refused() as refused:
        strict = list(read_json_lines(path))
    with or_refused() as refused_anyway:
        lenient = list(read_json_lines(path, bad=lambda row, why: bad.append(row)))
    if not refused:
        assert repr(lenient) == repr(strict)
        assert not bad
    assert refused or not refused_anyway


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.add(tag)
        self.found.update(name for name, _ in attrs if name.startswith("on"))


EVIL = st.sampled_from(
    ["<evil>", '"><evil>', "'><evil onload=x>", "</script><evil>", "&lt;evil", "]]><evil>", "\0<evil>"]
)


@fuzz(0.04, evil=EVIL, data=st.data())
def test_reports_show_names_and_prompts_as_text(tmp_path_factory: pytest.TempPathFactory, evil: str, data: Any) -> None:
    pytest.importorskip("matplotlib")
    from test_fuzz_files import METRICS, SUMMARY, check_run, folder, lines

    from viprl.report.run_report import write_report

    rows = [{**row, "strategy": evil, f"vip/shadow/{evil}/variance_ratio/realised": 0.5} for row in METRICS]
    history = [{"prompt": evil, "id": evil, "rollouts": 8, "successes": [3]}]
    summary = data.draw(mutated(SUMMARY, leaves=st.just(evil) | json_values))
    files = {"metrics.jsonl": lines(data.draw(mutated(rows, leaves=st.just(evil) | json_values)))}
    files |= {"summary.json": json.dumps(summary).encode(), "history.jsonl.gz": lines(history)}
    place: Path = folder(tmp_path_factory, files)
    check_run(place)
    with or_refused() as refused, warnings.catch_warnings(action="ignore"):
        page = write_report([place], place / "report.html")
    if not refused:
        tags = Tags()
        tags.feed(page.read_text())
        assert not {"evil", "onload"} & tags.found
