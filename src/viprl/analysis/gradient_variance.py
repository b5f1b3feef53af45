"""The variance of a prompt's policy gradient as a function of its rollouts, measured from the gradients of rollouts.

Per prompt, with reward r, success mean p, score Z (gradient of the rollout's log probability; E Z = 0) and gradient
g = E[(r - p) Z], the trace of the covariance of the RLOO gradient of n rollouts is exactly

    Var(n) = A / n + B / (n (n - 1)),    A = E[(r - p)^2 |Z|^2] - |g|^2,    B = Var(r) E|Z|^2 + |g|^2,

and that of Dr.GRPO is ((n - 1) / n)^2 times as large. The law allows for dependent rewards and scores; Propositions
4.2 and 4.3 of arXiv 2602.01601 are the special case A = B.

`exact_law` estimates A, B and |g|^2 without bias from the rewards and the Gram matrix of the scores. `scores` computes
the scores, with one backward pass per distinct completion, whole or as a sketch (`viprl.utils.gradient_sketch`).
`measure_prompt` gives the law of a prompt and its gradient, `measure_law` the law alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from viprl.errors import InputError
from viprl.utils.arrays import FloatArray, IntArray
from viprl.utils.gradient_sketch import Projection, whole_gradient

if TYPE_CHECKING:
    import torch

Numbers = FloatArray | np.float64


@dataclass(frozen=True)
class VarianceLaw:
    """The exact variance law A / n + B / (n (n - 1)) of one prompt (scalars) or of many (arrays [Q]).

    Estimates are unbiased, so a single one may be negative. Average before you divide.
    """

    A: Numbers
    """E[(r - p)^2 |Z|^2] - |g|^2, shape [] or [Q]."""
    B: Numbers
    """Var(r) E|Z|^2 + |g|^2, shape [] or [Q]: the cost of estimating the baseline."""
    squared_gradient: Numbers
    """|g|^2, the squared norm of the gradient, shape [] or [Q]."""

    def at(self, rows: IntArray) -> VarianceLaw:
        """The laws of some of many prompts."""
        return VarianceLaw(*(np.asarray(x)[rows] for x in (self.A, self.B, self.squared_gradient)))

    def variance(self, counts: ArrayLike, estimator: Literal["rloo", "dr_grpo"] = "rloo") -> Numbers:
        """Trace of the covariance of the gradient with `counts` rollouts, at least 2; shapes broadcast."""
        n = np.asarray(counts, dtype=np.float64)
        if np.any(~(n >= 2)):
            raise InputError(f"the smallest of the counts is {n.min()}; expected at least 2")
        rloo = self.A / n + self.B / (n * (n - 1))
        if estimator == "rloo":
            return rloo
        if estimator == "dr_grpo":
            return ((n - 1) / n) ** 2 * rloo
        raise InputError(f"estimator is {estimator!r}; expected 'rloo' or 'dr_grpo'")


def exact_law(rewards: ArrayLike, gram: ArrayLike) -> VarianceLaw:
    """Unbiased estimate of a prompt's variance law from m >= 4 independent rollouts.

    Args:
        rewards: [m] any scale.
        gram: [m, m] inner products of the scores, gram[i, j] = Z_i . Z_j.

    Each term is a U-statistic: the average over all tuples of distinct rollouts of

        (r_1 - r_2)(r_1 - r_3) |Z_1|^2        for E[(r - p)^2 |Z|^2],
        (r_1 - r_2)^2 / 2 |Z_3|^2             for Var(r) E|Z|^2,
        (r_1 - r_3)(r_2 - r_4) Z_1 . Z_2      for |g|^2,

    which assumes independent rollouts (and E Z = 0 for the last term). All three are 0 if all rewards are equal. The
    sums over tuples have closed forms in the centred rewards c (sum 0, sum of squares s), which cost O(m^2).
    """
    r = np.asarray(rewards, dtype=np.float64)
    G = np.asarray(gram, dtype=np.float64)
    m = r.size
    if r.ndim != 1 or m < 4 or G.shape != (m, m):
        raise InputError(f"rewards has shape {r.shape} and gram {G.shape}; expected [m] and [m, m] with m >= 4")
    if not (np.isfinite(r).all() and np.isfinite(G).all()):
        raise InputError("rewards or gram has values that are not finite; leave out rollouts that could not be scored")
    c = r - r.mean()
    c2 = c**2
    s = c2.sum()
    norms = np.diag(G)
    triples = m * (m - 1) * (m - 2)
    weighted_norm = (m * (m - 1) * c2 - s) @ norms / triples
    variance_times_norm = ((m - 1) * s - m * c2) @ norms / triples
    pair = (m - 2) * (m - 3) * np.outer(c, c) + (m - 2) * np.add.outer(c, c) ** 2 + np.add.outer(c2, c2) - s
    np.fill_diagonal(pair, 0.0)
    squared_gradient = (pair * G).sum() / (triples * (m - 3))
    return VarianceLaw(
        A=np.float64(weighted_norm - squared_gradient),
        B=np.float64(variance_times_norm + squared_gradient),
        squared_gradient=np.float64(squared_gradient),
    )


@dataclass(frozen=True)
class Scores:
    """The scores of m completions of one prompt; equal completions share a row."""

    vectors: torch.Tensor
    """[distinct, k] projected scores."""
    squared_norms: FloatArray
    """[distinct] of the scores before the projection."""
    owner: IntArray
    """[m] the row of each completion."""

    def gram(self) -> FloatArray:
        """[m, m] inner products, the squared norms exact."""
        products = (self.vectors @ self.vectors.T).double().cpu().numpy()
        np.fill_diagonal(products, self.squared_norms)
        return products[np.ix_(self.owner, self.owner)]

    def weighted_sum(self, weights: FloatArray) -> torch.Tensor:
        """[k] sum of weights [m] times the projected scores."""
        import torch

        by_row = np.bincount(self.owner, weights, minlength=len(self.squared_norms))
        return torch.as_tensor(by_row, dtype=self.vectors.dtype, device=self.vectors.device) @ self.vectors


def scores(
    model: Any,
    prompt_ids: Sequence[int],
    completions: Sequence[Sequence[int]],
    temperature: float = 1.0,
    projection: Projection = whole_gradient,
) -> Scores:
    """The scores of m completions of one prompt.

    A score is the gradient of the log probability of a completion (sum over its tokens, eos included) with respect to
    all trainable parameters. It costs one backward pass for each distinct completion, and (distinct completions) x k
    floats of memory, where k is the length of a projected gradient.

    Args:
        model: the policy that drew the completions: a causal language model that maps `input_ids` to `.logits`, without
            dropout (`model.eval()`).
        prompt_ids: tokens of the prompt, without padding, at least one.
        completions: tokens of each completion, without padding, at least one each.
        temperature: the temperature at which the completions were drawn.
        projection: `whole_gradient` for small models, a `GradientSketch` for large ones.
    """
    import torch

    if len(prompt_ids) == 0 or any(len(completion) == 0 for completion in completions):
        raise InputError("the prompt or a completion has no token; expected at least one each")
    distinct: dict[tuple[int, ...], int] = {}
    owner = [distinct.setdefault(tuple(map(int, completion)), len(distinct)) for completion in completions]
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise InputError("the model has no trainable parameter; set requires_grad on those to measure")
    vectors: torch.Tensor | None = None
    squared_norms = np.empty(len(distinct))
    with torch.enable_grad():
        for completion, row in distinct.items():
            log_probability = _log_probability(model, prompt_ids, completion, temperature)
            gradients = torch.autograd.grad(log_probability, parameters, allow_unused=True, materialize_grads=True)
            vector = projection(gradients)
            if vectors is None:
                vectors = vector.new_empty(len(distinct), len(vector))
            vectors[row] = vector
            squared_norms[row] = sum(float(torch.linalg.vector_norm(g.float())) ** 2 for g in gradients)
    assert vectors is not None  # there is a completion
    return Scores(vectors, squared_norms, np.array(owner))


def score_gram(
    model: Any, prompt_ids: Sequence[int], completions: Sequence[Sequence[int]], temperature: float = 1.0
) -> FloatArray:
    """[m, m] Gram matrix of the scores of m completions of one prompt. Arguments: see `scores`."""
    return scores(model, prompt_ids, completions, temperature).gram()


def _log_probability(
    model: Any, prompt_ids: Sequence[int], completion: Sequence[int], temperature: float
) -> torch.Tensor:
    """Log probability of the completion after the prompt, a differentiable scalar."""
    import torch

    device = next(model.parameters()).device
    tokens = torch.tensor([[*prompt_ids, *completion]], device=device)
    logits = model(input_ids=tokens[:, :-1], use_cache=False).logits[0, len(prompt_ids) - 1 :]
    chosen = torch.log_softmax(logits.float() / temperature, -1).gather(1, tokens[0, len(prompt_ids) :, None])
    return chosen.sum()


def measure_law(
    model: Any,
    prompt_ids: Sequence[int],
    completions: Sequence[Sequence[int]],
    rewards: ArrayLike,
    temperature: float = 1.0,
) -> VarianceLaw:
    """The variance law of one prompt from m >= 4 of its rollouts (96 is a good number) and their rewards.

    Arguments: see `measure_prompt`.
    """
    return measure_prompt(model, prompt_ids, completions, rewards, temperature)[0]


def measure_prompt(
    model: Any,
    prompt_ids: Sequence[int],
    completions: Sequence[Sequence[int]],
    rewards: ArrayLike,
    temperature: float = 1.0,
    projection: Projection = whole_gradient,
) -> tuple[VarianceLaw, torch.Tensor | None]:
    """The variance law of one prompt and its gradient, from m >= 4 of its rollouts and their rewards [m].

    The gradient is the RLOO estimate (1/(m-1)) sum_i (r_i - mean r) Z_i, projected, [k]: unbiased, so that its inner
    product with the gradient of another prompt is unbiased too. If all rewards are equal, every estimate is exactly 0,
    no gradient is computed, and None is returned for it.

    Other arguments: see `scores`.
    """
    r = np.asarray(rewards, dtype=np.float64)
    if len(completions) != r.size:
        raise InputError(f"got {r.size} rewards for {len(completions)} completions; expected one for each")
    if r.size >= 4 and np.all(r == r.flat[0]):
        return VarianceLaw(A=np.float64(0), B=np.float64(0), squared_gradient=np.float64(0)), None
    found = scores(model, prompt_ids, completions, temperature, projection)
    return exact_law(r, found.gram()), found.weighted_sum((r - r.mean()) / (r.size - 1))
