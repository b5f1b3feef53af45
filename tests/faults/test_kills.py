"""Processes that are killed (SIGKILL) at random times while they save: the last good files load and continue.

Each process saves the state of a VIP, a history and the logs of a run in turn, step by step, and counts what was saved
in memory that it shares with the test. 30 processes by default; VIPRL_KILLS=300 for more.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import struct
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import viprl
from vip_steps import POOL, step, vip
from viprl.runs.history import PromptHistory, read_history_file, save_history
from viprl.runs.run_log import RunLog
from viprl.utils.json_lines import log_rows

KILLS = int(os.environ.get("VIPRL_KILLS", "30"))
STATES = 3
LONGEST = 0.05
"""Seconds after which a process is killed at the latest."""
EVERYTHING: dict[str, Any] = {"spend": "match", "cost": "tokens", "baseline": "expected"}
STATE, HISTORY = "vip.state", "history.jsonl.gz"
PARTS = (STATE, HISTORY, "log")


def next_step(agent: viprl.VIP) -> dict[str, Any]:
    return step(agent, np.random.default_rng(9), select=True, waves=2)


def content(agent: viprl.VIP) -> str:
    return json.dumps(agent.state_dict(), default=lambda array: [str(array.dtype), array.shape, array.tobytes().hex()])


def history(i: int) -> list[PromptHistory]:
    visits = np.arange(1.0, i + 2.0)
    return [PromptHistory(key, key, visits + 1, visits) for key in POOL]


class Saver:
    """A process that saves step after step, until it is killed."""

    def __init__(self, folder: Path, agents: list[viprl.VIP], done: dict[str, int]) -> None:
        self.folder, self.agents = folder, agents
        self._saved = mmap.mmap(-1, 8 * len(PARTS))  # shared with the process
        self._note(done)

    def saved(self) -> dict[str, int]:
        """The last step of which each part was saved."""
        return dict(zip(PARTS, struct.unpack(f"{len(PARTS)}q", self._saved[:]), strict=True))

    def killed_after(self, seconds: float) -> None:
        pid = os.fork()
        if pid == 0:
            try:
                self._save_for_ever()
            finally:
                os._exit(1)
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status), "the process ended by itself"

    def _save_for_ever(self) -> None:
        log = RunLog(self.folder, strategy="default", seed=0)
        done = self.saved()
        while True:
            part = min(PARTS, key=done.__getitem__)
            done[part] += 1
            at = done[part]
            if part == STATE:
                self.agents[at % STATES].save(self.folder / STATE)
            elif part == HISTORY:
                save_history(self.folder / HISTORY, history(at % STATES))
            else:
                log.outcomes(at, POOL, [8] * len(POOL), [4.0] * len(POOL), [8.0] * len(POOL))
                log.metrics(at, {"reward": 0.5})
            self._note(done)

    def _note(self, done: dict[str, int]) -> None:
        self._saved[:] = struct.pack(f"{len(PARTS)}q", *(done[part] for part in PARTS))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
def test_the_last_good_files_load_and_continue(tmp_path: Path) -> None:
    agents, rng = [vip(**EVERYTHING)], np.random.default_rng(0)
    while len(agents) < STATES:
        new = vip(**EVERYTHING)
        new.load_state_dict(agents[-1].state_dict())
        step(new, rng, select=True, waves=2)
        agents.append(new)
    states = [content(agent) for agent in agents]
    agents[0].save(tmp_path / STATE)
    save_history(tmp_path / HISTORY, history(0))
    done, moments, continued = dict.fromkeys(PARTS, 0), Counter[str](), dict[int, dict[str, Any]]()
    for _ in range(KILLS):
        saver = Saver(tmp_path, agents, done)
        saver.killed_after(rng.uniform(0, LONGEST))
        saved = saver.saved()
        moments[min(PARTS, key=saved.__getitem__)] += 1

        agent = vip(**EVERYTHING)
        agent.load(tmp_path / STATE)
        which = [states[(saved[STATE] + i) % STATES] == content(agent) for i in (0, 1)]
        assert any(which)  # either the last file that was saved, or the next one
        at = saved[STATE] + which.index(True)
        if at % STATES not in continued:
            continued[at % STATES] = next_step(agent)
        (visits,) = {len(one.rollouts) for one in read_history_file(tmp_path / HISTORY)}
        then = saved[HISTORY] + [(saved[HISTORY] + i) % STATES + 1 for i in (0, 1)].index(visits)

        RunLog(tmp_path, strategy="default", seed=0).rewind(saved["log"])
        for name in ("metrics.jsonl", "outcomes.jsonl"):
            assert [row["step"] for row in log_rows(tmp_path / name)] == list(range(1, saved["log"] + 1))
        done = {STATE: at, HISTORY: then, "log": saved["log"]}
    for at, what in continued.items():
        for name, value in next_step(agents[at]).items():
            np.testing.assert_array_equal(what[name], value, err_msg=name)
    torn = len(list(tmp_path.glob(".*.tmp")))
    print(f"{KILLS} kills, {torn} while a file was being replaced; saved: {done}; being saved: {dict(moments)}")
    assert min(done.values()) > 1 and torn > 0 and len(continued) > 1
