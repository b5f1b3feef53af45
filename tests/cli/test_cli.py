"""The command line: exit codes, errors, tracebacks, help, start-up."""

from __future__ import annotations

import re
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import typer

pytest.importorskip("trl", reason='needs pip install "viprl[trl]"')
pytest.importorskip("matplotlib", reason='needs pip install "viprl[report]"')
pytest.importorskip("sentence_transformers", reason='needs pip install "viprl[minilm]"')

import viprl
from viprl import cli
from viprl.errors import ConfigError, DataError
from viprl.settings import Settings, options


def run(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `viprl ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["viprl", *arguments])
    code = 0
    try:
        cli.main()
    except SystemExit as end:
        code = end.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def command(monkeypatch):
    """Puts a function in the place of all commands of the app."""

    def put(function) -> None:
        app = typer.Typer(cls=cli._Commands, pretty_exceptions_enable=False)
        app.command("train")(function)
        app.command("report")(function)
        monkeypatch.setattr(cli, "app", app)

    return put


def raising(error: BaseException):
    def function() -> None:
        raise error

    return function


@pytest.mark.parametrize("error", [ConfigError("wrong [key]; fix it"), DataError("row 3: [/no] markup")])
def test_an_error_that_the_user_can_fix_is_one_line(monkeypatch, capsys, command, error):
    command(raising(error))
    assert run(monkeypatch, capsys, "train") == (2, "", f"error: {error}\n")


@pytest.mark.parametrize("kind", [ValueError, OSError, ImportError, RuntimeError])
def test_any_other_exception_keeps_its_traceback_and_its_notes(monkeypatch, capsys, command, kind):
    """A reward function that fails in the middle of a training: the trainers add its name and the step as a note."""

    def digits() -> float:
        raise kind("invalid literal: '12a'")

    def train() -> None:
        try:
            digits()
        except Exception as error:
            error.add_note("raised by the reward function digits at step 3")
            raise

    command(train)
    with pytest.raises(kind) as error:
        run(monkeypatch, capsys, "train")
    text = "".join(traceback.format_exception(error.value))
    assert "in digits" in text and "raised by the reward function digits at step 3" in text and "'12a'" in text


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["train", "--config", "none.yaml"], ["none.yaml"]),
        (["train", "--config", "FILE", "--set", "max_steps"], ["--set", "'max_steps'"]),
        (["sweep", "--config", "none.yaml"], ["none.yaml"]),
        (["report", "nowhere"], ["nowhere"]),
        (["replay", "nowhere.jsonl"], ["nowhere.jsonl"]),
        (["replay", "nowhere.jsonl", "--loop", "ajar"], ["ajar", "open", "closed"]),
        (["data", "show", "nowhere.jsonl"], ["nowhere.jsonl"]),
        (["quickstart", "--out", "FILE"], ["FILE"]),
        (["quickstart", "--shadow", "papr"], ["'papr'"]),
        (["evaluate"], ["--generations", "--model"]),
        (["evaluate", "--generations", "x.jsonl", "--n", "4", "--chat"], ["--n, --chat"]),
        (["evaluate", "--generations", "x.jsonl", "--k", "1,b"], ["--k", "'1,b'"]),
    ],
)
def test_mistakes_on_the_command_line(monkeypatch, capsys, tmp_path, arguments, parts):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("model: m\n")
    code, _, message = run(monkeypatch, capsys, *arguments)
    assert code == 2 and all(part in message for part in parts)


@pytest.mark.parametrize(
    "name",
    [
        "quickstart",
        "init",
        "train",
        "sweep",
        "data show",
        "data verl",
        "evaluate",
        "doctor",
        "watch",
        "replay",
        "report",
    ],
)
def test_every_command_has_help_with_examples_and_a_page_of_the_docs(monkeypatch, capsys, name):
    code, text, _ = run(monkeypatch, capsys, *name.split(), "--help")
    assert code == 0 and f"  viprl {name} " in text
    (page,) = re.findall(r"Documentation: (\S+\.md)", text)
    assert (Path(__file__).parents[2] / page).is_file()


def test_the_help_of_evaluate_has_groups(monkeypatch, capsys):
    _, text, _ = run(monkeypatch, capsys, "evaluate", "--help")
    for group in ("What to evaluate", "Data", "Prompts", "Grading", "Sampling", "Output"):
        assert f" {group} " in text


def test_version(monkeypatch, capsys):
    assert run(monkeypatch, capsys, "--version") == (0, f"viprl {viprl.__version__}\n", "")


def test_options_of_vip_have_the_help_of_the_settings(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "500")
    _, text, _ = run(monkeypatch, capsys, "replay", "--help")
    (features,) = (option.metadata["help"] for option in options(Settings) if option.name == "features")
    assert " ".join(features.split()) in " ".join(text.replace("│", " ").split())


def test_start_up_imports_nothing_heavy_and_the_module_is_the_command():
    code = (
        "import sys, runpy; sys.argv = ['viprl', '--help']\n"
        "try: runpy.run_module('viprl', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'transformers', 'trl', 'datasets', 'matplotlib', 'pandas', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "quickstart" in done.stdout
