"""Two waves through VIP: counts, learning, advantages, and what single-wave users see of it."""

from __future__ import annotations

import numpy as np
import pytest

import viprl
from viprl import VIP, Allocation
from viprl import metrics as names
from viprl.allocation.waves.estimator import wave_advantages
from viprl.errors import InputError

PROMPTS = [f"prompt {i}" for i in range(400)]


def _vip(**options: object) -> VIP:
    return VIP(**{"features": None, "min_rollouts": 2, "max_rollouts": 32, "seed": 0, **options})  # type: ignore[arg-type]


def _draw(p: np.ndarray, counts: np.ndarray, rng: np.random.Generator) -> list[list[float]]:
    return [(rng.random(n) < chance).astype(float).tolist() for chance, n in zip(p, counts, strict=True)]


def _step(
    vip: VIP, prompts: list[str], p: np.ndarray, rng: np.random.Generator
) -> tuple[Allocation, Allocation, list[list[float]]]:
    first = vip.allocate(prompts, 8 * len(prompts), waves=2)
    shown = _draw(p, first.counts, rng)
    second = vip.next(first, shown)
    rewards = [a + b for a, b in zip(shown, _draw(p, second.counts, rng), strict=True)]
    vip.observe(prompts, rewards)
    return first, second, rewards


def _dead_pool(rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random(len(PROMPTS)) < 0.75, 0.0, rng.random(len(PROMPTS)))


@pytest.mark.parametrize("baseline", ["group", "expected"])
def test_a_step_spends_the_budget_and_its_advantages_are_those_of_the_groups(baseline: str) -> None:
    vip, rng = _vip(baseline=baseline), np.random.default_rng(0)
    p = _dead_pool(rng)
    for start in range(0, 128, 32):
        prompts = PROMPTS[start : start + 32]
        first, second, rewards = _step(vip, prompts, p[start : start + 32], rng)
    assert first.waves is not None
    assert first.waves.plan.looks.any()
    total = first.counts + second.counts
    assert total.sum() == 8 * 32
    assert [len(group) for group in rewards] == total.tolist()
    advantages = viprl.pooled_advantages(rewards, second)
    assert advantages.shape == (256,)
    assert second.waves is not None
    assert second.waves.labels is not None
    start = 0
    for q, (look, group) in enumerate(zip(second.waves.labels, rewards, strict=True)):
        mine, start = advantages[start : start + len(group)], start + len(group)
        share, mean = second.waves.plan.shares(total)[q], second.waves.mean[q]
        expected = wave_advantages(group, look, share=share, mean=mean)
        np.testing.assert_allclose(mine, expected)
    assert vip.metrics()[names.COUNTS_MEAN] == 8
    assert np.isfinite(vip.metrics()[names.REALISED_RATIO])


def test_first_looks_find_the_prompts_that_live() -> None:
    vip, rng = _vip(), np.random.default_rng(1)
    p = _dead_pool(rng)
    ratios = []
    for start in range(0, 400, 80):
        first, second, _ = _step(vip, PROMPTS[start : start + 80], p[start : start + 80], rng)
        counts, a = first.counts + second.counts, p[start : start + 80]
        ratios.append(counts[a > 0.1].mean() / counts[a == 0].mean())
    assert np.mean(ratios[1:]) > 2


def test_measured_variances_stay_unbiased() -> None:
    """The variance of the rewards that is learned from, over many batches, is that of the prompts."""
    rng, errors = np.random.default_rng(2), []
    for seed in range(6):
        vip, p = _vip(seed=seed), _dead_pool(rng)
        for start in range(0, 400, 80):
            _first, second, rewards = _step(vip, PROMPTS[start : start + 80], p[start : start + 80], rng)
            assert second.waves is not None or (second.counts == 0).all()
            if second.waves is None:
                continue
            groups = [np.array(group) for group in rewards]
            raw = np.array([group.var(ddof=1) for group in groups])
            corrected = raw * second.waves.variance_factors(groups)
            a = p[start : start + 80] * (1 - p[start : start + 80])
            errors.append([corrected.mean() - a.mean(), raw.mean() - a.mean()])
    mean, spread = np.mean(errors, axis=0), np.std(errors, axis=0) / np.sqrt(len(errors))
    assert abs(mean[0]) < 3 * spread[0]


def test_one_wave_where_two_do_not_pay() -> None:
    vip, rng = _vip(), np.random.default_rng(3)
    p = np.full(len(PROMPTS), 0.5)
    for start in range(0, 400, 80):
        first, second, rewards = _step(vip, PROMPTS[start : start + 80], p[start : start + 80], rng)
    assert first.waves is None
    assert first.counts.sum() == 640
    assert (second.counts == 0).all()
    expected = viprl.group_advantages(np.concatenate(rewards), first.counts)
    np.testing.assert_allclose(viprl.pooled_advantages(rewards, second), expected)


def test_single_waves_are_as_before() -> None:
    plans = [_vip().allocate(PROMPTS[:20], 160, **how) for how in ({}, {"waves": 1})]  # type: ignore[arg-type]
    assert (plans[0].counts == plans[1].counts).all()
    assert plans[0].waves is None


def _taught(**options: object) -> VIP:
    """Knows that three of four prompts are dead."""
    vip = _vip(**options)
    successes = np.where(np.arange(300) % 4 == 0, 8, 0)
    vip.observe_counts([f"known {i}" for i in range(300)], successes, np.full(300, 16))
    return vip


def test_one_wave_where_no_rule_for_two_is_known() -> None:
    assert _taught().allocate(PROMPTS[:20], 160, waves=2).waves is not None
    assert _taught().allocate(PROMPTS[:20] * 2, 320, waves=2).waves is None
    assert _taught(strategy="paper", features="length").allocate(PROMPTS[:20], 160, waves=2).waves is None


def test_a_reason_is_given_once(caplog: pytest.LogCaptureFixture) -> None:
    vip = _taught()
    for _ in range(3):
        vip.allocate(PROMPTS[:20] * 2, 320, waves=2)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("waves", [0, 3, True, False, "2", None])
def test_other_numbers_of_waves(waves: object) -> None:
    with pytest.raises(InputError):
        _vip().allocate(PROMPTS[:20], 160, waves=waves)  # type: ignore[arg-type]


def test_what_two_waves_cannot_be_combined_with() -> None:
    with pytest.raises(InputError):
        _taught().allocate(PROMPTS[:20], average=8, waves=2)
    for estimator in ("dr_grpo", "grpo"):
        vip = _vip(estimator=estimator, min_rollouts=3)
        with pytest.raises(InputError):
            vip.allocate(PROMPTS[:20], 160, waves=2)
        vip.allocate(PROMPTS[:20], 160)


def test_a_batch_is_observed_after_both_waves() -> None:
    vip, rng = _taught(), np.random.default_rng(11)
    p = np.where(np.arange(64) % 4 == 0, 0.5, 0.0)
    first = vip.allocate(PROMPTS[:64], 512, waves=2)
    shown = _draw(p, first.counts, rng)
    before = vip.state_dict()["strategies"]["default"]["predictor"]["steps"]
    with pytest.raises(InputError):
        vip.observe(PROMPTS[:64], shown)
    assert str(vip.state_dict()["strategies"]["default"]["predictor"]["steps"]) == str(before)
    second = vip.next(first, shown)
    vip.observe(PROMPTS[:64], [a + b for a, b in zip(shown, _draw(p, second.counts, rng), strict=True)])


def test_metrics_of_success_and_reward_are_unbiased() -> None:
    """Hard prompts: the mean over all rollouts of a group is far below the success rate."""
    rng, p = np.random.default_rng(12), np.where(np.arange(64) % 4 == 0, 0.1, 0.0)
    found = []
    for seed in range(25):
        vip = _taught(seed=seed)
        first, _, rewards = _step(vip, PROMPTS[:64], p, rng)
        assert first.waves is not None
        metrics, raw = vip.metrics(), np.mean([np.mean(group) for group in rewards])
        assert metrics[names.SUCCESS_RATE] == pytest.approx(metrics[names.PROMPT_REWARD])
        found.append([metrics[names.SUCCESS_RATE], metrics[names.REWARD_VARIANCE], raw])
    mean, error = np.mean(found, axis=0), np.std(found, axis=0) / 5
    assert abs(mean[0] - p.mean()) < 2.5 * error[0]
    assert abs(mean[1] - (p * (1 - p)).mean()) < 2.5 * error[1]
    assert mean[2] < p.mean() - 2.5 * error[2]


def test_arguments_of_next() -> None:
    vip = _taught()
    selection = vip.select(PROMPTS[:40], 160, 20, waves=2)
    for wrong in (selection, PROMPTS, None):
        with pytest.raises(InputError):
            vip.next(wrong, [[0.0]] * 20)  # type: ignore[arg-type]
        with pytest.raises(InputError):
            viprl.pooled_advantages([[0.0]] * 20, wrong)  # type: ignore[arg-type]
    plan = selection.allocation
    for shape in ([0.0] * 20, [[0.0]] * 20, [[0.0] * n for n in plan.counts[:-1]]):
        with pytest.raises(InputError):
            vip.next(plan, shape)  # type: ignore[arg-type]
    second = vip.next(plan, [[0.0] * n for n in plan.counts])
    with pytest.raises(InputError):
        vip.next(second, [[0.0] * n for n in second.counts])
    assert "two" in repr(plan) and "saved" not in repr(plan)
    assert "two" in repr(second)


def test_a_match_saves_rollouts_at_the_first_visit() -> None:
    rng, spent = np.random.default_rng(7), []
    vip, p = _taught(spend="match"), _dead_pool(rng)
    for start in range(0, 320, 64):
        first, second, _ = _step(vip, PROMPTS[start : start + 64], p[start : start + 64], rng)
        total = int((first.counts + second.counts).sum())
        assert second.cost == total
        assert vip.metrics()[names.SPENT_ROLLOUTS] == total
        spent.append(total / 512)
    assert 0.5 < np.mean(spent) < 0.9
    single = _taught(spend="match").allocate(PROMPTS[:64], 512)
    assert single.counts.sum() == 512  # nothing is known of these prompts without a look


def test_tokens_are_limited_in_both_waves() -> None:
    rng, vip, p = np.random.default_rng(8), _taught(cost="tokens"), np.array([0.0, 0.0, 0.0, 0.5] * 16)
    lengths = np.where(p == 0, 30.0, 10.0)

    def observe(prompts: list[str], groups: list[list[float]]) -> None:
        given = [[length] * len(group) for length, group in zip(lengths, groups, strict=True)]
        vip.observe(prompts, groups, lengths=given)

    observe(PROMPTS[:64], _draw(p, np.full(64, 8), rng))
    mixed = [*PROMPTS[:32], *PROMPTS[96:128]]  # half of them known, with lengths
    first = vip.allocate(mixed, 512, waves=2)
    assert first.waves is not None
    shown = _draw(p, first.counts, rng)
    second = vip.next(first, shown)
    budget = first.waves.budget
    assert budget.limit is not None
    assert second.cost == pytest.approx(budget.cost(first.counts + second.counts))
    assert second.cost <= budget.limit * (1 + 1e-9)
    observe(mixed, [a + b for a, b in zip(shown, _draw(p, second.counts, rng), strict=True)])


def test_metrics_of_looks() -> None:
    vip, rng = _taught(), np.random.default_rng(9)
    first, second, _ = _step(vip, PROMPTS[:64], _dead_pool(rng)[:64], rng)
    found = vip.metrics()
    assert first.waves is not None
    assert found[names.LOOKS] == first.waves.plan.looks.mean()
    assert found[names.SECOND_WAVE] == second.counts.sum() / 512
    assert found[names.WAVES_TRUST] == 1
    plan = vip.allocate(PROMPTS[64:128], 512)
    vip.observe(PROMPTS[64:128], _draw(np.full(64, 0.5), plan.counts, rng))
    assert names.LOOKS not in vip.metrics()


def test_waves_that_do_harm_end(caplog: pytest.LogCaptureFixture) -> None:
    """A population that was dead comes alive with prompts of p near 0 or 1, which short first waves do not tell apart:
    the guard sees that one wave would have been better."""
    rng, vip = np.random.default_rng(10), _taught()
    memory = vip._memory.looks
    plan = vip.allocate(PROMPTS[:64], 512, waves=2)
    assert plan.waves is not None
    pending = next(iter(vip._pending._plans.values()))
    for _ in range(12):
        memory.observe(pending, np.full(64, 0.2), 0.2 / 7 * (1.5 + 0.1 * rng.random(64)))
    assert not memory.trusted
    assert len(caplog.records) == 1
    other = _taught()
    other.load_state_dict(vip.state_dict())
    for one in (vip, other):
        assert one.allocate(PROMPTS[64:128], 512, waves=2).waves is None


def test_waves_need_a_prediction_that_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    vip = _taught()
    guard = next(iter(vip._memory.strategies.values())).guard
    assert guard is not None
    for choice, waves in ((1, True), (2, True), (3, False), (4, False)):
        monkeypatch.setattr(type(guard), "choice", property(lambda _, choice=choice: choice))
        assert (vip.allocate(PROMPTS[:20], 160, waves=2).waves is not None) == waves


def test_state_between_steps() -> None:
    rng = np.random.default_rng(4)
    p = _dead_pool(rng)
    vip, other = _vip(), _vip()
    _step(vip, PROMPTS[:64], p[:64], rng)
    other.load_state_dict(vip.state_dict())
    for q in (vip, other):
        first, second, _ = _step(q, PROMPTS[64:128], p[64:128], np.random.default_rng(5))
        plan = first.counts, second.counts
        if q is vip:
            expected = plan
    assert all((a == b).all() for a, b in zip(plan, expected, strict=True))


def test_refuses_what_does_not_fit() -> None:
    vip, rng = _vip(), np.random.default_rng(6)
    p = _dead_pool(rng)
    _step(vip, PROMPTS[:64], p[:64], rng)
    first = vip.allocate(PROMPTS[64:128], 512, waves=2)
    assert first.waves is not None
    with pytest.raises(InputError):
        vip.allocate(PROMPTS[:64], 512, waves=3)
    with pytest.raises(InputError):
        vip.next(first, [[1.0]] * 64)
    with pytest.raises(InputError):
        viprl.pooled_advantages([[1.0]] * 64, first)
    shown = _draw(p[64:128], first.counts, rng)
    second = vip.next(first, shown)
    with pytest.raises(InputError):
        vip.next(first, shown)  # once
    with pytest.raises(InputError):
        vip.observe(PROMPTS[64:128], shown)  # without the second wave
    more = _draw(p[64:128], second.counts, rng)
    vip.observe(PROMPTS[64:128], [a + b for a, b in zip(shown, more, strict=True)])


def test_unscorable_rewards() -> None:
    vip, rng = _vip(), np.random.default_rng(7)
    p = _dead_pool(rng)
    _step(vip, PROMPTS[:64], p[:64], rng)
    first = vip.allocate(PROMPTS[64:128], 512, waves=2)
    shown: list[list[float | None]] = [list(group) for group in _draw(p[64:128], first.counts, rng)]
    shown[3][0] = None
    second = vip.next(first, shown)
    rewards = [a + b for a, b in zip(shown, _draw(p[64:128], second.counts, rng), strict=True)]
    advantages = viprl.pooled_advantages(rewards, second)
    assert np.isfinite(advantages).all()
    assert advantages[first.counts[:3].sum() + second.counts[:3].sum()] == 0
    vip.observe(PROMPTS[64:128], rewards)


def test_selected_prompts() -> None:
    vip, rng = _vip(baseline="expected"), np.random.default_rng(8)
    p = _dead_pool(rng)
    _step(vip, PROMPTS[:96], p[:96], rng)
    selection = vip.select(PROMPTS[96:224], 512, 64, waves=2)
    first, positions = selection.allocation, 96 + selection.positions
    assert first.waves is not None
    shown = _draw(p[positions], first.counts, rng)
    second = vip.next(first, shown)
    assert first.counts.sum() + second.counts.sum() == 512
    rewards = [a + b for a, b in zip(shown, _draw(p[positions], second.counts, rng), strict=True)]
    vip.observe([PROMPTS[q] for q in positions], rewards)
    assert np.isfinite(vip.metrics()[names.REALISED_RATIO])


def test_a_weaker_signal_has_smaller_first_waves() -> None:
    sizes = {}
    for signal in (0.0, 1.0):
        plan = _taught(score_signal=signal).allocate(PROMPTS[:64], 512, waves=2)
        assert plan.waves is not None
        sizes[signal] = plan.counts.mean()
    assert sizes[0.0] < sizes[1.0]
    for wrong in (-0.1, 101, "1", float("nan")):
        with pytest.raises((InputError, TypeError)):
            _vip(score_signal=wrong)
