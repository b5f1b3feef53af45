"""The learning benchmark measures what it says."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from learning.arms import DynamicSampling, Even, Greso, Planned, Thompson  # noqa: E402
from learning.curves import POOL, area, area_ratio, mean_speed_up, rollouts_to, speed_ups  # noqa: E402
from learning.moments import Laws, moments  # noqa: E402
from learning.policy import Policy, tasks_of  # noqa: E402
from learning.training import Rolled, Run, Setting, Update, ascend, train  # noqa: E402

from viprl.advantages import RewardPrior, group_advantages  # noqa: E402
from viprl.quickstart.model import build_model  # noqa: E402
from viprl.quickstart.tasks import Problem  # noqa: E402


@pytest.fixture(scope="module")
def policy() -> Policy:
    """An untrained model: random, but its first letters are right often enough."""
    return Policy(build_model(0).eval())


@pytest.fixture(scope="module")
def pool():
    return tasks_of([Problem(x, f"give the first letter : {x} b =", x, "first", 2) for x in "acdefghij"])


def run(policy, pool, **setting):
    return Run(policy.copy(), pool, Setting(**{"budget": 16, "steps": 2, **setting}), seed=0)


class TestPolicy:
    def test_sampled_frequencies_are_the_probabilities(self, policy, pool):
        (group,) = policy.sample([pool[0].prompt], np.array([1000]), torch.Generator().manual_seed(0))
        assert sum(one.times for one in group) == 1000
        assert len({one.tokens for one in group}) == len(group)
        logp = policy.logprobs([pool[0].prompt] * len(group), [one.tokens for one in group])
        np.testing.assert_allclose(logp.detach(), [one.logprob for one in group], atol=1e-4)
        first = {}
        for one in group:
            first[one.tokens[0]] = first.get(one.tokens[0], 0) + one.times / 1000
        truth = policy.model(torch.tensor([pool[0].prompt])).logits[0, -1].softmax(-1).tolist()
        for token, share in first.items():
            assert share == pytest.approx(truth[token], abs=0.06)

    def test_success_is_the_probability_of_the_solution(self, policy, pool):
        p = policy.success(pool, chunk=4)
        each = [policy.logprobs([task.prompt], [task.solution]).exp().item() for task in pool]
        np.testing.assert_allclose(p, each, rtol=1e-4)


class TestGradient:
    @pytest.mark.parametrize("shrunk", [False, True])
    def test_coefficients_are_the_mean_over_prompts_of_means_over_rollouts(self, policy, pool, shrunk):
        one = run(policy, pool)
        rolled = one.roll(pool[:3], np.array([2, 3, 11]))
        rolled.completions[1][0] = type(rolled.completions[1][0])(
            pool[1].solution, rolled.completions[1][0].times, -1.0
        )
        weights, prior = np.array([0.5, 2.0, 1.0]), RewardPrior(np.array([0.1, 0.5, 0.9]), np.array([1.0, 0.0, 4.0]))
        update = Update(rolled, weights, prior if shrunk else None)
        expected = {}
        for q, (task, rewards) in enumerate(zip(rolled.tasks, rolled.rewards, strict=True)):
            kappa, n, at = prior.rollouts[q] * shrunk, len(rewards), 0
            for each in rolled.completions[q]:
                r = rewards[at]
                baseline = (kappa * prior.mean[q] + sum(rewards) - r) / (kappa + n - 1)
                expected[task.key, each.tokens] = each.times * weights[q] * (r - baseline) / n / 3
                at += each.times
        found = {(task.key, each.tokens): value for task, each, value in update.answers(update.coefficients())}
        assert found == pytest.approx({key: value for key, value in expected.items() if value != 0})


class TestFreeText:
    def test_a_rollout_is_its_answer_and_its_text(self, policy, pool):
        rolled = run(policy, pool, free_tokens=3).roll(pool[:2], np.array([2, 4]))
        assert [text.tokens.shape for text in rolled.texts] == [(2, 3), (4, 3)]
        alone = Rolled(rolled.tasks, rolled.counts, rolled.completions)
        for both, answers, text in zip(rolled.logprobs, alone.logprobs, rolled.texts, strict=True):
            np.testing.assert_allclose(np.array(both) - answers, text.logprobs, rtol=1e-5)
            np.testing.assert_allclose(policy.text_logprobs(text.tokens).detach(), text.logprobs, atol=1e-4)
        assert rolled.rewards == alone.rewards

    def test_texts_of_a_second_wave_follow_those_of_the_first(self, policy, pool):
        one = run(policy, pool, free_tokens=3)
        first, second = one.roll(pool[:3], np.array([2, 2, 2])), one.roll(pool[1:2], np.array([3]))
        both = first.with_more(second, [1])
        assert both.counts.tolist() == [2, 5, 2]
        assert torch.equal(both.texts[1].tokens, torch.cat([first.texts[1].tokens, second.texts[0].tokens]))
        assert both.rewards[1] == first.rewards[1] + second.rewards[0]
        assert both.logprobs[1] == first.logprobs[1] + second.logprobs[0]

    def test_the_gradient_is_that_of_whole_rollouts(self, policy, pool):
        rolled = run(policy, pool, free_tokens=3).roll(pool[:2], np.array([2, 4]))
        group = [type(one)(pool[0].solution, one.times, one.logprob) for one in rolled.completions[0][:1]]
        rolled.completions[0][:1] = group  # rewards that differ
        update, own = Update(rolled), policy.copy()
        each = update.coefficients()
        assert (each != 0).any()
        ascend(own, update, torch.optim.SGD(own.parameters, lr=0.0), 0.0, 1e9)
        other, total, at = policy.copy(), 0.0, 0
        for task, group, text in zip(rolled.tasks, rolled.completions, rolled.texts, strict=True):
            answers = [one.tokens for one in group for _ in range(one.times)]
            logp = other.logprobs([task.prompt] * len(answers), answers) + other.text_logprobs(text.tokens)
            total = total - (torch.tensor(each[at : at + len(answers)], dtype=torch.float32) * logp).sum()
            at += len(answers)
        total.backward()
        for mine, expected in zip(own.parameters, other.parameters, strict=True):
            grad = torch.zeros_like(expected) if expected.grad is None else expected.grad
            torch.testing.assert_close(mine.grad, grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("prior", [None, RewardPrior(np.array([0.4]), np.array([3.0]))])
def test_the_law_is_the_variance_of_a_group(n, prior):
    """By enumeration, for a prompt with one right and one wrong completion."""
    p, right = 0.3, np.array([1.0, -2.0])
    wrong = -p / (1 - p) * right  # the mean score is 0
    g = p * right
    laws = Laws(np.array([p]), *(np.array([x]) for x in (g @ g, right @ right, wrong @ wrong)), signal=0.0)
    mean, square = np.zeros(2), 0.0
    for rewards in itertools.product([0.0, 1.0], repeat=n):
        chance = np.prod([p if r else 1 - p for r in rewards])
        advantages = group_advantages(rewards, [n], prior=prior)
        estimate = sum(a * (right if r else wrong) for a, r in zip(advantages, rewards, strict=True)) / n
        mean, square = mean + chance * estimate, square + chance * estimate @ estimate
    np.testing.assert_allclose(mean, g)
    assert square - g @ g == pytest.approx(laws.variance(np.array([0]), np.array([n]), prior)[0])


class TestArms:
    @pytest.mark.parametrize(
        "arm",
        [
            Even(4),
            Planned("default", None, 0, prompts=4, candidates=8, expected=True),
            Planned("oracle", None, 0, prompts=4, candidates=8, expected=True),
            Planned("paper", "length", 0, prompts=4, candidates=4),
            Thompson(0, prompts=4, candidates=8),
            Planned("default", None, 0, prompts=4, candidates=8, waves=2),
        ],
    )
    def test_a_step_costs_the_budget(self, policy, pool, arm):
        one = run(policy, pool)
        update = arm.step(one)
        assert one.spent == update.rolled.counts.sum() == 16 and len(update.rolled.tasks) == 4

    @pytest.mark.parametrize("build", [lambda: DynamicSampling(2, prompts=4, rollouts=4), lambda: Greso(2, 0)])
    def test_dynamic_sampling_is_charged_for_what_it_throws_away(self, policy, pool, build):
        one = run(policy, pool, budget=128, steps=1)
        update = build().step(one)
        assert all(len(set(group)) == 2 for group in update.rolled.rewards)
        assert one.spent >= max(16, update.rolled.counts.sum())

    def test_runs_repeat_and_end_with_the_budget(self, policy, pool):
        curves = [list(train(run(policy, pool, every=1), Even(4), pool, 1e-3)) for _ in range(2)]
        assert curves[0] == curves[1]
        assert [(point.step, point.spent) for point in curves[0]] == [(0, 0), (1, 16), (2, 32)]

    def test_measuring_changes_nothing(self, policy, pool):
        one = run(policy, pool, budget=64)
        arm = Planned("default", None, 0, prompts=4, candidates=8, expected=True)
        before = arm.vip.state_dict()["rng"]["state"]
        measured = moments(one, arm, 1, plans=3)
        assert one.spent == 0 and arm.vip.state_dict()["rng"]["state"] == before
        assert measured.ratio > 0 and measured.signal > 0


class TestCurves:
    uniform = ((0, 0, 0.0, 0.0), (1, 50, 0.5, 0.25), (2, 100, 1.0, 0.5))
    fast = ((0, 0, 0.0, 0.0), (1, 50, 1.0, 0.5), (2, 100, 1.0, 0.5))

    def test_area_and_level(self):
        assert area(self.uniform, 100, POOL) == pytest.approx(0.5)
        assert area(self.fast, 100, POOL) == pytest.approx(0.75, abs=0.01)
        assert rollouts_to(self.uniform, 0.8, 100) == pytest.approx(80, abs=0.1)
        assert rollouts_to(self.uniform, 2.0, 100) == 100

    def test_twice_as_fast(self):
        arm, uniform = {0: self.fast, 1: self.fast}, {0: self.uniform, 1: self.uniform, 2: self.uniform}
        assert [level.mean for level in speed_ups(arm, uniform, 100)] == pytest.approx([2, 2, 2], rel=0.01)
        assert mean_speed_up(arm, uniform, 100).mean == pytest.approx(2, rel=0.01)
        ratio = area_ratio(arm, uniform, 100, POOL)
        assert ratio.mean == pytest.approx(1.5, rel=0.01) and ratio.n == 2
