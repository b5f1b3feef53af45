"""Every command of the documentation: `viprl` runs, or is at least parsed by the command line; of other programs the
targets, files, modules, extras and options are checked."""

from __future__ import annotations

import re
import shutil
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

pytest.importorskip("trl", reason='needs pip install "viprl[trl]"')
pytest.importorskip("matplotlib", reason='needs pip install "viprl[report]"')
pytest.importorskip("math_verify", reason='needs pip install "viprl[eval]"')

from commands import called

import documentation
import tiny
from documentation import PAGES, ROOT, Block, blocks, prose
from log_files import write_lines, write_parquet
from viprl import cli
from viprl.train.config import parse_config
from viprl.train.training import train

ONLY_PARSED = {
    "quickstart": "trains for minutes; tests/quickstart",
    "evaluate --model": "samples 32 long completions of each problem; tests/cli/test_evaluate_command.py",
    "variance": "measures for a minute; tests/cli/test_variance_command.py",
    "sweep --config sweep.yaml": "six trainings; tests/train/test_sweep_run.py",
    "train --config recipes/": "models and data of the Hub; tests/recipes",
    "train --config examples/": "weights of a package that is not installed; tests/examples",
    "report runs/smollm2/": "the same",
    "data verl": "data of the Hub; tests/data/test_export.py",
    "replay FILE": "a log that is not part of the repository; other replays run",
}
"""Beginning of the arguments of `viprl` -> why they are not run."""


@dataclass(frozen=True)
class Setting:
    """What the commands of a page need: `files` that the blocks of YAML are written to, with changes of their text, and
    `arguments` that are replaced."""

    files: dict[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)


MODEL = {"Qwen/Qwen2.5-0.5B-Instruct": "model"}
SETTINGS = {
    "docs/train.md": Setting(
        files={
            "mine.yaml": (
                ("Qwen/Qwen2.5-0.5B-Instruct", "model"),
                ("gsm8k  ", "rows.jsonl  "),
                ("math_last_number  ", "mine:correct  "),
                ("max_completion_length: 512", "max_completion_length: 4\nmax_steps: 2\nuse_cpu: true\nbf16: false"),
                ("output_dir: runs/mine", "output_dir: runs/new"),
            ),
            "sweep.yaml": (),
        },
        arguments=MODEL | {"runs/mine": "runs/new"},
    ),
    "docs/replay.md": Setting(arguments={"LOG": "LOG.jsonl"}),
}
CODES = {"doctor": (0, 1)}
"""Exit codes that are no failure."""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """The folder of a reader: a model, data, a reward function, a finished run, logs of other trainers."""
    folder = tmp_path_factory.mktemp("reader")
    rng = np.random.default_rng(0)
    keys = tiny.run_settings(folder, tiny.save(folder / "model")) | {"output_dir": str(folder / "runs" / "mine")}
    train(parse_config(keys | {"vip_strategy": "default"}))
    rows = [row | {"id": str(i)} for i, row in enumerate(tiny.dataset(32).to_list())]
    write_lines(folder / "rows.jsonl", rows)
    (folder / "mine.py").write_text("from tiny import contains as correct\n")
    answers = [row | {"answer": row["solution"], "completions": rng.choice(list("abc"), 32).tolist()} for row in rows]
    write_lines(folder / "FILE.jsonl", [{key: row[key] for key in ("id", "answer", "completions")} for row in answers])
    chance = np.resize([0.0, 0.3, 0.6, 1.0], 32)
    for step in range(1, 5):
        logged = [(row, float(rng.random() < p)) for row, p in zip(rows, chance, strict=True) for _ in range(4)]
        write_parquet(
            folder / "OUTPUT_DIR" / "completions" / f"completions_{step:05d}.parquet",
            [{"step": step, "prompt": row["prompt"], "completion": "x", "accuracy": r} for row, r in logged],
        )
        write_lines(
            folder / "FOLDER" / f"{step}.jsonl",
            [
                {"input": w["prompt"], "output": "x", "gts": w["solution"], "score": r, "acc": r, "step": step}
                for w, r in logged
            ],
        )
    shutil.copy(next((folder / "runs/mine").glob("checkpoint-4/trainer_state.json")), folder / "OUTPUT_DIR")
    history = [
        {
            "id": row["id"],
            "prompt": row["prompt"],
            "rollouts": 4,
            "successes": k,
            "lengths": rng.integers(1, 9, (6, 4)).tolist(),
        }
        for row, k in zip(rows, rng.binomial(4, chance[:, None], (32, 6)).tolist(), strict=True)
    ]
    write_lines(folder / "LOG.jsonl", history)
    for copy in ("a", "b"):
        shutil.copytree(folder / "runs" / "mine", folder / "runs" / copy)
    for name in ("recipes", "examples"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture
def here(place, monkeypatch) -> Path:
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setenv("VIPRL_CACHE", str(place / "cache"))
    monkeypatch.setattr("viprl.features.encoders.auto_features", lambda wanted: wanted and "length")
    return place


SHELL = documentation.all_blocks("bash", "console")


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_the_commands_of_a_block(block, here, capsys) -> None:
    setting = SETTINGS.get(block.page, Setting())
    write_files(block.page, setting, here)
    calls = called(commands_of(block), here)
    assert calls
    for program, *arguments in calls:
        CHECKS[program](setting, arguments)


def commands_of(block: Block) -> str:
    """The text of a block; of a session on a console the lines after the prompt."""
    if block.language == "bash":
        return block.text
    return "\n".join(re.findall(r"^\$ (.*)$", block.text, re.MULTILINE))


def write_files(page: str, setting: Setting, folder: Path) -> None:
    """Each block of YAML that begins with the name of a file is that file."""
    for block in blocks(page, "yaml"):
        name = block.text.splitlines()[0].removeprefix("# ")
        if name in setting.files:
            (folder / name).write_text(documentation.replaced(block.text, setting.files[name]))


def viprl_call(setting: Setting, arguments: list[str]) -> None:
    parse(arguments)
    if any(" ".join(arguments).startswith(beginning) for beginning in ONLY_PARSED) and "--dry-run" not in arguments:
        return
    if any("recipes/" in argument for argument in arguments):
        return
    if arguments[0] == "init":
        before = Path(arguments[1]).read_text()
        Path(arguments[1]).unlink()
    code = run([setting.arguments.get(argument, argument) for argument in arguments])
    assert code in CODES.get(arguments[0], (0,))
    if arguments[0] == "init":
        assert Path(arguments[1]).is_file()
        Path(arguments[1]).write_text(before)


def run(arguments: list[str]) -> int:
    given, sys.argv = sys.argv, ["viprl", *arguments]
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = given
    return 0


def parse(arguments: list[str]) -> None:
    """Let the command line read the arguments without running anything."""
    command: Any = typer.main.get_command(cli.app)
    context = command.make_context("viprl", list(arguments))
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)


def python_call(setting: Setting, arguments: list[str]) -> None:
    if arguments[0] != "-m":
        assert (ROOT / arguments[0]).is_file()
    elif arguments[1] == "viprl":
        viprl_call(setting, arguments[2:])
    elif not arguments[1].startswith("verl."):  # tests/engines/verl composes these
        assert (ROOT / arguments[1].replace(".", "/")).with_suffix(".py").is_file()


def pip_call(_: Setting, arguments: list[str]) -> None:
    assert arguments[0] == "install"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for requirement in arguments[1:]:
        name, _, wanted = requirement.strip("]").partition("[")
        if name in ("viprl", "."):
            assert set(filter(None, wanted.split(","))) <= set(extras)


def make_call(_: Setting, arguments: list[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for argument in arguments:
        if argument.startswith("ARGS="):
            options = set(re.findall(r"--[a-z-]+", argument))
            source = {"learning": "benchmarks/learning/__main__.py", "bench": "benchmarks/step_cost.py"}[arguments[0]]
            assert options <= set(re.findall(r'"(--[a-z-]+)"', (ROOT / source).read_text()))
            if arguments[0] == "learning":
                check_arms(argument)
        else:
            assert argument in targets


def check_arms(text: str) -> None:
    from learning.arms import ARMS
    from learning.experiment import REGIMES

    regimes, arms = re.search(r"--regimes ([\w,]+)", text), re.search(r"--arms (?:'([^']+)'|(\S+))", text)
    assert set(regimes[1].split(",") if regimes else ()) <= set(REGIMES)
    assert set((arms[1] or arms[2]).split(",") if arms else ()) <= {*ARMS, "all"}


def launched(setting: Setting, arguments: list[str]) -> None:
    """torchrun or accelerate: the configuration exists, and `-m viprl ...` is a command."""
    if "--config_file" in arguments:
        assert (ROOT / arguments[arguments.index("--config_file") + 1]).is_file()
    module = arguments.index("-m")
    assert arguments[module + 1] == "viprl"
    parse(arguments[module + 2 :])


CHECKS: dict[str, Callable[[Setting, list[str]], None]] = {
    "viprl": viprl_call,
    "python": python_call,
    "pip": pip_call,
    "make": make_call,
    "torchrun": launched,
    "accelerate": launched,
    "ray": lambda setting, arguments: None,  # a program of verl's environment
}


INLINE = [
    (page, command)
    for page in PAGES
    for command in dict.fromkeys(
        re.findall(r"`((?:viprl|torchrun|accelerate|make) [^`]*)`", " ".join(prose(page).split()))
    )
]


@pytest.mark.parametrize("page", dict.fromkeys(page for page, _ in INLINE))
def test_commands_in_sentences_exist(page) -> None:
    """Subcommand, options, configurations and targets. Names in capitals, dots and brackets stand for something."""
    group: Any = typer.main.get_command(cli.app)
    for command in (command for where, command in INLINE if where == page):
        words = command.split()
        if words[0] == "make":
            make_call(Setting(), [word for word in words[1:] if not word.startswith("ARGS")])
            continue
        found: Any = group
        words = words[words.index("viprl") + 1 :]
        while hasattr(found, "commands") and not words[0].startswith("--"):
            found = found.commands[words.pop(0)]
        options = {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= options, command
        for word in words:
            if word.startswith(("recipes/", "examples/")):
                assert (ROOT / word).is_file(), command
