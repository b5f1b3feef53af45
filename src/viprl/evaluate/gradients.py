"""The gradients of the prompts of a data set at a fixed policy, from its own rollouts (`viprl variance`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Console

from viprl.analysis.gradient_variance import VarianceLaw, measure_prompt
from viprl.analysis.laboratory import Measurement, VarianceBelief
from viprl.analysis.second_moment import gradient_products, stacked
from viprl.data import DataSource
from viprl.data.lengths import context_of, load_model_config, load_tokenizer
from viprl.errors import DataError, InputError
from viprl.evaluate.of_run import base_model
from viprl.evaluate.problems import Problem, check_fit, formatted_for, load_problems, tokenized
from viprl.evaluate.sampling import Sampling, token_sampler
from viprl.outcomes import scorable
from viprl.rewards.calling import call_reward, check_arguments
from viprl.rewards.registry import resolve_rewards
from viprl.utils.arrays import FloatArray
from viprl.utils.gradient_sketch import GradientSketch, Projection, whole_gradient
from viprl.utils.progress import progress_bars

console = Console(stderr=True, soft_wrap=True)

LEAST = 4
"""Fewest rollouts from which a law can be estimated."""
WHOLE = 2**27
"""Most numbers of whole gradients that are kept in memory (half a gigabyte). Beyond it, gradients are sketched."""


@dataclass(frozen=True)
class Subject:
    """What is measured. Raises InputError for numbers out of range."""

    model: str
    """Folder or Hub name; a LoRA adapter is measured with respect to its own weights."""
    data: DataSource
    rewards: Sequence[str] = ("exact_match",)
    weights: Sequence[float] | None = None
    """Of the rewards. Default: 1 each."""
    prompts: int = 64
    """N, drawn at random from the data set; all of it if it is smaller."""
    rollouts: int = 16
    """m, rollouts of a prompt from which its gradient is estimated."""
    further: int = 64
    """Further rollouts of a prompt, which tell the designs its reward variance."""
    temperature: float = 1.0
    max_new_tokens: int = 256
    seed: int = 0
    batch_size: int | None = None
    """Completions of one prompt at a time. Default: all."""
    buckets: int | None = None
    """Numbers of a sketched gradient; 0 for whole gradients. Default: whole if they are small."""
    template_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the chat template."""
    least: int = 2
    """Fewest prompts that the data set must have: those of a step."""

    def __post_init__(self) -> None:
        if self.prompts < 2:
            raise InputError(f"the number of measured prompts is {self.prompts}; expected at least 2")
        if self.rollouts < LEAST or self.further < 2:
            raise InputError(
                f"the number of rollouts is {self.rollouts} and that of further rollouts {self.further}; expected at "
                f"least {LEAST} and 2"
            )
        if self.weights is not None and len(self.weights) != len(self.rewards):
            raise InputError(f"{len(self.weights)} weights were given for {len(self.rewards)} rewards")


@dataclass(frozen=True)
class Found:
    """A measurement and where it comes from."""

    measurement: Measurement
    problems: list[Problem]
    """[N] the prompts, in the order of the measurement."""
    rewards: list[FloatArray]
    """[N] the scorable rewards of the m rollouts of each."""
    buckets: int | None
    """Numbers of a sketched gradient; None if the gradients were whole."""
    parameters: int
    """Trainable parameters."""


def measure(subject: Subject) -> Found:
    """Sample rollouts of random prompts of the data set, and estimate their gradients.

    Options, data and the length of prompts are checked before the weights are loaded. Raises InputError or DataError if
    they cannot be used. Prompts with fewer than 4 scorable rollouts are left out.
    """
    functions = resolve_rewards(subject.rewards)
    tokenizer, base = load_tokenizer(subject.model), base_model(subject.model)
    known = load_problems(formatted_for(subject.data, tokenizer, False))
    if len(known) < subject.least:
        raise InputError(
            f"{subject.data.name} has {len(known)} prompts, but a step has {subject.least}; set --step-prompts to less"
        )
    for function in functions:
        check_arguments(function, known[0].columns)
    rng = np.random.default_rng(subject.seed)
    chosen = rng.permutation(len(known))[: subject.prompts]
    problems = tokenized([known[i] for i in chosen], tokenizer, subject.model, subject.template_options)
    check_fit(problems, context_of(load_model_config(base or subject.model)), subject.max_new_tokens, subject.model)
    network = _network(subject.model, adapter=base is not None)
    parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
    projection, buckets = _projection(subject, parameters, len(problems))
    n = subject.rollouts + subject.further
    settings = Sampling(n, subject.temperature, 1.0, subject.max_new_tokens, subject.seed)
    draw = token_sampler(network, tokenizer, settings, batch_size=subject.batch_size or n)
    score = _scorer(subject, functions, tokenizer)
    laws: list[VarianceLaw] = []
    gradients, further, kept, kept_rewards, lengths = [], [], [], [], []
    with progress_bars(console, transient=True) as bar:
        for problem in bar.track(problems, description="measuring gradients"):
            completions = draw(problem)
            rewards = score(problem, completions)
            own, others = np.split(rewards, [subject.rollouts])
            usable, others = scorable(own), others[scorable(others)]
            if usable.sum() < LEAST or len(others) < 2:
                continue
            used = [tokens for tokens, use in zip(completions, usable, strict=False) if use]
            law, gradient = measure_prompt(network, problem.tokens, used, own[usable], subject.temperature, projection)
            laws.append(law)
            gradients.append(gradient)
            further.append(others)
            lengths.append(float(np.mean([max(len(tokens), 1) for tokens in completions])))
            kept.append(problem)
            kept_rewards.append(own[usable])
    if len(kept) < 2:
        raise DataError(f"only {len(kept)} of {len(problems)} prompts have {LEAST} scorable rollouts; check the reward")
    all_laws = stacked(laws)
    cross = gradient_products(gradients, all_laws)
    measurement = Measurement(all_laws, cross, len(known), VarianceBelief.of(further), np.array(lengths))
    return Found(measurement, kept, kept_rewards, buckets, parameters)


def _scorer(
    subject: Subject, functions: Sequence[Any], tokenizer: Any
) -> Callable[[Problem, Sequence[Sequence[int]]], FloatArray]:
    """From a problem and its completions to the total reward of each; NaN if a reward is missing."""
    weights = np.ones(len(functions)) if subject.weights is None else np.asarray(subject.weights, dtype=np.float64)

    def score(problem: Problem, completions: Sequence[Sequence[int]]) -> FloatArray:
        texts = tokenizer.batch_decode(completions, skip_special_tokens=True)
        columns = {**problem.columns, "solution": problem.answer}
        where = f"problem {problem.id!r}"
        each = [call_reward(function, problem.prompt, texts, columns, where) for function in functions]
        return weights @ np.array(each, dtype=np.float64)

    return score


def _projection(subject: Subject, parameters: int, prompts: int) -> tuple[Projection, int | None]:
    whole = (prompts + subject.rollouts) * parameters <= WHOLE if subject.buckets is None else subject.buckets == 0
    if whole:
        return whole_gradient, None
    sketch = GradientSketch(seed=subject.seed) if subject.buckets is None else GradientSketch(subject.buckets)
    return sketch, sketch.buckets


def _network(model: str, *, adapter: bool) -> Any:
    """The model in 32 bits, on the accelerator if there is one. Gradients of 16-bit weights would be too coarse."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        network: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise InputError(f"the weights of {model!r} cannot be loaded: {error}") from error
    if adapter:
        for name, parameter in network.named_parameters():
            parameter.requires_grad_("lora_" in name)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    return network.to(device).eval()
