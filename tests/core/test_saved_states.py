"""States that were saved by another VIP, put together wrongly, or saved while another thread observes."""

from __future__ import annotations

import copy
import logging
import pickle
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import viprl
from viprl.baselines.moving_average import MovingAverage
from viprl.errors import StateError
from viprl.utils import state_file

PROMPTS = [f"prompt {i}" for i in range(6)]


def embed(texts: list[str]) -> np.ndarray:
    return np.array([[len(text), sum(map(ord, text)) % 7, 1.0] for text in texts])


def vip(**options: Any) -> viprl.VIP:
    return viprl.VIP(**{"features": embed, "cache": None} | options)


def trained(**options: Any) -> viprl.VIP:
    agent = vip(**options)
    for step in range(3):
        counts = agent.allocate(PROMPTS, 40).counts
        rewards = [[float((i + q + step) % 3 == 0) for i in range(n)] for q, n in enumerate(counts)]
        agent.observe(PROMPTS, rewards, logprobs=[[-1.0 - i for i in range(n)] for n in counts])
    return agent


@pytest.mark.parametrize("options", [{}, {"spend": "match", "cost": "tokens", "baseline": "expected"}], ids=repr)
def test_a_state_shares_nothing_with_the_run(options: dict[str, Any]) -> None:
    """It is written in a thread while the run goes on."""
    agent, rng = (
        vip(shadow=[name for name in viprl.STRATEGIES if name != "default"], **options),
        np.random.default_rng(0),
    )

    def goes_on() -> None:
        for waves in (1, 2):
            offered = [*PROMPTS, f"new {rng.random()}"]
            selection = agent.select(offered, 40, 4, waves=waves)
            plan, chosen = selection.allocation, [offered[i] for i in selection.positions]
            rewards = [(rng.random(n) < 0.5).tolist() for n in plan.counts]
            if plan.waves is not None:
                more = agent.next(plan, rewards).counts
                rewards = [group + [True] * n for group, n in zip(rewards, more, strict=True)]
            numbers = [[float(1 + i) for i in range(len(group))] for group in rewards]
            agent.observe(chosen, rewards, logprobs=[[-n for n in group] for group in numbers], lengths=numbers)
        agent.register([f"newer {rng.random()}"])
        agent.tell_oracle(PROMPTS, rng.random(len(PROMPTS)))

    goes_on()
    state = agent.state_dict()
    kept = copy.deepcopy(state)
    for _ in range(3):
        goes_on()
    assert repr(agent.state_dict()) != repr(kept)
    np.testing.assert_equal(state, kept)


def warnings_of(agent: viprl.VIP, state: Any, caplog: pytest.LogCaptureFixture) -> str:
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="viprl"):
        agent.load_state_dict(state)
    assert agent.allocate(PROMPTS, 40).counts.sum() == 40
    return caplog.text


@pytest.mark.parametrize("name", viprl.STRATEGIES)
def test_a_strategy_that_the_state_lacks_is_named(name: str, caplog: pytest.LogCaptureFixture) -> None:
    other = "ema" if name != "ema" else "beta"
    said = warnings_of(vip(strategy=name), trained(strategy=other).state_dict(), caplog)
    beside = warnings_of(vip(strategy=other, shadow=[name]), trained(strategy=other).state_dict(), caplog)
    if name in ("uniform", "random", "oracle"):  # their counts do not depend on history
        assert said == beside == ""
    else:
        assert repr(name) in said and other in said and repr(name) in beside
    assert warnings_of(vip(strategy=name), trained(strategy=name).state_dict(), caplog) == ""
    assert warnings_of(vip(strategy=name), trained(strategy=other, shadow=[name]).state_dict(), caplog) == ""


@pytest.mark.parametrize(
    ("then", "now", "named"),
    [
        ({"estimator": "rloo"}, {"estimator": "dr_grpo"}, ["estimator", "rloo", "dr_grpo"]),
        ({"success": None}, {"success": 0.5}, ["success", "None", "0.5"]),
        ({"success": 0.5}, {"success": bool}, ["success", "0.5", "bool"]),
        ({"text": None}, {"text": str}, ["text", "None", "str"]),
    ],
)
def test_other_options_are_named(then, now, named, caplog: pytest.LogCaptureFixture) -> None:
    state = trained(**then).state_dict()
    said = warnings_of(vip(**now), state, caplog)
    assert all(word in said for word in named)
    assert warnings_of(vip(**then), state, caplog) == ""


def test_another_estimator_keeps_beliefs_and_starts_the_ratios_afresh() -> None:
    one, other = trained(estimator="rloo"), vip(estimator="dr_grpo")
    other.load_state_dict(one.state_dict())
    np.testing.assert_array_equal(other.predict(PROMPTS), one.predict(PROMPTS))
    assert one.state_dict()["realised"]["default"].any()
    assert not other.state_dict()["realised"]["default"].any()
    assert not other.state_dict()["strategies"]["default"]["guard"]["squares"].any()


@pytest.mark.parametrize("changed", ["predictor", "rule", "weights", "guard"])
def test_other_parts_of_a_strategy_of_the_same_name_are_named(changed: str, caplog: pytest.LogCaptureFixture) -> None:
    def built(role: str) -> viprl.Strategy:
        parts = copy.deepcopy(vip().strategies["default"])
        other = {
            "predictor": type(parts.predictor)(forgetting_factor=0.5),
            "rule": viprl.STRATEGIES["neyman"][1]().rule,
            "weights": None,
            "guard": viprl.Guard(caution=0.1),
        }
        kept = {name: getattr(parts, name) for name in other} | ({role: other[role]} if role else {})
        return viprl.Strategy(**kept, name="mine")

    state = trained(strategy=built("")).state_dict()
    said = warnings_of(vip(strategy=built(changed)), state, caplog)
    assert "'mine'" in said and changed in said
    assert warnings_of(vip(strategy=built("")), state, caplog) == ""


def test_states_of_earlier_versions_of_this_format_are_read(caplog: pytest.LogCaptureFixture) -> None:
    """They name neither options nor parts."""
    state = trained().state_dict()
    del state["options"], state["strategies"]["default"]["parts"]
    assert warnings_of(vip(estimator="dr_grpo"), state, caplog) == ""


def entries(node: Any, path: tuple = ()) -> Iterator[tuple]:
    """The place of each entry that a damaged state must not have."""
    for key in node if isinstance(node, dict) else ():
        if node[key] is not None:
            yield (*path, key)
            if key not in ("options", "parts", "truth", "rng"):
                yield from entries(node[key], (*path, key))


def damages(value: Any) -> Iterator[Any]:
    yield object()
    if isinstance(value, float):
        yield from (float("nan"), float("inf"), str(value))
    if isinstance(value, list) and value:
        yield value[:-1]
    if isinstance(value, list) and len(value) > 1 and isinstance(value[0], str):
        yield [value[0]] * len(value)
    if isinstance(value, np.ndarray) and value.size:
        yield from (value[:-1], np.concatenate([value, value]), value[None], value.astype(str))
        yield np.where(np.arange(value.size).reshape(value.shape) == value.size - 1, np.nan, value)


@pytest.mark.parametrize("name", viprl.STRATEGIES)
def test_damaged_entries_are_refused_and_change_nothing(name: str) -> None:
    state = trained(strategy=name).state_dict()
    agent = vip(strategy=name)
    before = repr(agent.state_dict())
    places = list(entries(state))
    assert ("strategies", name, "predictor") in places
    for path in places:
        owner = state
        for key in path[:-1]:
            owner = owner[key]
        value = owner[path[-1]]
        for damage in damages(value):
            owner[path[-1]] = damage
            with pytest.raises(StateError):
                agent.load_state_dict(state)
        owner[path[-1]] = value
        if path[-1] not in ("options", "parts", "weights", "guard") and path != ("strategies", name):  # may be missing
            del owner[path[-1]]
            with pytest.raises(StateError):
                agent.load_state_dict(state)
            owner[path[-1]] = value
        assert repr(agent.state_dict()) == before, path
    agent.load_state_dict(state)
    np.testing.assert_array_equal(agent.predict(PROMPTS), trained(strategy=name).predict(PROMPTS))


def test_damaged_truths_and_generators_are_refused() -> None:
    agent = trained(strategy="oracle")
    agent.tell_oracle(PROMPTS, [0.5] * 6)
    state = agent.state_dict()
    for truth in ({"a": 2.0}, {"a": None}, {"a": float("nan")}, [], None):
        state["strategies"]["oracle"]["predictor"] = {"truth": truth}
        with pytest.raises(StateError):
            vip(strategy="oracle").load_state_dict(state)
    for rng in (None, {}, {"bit_generator": "MT19937"}, {"bit_generator": "PCG64", "state": {"state": -1, "inc": "x"}}):
        with pytest.raises(StateError):
            vip(strategy="oracle").load_state_dict(agent.state_dict() | {"rng": rng})


def test_a_predictor_from_outside_that_does_not_check_its_state() -> None:
    class Careless(MovingAverage):
        def load_state_dict(self, state) -> None:
            self.rate = state["rates"] + 1

    mine = viprl.Strategy(Careless(), name="mine")
    with pytest.raises(StateError, match=r"'mine'.*Careless.*KeyError"):
        vip(strategy=mine).load_state_dict(trained(strategy=mine).state_dict())


@pytest.mark.parametrize("state", [None, 5, [], {}, "x", {"strategies": {}}])
def test_what_is_no_state(state: Any) -> None:
    with pytest.raises(StateError):
        vip().load_state_dict(state)


def test_a_file_put_together_wrongly_names_the_entry(tmp_path) -> None:
    state = trained().state_dict()
    step = state["strategies"]["default"]["predictor"]["steps"]["filters"][0]
    step["belief"] = step["belief"][:-2]
    state_file.save(tmp_path / "state", state, kind="viprl.VIP", version=viprl.vip.STATE_VERSION)
    with pytest.raises(StateError, match=r"'default'.*RewardFilter.*'belief'"):
        vip().load(tmp_path / "state")


def test_saving_beside_observing_in_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, done, failed = vip(features=None), threading.Event(), []
    interval = sys.getswitchinterval()

    def observe() -> None:
        try:
            for step in range(60):
                batch = [f"{step} {i}" for i in range(32)]
                counts = agent.allocate(batch, 128).counts
                agent.observe(batch, [[float(i % 2) for i in range(n)] for n in counts])
        except Exception as error:
            failed.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=observe)
    sys.setswitchinterval(1e-6)
    try:
        thread.start()
        states = []
        while not done.is_set():
            states.append(agent.state_dict()["strategies"]["default"])
            agent.metrics()
    finally:
        thread.join()
        sys.setswitchinterval(interval)
    assert not failed
    for state in states:
        filters = state["predictor"]["steps"]["filters"]
        if not filters:
            continue
        known = filters[0]["keys"]
        assert len(known) == len(filters[0]["belief"]) == len(filters[0]["score"])
        assert known == state["weights"]["keys"] and len(known) % 32 == 0


def test_copies_have_a_lock_of_their_own() -> None:
    agent = trained(features=None)
    for other in (copy.deepcopy(agent), pickle.loads(pickle.dumps(agent))):
        np.testing.assert_array_equal(other.predict(PROMPTS), agent.predict(PROMPTS))
        with agent._lock:
            thread = threading.Thread(target=other.predict, args=(PROMPTS,), daemon=True)
            thread.start()
            thread.join(10)
            assert not thread.is_alive()
        other.observe(PROMPTS[:1], [[1.0] * 20])
        assert (other.predict(PROMPTS) != agent.predict(PROMPTS)).any()
