"""VIP with options, prompts and outcomes of any kind, in any order of calls."""

from __future__ import annotations

from typing import Any

import numpy as np
from fuzzing import Hostile, anything, fuzz, mostly, mutated, numbers, objects, or_refused, some_of
from hypothesis import strategies as st

import viprl
from viprl.runs.history import PromptHistory
from viprl.utils import state_file
from viprl.vip import STATE_KIND, STATE_VERSION, VIP

usual_options = some_of(
    estimator=st.sampled_from(["auto", "rloo", "dr_grpo"]),
    strategy=st.sampled_from(sorted(viprl.STRATEGIES)),
    shadow=st.none() | st.lists(st.sampled_from(sorted(viprl.STRATEGIES)), max_size=2, unique=True),
    success=st.none() | st.floats(-1, 1) | st.just(lambda reward: reward > 0.5),
    spend=st.sampled_from(["budget", "match"]),
    cost=st.sampled_from(["rollouts", "tokens"]),
    baseline=st.sampled_from(["group", "expected"]),
    features=st.sampled_from(["none", "length"]),
    seed=st.integers(0, 9),
)
odd_options = some_of(
    **{
        name: anything.filter(lambda value: not isinstance(value, str) and not callable(value))  # theirs may raise
        for name in ("estimator", "strategy", "shadow", "features", "success", "text", "variance_target", "seed")
    },
    min_rollouts=anything,
    max_rollouts=anything,
    spend=anything,
    cost=anything,
    baseline=anything,
    score_signal=anything,
    on_bad_prediction=anything,
    other=anything,
)
prompts = st.lists(mostly(st.sampled_from("abcdef") | st.text(max_size=5), anything, 40), max_size=5)
lists_of_rewards = st.lists(st.lists(mostly(st.sampled_from([0, 1, None]), anything, 30), max_size=5), max_size=5)
arguments = some_of(
    min_rollouts=mostly(st.integers(2, 4), anything, 4),
    max_rollouts=mostly(st.integers(4, 40), anything, 4),
    multiple=mostly(st.sampled_from([1, 2, 5]), anything, 4),
    waves=mostly(st.sampled_from([1, 2]), anything, 4),
)
also = some_of(logprobs=mostly(st.just("fit")), successes=mostly(st.just("fit")), lengths=mostly(st.just("fit")))


def vip_of(**options: Any) -> VIP:
    return VIP(**{"features": "length", "cache": None, **options})


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other, equal_nan=True)
    return bool(one == other or one != one)


@fuzz(given=odd_options, usual=usual_options)
def test_options(given: dict[str, Any], usual: dict[str, Any]) -> None:
    with or_refused() as refused:
        vip = vip_of(**usual | given)
    if not refused:
        assert len(repr(vip)) < 20_000
        with or_refused() as refused:
            plan = vip.allocate(["a", "b", "c"], 48)
        if not refused:
            assert plan.counts.sum() <= 48
            assert vip.spends_all <= (plan.counts.sum() == 48)


class Session:
    """Random calls of one VIP. A refused call changes nothing, and the others keep budget and bounds."""

    def __init__(self, vip: VIP, draw: Any) -> None:
        self.vip, self.draw = vip, draw
        self.pending: list[tuple[list[Any], Any]] = []

    def allocate(self) -> None:
        given, budget, batch = (
            self.draw(arguments),
            self.draw(mostly(st.integers(4, 60), numbers | objects)),
            self.batch(),
        )
        waves = given.get("waves", 1)
        plan = self.call(self.vip.allocate, batch, budget, **given)
        if plan is not None:
            self.check(plan, budget, given)
            self.pending.append((batch, plan))
            assert waves in (1, 2)

    def select(self) -> None:
        given, budget, batch = (
            self.draw(arguments),
            self.draw(mostly(st.integers(4, 60), numbers | objects)),
            self.batch(),
        )
        size = self.draw(mostly(st.integers(1, 4), anything, 10))
        chosen = self.call(self.vip.select, batch, budget, size, **given)
        if chosen is not None:
            self.check(chosen.allocation, budget, given)
            assert len(set(chosen.positions.tolist())) == size
            assert np.isfinite(chosen.weights).all()
            assert (chosen.weights > 0).all()
            self.pending.append(([batch[i] for i in chosen.positions], chosen.allocation))

    def next(self) -> None:
        if self.pending:
            batch, plan = self.pending[-1]
            rewards = self.draw(mostly(self.rewards(plan.counts), anything | lists_of_rewards, 10))
            second = self.call(self.vip.next, plan, rewards)
            if second is not None and plan.waves is not None:
                assert (second.counts >= 0).all()
                n = second.counts + plan.counts
                assert n.sum() <= plan.waves.budget.total
                assert (n <= plan.waves.budget.max_rollouts).all()
                more = self.draw(self.rewards(second.counts))
                both = [[*one, *two] for one, two in zip(rewards, more, strict=True)]
                assert np.isfinite(viprl.pooled_advantages(both, second)).all()
                self.pending.pop()
                self.observe_batch(batch, both)
        else:
            self.call(self.vip.next, self.draw(anything), self.draw(lists_of_rewards))

    def observe(self) -> None:
        if self.pending and self.draw(st.booleans()):
            batch, plan = self.pending.pop(self.draw(st.integers(0, len(self.pending) - 1)))
            self.observe_batch(batch, self.draw(self.rewards(plan.counts)))
        else:
            self.observe_batch(self.batch(), self.draw(mostly(lists_of_rewards, anything)))

    def observe_batch(self, batch: Any, rewards: Any) -> None:
        given = self.draw(also)
        if isinstance(rewards, list) and all(isinstance(group, list) for group in rewards):
            fit = self.rewards([len(group) for group in rewards], mostly(st.floats(-90, 90), anything, 20))
            given = {
                name: self.draw(fit) if isinstance(value, str) and value == "fit" else value
                for name, value in given.items()
            }
        self.call(self.vip.observe, batch, rewards, **given)
        assert all(isinstance(value, float | int) for value in self.vip.metrics().values())

    def observe_counts(self) -> None:
        batch = self.batch()
        counts = mostly(st.lists(mostly(st.integers(0, 9), numbers, 20), min_size=len(batch), max_size=len(batch)))
        self.call(self.vip.observe_counts, batch, self.draw(counts), self.draw(counts))

    def predict(self) -> None:
        batch = self.batch()
        found = self.call(self.vip.predict, batch)
        if found is not None:
            assert found.shape == (len(batch),)
            assert ((found >= 0) & (found <= 1)).all()

    def others(self) -> None:
        self.call(self.vip.propose, self.batch(), self.draw(mostly(st.integers(4, 60))))
        self.call(self.vip.tell_oracle, self.batch(), self.draw(mostly(st.lists(st.floats(0, 1), max_size=5))))

    def restart(self) -> None:
        before = self.vip.state_dict()
        self.vip.load_state_dict(before)
        assert same(before, self.vip.state_dict())
        self.pending = []

    def batch(self) -> list[Any]:
        return self.draw(prompts)

    @staticmethod
    def rewards(counts: Any, values: st.SearchStrategy | None = None) -> st.SearchStrategy:
        values = mostly(st.sampled_from([0, 1, 1.0, 0.5, None]), anything, 40) if values is None else values
        return st.tuples(*[st.lists(values, min_size=n, max_size=n) for n in map(int, counts)]).map(list)

    def call(self, method: Any, *given: Any, **named: Any) -> Any:
        before = self.vip.state_dict()
        with or_refused() as refused:
            return method(*given, **named)
        if refused:
            assert same(before, self.vip.state_dict())
        return None

    def check(self, plan: viprl.Allocation, budget: Any, given: dict[str, Any]) -> None:
        n, waves, multiple = plan.counts, plan.waves, int(given.get("multiple", 1))
        limit = -(-int(budget) // multiple) * multiple
        if waves is None:
            assert n.sum() == limit if self.vip.spends_all else n.sum() <= limit
            least = 2 if given.get("min_rollouts") is None else given["min_rollouts"]
            assert (n >= np.asarray(least, dtype=float)).all()
        for value in (plan.expected_variance, plan.uniform_variance, plan.cost, plan.uniform_cost):
            assert np.isfinite(value)
        if given.get("max_rollouts") is not None:
            assert (n <= np.asarray(given["max_rollouts"], dtype=float)).all()
        assert repr(plan)


CALLS = [
    "allocate",
    "allocate",
    "select",
    "next",
    "observe",
    "observe",
    "observe_counts",
    "predict",
    "others",
    "restart",
]


@fuzz(0.5, data=st.data(), options=usual_options, calls=st.lists(st.sampled_from(CALLS), min_size=1, max_size=7))
def test_calls_in_any_order(data: Any, options: dict[str, Any], calls: list[str]) -> None:
    with or_refused() as refused:
        vip = vip_of(**options)
    if not refused:
        session = Session(vip, data.draw)
        for call in calls:
            getattr(session, call)()


def learned(options: dict[str, Any]) -> VIP:
    """A VIP that has learned something."""
    vip = vip_of(**options)
    for step in range(2):
        plan = vip.allocate(["a", "b", "c"], 18)
        rewards = [[float(i % (q + 2) == step) for i in range(n)] for q, n in enumerate(plan.counts)]
        logprobs = [[-3.0 - i for i in range(n)] for n in plan.counts]
        vip.observe(["a", "b", "c"], rewards, logprobs=logprobs, lengths=[[9.0] * n for n in plan.counts])
    return vip


def with_lists(node: Any) -> Any:
    """Arrays as what a mutation can replace: {"array": values}."""
    if isinstance(node, dict):
        return {key: with_lists(value) for key, value in node.items()}
    return {"array": node.tolist(), "dtype": node.dtype.str} if isinstance(node, np.ndarray) else node


def with_arrays(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    if {"array", "dtype"} == set(node):
        try:
            array = np.array(node["array"], dtype=node["dtype"])
        except Exception:  # no array any more
            return node["array"]
        return array if array.dtype.kind in "biuf" and array.dtype.isnative else node["array"]
    return {key: with_arrays(value) for key, value in node.items()}


STATES: dict[str, Any] = {}


@fuzz(
    1.0,
    data=st.data(),
    strategy=st.sampled_from(sorted(viprl.STRATEGIES)),
    more=st.sampled_from([{}, {"cost": "tokens"}, {"spend": "match"}, {"baseline": "expected"}]),
)
def test_states_that_were_put_together_wrongly(
    tmp_path_factory: Any, data: Any, strategy: str, more: dict[str, Any]
) -> None:
    options = {"strategy": strategy, **more}
    state = STATES.setdefault(repr(options), with_lists(learned(options).state_dict()))
    vip, path = vip_of(**options), tmp_path_factory.getbasetemp() / "state"
    changed = with_arrays(data.draw(mutated(state)))
    try:
        state_file.save(path, changed, kind=STATE_KIND, version=STATE_VERSION)
    except (TypeError, ValueError, OverflowError):
        return  # not a state
    before = vip.state_dict()
    with or_refused() as refused:
        vip.load(path)
    if refused:
        assert same(before, vip.state_dict())
        return
    for _ in range(2):
        plan = vip.allocate(["a", "b", "new"], 24)
        assert plan.counts.sum() <= 24
        assert vip.spends_all <= (plan.counts.sum() == 24)
        vip.observe(["a", "b", "new"], [[1.0] * n for n in plan.counts], lengths=[[5] * n for n in plan.counts])
    vip.save(path)


history_values = st.lists(
    st.builds(
        PromptHistory,
        id=st.text(max_size=3),
        prompt=mostly(st.text(max_size=3), anything, 20),
        rollouts=st.lists(st.integers(1, 9), min_size=1, max_size=3).map(lambda n: np.array(n, dtype=float)),
        successes=st.just(np.zeros(3)),
    ).map(lambda h: PromptHistory(h.id, h.prompt, h.rollouts, h.successes[: len(h.rollouts)])),
    max_size=4,
)


@fuzz(histories=history_values)
def test_histories(histories: list[PromptHistory]) -> None:
    with or_refused():
        vip_of().observe_histories(histories)


def test_a_hostile_reward_is_unscorable() -> None:
    vip = vip_of()
    vip.observe(["a"], [[Hostile(), 1.0]])
    assert vip.unreadable_rewards == 1
