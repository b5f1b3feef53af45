"""The core with its core dependencies alone: `make test-core` runs these in an environment that has nothing else."""

from __future__ import annotations

import importlib.util
import logging
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import viprl
from viprl.features import encoders
from viprl.runs.history import PromptHistory, save_history

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "trl", "datasets", "pandas", "pyarrow", "matplotlib", "sentence_transformers")


def test_import_loads_nothing_heavy() -> None:
    names = (*HEAVY, "scipy.optimize", "scipy.stats")
    code = f"import sys, viprl; print([name for name in {names} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_example_of_the_readme_for_any_engine_runs(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("VIPRL_CACHE", str(tmp_path))
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## Any other engine", 1)[1].split("\n## ", 1)[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    rng = np.random.default_rng(0)
    prompts = [f"What is {i} + {i}?" for i in range(64)]
    chance = np.resize([0.5, 0.0, 1.0, 0.1], 64)
    asked = {
        "prompts": prompts,
        "sample": lambda prompt, n: (rng.random(n) < chance[prompts.index(prompt)]).astype(float).tolist(),
        "p": chance,
    }
    exec(code, asked)
    assert asked["plan"].counts.sum() == 512
    assert len(asked["advantages"]) == 512
    assert asked["vip"].metrics()["counts/mean"] == 8


def test_the_predictor_of_the_docs_works_everywhere(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("VIPRL_CACHE", str(tmp_path))
    page = (ROOT / "docs" / "predictors.md").read_text(encoding="utf-8")
    *parts, replayed, contract = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    defined: dict = {}
    for code in (*parts, contract):
        exec(code, defined)
    assert list(defined["vip"].strategies) == ["mine", "default"]
    tests = [name for name in dir(defined["TestLastRates"]) if name.startswith("test_")]
    for name in tests:
        getattr(defined["TestLastRates"](), name)()
    assert len(tests) > 5
    rng = np.random.default_rng(1)
    histories = [
        PromptHistory(str(i), f"prompt {i}", np.full(40, 8.0), rng.binomial(8, rng.beta(0.3, 0.5), 40).astype(float))
        for i in range(64)
    ]
    save_history(tmp_path / "history.jsonl.gz", histories)
    monkeypatch.chdir(tmp_path)
    exec(replayed.replace("runs/mine", "history.jsonl.gz"), defined)
    assert list(defined["results"]) == ["mine", "default", "uniform"]
    assert defined["results"]["mine"][-1].scores["capture"].mean > 0.2


def test_auto_features_without_sentence_transformers_are_the_length(caplog, monkeypatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "sentence_transformers" else find(name, *rest)
    )
    encoders.auto_features.cache_clear()
    with caplog.at_level(logging.WARNING, logger="viprl"):
        vip = viprl.VIP(cache=None, shadow=["paper"])
    encoders.auto_features.cache_clear()
    assert len(caplog.records) == 2  # one line for each choice that is replaced
    vip.observe(["short", "a longer text of several words"], [[1, 0], [1, 1]])
    described = vip.state_dict()["features"]
    assert described == {"default": "length, 2 columns", "paper": "length, 2 columns"}


@pytest.mark.parametrize(
    "arguments", [("doctor",), ("doctor", "a", "b"), ("doctor", "--strateg", "x", "a"), ("docter",)]
)
def test_wrong_arguments_of_a_command_are_reported(arguments: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, "-m", "viprl", *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "") and "Traceback" not in done.stderr


def test_a_command_runs() -> None:
    command = [sys.executable, "-m", "viprl", "doctor", str(ROOT / "tests/saved/0.1.0/run")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "default" in done.stdout
