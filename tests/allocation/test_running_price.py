"""A budget that is met on average, prompt by prompt."""

from __future__ import annotations

import numpy as np
import pytest

from viprl import VIP
from viprl.allocation.running_price import RunningPrice
from viprl.errors import InputError, StateError


def counts(price: float, a: np.ndarray) -> np.ndarray:
    """RLOO's counts at a price, within [2, 48]."""
    return np.clip(np.ceil((1 + np.sqrt(1 + 4 * a / price)) / 2), 2, 48)


@pytest.mark.parametrize("size", [1, 4, 64])
@pytest.mark.parametrize("start", [1e-6, 1e-2])
def test_the_average_is_met(size: int, start: float) -> None:
    rng, price, spent = np.random.default_rng(0), RunningPrice(), 0
    for _ in range(20_000 // size):
        now = price.price(start)
        n = counts(now, rng.beta(0.4, 0.4, size) / 4)
        price.spent(now, int(n.sum()), size, 8.0)
        spent += int(n.sum())
    prompts = 20_000 // size * size
    assert spent / prompts == pytest.approx(8.0, rel=0.05)
    assert price.drift == spent - 8 * prompts


def test_the_drift_is_bounded_when_weights_fall() -> None:
    rng, price, drift = np.random.default_rng(1), RunningPrice(), []
    for step in range(20_000):
        now = price.price(0.01)
        n = counts(now, rng.beta(0.4, 0.4, 1) / 4 * 10 ** (-step / 10_000))
        price.spent(now, int(n.sum()), 1, 8.0)
        drift.append(price.drift)
    moved = 8 / 0.02 * abs(np.log(price.price(1.0) / 0.01))
    assert max(map(abs, drift)) < 1.1 * moved


def test_state() -> None:
    one, other = RunningPrice(), RunningPrice()
    other.load_state_dict(one.state_dict())
    assert other.price(0.3) == 0.3
    one.spent(0.1, 30, 2, 8.0)
    other.load_state_dict(one.state_dict())
    assert (other.price(1.0), other.drift) == (one.price(1.0), 14.0)
    with pytest.raises(StateError):
        other.load_state_dict({**one.state_dict(), "drift": "much"})


class TestOfVIP:
    def test_prompt_by_prompt(self) -> None:
        vip, rng, p, spent = VIP(features=None, cache=None), np.random.default_rng(0), [0.5, 0.02, 0.98, 0.3], []
        for step in range(800):
            q = step % 4
            n = int(vip.allocate([f"prompt {q}"], average=6).counts[0])
            vip.observe([f"prompt {q}"], [(rng.random(n) < p[q]).astype(float).tolist()])
            spent.append(n)
        late = np.array(spent[400:]).reshape(-1, 4).mean(axis=0)
        assert np.mean(spent) == pytest.approx(6, abs=0.6)
        assert late[0] > 1.5 * late[1] and late[3] > 1.5 * late[2]
        assert vip.metrics()["spending/drift"] == pytest.approx(sum(spent) - 6 * 800)

    def test_rules_without_weights_keep_to_the_average_by_chance(self) -> None:
        vip = VIP(strategy="uniform", features=None, cache=None)
        spent = [int(vip.allocate(["a"], average=2.5).counts[0]) for _ in range(400)]
        assert set(spent) == {2, 3} and np.mean(spent) == pytest.approx(2.5, abs=0.1)

    @pytest.mark.parametrize("given", [{}, {"budget": 8, "average": 8}, {"average": 0}, {"average": "8"}])
    def test_refused(self, given) -> None:
        with pytest.raises(InputError):
            VIP(features=None, cache=None).allocate(["a"], **given)
