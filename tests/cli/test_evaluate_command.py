"""`viprl evaluate` on the command line."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("math_verify", reason='needs pip install "viprl[eval]"')
pytest.importorskip("datasets", reason='needs pip install "viprl[eval]"')

import yaml
from typer.testing import CliRunner

from known_generations import known_file
from viprl.cli import app
from viprl.errors import DataError, FileError, InputError


def test_a_file_of_completions(tmp_path):
    options = ["--generations", known_file(tmp_path), "--k", "1,4", "--json", tmp_path / "out.json"]
    result = CliRunner().invoke(app, ["evaluate", *map(str, options)])
    assert result.exit_code == 0, result.output
    assert "66.67" in result.output and "8.3%" in result.output
    assert json.loads((tmp_path / "out.json").read_text())["pass@k"]["4"]["value"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("options", "kind", "keys"),
    [
        (("--model", "m"), InputError, "--dataset"),
        (("--generations", "nothing.jsonl"), FileError, "nothing.jsonl"),
        (("--generations", "KNOWN", "--k", "64"), InputError, "64"),
        (("--generations", "KNOWN", "--verify", "maths"), InputError, "'maths'"),
        (("--generations", "KNOWN", "--dataset", "BAD"), DataError, "row 2.*--skip-bad-rows"),
    ],
)
def test_unusable_options(tmp_path, options, kind, keys):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "q", "answer": "1"}\n{"prompt": "", "answer": "2"}\n')
    places = {"KNOWN": str(known_file(tmp_path)), "BAD": str(bad)}
    result = CliRunner().invoke(app, ["evaluate", *(places.get(option, option) for option in options)])
    with pytest.raises(kind, match=keys):
        raise result.exception


def test_the_reward_of_a_run_that_is_not_found(tmp_path):
    record = {"model": "m", "output_dir": "o", "reward": ["nowhere:reward"]}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(record))
    (tmp_path / "final").mkdir()
    given = ["evaluate", "--model", str(tmp_path), "--dataset", "x.jsonl", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, given)
    with pytest.raises(InputError, match=r"the reward of the run in .*nowhere.*--verify"):
        raise result.exception
