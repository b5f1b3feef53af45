"""`viprl sweep`: which runs there are, what is skipped, what a failure does, what the comparison says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats

pytest.importorskip("trl", reason='needs pip install "viprl[trl]"')
pytest.importorskip("matplotlib", reason='needs pip install "viprl[report]"')

from typer.testing import CliRunner

import tiny
from viprl.cli import app
from viprl.train import reader as reading
from viprl.train.config import ConfigError, RunConfig
from viprl.train.sweep import load_sweep
from viprl.train.sweep_run import check_sweep, run_sweep
from viprl.utils.json_lines import log_rows

# Stands in for `viprl train`: notes that it ran, logs four steps, fails for the learning rate .5 and for a folder that
# was trained with another one.
FAKE = """
import json, pathlib, sys, yaml
config = yaml.safe_load(open(sys.argv[-1]))
own = DEFAULTS
settings = {key: config.get(key, value) for key, value in own.items()}
settings["trainer"] = {key: value for key, value in config.items() if key not in own}
folder = pathlib.Path(config["output_dir"]); folder.mkdir(parents=True, exist_ok=True)
with open(folder.parent.parent / "calls", "a") as calls: calls.write(str(folder) + "\\n")
if config.get("learning_rate") == 0.5 and not (folder.parent.parent / "mended").exists():
    print("error: too fast", file=sys.stderr); sys.exit(3)
if (folder / "config.yaml").exists():
    earlier = yaml.safe_load((folder / "config.yaml").read_text())
    if earlier["trainer"].get("learning_rate") != config.get("learning_rate"):
        print("error: holds a run with other settings", file=sys.stderr); sys.exit(2)
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


@pytest.fixture
def base(tmp_path) -> dict:
    """Keys of a run that works."""
    tiny.model().save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    rows = tiny.dataset(32).to_list()
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "model": str(tmp_path / "model"), "dataset": str(tmp_path / "data.jsonl"), "vip_features": "none",
        "num_generations": 4, "per_device_train_batch_size": 16, "max_completion_length": 4, "max_steps": 4,
        "use_cpu": True, "bf16": False, "beta": 0.0, "disable_tqdm": True, "learning_rate": 1e-3,
    }  # fmt: skip


def write(tmp_path: Path, base: dict | str, /, **keys) -> Path:
    arms = {"uniform": {"vip_strategy": "uniform"}, "ema": {"vip_strategy": "ema"}}
    (tmp_path / "fake.py").write_text(FAKE.replace("DEFAULTS", repr(asdict(RunConfig("", "", "")))))
    raw = {"base": base, "output_dir": str(tmp_path / "out"), "arms": arms, "seeds": [0, 1, 2]}
    raw["launch"] = f"{sys.executable} {tmp_path / 'fake.py'}"
    path = tmp_path / "sweep.yaml"
    path.write_text(
        yaml.safe_dump({key: value for key, value in (raw | keys).items() if value is not None}, sort_keys=False)
    )
    return path


def calls(tmp_path: Path) -> list[str]:
    file = tmp_path / "out" / "calls"
    return [str(Path(line).relative_to(tmp_path / "out")) for line in file.read_text().split()] if file.exists() else []


def test_arms_by_seeds_and_a_comparison(tmp_path, base):
    assert run_sweep(load_sweep(write(tmp_path, base)))
    assert calls(tmp_path) == [f"{arm}/seed-{seed}" for arm in ("uniform", "ema") for seed in (0, 1, 2)]
    told = json.loads((tmp_path / "out" / "comparison.json").read_text())
    ema = told["arms"]["eval_reward"]["ema"]
    values = np.array([0.25, 0.35, 0.65])
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert [ema[key] for key in ("mean", "low", "high")] == pytest.approx([values.mean(), low, high])
    gap = ema["against_baseline"]
    assert [gap[key] for key in ("mean", "low", "high", "n")] == pytest.approx([0.25, 0.25, 0.25, 3])  # paired by seed
    assert told["arms"]["reward"]["ema"]["mean"] == pytest.approx(0.4) and told["baseline"] == "uniform"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Comparison of the arms" in page and "evaluation reward at the end" in page
    merged = list(log_rows(tmp_path / "out" / "comparison" / "metrics.jsonl"))
    assert {(row["strategy"], row["seed"]) for row in merged} == {(a, s) for a in ("uniform", "ema") for s in (0, 1, 2)}


def test_finished_runs_are_skipped_and_changed_ones_are_not(tmp_path, base):
    path = write(tmp_path, base, seeds=[0, 1])
    run_sweep(load_sweep(path))
    (tmp_path / "out" / "ema" / "seed-1" / "finished.json").unlink()  # as if killed
    run_sweep(load_sweep(path))
    assert calls(tmp_path)[4:] == ["ema/seed-1"]
    run_sweep(load_sweep(path, ["max_steps=8"]))
    assert len(calls(tmp_path)) == 9


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_results_of_an_earlier_configuration_are_refused_before_anything_is_trained(tmp_path, base):
    arms = {"new": {"vip_strategy": "ema"}, "uniform": {"vip_strategy": "uniform"}}
    run_sweep(load_sweep(write(tmp_path, base, arms={"uniform": arms["uniform"]}, seeds=[3])))
    before = everything(tmp_path / "out")
    sweep = load_sweep(write(tmp_path, base | {"learning_rate": 0.25}, arms=arms, seeds=[0, 3]))
    for check in (run_sweep, check_sweep):
        with pytest.raises(ConfigError, match=r"uniform, seed 3: .*other settings \(learning_rate\)"):
            check(sweep)
    assert everything(tmp_path / "out") == before


def test_an_arm_is_not_continued_with_another_strategy(tmp_path, base):
    arms = {"mine": {"vip_strategy": "uniform"}}
    run_sweep(load_sweep(write(tmp_path, base, arms=arms, seeds=[0])))
    (tmp_path / "out" / "mine" / "seed-0" / "finished.json").unlink()  # as if killed on the way
    with pytest.raises(ConfigError, match="another vip_strategy; give the arm another name"):
        run_sweep(load_sweep(write(tmp_path, base, arms={"mine": {"vip_strategy": "ema"}}, seeds=[0])))
    assert len(calls(tmp_path)) == 1


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"vip_strategy": "papr"}, "strategy is 'papr'"),
        ({"dataset": "nowhere.jsonl"}, "no such file"),
        ({"vip_warm_start": "nowhere.jsonl"}, "vip_warm_start: nowhere.jsonl: no such file"),
        ({"vip_min_rollouts": 7, "vip_max_rollouts": 9}, "cannot be met"),
    ],
)
def test_no_arm_is_trained_where_a_later_one_cannot_be(tmp_path, base, bad, message):
    sweep = load_sweep(write(tmp_path, base, arms={"good": {}, "bad": bad}))
    with pytest.raises(ConfigError, match=f"arm bad: .*{message}"):
        run_sweep(sweep)
    assert not (tmp_path / "out").exists()


def test_the_check_reads_the_data_once(tmp_path, base, monkeypatch):
    loads, counted = [], []
    monkeypatch.setattr(reading, "load", lambda spec, load=reading.load: loads.append(spec) or load(spec))
    monkeypatch.setattr(reading, "token_lengths", lambda *a, f=reading.token_lengths: counted.append(a) or f(*a))
    check_sweep(load_sweep(write(tmp_path, base)))
    assert len(loads) == len(counted) == 1
    check_sweep(load_sweep(write(tmp_path, base, arms={"a": {}, "b": {"instruction": "{question} a"}})))
    assert len(loads) == len(counted) == 3


@pytest.mark.parametrize("launch", [None, "accelerate launch -m"])
def test_the_check_knows_the_processes_of_the_runs(tmp_path, base, launch):
    """Two rollouts a process are half a group of four, on one process; on two they are one."""
    small = base | {"per_device_train_batch_size": 2}
    processes = None if launch else 2
    check_sweep(load_sweep(write(tmp_path, small, launch=launch, processes=processes)))
    with pytest.raises(ConfigError, match=r"arm uniform: .*divisible"):
        check_sweep(load_sweep(write(tmp_path, small, launch=None)))


def test_a_failed_arm_is_told_and_does_not_stop_the_others(tmp_path, base, capsys):
    arms = {"fast": {"learning_rate": 0.5}, "uniform": {"vip_strategy": "uniform"}}
    path = write(tmp_path, base, arms=arms, seeds=[0])
    assert not run_sweep(load_sweep(path))
    said = " ".join(capsys.readouterr().out.split())
    assert "fast, seed 0: failed" in said and "exit code 3: error: too fast" in said
    assert "1 of 2 runs failed: fast, seed 0" in said
    told = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert list(told["failed"]) == ["fast, seed 0"] and list(told["arms"]["reward"]) == ["uniform"]
    (tmp_path / "out" / "mended").touch()
    assert run_sweep(load_sweep(path)) and calls(tmp_path) == ["fast/seed-0", "uniform/seed-0", "fast/seed-0"]
    done = CliRunner().invoke(app, ["sweep", "--config", str(path)])
    assert done.exit_code == 0 and "finished before" in done.output


def test_the_base_may_be_files_that_extend_each_other(tmp_path, base):
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(base | {"learning_rate": 1.0}))
    (tmp_path / "b.yaml").write_text("extends: a.yaml\nlearning_rate: 2.0\n")
    sweep = load_sweep(write(tmp_path, "b.yaml"), ["temperature=0.5"])
    assert sweep.runs[0].settings["learning_rate"] == 2.0 and sweep.runs[0].settings["temperature"] == 0.5
    assert [run.settings["seed"] for run in sweep.runs] == [0, 1, 2, 0, 1, 2]
    assert len({run.settings["output_dir"] for run in sweep.runs}) == 6


def test_processes_and_launch(tmp_path, base):
    assert load_sweep(write(tmp_path, base, launch=None)).launch == (sys.executable, "-m")
    launch = load_sweep(write(tmp_path, base, launch=None, processes=4)).launch
    assert "torch.distributed.run" in launch and "--nproc_per_node=4" in launch


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"arms": None}, "`arms` is None"),
        ({"arms": {"a": 3}}, "the arm a is 3"),
        ({"arms": {"a/b": {}}}, "names a folder"),
        ({"arms": {"a": {"seed": 3}}}, "sets seed, which the sweep sets itself"),
        ({"arms": {"a": {"vip_stratgy": "x"}}}, "arm a: unknown key `vip_stratgy`; did you mean `vip_strategy`"),
        ({"seeds": 3}, "seeds is 3; expected a list"),
        ({"seeds": [1, 1]}, "stands twice"),
        ({"seed": [1]}, "unknown key `seed`"),
        ({"output_dir": None}, "`output_dir` is missing"),
        ({"base": 3}, "base is 3"),
        ({"base": "nowhere.yaml"}, r"sweep.yaml: base is 'nowhere.yaml', but .*nowhere.yaml is no file"),
        ({"baseline": "best"}, "the arms are uniform, ema"),
        ({"processes": 0, "launch": None}, "processes is 0"),
    ],
)
def test_mistakes_in_a_sweep(tmp_path, base, keys, message):
    with pytest.raises(ConfigError, match=message):
        load_sweep(write(tmp_path, base, **keys))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("output_dir=x", "output_dir belongs to the sweep"),
        ("seed=3", "seed belongs to the sweep"),
        ("vip_strategy=paper", "the arm uniform sets vip_strategy itself"),
    ],
)
def test_a_set_without_effect_is_refused(tmp_path, base, override, message):
    with pytest.raises(ConfigError, match=message):
        load_sweep(write(tmp_path, base), [override])


def test_a_dry_run_names_the_arm(tmp_path, base):
    path = write(tmp_path, base, arms={"good": {}, "bad": {"vip_min_rollouts": 7, "vip_max_rollouts": 9}})
    done = CliRunner().invoke(app, ["sweep", "--config", str(path), "--dry-run"])
    assert isinstance(done.exception, ConfigError) and "arm bad" in str(done.exception)
    assert "good, 3 seeds" in done.output and not (tmp_path / "out").exists()


def test_a_killed_sweep_takes_its_run_along_and_goes_on(tmp_path, base):
    """Real trainings: SIGKILL to the sweep in the middle of the first, then the same command."""
    arms = {"uniform": {"vip_strategy": "uniform"}}
    path = write(tmp_path, base | {"max_steps": 60, "save_steps": 5}, arms=arms, seeds=[0], launch=None)
    command = [sys.executable, "-m", "viprl", "sweep", "--config", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    metrics = tmp_path / "out" / "uniform" / "seed-0" / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while not (metrics.exists() and len(metrics.read_text().splitlines()) >= 8):
        assert process.poll() is None and time.monotonic() < deadline, "the run ended or hangs"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = [json.loads(line) for line in metrics.read_text().splitlines()[:5]]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr  # a run still writing would be refused
    rows = list(log_rows(metrics))
    assert [row["step"] for row in rows] == list(range(1, 61))
    assert rows[:5] == before and "step_time" in before[0]  # resumed, not begun anew
    assert (tmp_path / "out" / "report.html").exists()
