"""Following a log while it is written."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from log_files import write_lines
from viprl.errors import DataError
from viprl.runs import following
from viprl.runs.following import FollowedRun, GrowingFile
from viprl.runs.reader import load_run
from viprl.utils.json_lines import log_rows


def rows(*steps):
    return [{"strategy": "default", "seed": 0, "step": step, "reward": step / 10} for step in steps]


def text(*steps):
    return "".join(json.dumps(row) + "\n" for row in rows(*steps))


def steps_of(log):
    return [row["step"] for row in log.rows]


@pytest.fixture
def file(tmp_path):
    return write_lines(tmp_path / "metrics.jsonl", rows(1, 2))


def test_only_what_was_added_is_read(file, monkeypatch):
    log, parsed = GrowingFile(file), []
    parse = following.parse_json
    monkeypatch.setattr(following, "parse_json", lambda line: parsed.append(line) or parse(line))
    assert log.read() and steps_of(log) == [1, 2]
    assert not log.read()
    with file.open("a") as more:
        more.write(text(3))
    assert log.read() and steps_of(log) == [1, 2, 3] and len(parsed) == 3


@pytest.mark.parametrize("at", [1, 20, 50])
def test_a_line_that_is_not_complete_waits(file, at):
    log, line = GrowingFile(file), text(3)
    log.read()
    with file.open("a") as more:
        more.write(line[:at])
    assert not log.read() and steps_of(log) == [1, 2]
    with file.open("a") as more:
        more.write(line[at:])
    assert log.read() and steps_of(log) == [1, 2, 3]


@pytest.mark.parametrize("new", [(1,), (7, 8), (1, 9, 10), ()])
@pytest.mark.parametrize("replaced", [True, False])
def test_a_file_that_was_written_anew_is_read_from_its_start(file, new, replaced):
    """As by a resumed run: shorter, as long, longer, empty; as another file, or in its place."""
    log = GrowingFile(file)
    assert log.read() and not log.read()
    target = file.with_name("other") if replaced else file
    target.write_text(text(*new))
    target.replace(file)
    assert log.read() and steps_of(log) == list(new)
    with file.open("a") as more:
        more.write(text(11))
    assert log.read() and steps_of(log) == [*new, 11]


def test_lines_that_cannot_be_read_are_left_out(tmp_path):
    file = tmp_path / "log.jsonl"
    file.write_bytes(b'\xff\xfe\n[1]\n{"step": \n\n{"step": 1, "step": 2}\n' + b"[" * 50_000 + b'\n{"step": 5}\r\n')
    log = GrowingFile(file)
    assert log.read() and steps_of(log) == [5]


LINES = st.one_of(
    st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3), max_size=3).map(
        lambda row: json.dumps(row, ensure_ascii=False).encode("utf-8", "replace")
    ),
    st.binary(max_size=12).map(lambda raw: raw.replace(b"\n", b"")),
    st.just(b"\xef\xbb\xbf{}\r"),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(LINES, max_size=8), cuts=st.lists(st.integers(0, 300), max_size=5))
def test_rows_do_not_depend_on_when_they_are_read(tmp_path, lines, cuts):
    """Those of a reader that reads the whole file."""
    file, content = tmp_path / "log.jsonl", b"".join(line + b"\n" for line in lines)
    file.unlink(missing_ok=True)
    file.touch()
    log, before = GrowingFile(file), 0
    for cut in [*sorted(cuts), len(content)]:
        with file.open("ab") as more:
            more.write(content[before:cut])
        log.read()
        before = max(before, min(cut, len(content)))
    if not content.startswith((b"\x1f\x8b", b"\xff\xfe", b"\xfe\xff")):  # gzip and UTF-16, which no log is
        assert log.rows == list(log_rows(file))


def test_a_line_without_an_end_cannot_fill_the_memory(file, monkeypatch):
    monkeypatch.setattr(following, "LONGEST_LINE", 100)
    file.write_text(text(1) + "x" * 101)
    with pytest.raises(DataError):
        GrowingFile(file).read()
    run = FollowedRun(file.parent)
    assert not run.read() and run.run is None and run.waits_for


def test_a_run_from_before_its_first_step_to_its_end(tmp_path):
    folder = tmp_path / "run"
    followed = FollowedRun(folder)
    assert not followed.read() and followed.run is None and str(folder) in followed.waits_for
    write_lines(folder / "metrics.jsonl", [])
    assert not followed.read() and followed.run is None and followed.waits_for
    (folder / "config.yaml").write_text("max_steps: 3\n")
    write_lines(folder / "metrics.jsonl", [{"reward": 1.0}, *rows(1, 2)])
    assert followed.read() and not followed.finished and followed.age < 60 and not followed.at_checkpoints
    loaded = load_run(folder)
    assert followed.run.rows == loaded.rows and followed.run.settings == loaded.settings
    (folder / "finished.json").write_text("{}")
    assert followed.finished
    os.utime(folder / "metrics.jsonl", (0, 0))
    followed.read()
    assert followed.age > 1e9


def test_a_run_that_starts_again_without_a_step_waits(file):
    followed = FollowedRun(file.parent)
    assert followed.read() and followed.run is not None
    file.write_text("")
    assert followed.read() and followed.run is None


def test_the_file_of_verl(tmp_path):
    file = tmp_path / "experiment.jsonl"
    followed = FollowedRun(file)
    assert not followed.read() and followed.run is None
    data = {"vip/counts/min": 2, "vip/counts/max": 5}
    write_lines(file, [{"step": 1, "data": data}])
    assert followed.read() and followed.run.name == "experiment" and followed.run.strategies == ("adaptive",)
    assert followed.run.rows == load_run(file).rows and not followed.finished


def test_the_states_of_trl(tmp_path):
    def state(step):
        place = tmp_path / f"checkpoint-{step}"
        place.mkdir()
        content = {"global_step": step, "max_steps": 4, "log_history": rows(*range(1, step + 1))}
        (place / "trainer_state.json").write_text(json.dumps(content))

    followed = FollowedRun(tmp_path)
    assert not followed.read() and followed.run is None
    state(2)
    assert followed.read() and [row["step"] for row in followed.run.rows] == [1, 2] and not followed.finished
    assert not followed.read()
    assert followed.at_checkpoints
    state(4)
    assert followed.read() and [row["step"] for row in followed.run.rows] == [1, 2, 3, 4] and followed.finished
    (tmp_path / "checkpoint-4" / "trainer_state.json").write_text("{")
    assert followed.read() and followed.run.rows[-1]["step"] == 2, "that of the checkpoint before"
