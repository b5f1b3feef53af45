"""The core with its core dependencies alone: `make test-core` runs these in an environment that has nothing else."""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
from pathlib import Path

import pytest

import viprl
from viprl.features import encoders

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "trl", "datasets", "pandas", "pyarrow", "matplotlib", "sentence_transformers")


def test_import_loads_nothing_heavy() -> None:
    names = (*HEAVY, "scipy.optimize", "scipy.stats")
    code = f"import sys, viprl; print([name for name in {names} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


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
