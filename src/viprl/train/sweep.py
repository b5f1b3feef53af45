"""`viprl sweep`: arms x seeds, each a `viprl train` of its own, one after the other, and one comparison at the end.

base: mine.yaml                  a configuration of `viprl train`, a list of them, or the keys themselves
output_dir: runs/sweep           run folders: output_dir/ARM/seed-N
arms:
  uniform: {vip_strategy: uniform}
  default: {vip_strategy: default}
seeds: [0, 1, 2]
baseline: uniform                what the others are compared with; default: uniform, else the first arm
processes: 1                     more: torchrun on this machine
launch: null                     or a command such as "accelerate launch --config_file fsdp.yaml -m"
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from viprl.runs.resume import finished
from viprl.train.config import ConfigError, RunConfig, parse_config
from viprl.train.config_file import merge, read_config, with_overrides

KEYS = ("base", "output_dir", "arms", "seeds", "baseline", "processes", "launch")


@dataclass(frozen=True)
class SweepRun:
    """One training of a sweep."""

    arm: str
    seed: int
    folder: Path
    settings: Mapping[str, Any]
    """The whole configuration, as `viprl train` reads it."""
    config: RunConfig

    @property
    def name(self) -> str:
        return f"{self.arm}, seed {self.seed}"

    @property
    def file(self) -> Path:
        """Where the configuration is written, beside the run folder."""
        return self.folder.with_name(f"{self.folder.name}.yaml")

    @property
    def log(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.log")

    def text(self) -> str:
        return yaml.safe_dump(dict(self.settings), sort_keys=False)

    def finished(self) -> bool:
        """Whether this very configuration has been trained to its end."""
        return finished(self.folder, asdict(self.config))


@dataclass(frozen=True)
class Sweep:
    """All runs of a sweep and how they are started."""

    folder: Path
    runs: tuple[SweepRun, ...]
    baseline: str
    launch: tuple[str, ...]
    """Command before `viprl train ...`."""
    processes: int | None
    """Processes of a run; None where a command of the user's sets them."""
    seeds: tuple[int, ...]

    @property
    def arms(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(run.arm for run in self.runs))


def load_sweep(path: str | Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep and check the configuration of every arm. Raises `ConfigError`, naming the arm."""
    raw = read_config(path, "sweep")
    for key in raw:
        if key not in KEYS:
            raise ConfigError(
                f"{path}: unknown key `{key}`; a sweep has {', '.join(KEYS)}. Options of the runs go into base"
            )
    folder = raw.get("output_dir")
    arms, seeds = raw.get("arms"), raw.get("seeds", [0])
    if not isinstance(folder, str):
        raise ConfigError(f"{path}: `output_dir` is missing; add `output_dir: runs/sweep`")
    if not isinstance(arms, Mapping) or not arms:
        raise ConfigError(f"{path}: `arms` is {arms!r}; expected `NAME: {{key: value}}` lines, one an arm")
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise ConfigError(f"{path}: seeds is {seeds!r}; expected a list of numbers such as [0, 1, 2]")
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"{path}: seeds is {seeds!r}; a seed stands twice")
    for override in overrides:
        _check_override(override.partition("=")[0].strip().partition(".")[0], arms, path)
    base = with_overrides(_base(raw.get("base"), Path(path)), overrides)
    runs = []
    for arm, change in arms.items():
        if not re.fullmatch(r"[\w.+-]+", str(arm)):
            raise ConfigError(f"{path}: the arm {arm!r} names a folder; use letters, digits, _ . + -")
        if change is not None and not isinstance(change, Mapping):
            raise ConfigError(f"{path}: the arm {arm} is {change!r}; expected {{key: value}}")
        for key in ("output_dir", "seed"):
            if key in (change or {}):
                raise ConfigError(f"{path}: the arm {arm} sets {key}, which the sweep sets itself; leave it out")
        for seed in seeds:
            place = Path(folder) / str(arm) / f"seed-{seed}"
            settings = merge(base, {**(change or {}), "output_dir": str(place), "seed": seed})
            config = parse_config(settings, f"{path}, arm {arm}")
            runs.append(SweepRun(str(arm), seed, place, settings, config))
    names = list(map(str, arms))
    baseline = raw.get("baseline") or ("uniform" if "uniform" in names else names[0])
    if baseline not in names:
        raise ConfigError(f"{path}: baseline is {baseline!r}; the arms are {', '.join(names)}")
    launch = _launch(raw, path)
    processes = None if raw.get("launch") is not None else raw.get("processes", 1)
    return Sweep(Path(folder), tuple(runs), baseline, launch, processes, tuple(seeds))


def _check_override(key: str, arms: Mapping[str, Any], path: str | Path) -> None:
    """Refuse a `--set` that would be without effect: it goes into every run, below the arm and the sweep's own keys."""
    if key in (*KEYS, "seed"):
        raise ConfigError(f"--set {key}: --set goes into the runs, but {key} belongs to the sweep; change it in {path}")
    for arm, change in arms.items():
        if isinstance(change, Mapping) and key in change:
            raise ConfigError(f"--set {key}: the arm {arm} sets {key} itself; change it in {path}")


def _base(base: Any, path: Path) -> dict[str, Any]:
    if isinstance(base, Mapping):
        return dict(base)
    files = [base] if isinstance(base, str) else base
    if not isinstance(files, list) or not files or not all(isinstance(file, str) for file in files):
        raise ConfigError(f"{path}: base is {base!r}; expected a file of `viprl train`, a list of them, or its keys")
    merged: dict[str, Any] = {}
    for file in files:
        if not (path.parent / file).is_file():
            raise ConfigError(
                f"{path}: base is {file!r}, but {path.parent / file} is no file; expected one of `viprl train`, "
                "its path as seen from the sweep's file"
            )
        merged = merge(merged, read_config(path.parent / file))
    return merged


def _launch(raw: Mapping[str, Any], path: Any) -> tuple[str, ...]:
    processes, launch = raw.get("processes", 1), raw.get("launch")
    if type(processes) is not int or processes < 1:
        raise ConfigError(f"{path}: processes is {processes!r}; expected a number of at least 1")
    if launch is not None:
        if processes > 1 or not isinstance(launch, str):
            raise ConfigError(f"{path}: launch is {launch!r}; expected a command, which then sets the processes itself")
        return tuple(shlex.split(launch))
    if processes > 1:
        return (sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m")
    return (sys.executable, "-m")
