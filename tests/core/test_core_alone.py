"""The core with its core dependencies alone: `make test-core` runs these in an environment that has nothing else."""

from __future__ import annotations

import importlib.util
import logging
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

import viprl
from viprl.features import encoders

README = Path(__file__).parents[2] / "README.md"
HEAVY = ("torch", "transformers", "trl", "datasets", "pandas", "pyarrow", "matplotlib", "sentence_transformers")


def test_import_loads_nothing_heavy() -> None:
    names = (*HEAVY, "scipy.optimize", "scipy.stats")
    code = f"import sys, viprl; print([name for name in {names} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_example_of_the_readme_for_any_engine_runs(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("VIPRL_CACHE", str(tmp_path))
    section = README.read_text(encoding="utf-8").split("\n## Any other engine", 1)[1].split("\n## ", 1)[0]
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
