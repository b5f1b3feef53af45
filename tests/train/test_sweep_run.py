"""Running a sweep, with a script in the place of `viprl train`: checks, failures, continuation, comparison."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats

pytest.importorskip("matplotlib", reason='needs pip install "viprl[report]"')

from refused import refused
from viprl.errors import ConfigError
from viprl.train import data_cache
from viprl.train.config import RunConfig
from viprl.train.sweep import load_sweep
from viprl.train.sweep_run import check_sweep, run_sweep
from viprl.utils.json_lines import log_rows

# Notes that it ran, logs four steps, fails for the learning rate .5.
FAKE = """
import json, pathlib, sys, yaml
config = yaml.safe_load(open(sys.argv[-1]))
own = DEFAULTS
settings = {key: config.get(key, value) for key, value in own.items()}
settings["trainer"] = {key: value for key, value in config.items() if key not in own}
folder = pathlib.Path(config["output_dir"]); folder.mkdir(parents=True, exist_ok=True)
with open(folder.parent.parent / "calls", "a") as calls: calls.write(str(folder) + "\\n")
if config.get("learning_rate") == 0.5 and not (folder.parent.parent / "fixed").exists():
    sys.exit("error: too fast")
(folder / "config.yaml").write_text(yaml.safe_dump(settings))
bonus = {"uniform": 0.0, "ema": 0.25}.get(config.get("vip_strategy"), 0.0)
with open(folder / "metrics.jsonl", "w") as log:
    for step in range(1, 5):
        row = {"strategy": config.get("vip_strategy"), "seed": config["seed"], "step": step, "rollouts": 16 * step}
        row |= {"vip/zero_advantage_rollouts": 0.5}
        row |= {"reward": 0.1 * step, "eval_reward": config["seed"] ** 2 / 10 + bonus}
        log.write(json.dumps(row) + "\\n")
(folder / "finished.json").write_text("{}")
"""
UNIFORM, EMA = {"vip_strategy": "uniform"}, {"vip_strategy": "ema"}


def write(tmp_path: Path, base: dict, /, arms: dict | None = None, **keys) -> Path:
    (tmp_path / "fake.py").write_text(
        FAKE.replace("DEFAULTS", repr(asdict(RunConfig(model="", dataset="", output_dir=""))))
    )
    raw = {"base": base, "output_dir": str(tmp_path / "out"), "arms": arms or {"uniform": UNIFORM, "ema": EMA}}
    raw |= {"seeds": [0, 1, 2], "launch": f"{sys.executable} {tmp_path / 'fake.py'}"} | keys
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in raw.items() if v is not None}, sort_keys=False))
    return path


def calls(tmp_path: Path) -> list[str]:
    file = tmp_path / "out" / "calls"
    return [str(Path(line).relative_to(tmp_path / "out")) for line in file.read_text().split()] if file.exists() else []


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_arm_with_every_seed_and_a_comparison_and_only_what_is_not_finished_again(tmp_path, base):
    path = write(tmp_path, base)
    assert run_sweep(load_sweep(path))
    assert calls(tmp_path) == [f"{arm}/seed-{seed}" for arm in ("uniform", "ema") for seed in (0, 1, 2)]
    comparison = json.loads((tmp_path / "out" / "comparison.json").read_text())
    ema = comparison["arms"]["eval_reward"]["ema"]
    values = np.array([0.25, 0.35, 0.65])
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert [ema[key] for key in ("mean", "low", "high")] == pytest.approx([values.mean(), low, high])
    gap = ema["against_baseline"]
    assert [gap[key] for key in ("mean", "low", "high", "n")] == pytest.approx([0.25, 0.25, 0.25, 3])  # paired by seed
    assert comparison["arms"]["reward"]["ema"]["mean"] == pytest.approx(0.4) and comparison["baseline"] == "uniform"
    assert (tmp_path / "out" / "report.html").exists()
    merged = list(log_rows(tmp_path / "out" / "comparison" / "metrics.jsonl"))
    assert {(row["strategy"], row["seed"]) for row in merged} == {(a, s) for a in ("uniform", "ema") for s in (0, 1, 2)}
    (tmp_path / "out" / "ema" / "seed-1" / "finished.json").unlink()  # as if killed
    run_sweep(load_sweep(path))
    assert calls(tmp_path)[6:] == ["ema/seed-1"]


def test_a_failed_run_is_reported_does_not_stop_the_others_and_is_tried_again(tmp_path, base, capsys):
    arms = {"fast": {"learning_rate": 0.5}, "uniform": UNIFORM}
    path = write(tmp_path, base, arms=arms, seeds=[0])
    assert not run_sweep(load_sweep(path))
    printed = capsys.readouterr().out
    assert "fast, seed 0: failed" in printed and "exit code 1" in printed and "too fast" in printed
    comparison = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert comparison["failed"] == {"fast, seed 0": "exit code 1: error: too fast"}
    assert list(comparison["arms"]["reward"]) == ["uniform"]
    (tmp_path / "out" / "fixed").touch()
    assert run_sweep(load_sweep(path)) and calls(tmp_path) == ["fast/seed-0", "uniform/seed-0", "fast/seed-0"]


def test_a_folder_with_other_settings_is_refused_before_anything_is_trained(tmp_path, base):
    run_sweep(load_sweep(write(tmp_path, base, arms={"uniform": UNIFORM}, seeds=[3])))
    before = files(tmp_path / "out")
    sweep = load_sweep(
        write(tmp_path, base | {"learning_rate": 0.25}, arms={"new": EMA, "uniform": UNIFORM}, seeds=[0, 3])
    )
    for check in (run_sweep, check_sweep):
        with refused(ConfigError, "uniform, seed 3", "learning_rate 0.001 ->"):
            check(sweep)
    (tmp_path / "out" / "uniform" / "seed-3" / "finished.json").unlink()  # as if killed
    with pytest.raises(ConfigError, match="vip_strategy"):
        run_sweep(load_sweep(write(tmp_path, base, arms={"uniform": EMA}, seeds=[3])))
    del before[str(tmp_path / "out" / "uniform" / "seed-3" / "finished.json")]
    assert files(tmp_path / "out") == before


def test_a_longer_training_continues_finished_runs(tmp_path, base):
    path = write(tmp_path, base, arms={"uniform": UNIFORM}, seeds=[0])
    run_sweep(load_sweep(path))
    run_sweep(load_sweep(path, ["max_steps=8"]))
    assert len(calls(tmp_path)) == 2


def test_a_mistake_in_one_arm_stops_the_sweep_before_anything_is_trained(tmp_path, base, capsys):
    bad = {"vip_min_rollouts": 7, "vip_max_rollouts": 9}
    sweep = load_sweep(write(tmp_path, base, arms={"good": {}, "bad": bad}))
    for check in (run_sweep, check_sweep):
        with pytest.raises(ConfigError, match=r"arm bad.*vip_min_rollouts"):
            check(sweep)
        assert "good" in capsys.readouterr().out and not (tmp_path / "out").exists()
    broken = load_sweep(write(tmp_path, base, arms={"good": {}, "bad": {"reward": "sample_rewards:broken"}}))
    with pytest.raises(KeyError) as error:
        run_sweep(broken)
    assert any("arm bad" in note for note in error.value.__notes__)


def test_data_that_arms_share_is_read_once(tmp_path, base, monkeypatch):
    loads, counted = [], []
    monkeypatch.setattr(data_cache, "load", lambda source, load=data_cache.load: loads.append(source) or load(source))
    monkeypatch.setattr(data_cache, "token_lengths", lambda *a, f=data_cache.token_lengths: counted.append(a) or f(*a))
    check_sweep(load_sweep(write(tmp_path, base)))
    assert len(loads) == len(counted) == 1
    check_sweep(load_sweep(write(tmp_path, base, arms={"a": {}, "b": {"instruction": "{question} a"}})))
    assert len(loads) == len(counted) == 3


@pytest.mark.parametrize("launch", [None, "accelerate launch -m"])
def test_the_check_knows_the_processes_of_the_runs(tmp_path, base, launch):
    """Two rollouts a process make half a group of four on one process, and a whole one on two."""
    small = base | {"per_device_train_batch_size": 2}
    check_sweep(load_sweep(write(tmp_path, small, launch=launch, processes=None if launch else 2)))
    with pytest.raises(ConfigError, match="arm uniform"):
        check_sweep(load_sweep(write(tmp_path, small, launch=None)))
