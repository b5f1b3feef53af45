"""Faults in a run: what docs/faults.md says, where no other test shows it."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import viprl
from viprl.errors import FileError, InputError
from viprl.predictors.base import Batch, Prediction, Predictor
from viprl.runs.history import PromptHistory, read_history_file, save_history
from viprl.runs.run_log import RunLog
from viprl.utils import files
from viprl.utils.json_lines import append_json_line, log_rows

POOL = [f"prompt {i}" for i in range(48)]
CHANCES = dict(zip(POOL, np.where(np.arange(48) % 4 == 0, 0.4, 0.0), strict=True))
PROMPTS = POOL[:6]
C = 40


def vip(**options: Any) -> viprl.VIP:
    return viprl.VIP(**{"features": None, "cache": None, "min_rollouts": 2, "max_rollouts": 24} | options)


def sampled(prompts: list[str], counts: np.ndarray, rng: np.random.Generator) -> list[list[float]]:
    return [(rng.random(n) < CHANCES[prompt]).astype(float).tolist() for prompt, n in zip(prompts, counts, strict=True)]


def step(agent: viprl.VIP, rng: np.random.Generator, *, select: bool, waves: int) -> dict[str, Any]:
    """One step of a training, and what it did."""
    offered = list(rng.permutation(POOL)[:32])
    done: dict[str, Any] = {}
    if select:
        selection = agent.select(offered, 128, 16, waves=waves)
        plan, offered = selection.allocation, [offered[i] for i in selection.positions]
        done |= {"positions": selection.positions, "weights": selection.weights}
    else:
        plan = agent.allocate(offered, 256, waves=waves)
    done |= {"first": plan.counts, "looks": plan.waves is not None}
    rewards = sampled(offered, plan.counts, rng)
    if waves == 2:
        plan = agent.next(plan, rewards)
        rewards = [a + b for a, b in zip(rewards, sampled(offered, plan.counts, rng), strict=True)]
        done |= {"second": plan.counts, "advantages": viprl.pooled_advantages(rewards, plan)}
    else:
        flat = [reward for group in rewards for reward in group]
        done["advantages"] = viprl.group_advantages(flat, plan.counts, prior=plan.prior)
    agent.observe(offered, rewards, lengths=[[50.0 + 9 * q] * len(group) for q, group in enumerate(rewards)])
    return done


@pytest.mark.parametrize(
    ("options", "select", "waves", "through_file"),
    [
        ({}, False, 1, False),
        ({}, True, 1, False),
        ({"spend": "match"}, False, 1, False),
        ({"cost": "tokens"}, False, 1, False),
        ({"baseline": "expected"}, False, 1, False),
        ({}, False, 2, False),
        ({"spend": "match", "cost": "tokens", "baseline": "expected"}, True, 2, True),
    ],
    ids=["plain", "selection", "match", "tokens", "expected", "waves", "all"],
)
def test_the_next_steps_after_a_resume_are_identical(options, select, waves, through_file, tmp_path) -> None:
    one, other = vip(**options, seed=1), vip(**options, seed=2)
    rng = np.random.default_rng(0)
    for _ in range(2):
        step(one, rng, select=select, waves=waves)
    if through_file:
        one.save(tmp_path / "state")
        other.load(tmp_path / "state")
    else:
        other.load_state_dict(one.state_dict())
    same = [np.random.default_rng(5), np.random.default_rng(5)]
    looks = False
    for _ in range(2):
        done, again = (step(agent, r, select=select, waves=waves) for agent, r in zip((one, other), same, strict=True))
        assert done.keys() == again.keys()
        for name, value in done.items():
            np.testing.assert_array_equal(value, again[name], err_msg=name)
        looks |= done["looks"]
    assert looks == (waves == 2)


def test_a_plan_that_was_saved_between_two_waves_is_gone() -> None:
    one, other, new = vip(), vip(), [f"new {i}" for i in range(24)]
    one.observe_counts(POOL, [2 * (CHANCES[prompt] > 0) for prompt in POOL], [4] * 48)
    plan = one.allocate(new, 192, waves=2)
    assert plan.waves is not None
    other.load_state_dict(one.state_dict())
    with pytest.raises(InputError):
        other.next(plan, [[0.0] * n for n in plan.counts])
    again = other.allocate(new, 192, waves=2)
    other.next(again, [[0.0] * n for n in again.counts])


def test_a_batch_that_is_observed_again_is_learned_again() -> None:
    """Nothing tells it from new outcomes of the same prompts."""
    agent = vip()
    plan = agent.allocate(PROMPTS, C)
    rewards = [[1.0, *[0.0] * (n - 1)] for n in plan.counts]
    agent.observe(PROMPTS, rewards)
    once, metrics = agent.predict(PROMPTS), agent.metrics()
    agent.observe(PROMPTS, rewards)
    assert (agent.predict(PROMPTS) != once).all() and agent.metrics() == metrics


# --- predictors and rules ---------------------------------------------------------------------------------------------


def point(p: np.ndarray, **parts: Any) -> Prediction:
    return Prediction(**{"success_probability": p, "reward_variance": p * (1 - p)} | parts)


def with_first(p: np.ndarray, value: float) -> np.ndarray:
    return np.array([value, *p[1:]])


FAULTS: dict[str, Callable[[np.ndarray], Prediction]] = {
    "nan": lambda p: Prediction.of_points(with_first(p, np.nan)),
    "infinite": lambda p: Prediction.of_points(with_first(p, np.inf)),
    "beyond one": lambda p: Prediction.of_points(with_first(p, 2.0)),
    "negative variance": lambda p: point(p, reward_variance=with_first(p, -1.0)),
    "infinite variance": lambda p: point(p, reward_variance=with_first(p, np.inf)),
    "nan pseudocounts": lambda p: point(p, pseudocounts=with_first(p, np.nan)),
    "short": lambda p: Prediction.of_points(p[1:]),
    "long": lambda p: Prediction.of_points(np.append(p, 0.5)),
    "column": lambda p: Prediction.of_points(p[:, None]),
    "scalar": lambda p: Prediction.of_points(p[0]),
    "list": lambda p: point(p, success_probability=p.tolist()),
}


class Faulty(Predictor):
    """Goes bad when it is told to."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault

    def predict(self, batch: Batch) -> Prediction:
        if self.fault == "predict raises":
            raise ArithmeticError
        p = np.full(len(batch), 0.5)
        return FAULTS[self.fault](p) if self.fault in FAULTS else Prediction.of_points(p)

    def observe(self, batch: Batch, successes: np.ndarray, rollouts: np.ndarray) -> None:
        if self.fault == "observe raises":
            raise ArithmeticError

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def broken(fault: str, **options: Any) -> viprl.VIP:
    """After one good step."""
    agent = vip(strategy=viprl.Strategy(Faulty(), guard=viprl.Guard(), name="mine"), **options)
    plan = agent.allocate(PROMPTS, C)
    agent.observe(PROMPTS, [[1.0] * n for n in plan.counts])
    agent.strategies["mine"].predictor.fault = fault
    return agent


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("call", ["predict", "allocate", "select", "propose"])
def test_predictions_that_cannot_be_used_name_the_predictor_and_change_nothing(fault: str, call: str) -> None:
    agent = broken(fault)
    before = repr(agent.state_dict())
    arguments = {"predict": (), "allocate": (C,), "select": (C // 2, 3), "propose": (C,)}[call]
    with pytest.raises(InputError, match=r"Faulty.*'mine'"):
        getattr(agent, call)(PROMPTS, *arguments)
    assert repr(agent.state_dict()) == before


def test_those_of_a_shadow_too() -> None:
    agent = vip(shadow=[viprl.Strategy(Faulty(fault="nan"), name="mine")])
    with pytest.raises(InputError, match=r"Faulty.*'mine'"):
        agent.allocate(PROMPTS, C)


@pytest.mark.parametrize(("fault", "method"), [("predict raises", "predict"), ("observe raises", "observe")])
def test_an_exception_of_a_predictor_names_it(fault: str, method: str) -> None:
    agent = broken(fault)
    with pytest.raises(ArithmeticError) as error:
        plan = agent.allocate(PROMPTS, C)
        agent.observe(PROMPTS, [[1.0] * n for n in plan.counts])
    assert f"Faulty.{method}" in error.value.__notes__[0] and "'mine'" in error.value.__notes__[0]


@pytest.mark.parametrize(
    "change",
    [lambda n: n + 1, lambda n: -n, lambda n: n + 0.5, lambda n: n[:-1], list, lambda n: np.diff(n, prepend=C)],
)
def test_counts_that_do_not_spend_the_budget_name_the_rule(change: Callable[[np.ndarray], Any]) -> None:
    class Careless(viprl.Rule):
        def __call__(self, prediction, budget, rng):
            return change(viprl.STRATEGIES["uniform"][1]().rule(prediction, budget, rng))

    agent = vip(strategy=viprl.Strategy(Faulty(), Careless(), name="mine"))
    with pytest.raises(InputError, match=r"Careless.*'mine'"):
        agent.allocate(PROMPTS, C)


# --- disks ------------------------------------------------------------------------------------------------------------


class FullAfter:
    """A file of a disk that has so many bytes left."""

    def __init__(self, file: Any, left: int) -> None:
        self.file, self.left = file, left

    def __enter__(self) -> FullAfter:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, payload: bytes) -> int:
        self.file.write(payload[: self.left])
        if len(payload) > self.left:
            raise OSError(errno.ENOSPC, "No space left on device")
        return len(payload)


def full_after(monkeypatch: pytest.MonkeyPatch, left: int) -> None:
    opens = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *how, **more: FullAfter(opens(path, *how, **more), left))


def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that root cannot write either."""

    def refuses(path: Path, *_: Any, **__: Any) -> Any:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "open", refuses)


def fails_to_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files.os, "fsync", fails)


DISKS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "full at once": lambda patch: full_after(patch, 0),
    "full after 1000 bytes": lambda patch: full_after(patch, 1000),
    "read-only": read_only,
    "fails to sync": fails_to_sync,
}


@pytest.mark.parametrize("disk", DISKS)
def test_the_last_state_survives_a_save_that_fails(disk: str, tmp_path: Path, monkeypatch) -> None:
    agent, path, rng = vip(), tmp_path / "vip.state", np.random.default_rng(0)
    step(agent, rng, select=False, waves=1)
    agent.save(path)
    good = agent.predict(POOL)
    step(agent, rng, select=False, waves=1)
    with monkeypatch.context() as patch:
        DISKS[disk](patch)
        with pytest.raises(FileError, match=path.name):
            agent.save(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    resumed = vip()
    resumed.load(path)
    np.testing.assert_array_equal(resumed.predict(POOL), good)
    agent.save(path)  # there is room again, and nothing was lost in memory
    resumed.load(path)
    np.testing.assert_array_equal(resumed.predict(POOL), agent.predict(POOL))


@pytest.mark.parametrize("disk", DISKS)
def test_the_last_history_survives_a_save_that_fails(disk: str, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "history.jsonl"
    histories = [PromptHistory(f"{i}", f"prompt {i}", np.array([2.0]), np.array([1.0])) for i in range(200)]
    save_history(path, histories[:2])
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        DISKS[disk](patch)
        with pytest.raises(FileError, match=path.name):
            save_history(path, histories)
    assert path.read_bytes() == before and len(read_history_file(path)) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_line_that_a_full_disk_refuses_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(FileError, match=r"metrics\.jsonl"):
        append_json_line(tmp_path / "metrics.jsonl", {"step": 1})


def test_a_line_that_a_full_disk_cut_is_removed_by_the_next_resume(tmp_path: Path) -> None:
    log, path = RunLog(tmp_path, strategy="default", seed=0), tmp_path / "metrics.jsonl"
    log.metrics(1, {"loss": 1.0})
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    resumed = RunLog(tmp_path, strategy="default", seed=0)
    resumed.rewind(1)
    resumed.metrics(2, {"loss": 2.0})
    assert [row["step"] for row in log_rows(path)] == [1, 2]


# --- the page ---------------------------------------------------------------------------------------------------------


def test_every_test_that_the_page_names_exists() -> None:
    here = Path(__file__).parent
    named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", (here.parent / "docs" / "faults.md").read_text(encoding="utf-8"))
    assert len(named) > 60
    for file, test in named:
        assert f"def {test}" in (here / file).read_text(encoding="utf-8"), f"{file}::{test}"
