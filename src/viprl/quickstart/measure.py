"""The measurements of the quickstart at a checkpoint: gradient variance of every strategy, success.

`measure_variance` and `measure_success` take paths, return a result that JSON can hold and run in processes of their
own.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import gammaln

from viprl.analysis.gradient_variance import VarianceLaw, measure_prompt
from viprl.analysis.second_moment import SecondMoment, Terms, gradient_products, split, stacked
from viprl.prompts import identity
from viprl.quickstart.experiment import Experiment
from viprl.runs.files import OUTCOMES_FILE
from viprl.utils.arrays import FloatArray, IntArray
from viprl.utils.json_lines import log_rows
from viprl.vip import VIP


def measure_variance(run: str, pool: str, step: int, seed: int, experiment: Experiment) -> dict[str, Any]:
    """The counts of all strategies on random batches, and what their gradient variance depends on.

    Args:
        run: run folder of the training with the strategy "default".
        pool: file of the training prompts.
        step: the checkpoint. The strategies have the state that is saved in it.
        seed: seed of the run.
        experiment: the settings.

    Returns: for each batch the counts of every strategy, and for each prompt, estimated from the same
        `experiment.rollouts` rollouts, successes and the coefficients A and B of the variance
        Var(n) = A/n + B/(n(n-1)). The oracle gets success rates of `experiment.truth` other rollouts. "pair_product"
        is the mean product of the gradients of two different prompts.
    """
    import torch

    from viprl.quickstart.model import sample_completions

    checkpoint = Path(run) / f"checkpoint-{step}"
    model, tokenizer = _load(checkpoint)
    rows = list(log_rows(pool))
    active, *others = experiment.measured()
    low, high = experiment.min_rollouts, experiment.max_rollouts
    vip = VIP(min_rollouts=low, max_rollouts=high, strategy=active, shadow=others, seed=seed)
    vip.load(checkpoint / "vip_state.safetensors")
    outcomes = log_rows(Path(run) / OUTCOMES_FILE)
    visits = Counter(key for row in outcomes if row["step"] <= step for key in row["ids"])
    rng = np.random.default_rng([seed, step])
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    batches, gradients, every_law, keys = [], [], [], []
    for _ in range(experiment.batches):
        batch = [rows[i] for i in rng.choice(len(rows), experiment.prompts, replace=False)]
        texts = [row["prompt"] for row in batch]
        n = experiment.rollouts + experiment.truth
        drawn = sample_completions(model, tokenizer, texts, n, generator, experiment.max_tokens)
        solutions = [row["solution"] for row in batch]
        rewards = np.array([_rewards(tokenizer, *pair) for pair in zip(drawn, solutions, strict=True)])
        common, truth = rewards[:, : experiment.rollouts], rewards[:, experiment.rollouts :].mean(axis=1)
        vip.tell_oracle(batch, truth)
        proposals = vip.propose(batch, experiment.budget, rng=rng)
        prompt_ids = tokenizer(texts)["input_ids"]
        laws = []
        for ids, group, r in zip(prompt_ids, drawn, common, strict=True):
            law, gradient = measure_prompt(model, ids, group[: experiment.rollouts], r)
            laws.append(law)
            gradients.append(gradient)
        every_law += laws
        keys += [row["id"] for row in batch]
        batches.append(
            {
                "ids": [row["id"] for row in batch],
                "visits": [visits[identity(row)] for row in batch],
                "successes": common.sum(axis=1).astype(int).tolist(),
                "truth": truth.tolist(),
                **{name: [float(getattr(law, name)) for law in laws] for name in ("A", "B", "squared_gradient")},
                "counts": {name: plan.counts.tolist() for name, plan in proposals.items()},
                "predicted": {
                    name: proposals[name].success_probability.tolist()  # type: ignore[union-attr]
                    for name in ("default", "paper")
                },
            }
        )
    cross, named = gradient_products(gradients, stacked(every_law)), np.array(keys)
    different = named[:, None] != named  # batches may share prompts
    return {
        "seed": seed,
        "step": step,
        "rollouts": experiment.rollouts,
        "pair_product": float(cross[different].mean()),
        "batches": batches,
    }


def measure_success(model: str, pool: str, held_out: str, strategy: str, step: int, seed: int) -> dict[str, Any]:
    """Exact success probabilities of the prompts in the files `pool` and `held_out`, from the model in a folder.

    `strategy`, `step` and `seed` say where the model comes from.
    """
    from viprl.quickstart.model import success_probabilities

    network, tokenizer = _load(Path(model))
    found = {}
    for name, path in (("pool", pool), ("held_out", held_out)):
        problems = [(row["prompt"], row["solution"]) for row in log_rows(path)]
        found[name] = success_probabilities(network, tokenizer, problems)
    return {"strategy": strategy, "seed": seed, "step": step, **found}


def variance_ratio(batch: dict[str, Any], strategy: str) -> float:
    """Gradient variance with the counts of a strategy relative to uniform, on a batch of `measure_variance`."""
    own, uniform = (_law(batch).variance(batch["counts"][name]).sum() for name in (strategy, "uniform"))
    return float(own / uniform)


def _law(batch: dict[str, Any]) -> VarianceLaw:
    return VarianceLaw(*(np.array(batch[key]) for key in ("A", "B", "squared_gradient")))


def second_moment(
    result: dict[str, Any], strategy: str, pool: int, batch: dict[str, Any] | None = None
) -> SecondMoment:
    """E|G|^2 of a step at a checkpoint, with the counts of a strategy.

    Args:
        result: of `measure_variance`.
        strategy: whose counts.
        pool: training prompts.
        batch: the rollouts' part is that of this batch alone. Default: the mean over all batches.
    """
    squared = np.float64(np.mean([one["squared_gradient"] for one in result["batches"]]))
    prompts = len(result["batches"][0]["ids"])
    some = result["batches"] if batch is None else [batch]
    rollouts = np.float64(np.mean([_law(one).variance(one["counts"][strategy]) for one in some]))
    return split(result["pair_product"], squared, Terms(prompts, np.float64(0), rollouts), pool)


def zero_advantage_share(batch: dict[str, Any], strategy: str, rollouts: int) -> float:
    """Expected share of rollouts in groups that are all right or all wrong: sum_q n_q (p^n_q + (1-p)^n_q) / C.

    `batch` is a batch of `measure_variance`, whose successes were counted in `rollouts` rollouts.
    """
    n, k = np.array(batch["counts"][strategy]), np.array(batch["successes"])
    settled = _all_chosen(k, n, rollouts) + _all_chosen(rollouts - k, n, rollouts)
    return float((n * settled).sum() / n.sum())


def _all_chosen(k: IntArray, n: IntArray, m: int) -> FloatArray:
    """C(k, n)/C(m, n), unbiased for p^n from k successes among m >= n rollouts."""
    log = gammaln(k + 1) - gammaln(np.maximum(k - n, 0) + 1) - gammaln(m + 1) + gammaln(m - n + 1)
    return np.where(k >= n, np.exp(log), 0.0)


def _rewards(tokenizer: Any, completions: list[list[int]], solution: str) -> list[float]:
    from viprl.rewards import exact_match

    texts = tokenizer.batch_decode(completions, skip_special_tokens=True)
    return [float(r or 0) for r in exact_match([None] * len(texts), texts, [solution] * len(texts))]


def _load(folder: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(str(folder))
    return model.eval(), AutoTokenizer.from_pretrained(str(folder), padding_side="left")
