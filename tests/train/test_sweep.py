"""The configuration of a sweep."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from refused import refused
from viprl.errors import ConfigError
from viprl.train.sweep import load_sweep

ARMS = {"uniform": {"vip_strategy": "uniform"}, "ema": {"vip_strategy": "ema"}}


def write(tmp_path: Path, base: dict | str, /, **keys) -> Path:
    raw = {"base": base, "output_dir": str(tmp_path / "out"), "arms": ARMS, "seeds": [0, 1, 2]} | keys
    (tmp_path / "sweep.yaml").write_text(
        yaml.safe_dump({k: v for k, v in raw.items() if v is not None}, sort_keys=False)
    )
    return tmp_path / "sweep.yaml"


def test_arms_by_seeds_on_files_that_extend_each_other(tmp_path, base):
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(base | {"learning_rate": 1.0}))
    (tmp_path / "b.yaml").write_text("extends: a.yaml\nlearning_rate: 2.0\n")
    sweep = load_sweep(write(tmp_path, "b.yaml"), ["temperature=0.5"])
    assert [run.name for run in sweep.runs] == [f"{arm}, seed {seed}" for arm in ARMS for seed in (0, 1, 2)]
    assert [run.folder for run in sweep.runs] == [tmp_path / "out" / a / f"seed-{s}" for a in ARMS for s in (0, 1, 2)]
    for run in sweep.runs:
        assert run.settings["learning_rate"] == 2.0 and run.settings["temperature"] == 0.5
        assert run.settings["vip_strategy"] == run.arm and run.settings["seed"] == run.seed
        assert run.settings["output_dir"] == run.config.output_dir == str(run.folder)
    assert sweep.baseline == "uniform" and sweep.arms == ("uniform", "ema")


def test_processes_and_launch(tmp_path, base):
    sweep = load_sweep(write(tmp_path, base))
    assert sweep.launch == (sys.executable, "-m") and sweep.processes == 1
    sweep = load_sweep(write(tmp_path, base, processes=4))
    assert "torch.distributed.run" in sweep.launch and "--nproc_per_node=4" in sweep.launch and sweep.processes == 4
    sweep = load_sweep(write(tmp_path, base, launch="accelerate launch -m"))
    assert sweep.launch == ("accelerate", "launch", "-m") and sweep.processes is None


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ({"arms": None}, ["`arms` is None"]),
        ({"arms": None, "model": "m"}, ["viprl train"]),
        ({"arms": {"a": 3}}, ["arm a is 3"]),
        ({"arms": {"a": {}, "A": {}}}, ["'a', 'A'"]),
        ({"arms": {1: {}, "1": {}}}, ["1, '1'"]),
        ({"seeds": [2**32]}, ["seeds is [4294967296]"]),
        ({"arms": {"a": {"seed": 3}}}, ["arm a", "seed"]),
        ({"arms": {"a": {"vip_stratgy": "x"}}}, ["arm a", "`vip_stratgy`", "vip_strategy"]),
        ({"seeds": 3}, ["seeds is 3"]),
        ({"seeds": [1, 1]}, ["seeds is [1, 1]", "duplicate"]),
        ({"seed": [1]}, ["`seed`"]),
        ({"output_dir": None}, ["`output_dir`"]),
        ({"base": 3}, ["base is 3"]),
        ({"base": "nowhere.yaml"}, ["base is 'nowhere.yaml'"]),
        ({"baseline": "best"}, ["baseline is 'best'", "uniform, ema"]),
        ({"processes": 0}, ["processes is 0"]),
        ({"processes": 2, "launch": "accelerate launch -m"}, ["launch", "processes is 2"]),
    ],
)
def test_mistakes(tmp_path, base, keys, parts):
    with refused(ConfigError, "sweep.yaml", *parts):
        load_sweep(write(tmp_path, base, **keys))


@pytest.mark.parametrize("override", ["output_dir=x", "seed=3", "vip_strategy=paper"])
def test_an_override_without_effect_is_refused(tmp_path, base, override):
    with pytest.raises(ConfigError, match=f"--set {override.partition('=')[0]}"):
        load_sweep(write(tmp_path, base), [override])


@pytest.mark.parametrize(
    "arm", ["..", ".", "...", "a/b", "../a", "a\\b", "", " ", "a b", "a\n", "con", "NUL", "com1.x", "a.", ".a",
            "x" * 101, "é" * 51, "a:b", "*", "report.html"]
)  # fmt: skip
def test_an_arm_that_is_not_the_name_of_a_folder(tmp_path, base, arm):
    with refused(ConfigError, "sweep.yaml", repr(arm)):
        load_sweep(write(tmp_path, base, arms={arm: {}}))


@pytest.mark.parametrize("arm", ["a", "-kl", "+kl", "1e-6", "größe", "v1.5", "x" * 100, "contrast"])
def test_an_arm_becomes_a_folder_in_that_of_the_sweep(tmp_path, base, arm):
    (run,) = load_sweep(write(tmp_path, base, arms={arm: {}}, seeds=[0])).runs
    assert run.folder == tmp_path / "out" / arm / "seed-0" and run.folder.resolve().is_relative_to(tmp_path / "out")
