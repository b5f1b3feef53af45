"""The configuration of `viprl sweep`: arms x seeds, each a run of `viprl train`.

base: mine.yaml                  # a configuration of `viprl train`, a list of them, or the keys themselves
output_dir: runs/sweep           # run folders: output_dir/ARM/seed-N
arms:
  uniform: {vip_strategy: uniform}
  default: {vip_strategy: default}
seeds: [0, 1, 2]
baseline: uniform                # the arm that the others are compared with; default: uniform, else the first arm
processes: 1                     # more than 1: torchrun on this machine
launch: null                     # or a command such as "accelerate launch --config_file fsdp.yaml -m"
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from viprl.errors import ConfigError
from viprl.runs.resume import RunFolder
from viprl.train.config import RunConfig, parse_config
from viprl.train.processes import PYTHON, Training
from viprl.train.ranges import LARGEST_SEED
from viprl.train.record import run_folder
from viprl.train.yaml_files import merge, read_yaml, with_overrides
from viprl.utils.words import did_you_mean

KEYS = ("base", "output_dir", "arms", "seeds", "baseline", "processes", "launch")

LONGEST_NAME = 100
"""Bytes of the name of an arm."""
TAKEN = r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?|comparison\.json|report\.html"
"""Names of devices in Windows, and of the files of a sweep."""


@dataclass(frozen=True)
class SweepRun(Training):
    """One training of a sweep."""

    arm: str
    seed: int
    config: RunConfig
    processes: int | None = 1
    """None if the user's launch command sets them."""

    def run_folder(self) -> RunFolder:
        """The run folder and what is in it."""
        return run_folder(self.config, self.processes, known=self.processes is not None)

    def finished(self) -> bool:
        """Whether the folder has the finished run with these settings."""
        return self.run_folder().finished()


@dataclass(frozen=True)
class Sweep:
    """All runs of a sweep and how they are started."""

    folder: Path
    runs: tuple[SweepRun, ...]
    baseline: str
    launch: tuple[str, ...]
    """Command before `viprl train ...`."""
    processes: int | None
    """Processes of a run; None if the user's launch command sets them."""

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms, in the order of the file."""
        return tuple(dict.fromkeys(run.arm for run in self.runs))


def load_sweep(path: str | Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep and check the configuration of every arm; `overrides` are `key=value` texts for all runs.

    Raises ConfigError with the name of the file and, for a mistake in an arm, of the arm.
    """
    raw = read_yaml(path, "sweep")
    if "arms" not in raw and "model" in raw:
        raise ConfigError(f"{path} has no `arms`, so it is a single run: viprl train --config {path}")
    for key in raw:
        if key not in KEYS:
            near = did_you_mean(str(key), KEYS)
            expected = near or f"expected {', '.join(KEYS)}. Options of the runs belong under base"
            raise ConfigError(f"{path}: unknown key `{key}`; {expected}")
    folder, arms, seeds = raw.get("output_dir"), raw.get("arms"), raw.get("seeds", [0])
    if not isinstance(folder, str):
        raise ConfigError(f"{path}: `output_dir` is missing; add `output_dir: runs/sweep`")
    if not isinstance(arms, Mapping) or not arms:
        raise ConfigError(f"{path}: `arms` is {arms!r}; expected a line `NAME: {{key: value}}` for each arm")
    if (
        not isinstance(seeds, list)
        or not seeds
        or not all(type(seed) is int and 0 <= seed <= LARGEST_SEED for seed in seeds)
    ):
        raise ConfigError(f"{path}: seeds is {seeds!r}; expected a list of whole numbers such as [0, 1, 2]")
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"{path}: seeds is {seeds!r}; remove the duplicate seed")
    if len({str(arm).lower() for arm in arms}) < len(arms):
        raise ConfigError(f"{path}: two arms of {', '.join(map(repr, arms))} would have the same folder; rename one")
    arms = {str(arm): {} if change is None else change for arm, change in arms.items()}
    for arm, change in arms.items():
        _check_arm(arm, change, path)
    for override in overrides:
        _check_override(override.partition("=")[0].strip().partition(".")[0], arms, path)
    baseline = raw.get("baseline") or ("uniform" if "uniform" in arms else next(iter(arms)))
    if baseline not in arms:
        raise ConfigError(f"{path}: baseline is {baseline!r}; expected one of the arms {', '.join(arms)}")
    launch = _launch(raw, path)
    base = with_overrides(_base(raw.get("base"), Path(path)), overrides)
    processes = None if raw.get("launch") is not None else raw.get("processes", 1)
    runs = []
    for arm, change in arms.items():
        for seed in seeds:
            place = Path(folder) / arm / f"seed-{seed}"
            settings = merge(base, {**change, "output_dir": str(place), "seed": seed})
            config = parse_config(settings, f"{path}, arm {arm}")
            runs.append(SweepRun(f"{arm}, seed {seed}", place, settings, arm, seed, config, processes))
    return Sweep(Path(folder), tuple(runs), baseline, launch, processes)


def _check_arm(arm: str, change: Any, path: str | Path) -> None:
    usable = re.fullmatch(r"[\w+-][\w.+-]*", arm) and not arm.endswith(".") and len(arm.encode()) <= LONGEST_NAME
    if not usable or re.fullmatch(TAKEN, arm.lower()):
        raise ConfigError(
            f"{path}: arm {arm!r} becomes the name of a folder; use letters, digits, _ . + -, at most "
            f"{LONGEST_NAME} of them, without a dot at the beginning or the end, and no name of the system such as con"
        )
    if not isinstance(change, Mapping):
        raise ConfigError(f"{path}: arm {arm} is {change!r}; expected {{key: value}}")
    for key in ("output_dir", "seed"):
        if key in change:
            raise ConfigError(f"{path}: arm {arm} has the key {key}, which the sweep sets; remove it")


def _check_override(key: str, arms: Mapping[str, Any], path: str | Path) -> None:
    """Refuse a `--set` without effect: the arms and the sweep itself take precedence over it."""
    if key in (*KEYS, "seed"):
        raise ConfigError(f"--set {key}: --set changes the runs, but {key} belongs to the sweep; change it in {path}")
    for arm, change in arms.items():
        if key in change:
            raise ConfigError(f"--set {key}: arm {arm} has a value of its own; change it in {path}")


def _base(base: Any, path: Path) -> dict[str, Any]:
    if isinstance(base, Mapping):
        return dict(base)
    files = [base] if isinstance(base, str) else base
    if not isinstance(files, list) or not files or not all(isinstance(file, str) for file in files):
        raise ConfigError(f"{path}: base is {base!r}; expected a file of `viprl train`, a list of files, or its keys")
    merged: dict[str, Any] = {}
    for file in files:
        if not (path.parent / file).is_file():
            raise ConfigError(
                f"{path}: base is {file!r}, but {path.parent / file} is not a file; give the path of a `viprl train` "
                "configuration relative to this file"
            )
        merged = merge(merged, read_yaml(path.parent / file))
    return merged


def _launch(raw: Mapping[str, Any], path: Any) -> tuple[str, ...]:
    processes, launch = raw.get("processes", 1), raw.get("launch")
    if type(processes) is not int or processes < 1:
        raise ConfigError(f"{path}: processes is {processes!r}; expected a whole number of at least 1")
    if launch is not None:
        if processes > 1 or not isinstance(launch, str):
            raise ConfigError(
                f"{path}: launch is {launch!r} and processes is {processes}; expected a command, without processes"
            )
        return tuple(shlex.split(launch))
    if processes > 1:
        return (sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m")
    return PYTHON
