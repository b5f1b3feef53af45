"""What a log says about its replay."""

from __future__ import annotations

import numpy as np
import pytest

from viprl.analysis.protocol import Protocol, best_visits
from viprl.errors import InputError
from viprl.runs.history import PromptHistory
from viprl.runs.logged_rollouts import LoggedRun


def log(visits, rollouts=(8,), **more):
    rng = np.random.default_rng(0)
    histories = [
        PromptHistory(
            str(i), f"p {i}", np.resize(np.array(rollouts, dtype=float), t), rng.integers(0, 2, t).astype(float)
        )
        for i, t in enumerate(visits)
    ]
    return LoggedRun(histories, **more)


def taken(protocol):
    return protocol.batch_size, protocol.rollouts, protocol.min_rollouts, protocol.max_rollouts, protocol.visits


@pytest.mark.parametrize(
    ("found", "given", "expected"),
    [
        (log([3] * 100, batch_size=32), {}, (32, 8, 2, 48, 3)),  # equal groups: the defaults of VIP
        (log([3] * 100), {}, (64, 8, 2, 48, 3)),
        (log([3] * 10), {}, (10, 8, 2, 48, 3)),
        (log([4] * 40, (4, 12, 6, 10), batch_size=8), {}, (8, 8, 4, 12, 4)),  # ragged groups: their own bounds
        (log([4] * 40, (4, 12, 6, 10), batch_size=8, own=True), {}, (8, 8, 2, 48, 4)),  # of a run with default bounds
        (log([4] * 40, (4, 12), min_rollouts=3, max_rollouts=20, own=True), {}, (40, 8, 3, 20, 4)),
        (log([1] * 40, (1,)), {}, (40, 2, 2, 12, 1)),  # one rollout is less than the smallest group
        (log([3] * 100, batch_size=32), {"batch_size": 16, "visits": 2, "rollouts": 4}, (16, 4, 2, 24, 2)),
        (log([3] * 9, (4, 12, 8)), {"rollouts": 20}, (9, 20, 4, 20, 3)),
        (log([3] * 9, (4, 12, 8)), {"rollouts": 3}, (9, 3, 3, 12, 3)),
        (log([3] * 9), {"max_rollouts": 8}, (9, 8, 2, 8, 3)),
        (log([3] * 9), {"min_rollouts": 8}, (9, 8, 8, 48, 3)),
        (log([3] * 9), {"batch_size": None, "visits": None}, (9, 8, 2, 48, 3)),
    ],
)
def test_a_log_decides_what_is_not_given(found, given, expected):
    assert taken(Protocol.of(found, seeds=1, **given)) == expected


@pytest.mark.parametrize(
    ("visits", "size", "expected"),
    [
        ([5] * 8, 4, 5),
        ([9] + [3] * 8, 4, 3),
        ([3] * 4 + [2] * 4, 4, 2),  # 16 outcomes instead of 12
        ([2] * 4 + [1] * 96, 4, 2),  # one visit shows nothing that was learned
        ([2] * 3 + [1] * 97, 4, 1),
        ([1], 1, 1),
    ],
)
def test_the_visits_that_replay_most(visits, size, expected):
    assert best_visits(visits, size) == expected


@pytest.mark.parametrize(
    "change", [{"rollouts": 3}, {"rollouts": 17}, {"visits": 0}, {"min_rollouts": 1, "rollouts": 1}]
)
def test_protocols_that_cannot_be(change):
    with pytest.raises(InputError):
        Protocol(**change)
