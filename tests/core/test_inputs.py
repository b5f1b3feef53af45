"""Whatever is passed to VIP: it is read right, or refused with an error of viprl that changes nothing."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

import viprl
from viprl.errors import InputError, ViprlError

PROMPTS = ["What is 1 + 1?", "b", "Name c", "d d"]
REWARDS = [[1.0, 0, 1, 0], [0.0] * 4, [1.0] * 4, [0.0, 0, 0, 1]]
LOGPROBS = [[-1.0, -2, -0.5, -3]] * 4


def vip(**options: Any) -> viprl.VIP:
    return viprl.VIP(**{"features": None, "cache": None} | options)


def planned(**options: Any) -> viprl.VIP:
    agent = vip(**options)
    agent.allocate(PROMPTS, 16)
    return agent


class Odd:
    def __float__(self) -> float:
        raise RuntimeError("no number")

    def __repr__(self) -> str:
        raise RuntimeError("no text")


SEQUENCES: dict[str, Callable[[], Any]] = {
    "tuple": lambda: tuple(PROMPTS),
    "deque": lambda: deque(PROMPTS),
    "array": lambda: np.array(PROMPTS),
    "objects": lambda: np.array(PROMPTS, dtype=object),
    "generator": lambda: (prompt for prompt in PROMPTS),
    "keys": lambda: dict.fromkeys(PROMPTS).keys(),
    "values": lambda: dict(enumerate(PROMPTS)).values(),
    "rows": lambda: [{"prompt": prompt} for prompt in PROMPTS],
}


@pytest.mark.parametrize("form", SEQUENCES)
def test_prompts_in_any_sequence(form: str) -> None:
    _check_prompts(SEQUENCES[form])


def test_prompts_in_columns_of_tables() -> None:
    pandas, pyarrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    shuffled = pandas.DataFrame({"prompt": PROMPTS}, index=[2, 0, 3, 1])["prompt"]
    for column in (shuffled, shuffled.astype("string"), shuffled.astype("category"), pyarrow.array(PROMPTS)):
        _check_prompts(lambda column=column: column)
    filtered = shuffled[shuffled != "b"]
    assert vip().allocate(filtered, 12).counts.sum() == 12


def _check_prompts(prompts: Callable[[], Any]) -> None:
    """Every door reads them as the list, and each text is embedded for its own prompt."""
    asked: list[str] = []

    def encode(texts: list[str]) -> np.ndarray:
        asked.extend(texts)
        return np.array([[len(text), text.count("b")] for text in texts])

    expected, agent = planned(features=encode), vip(features=encode)
    asked.clear()
    agent.register(prompts())
    agent.allocate(prompts(), 16)
    for each, given in ((expected, lambda: PROMPTS), (agent, prompts)):
        assert each.observe(given(), REWARDS, logprobs=LOGPROBS).rollouts.tolist() == [4] * 4
        each.observe_counts(given(), [1, 2, 3, 4], [4] * 4)
        each.tell_oracle(given(), [0.1, 0.2, 0.3, 0.4])
    assert asked == PROMPTS
    np.testing.assert_array_equal(agent.predict(prompts()), expected.predict(PROMPTS))
    np.testing.assert_array_equal(
        agent.propose(prompts(), 25)["default"].counts, expected.propose(PROMPTS, 25)["default"].counts
    )


NO_BATCH = [
    "What is 1 + 1?",
    b"ab",
    {"prompt": "x"},
    {"some": 1},
    {"a", "b"},
    frozenset("a"),
    5,
    None,
    np.array("a"),
    object(),
]


@pytest.mark.parametrize("prompts", NO_BATCH, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(
    "door", ["allocate", "predict", "propose", "observe", "observe_counts", "register", "tell_oracle"]
)
def test_what_is_no_batch_of_prompts(door: str, prompts: Any) -> None:
    rest = {
        "allocate": (8,),
        "propose": (8,),
        "observe": ([[1]],),
        "observe_counts": ([1], [1]),
        "tell_oracle": ([0.5],),
    }
    with pytest.raises(InputError, match="prompts"):
        getattr(vip(), door)(prompts, *rest.get(door, ()))


@pytest.mark.parametrize(
    "prompt", [7, 2.5, None, math.nan, True, b"x", ("a", "b"), {}, {"question": "x"}, [], [[]], ["x"], Odd()]
)
def test_what_is_no_prompt_is_named_by_its_position(prompt: Any) -> None:
    with pytest.raises(InputError, match="prompt 1"):
        vip().allocate(["x", prompt], 8)
    with pytest.raises(InputError, match="prompt 1"):
        vip().allocate(["x", {"prompt": prompt}], 8)


GROUPS: dict[str, Callable[[], Any]] = {
    "array": lambda: np.array(REWARDS),
    "float32": lambda: np.array(REWARDS, dtype=np.float32),
    "booleans": lambda: np.array(REWARDS, dtype=bool),
    "arrays": lambda: [np.array(group) for group in REWARDS],
    "split": lambda: np.split(np.ravel(REWARDS), 4),
    "tuples": lambda: tuple(map(tuple, REWARDS)),
    "generators": lambda: (iter(group) for group in REWARDS),
    "values": lambda: dict(enumerate(REWARDS)).values(),
}


@pytest.mark.parametrize("form", GROUPS)
def test_rewards_in_any_sequence(form: str) -> None:
    assert planned().observe(PROMPTS, GROUPS[form]()).successes.tolist() == [2, 0, 4, 1]


def test_rewards_of_other_libraries() -> None:
    pandas, torch = pytest.importorskip("pandas"), pytest.importorskip("torch")
    for groups in (
        torch.tensor(REWARDS, requires_grad=True),
        torch.tensor(REWARDS, dtype=torch.bfloat16),
        torch.tensor(REWARDS).flatten().split(4),
        pandas.Series(REWARDS, index=[3, 2, 1, 0]),
        [pandas.Series(group, index=list("dcba")) for group in REWARDS],
    ):
        assert planned().observe(PROMPTS, groups).successes.tolist() == [2, 0, 4, 1]


REFUSED: dict[str, Any] = {
    "texts": ["1010"] * 4,
    "bytes": [b"1010"] * 4,
    "sets": [{0, 1}] * 4,
    "mappings": [{0: 1, 1: 0, 2: 1, 3: 0}] * 4,
    "one text": "1010",
    "one mapping": dict(enumerate(REWARDS)),
    "one set": {1},
    "numbers": [1, 0, 1, 0],
    "one number": 1.0,
    "flat": np.ravel(REWARDS),
    "lost groups": [None] * 4,
    "too few groups": REWARDS[:3],
    "a short group": [[1.0], *REWARDS[1:]],
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("door", ["rewards", "logprobs"])
def test_a_refused_observe_changes_nothing(door: str, case: str) -> None:
    _check_refused({"rewards": REWARDS, "logprobs": LOGPROBS} | {door: REFUSED[case]})


@pytest.mark.parametrize("value", ["x", "-1.0", b"1", {}, [], object(), 1j, Odd(), 10**400])
def test_log_probabilities_that_are_no_numbers_are_refused(value: Any) -> None:
    _check_refused({"rewards": REWARDS, "logprobs": [[-1.0, -1, -1, value], *LOGPROBS[1:]]})


def _check_refused(given: dict[str, Any]) -> None:
    agent, other = planned(), planned()
    before = repr(agent.state_dict())
    with pytest.raises(InputError):
        agent.observe(PROMPTS, **given)
    assert repr(agent.state_dict()) == before and agent.unreadable_rewards == 0
    for each in (agent, other):
        each.observe(PROMPTS, REWARDS, logprobs=LOGPROBS)
    assert agent.metrics().keys() == other.metrics().keys() != set()
    np.testing.assert_array_equal(agent.predict(PROMPTS), other.predict(PROMPTS))


def test_errors_of_a_text_function_or_an_encoder_change_nothing() -> None:
    fail = False

    def text(prompt: Any) -> str:
        if fail:
            raise KeyError(prompt)
        return prompt

    def encode(texts: list[str]) -> np.ndarray:
        if fail:
            raise OSError
        return np.ones((len(texts), 1))

    for options in ({"text": text}, {"features": encode}):
        fail = False
        agent, other = planned(**options), planned(**options)
        before, fail = repr(agent.state_dict()["rng"]), True
        for call in (
            lambda agent=agent: agent.observe(["new"], [[1]]),
            lambda agent=agent: agent.observe_counts(["new"], [1], [1]),
            lambda agent=agent: agent.allocate(["new"], 8),
            lambda agent=agent: agent.register(["new"]),
        ):
            with pytest.raises((KeyError, OSError)):
                call()
        fail = False
        assert repr(agent.state_dict()["rng"]) == before
        for each in (agent, other):
            each.observe(PROMPTS, REWARDS)
        np.testing.assert_array_equal(agent.allocate(PROMPTS, 17).counts, other.allocate(PROMPTS, 17).counts)


def test_a_rule_that_fails_leaves_the_generator_alone() -> None:
    class Fails(viprl.Rule):
        def __call__(self, prediction, budget, rng):
            raise ArithmeticError

    agent = vip(strategy=viprl.Strategy(vip().strategies["default"].predictor, Fails()))
    before = repr(agent.state_dict()["rng"])
    with pytest.raises(ArithmeticError):
        agent.allocate(PROMPTS, 17)
    assert repr(agent.state_dict()["rng"]) == before


UNSCORABLE = [
    math.inf,
    -math.inf,
    1e39,
    -1e300,
    10**400,
    Decimal("1e99"),
    "1.0",
    b"1",
    "inf",
    [],
    {},
    object(),
    1j,
    Odd(),
]


@pytest.mark.parametrize("value", UNSCORABLE, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("success", [None, 0.5, lambda reward: reward > 0])
def test_rewards_that_cannot_be_scored_are_counted(value: Any, success: Any) -> None:
    agent, other = planned(success=success), planned(success=success)
    seen = agent.observe(PROMPTS, [[1.0, value, 0, 0]] * 4)
    other.observe(PROMPTS, [[1.0, None, 0, math.nan], *[[1.0, None, 0, 0]] * 3])
    assert seen.rollouts.tolist() == [3] * 4 and agent.unreadable_rewards == 4
    assert other.unreadable_rewards == 0
    assert np.isfinite(agent.predict(PROMPTS)).all() and agent.allocate(PROMPTS, 17).counts.sum() == 17


@pytest.mark.parametrize(
    "value", [None, math.nan, math.inf, -math.inf, -3.4e38, -1e300, np.finfo(np.float32).min, 1e30]
)
def test_unknown_log_probabilities(value: float) -> None:
    agent, other = planned(), planned()
    agent.observe(PROMPTS, REWARDS, logprobs=[[value, -2, -0.5, -3], *LOGPROBS[1:]])
    other.observe(PROMPTS, REWARDS, logprobs=[[None, -2, -0.5, -3], *LOGPROBS[1:]])
    np.testing.assert_array_equal(agent.allocate(PROMPTS, 33).counts, other.allocate(PROMPTS, 33).counts)


@pytest.mark.parametrize("lost", [math.inf, 1e39, "yes"])
def test_a_batch_without_a_scorable_reward_is_warned_of(lost: Any, caplog: pytest.LogCaptureFixture) -> None:
    agent = planned()
    seen = agent.observe(PROMPTS, [[lost] * 4] * 4)
    assert not seen.rollouts.any()
    assert "no reward of the batch" in caplog.text
    agent.observe([], [])
    agent.observe(PROMPTS, REWARDS)
    agent.observe(PROMPTS, [[None] * 4] * 4)  # lost on purpose
    assert caplog.text.count("no reward of the batch") == 1


COUNTS = [
    [1, 1, 1],
    [1.5, 1, 1, 1],
    [-1, 1, 1, 1],
    [math.nan, 1, 1, 1],
    [math.inf] * 4,
    ["1"] * 4,
    [None] * 4,
    [True] * 4,
    {1, 2, 3, 4},
    "1111",
    {0: 1, 1: 1, 2: 1, 3: 1},
    1,
    None,
    [9, 1, 1, 1],
    [[1]] * 4,
]


@pytest.mark.parametrize("counts", COUNTS, ids=repr)
def test_counts_that_are_refused(counts: Any) -> None:
    agent = vip(shadow=["ema"])
    before = repr(agent.state_dict())
    for successes, rollouts in ((counts, [8] * 4), ([1] * 4, counts)):
        if counts != [9, 1, 1, 1] or successes is counts:
            with pytest.raises(InputError, match="4 prompts"):
                agent.observe_counts(PROMPTS, successes, rollouts)
    assert repr(agent.state_dict()) == before


@pytest.mark.parametrize(
    "p", [[0.5] * 3, [0.5, 0.5, 0.5, 2], [-0.1] * 4, [None] * 4, [math.nan] * 4, ["0.5"] * 4, {0.1, 0.2, 0.3, 0.4}, 0.5]
)
def test_probabilities_that_are_refused(p: Any) -> None:
    with pytest.raises(InputError):
        vip(strategy="oracle").tell_oracle(PROMPTS, p)
    if isinstance(p, set) or not isinstance(p, list) or len(p) == 4:
        with pytest.raises(InputError):
            viprl.allocate(p, budget=40)


OPTIONS = {
    "min_rollout": 2,
    "low": 2,
    "max_rollouts": "8",
    "min_rollouts": [2],
    "seed": -1,
    "cache": 5,
    "text": "prompt",
    "estimator": None,
    "strategy": ["default"],
    "shadow": [None],
    "features": 3,
    "success": "x",
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_that_are_refused(name: str) -> None:
    with pytest.raises(ViprlError, match=name):
        vip(**{name: OPTIONS[name]})


def test_a_misspelt_option_is_suggested() -> None:
    for wrong, right in (("min_rollout", "min_rollouts"), ("strategi", "strategy"), ("shadows", "shadow")):
        with pytest.raises(TypeError, match=f"did you mean .*{right}"):
            vip(**{wrong: 2})


def test_a_misspelt_strategy_is_suggested() -> None:
    for wrong, right in (("defualt", "default"), ("Paper", "paper"), ("learned-beta", "learned_beta")):
        with pytest.raises(InputError, match=f"did you mean {right}.*expected default, paper, uniform,.*baseline"):
            vip(strategy=wrong)


def test_nothing_is_shown_with_an_address_or_at_length() -> None:
    agent = vip(
        text=lambda prompt: "x",
        shadow=["paper", viprl.Strategy(vip().strategies["default"].predictor)],
        features="length",
    )
    seen = agent.observe([str(i) for i in range(500)], [[1.0, 0.0]] * 500)
    shown = [agent, seen, agent.allocate(PROMPTS, 16), viprl.STRATEGIES, agent.strategies]
    assert not any(" at 0x" in repr(one) for one in shown)
    assert all(len(repr(one)) < 200 for one in shown[:3])
    assert repr(seen) == "Observation(500 prompts, 500 successes of 1000 scorable rollouts)"


def test_lone_surrogates_in_texts_and_ids(tmp_path: Any) -> None:
    def utf8(texts: list[str]) -> np.ndarray:
        return np.array([[len(text.encode())] for text in texts])

    prompts = ["broken \ud83d text", [{"role": "user", "content": "\udcff"}], {"prompt": "\ud800", "id": "\udfff"}]
    for features in (utf8, "length", None):
        agent = vip(features=features, cache=tmp_path)
        agent.allocate(prompts, 12)
        agent.observe(prompts, [[1.0, 0, 1, 0]] * 3)
        agent.save(tmp_path / "state")
        other = vip(features=features, cache=tmp_path)
        other.load(tmp_path / "state")
        np.testing.assert_array_equal(agent.predict(prompts), other.predict(prompts))
