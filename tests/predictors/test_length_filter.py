"""Predicted lengths: calibrated, shrunk where little is known, the same after a resume."""

from __future__ import annotations

import numpy as np
import pytest

from viprl.errors import StateError
from viprl.predictors.base import Batch
from viprl.predictors.length_filter import LengthFilter

TRUE = np.exp(np.random.default_rng(0).normal(5, 0.8, 64))
"""Median length of each prompt's wrong answers; right ones are 30 % shorter."""
KEYS = tuple(f"prompt {q}" for q in range(64))


def visit(
    model: LengthFilter, rng: np.random.Generator, p: np.ndarray, n: int = 6, which=slice(None), unit=1.0
) -> None:
    halves = [(rng.random(n) < chance).astype(float) for chance in p[which]]
    lengths = [
        unit * length * np.where(half == 1, 0.7, 1.0) * rng.lognormal(0, 0.4, n)
        for length, half in zip(TRUE[which], halves, strict=True)
    ]
    model.observe(Batch(KEYS[which], None), lengths, halves)


def expected(p: np.ndarray) -> np.ndarray:
    return TRUE * (0.7 * p + 1 - p) * np.exp(0.4**2 / 2)


def trained(visits: int = 8, p: float = 0.4, **more) -> LengthFilter:
    model, rng = LengthFilter(), np.random.default_rng(1)
    for _ in range(visits):
        visit(model, rng, np.full(64, p), **more)
    return model


def test_one_before_any_length() -> None:
    assert LengthFilter().predict(Batch(KEYS, None), np.full(64, 0.5)).tolist() == [1.0] * 64
    assert not LengthFilter().ready


def test_means_per_prompt() -> None:
    p = np.full(64, 0.4)
    error = np.log(trained().predict(Batch(KEYS, None), p) / expected(p))
    assert abs(error.mean()) < 0.03 and error.std() < 0.12


def test_the_outcome_matters() -> None:
    model = trained()
    right, wrong = (model.predict(Batch(KEYS, None), np.full(64, p)) for p in (1.0, 0.0))
    np.testing.assert_allclose(right / wrong, 0.7, atol=0.03)


def test_a_prompt_that_was_never_solved_is_predicted_from_its_failures() -> None:
    model, rng = LengthFilter(), np.random.default_rng(2)
    p = np.where(np.arange(64) < 32, 0.0, 0.5)
    for _ in range(8):
        visit(model, rng, p)
    error = np.log(model.predict(Batch(KEYS, None), np.full(64, 0.5)) / expected(np.full(64, 0.5)))
    assert abs(error[:32].mean()) < 0.05


def test_new_prompts_get_the_population() -> None:
    model = trained(which=slice(0, 48))
    new = model.predict(Batch(KEYS[48:], None), np.full(16, 0.4))
    assert np.ptp(new) < 1e-9 * new[0]
    assert new[0] == pytest.approx(expected(np.full(64, 0.4))[:48].mean(), rel=0.3)


def test_features_tell_new_prompts_apart() -> None:
    model, rng = LengthFilter(), np.random.default_rng(3)
    features = np.column_stack([np.log(TRUE) - 5, np.ones(64)])
    for _ in range(6):
        lengths = [length * rng.lognormal(0, 0.4, 6) for length in TRUE[:48]]
        model.observe(Batch(KEYS[:48], features[:48]), lengths, [np.zeros(6)] * 48)
    new = model.predict(Batch(KEYS[48:], features[48:]), np.zeros(16))
    assert np.corrcoef(np.log(new), np.log(TRUE[48:]))[0, 1] > 0.9


@pytest.mark.parametrize("unit", [8.0, 1e3])
def test_the_unit_does_not_matter(unit: float) -> None:
    p = np.full(64, 0.4)
    plain, other = trained().predict(Batch(KEYS, None), p), trained(unit=unit).predict(Batch(KEYS, None), p)
    np.testing.assert_allclose(other, unit * plain, rtol=1e-6)


def test_unknown_lengths_and_unscorable_rewards() -> None:
    model = trained(4)
    before = model.predict(Batch(KEYS, None), np.full(64, 0.5))
    model.observe(Batch(KEYS[:2], None), [np.array([np.nan, np.nan]), np.empty(0)], [np.zeros(2), np.empty(0)])
    np.testing.assert_array_equal(model.predict(Batch(KEYS, None), np.full(64, 0.5)), before)
    model.observe(Batch(KEYS[:1], None), [np.array([900.0, np.nan])], [np.array([np.nan, 1.0])])
    assert model.predict(Batch(KEYS[:1], None), np.full(1, 0.5))[0] > before[0]


def test_longer_responses_are_followed() -> None:
    model, p = trained(), np.full(64, 0.4)
    rng = np.random.default_rng(4)
    for _ in range(6):
        visit(model, rng, p, unit=1.6)
    ratio = model.predict(Batch(KEYS, None), p) / expected(p)
    assert np.median(ratio) == pytest.approx(1.6, rel=0.1)


def test_state() -> None:
    one, other = trained(3), LengthFilter()
    other.load_state_dict(one.state_dict())
    rng, same = np.random.default_rng(5), np.random.default_rng(5)
    visit(one, rng, np.full(64, 0.4))
    visit(other, same, np.full(64, 0.4))
    at = Batch(KEYS, None), np.full(64, 0.3)
    np.testing.assert_array_equal(one.predict(*at), other.predict(*at))
    for name, value in (("unit", -1.0), ("noise", np.array([-1.0, 1.0])), ("effect", np.zeros(3))):
        with pytest.raises(StateError):
            other.load_state_dict({**one.state_dict(), name: value})
