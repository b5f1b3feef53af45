"""The variance law and its U-statistics against brute force, Monte Carlo and exact categorical policies."""

from dataclasses import dataclass
from itertools import permutations

import numpy as np
import pytest

from viprl.analysis.gradient_variance import VarianceLaw, exact_law
from viprl.errors import InputError

FIELDS = ("A", "B", "squared_gradient")


@dataclass(frozen=True)
class Bandit:
    """A softmax policy over K answers: everything about it is known exactly."""

    probabilities: np.ndarray
    rewards: np.ndarray

    @property
    def scores(self):
        """Gradient of log softmax wrt the logits, shape [K, K]: row k is the score of answer k."""
        return np.eye(self.probabilities.size) - self.probabilities

    @property
    def gradient(self):
        return (self.probabilities * self.rewards) @ self.scores

    @property
    def law(self):
        q, r = self.probabilities, self.rewards
        norms = (self.scores**2).sum(1)
        centred2 = (r - q @ r) ** 2
        g2 = self.gradient @ self.gradient
        return VarianceLaw(A=q @ (centred2 * norms) - g2, B=(q @ centred2) * (q @ norms) + g2, squared_gradient=g2)

    def draw(self, rng, shape):
        return rng.choice(self.probabilities.size, size=shape, p=self.probabilities)


BANDITS = {
    "even": Bandit(np.array([0.25, 0.25, 0.25, 0.25]), np.array([1.0, 1.0, 0.0, 0.0])),
    "rare success": Bandit(np.array([0.1, 0.5, 0.3, 0.1]), np.array([1.0, 0.0, 0.0, 0.0])),
    "nearly solved": Bandit(np.array([0.6, 0.3, 0.1]), np.array([1.0, 1.0, 0.0])),
    "real-valued": Bandit(np.array([0.4, 0.3, 0.2, 0.1]), np.array([2.0, -1.0, 0.5, 3.0])),
}


@pytest.fixture(params=BANDITS.values(), ids=BANDITS.keys())
def bandit(request):
    return request.param


def brute_force(r, G):
    """The three kernels averaged over all tuples of distinct rollouts, index by index."""
    m = range(len(r))
    second = np.mean([(r[i] - r[j]) * (r[i] - r[k]) * G[i, i] for i, j, k in permutations(m, 3)])
    product = np.mean([(r[i] - r[j]) ** 2 / 2 * G[k, k] for i, j, k in permutations(m, 3)])
    g2 = np.mean([(r[i] - r[k]) * (r[j] - r[o]) * G[i, j] for i, j, k, o in permutations(m, 4)])
    return VarianceLaw(A=second - g2, B=product + g2, squared_gradient=g2)


@pytest.mark.parametrize("m", [4, 5, 7])
def test_closed_forms_equal_the_average_over_all_tuples(m):
    rng = np.random.default_rng(m)
    rewards, scores = rng.normal(size=m), rng.normal(size=(m, 3))
    gram = scores @ scores.T
    estimate, expected = exact_law(rewards, gram), brute_force(rewards, gram)
    for field in FIELDS:
        assert getattr(estimate, field) == pytest.approx(getattr(expected, field), rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("m", [4, 8])
def test_estimates_are_unbiased(bandit, m):
    draws = bandit.draw(np.random.default_rng(1), (6000, m))
    kernel = bandit.scores @ bandit.scores.T
    laws = [exact_law(bandit.rewards[d], kernel[np.ix_(d, d)]) for d in draws]
    for field in FIELDS:
        values, truth = np.array([getattr(law, field) for law in laws]), getattr(bandit.law, field)
        standard_error = values.std(ddof=1) / np.sqrt(values.size)
        assert abs(values.mean() - truth) < 4 * standard_error, field
        # Without this, a law of zeros with a huge error would pass.
        assert standard_error < 0.2 * max(abs(truth), 0.02), field


def rloo_gradients(bandit, n, draws, rng):
    answers = bandit.draw(rng, (draws, n))
    r = bandit.rewards[answers]
    advantages = (r - r.mean(1, keepdims=True)) * n / (n - 1)
    return np.einsum("dn,dnk->dk", advantages, bandit.scores[answers]) / n


@pytest.mark.parametrize("n", [2, 3, 8])
def test_law_is_the_variance_of_the_rloo_gradient(bandit, n):
    gradients = rloo_gradients(bandit, n, 40_000, np.random.default_rng(n))
    deviations = ((gradients - bandit.gradient) ** 2).sum(1)
    standard_error = deviations.std(ddof=1) / np.sqrt(deviations.size)
    assert abs(deviations.mean() - bandit.law.variance(n)) < 4 * standard_error
    # Fine enough to tell the law from the paper's, which is 10 % and more away on some of these bandits.
    assert standard_error < 0.02 * deviations.mean()


def test_dr_grpo_is_the_scaled_law(bandit):
    n = 4
    gradients = rloo_gradients(bandit, n, 40_000, np.random.default_rng(0)) * (n - 1) / n
    deviations = ((gradients - gradients.mean(0)) ** 2).sum(1)
    standard_error = deviations.std(ddof=1) / np.sqrt(deviations.size)
    assert abs(deviations.mean() - bandit.law.variance(n, "dr_grpo")) < 4 * standard_error


def test_paper_law_is_the_special_case_of_equal_a_and_b():
    law = VarianceLaw(A=np.float64(3), B=np.float64(3), squared_gradient=np.float64(0))
    np.testing.assert_allclose(law.variance([2, 4, 11]), [3, 1, 0.3])


def test_equal_rewards_give_zero():
    scores = np.random.default_rng(0).normal(size=(6, 2))
    law = exact_law(np.ones(6), scores @ scores.T)
    assert (law.A, law.B, law.squared_gradient) == (0, 0, 0)


def test_estimates_do_not_depend_on_the_reward_offset_and_scale_with_its_square():
    rng = np.random.default_rng(0)
    rewards, scores = rng.integers(2, size=9).astype(float), rng.normal(size=(9, 4))
    gram = scores @ scores.T
    zero_one, signs = exact_law(rewards, gram), exact_law(2 * rewards - 1, gram)
    for field in FIELDS:
        assert getattr(signs, field) == pytest.approx(4 * getattr(zero_one, field))


@pytest.mark.parametrize(
    ("rewards", "gram", "words"),
    [
        (np.ones(3), np.eye(3), r"\(3,\)"),
        (np.ones(5), np.eye(4), r"\(5,\).*\(4, 4\)"),
        (np.array([1.0, 0, np.nan, 1]), np.eye(4), "finite"),
    ],
)
def test_bad_input_is_refused(rewards, gram, words):
    with pytest.raises(InputError, match=words):
        exact_law(rewards, gram)


def test_bad_counts_and_estimators_are_refused():
    law = VarianceLaw(A=np.float64(1), B=np.float64(1), squared_gradient=np.float64(0))
    with pytest.raises(InputError, match="counts"):
        law.variance([4, 1])
    with pytest.raises(InputError, match="'grpo'"):
        law.variance(4, "grpo")


# ---- scores of a language model -----------------------------------------------------------------------------------

PROMPT = [4, 7, 5]
COMPLETIONS = [[6, 2], [8, 9, 2], [6, 2], [9, 2], [8, 9, 2], [4, 4, 4]]


@pytest.fixture(scope="module")
def tiny_model():
    pytest.importorskip("datasets")
    import tiny

    return tiny.model().eval()


def brute_force_score(model, completion, temperature):
    """Autograd of one rollout's log probability, token by token, with a fresh forward pass for each token."""
    import torch

    total = torch.zeros(())
    for position, token in enumerate(completion):
        context = torch.tensor([PROMPT + completion[:position]])
        total = total + torch.log_softmax(model(input_ids=context).logits[0, -1] / temperature, -1)[token]
    model.zero_grad()
    total.backward()
    return np.concatenate([p.grad.double().numpy().ravel() for p in model.parameters()])


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_score_gram_equals_autograd_of_every_rollout(tiny_model, temperature):
    from viprl.analysis.gradient_variance import score_gram

    scores = np.stack([brute_force_score(tiny_model, c, temperature) for c in COMPLETIONS])
    gram = score_gram(tiny_model, PROMPT, COMPLETIONS, temperature)
    assert gram.shape == (6, 6) and gram.dtype == np.float64
    np.testing.assert_allclose(gram, scores @ scores.T, rtol=2e-4, atol=2e-4 * np.diag(gram).max())
    assert gram[0, 1] != gram[0, 2]


def test_score_gram_runs_one_backward_pass_per_distinct_completion(tiny_model, monkeypatch):
    import torch

    from viprl.analysis import gradient_variance

    calls = []
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: calls.append(1) or grad(*a, **k))
    gradient_variance.score_gram(tiny_model, PROMPT, COMPLETIONS)
    assert len(calls) == 4


def test_measure_law_joins_both_and_skips_gradients_of_equal_rewards(tiny_model, monkeypatch):
    from viprl.analysis import gradient_variance

    rewards = [1, 0, 1, 0, 0, 1]
    law = gradient_variance.measure_law(tiny_model, PROMPT, COMPLETIONS, rewards)
    expected = exact_law(rewards, gradient_variance.score_gram(tiny_model, PROMPT, COMPLETIONS))
    assert law == expected and law.B > 0
    monkeypatch.setattr(gradient_variance, "score_gram", lambda *_: pytest.fail("gradients are not needed"))
    assert gradient_variance.measure_law(tiny_model, PROMPT, COMPLETIONS, [1.0] * 6).B == 0


def test_score_gram_refuses_empty_completions(tiny_model):
    from viprl.analysis.gradient_variance import score_gram

    with pytest.raises(InputError, match="token"):
        score_gram(tiny_model, PROMPT, [[4], []])
