"""The variance of a prompt's policy gradient as a function of its rollouts, measured from the gradients of rollouts.

Per prompt, with reward r, success mean p, score Z (gradient of the rollout's log probability; E Z = 0) and gradient
g = E[(r - p) Z], the trace of the covariance of the RLOO gradient of n rollouts is exactly

    Var(n) = A / n + B / (n (n - 1)),    A = E[(r - p)^2 |Z|^2] - |g|^2,    B = Var(r) E|Z|^2 + |g|^2,

and that of Dr.GRPO is ((n - 1) / n)^2 times as large. The law allows for dependent rewards and scores; Propositions
4.2 and 4.3 of arXiv 2602.01601 are the special case A = B.

`exact_law` estimates A, B and |g|^2 without bias from the rewards and the Gram matrix of the scores. `score_gram`
computes that matrix, with one backward pass per distinct completion. `measure_law` does both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from viprl.errors import InputError
from viprl.utils.arrays import FloatArray

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


def score_gram(
    model: Any, prompt_ids: Sequence[int], completions: Sequence[Sequence[int]], temperature: float = 1.0
) -> FloatArray:
    """Gram matrix [m, m] of the scores of m completions of one prompt.

    A score is the gradient of the log probability of a completion (sum over its tokens, eos included) with respect to
    all trainable parameters. It costs one backward pass for each distinct completion, and (distinct completions) x
    (trainable parameters) floats of memory, so use a small model or freeze most of a large one.

    Args:
        model: the policy that drew the completions: a causal language model that maps `input_ids` to `.logits`, without
            dropout (`model.eval()`).
        prompt_ids: tokens of the prompt, without padding, at least one.
        completions: tokens of each completion, without padding, at least one each.
        temperature: the temperature at which the completions were drawn.
    """
    import torch

    if len(prompt_ids) == 0 or any(len(completion) == 0 for completion in completions):
        raise InputError("the prompt or a completion has no token; expected at least one each")
    distinct: dict[tuple[int, ...], int] = {}
    owner = [distinct.setdefault(tuple(map(int, completion)), len(distinct)) for completion in completions]
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise InputError("the model has no trainable parameter; set requires_grad on those to measure")
    scores = torch.empty(len(distinct), sum(p.numel() for p in parameters), dtype=parameters[0].dtype)
    with torch.enable_grad():
        for completion, row in distinct.items():
            log_probability = _log_probability(model, prompt_ids, completion, temperature)
            gradients = torch.autograd.grad(log_probability, parameters, allow_unused=True, materialize_grads=True)
            torch.cat([gradient.reshape(-1) for gradient in gradients], out=scores[row])
    gram = (scores @ scores.T).double().numpy()
    return gram[np.ix_(owner, owner)]


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

    If all rewards are equal, every estimate is exactly 0 and no gradient is computed. Arguments: see `score_gram`.
    """
    r = np.asarray(rewards, dtype=np.float64)
    if len(completions) != r.size:
        raise InputError(f"got {r.size} rewards for {len(completions)} completions; expected one for each")
    if r.size >= 4 and np.all(r == r.flat[0]):
        return VarianceLaw(A=np.float64(0), B=np.float64(0), squared_gradient=np.float64(0))
    return exact_law(r, score_gram(model, prompt_ids, completions, temperature))
