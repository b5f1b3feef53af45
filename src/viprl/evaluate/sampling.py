"""n completions for each problem, by vLLM or by transformers.

The seed of each problem depends on the seed of the run and on the id of the problem alone. Its completions therefore do
not depend on the other problems, on their order, or on an interruption.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from viprl.errors import InputError, MissingPackageError
from viprl.evaluate.generations import Generations, seed_of
from viprl.evaluate.problems import Problem
from viprl.utils.batches import batches

Sampler = Callable[[Sequence[Problem]], Iterator[Generations]]
"""Yields the completions of each problem, in order, as soon as they are complete."""


@dataclass(frozen=True)
class Sampling:
    """How completions are sampled. The defaults are those of the paper.

    Raises InputError for values out of range.
    """

    n: int = 32
    temperature: float = 1.0
    top_p: float = 0.7
    max_new_tokens: int = 3072
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n < 1 or self.max_new_tokens < 1:
            raise InputError(f"n is {self.n} and max_new_tokens is {self.max_new_tokens}; expected at least 1")
        if not self.temperature > 0:
            raise InputError(f"temperature is {self.temperature}; expected more than 0; 0.01 is nearly greedy")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}; expected 0 < top_p <= 1")


def choose_backend(name: str) -> str:
    """ "vllm" or "transformers"; "auto" stands for vLLM if it is installed, otherwise for transformers.

    Raises InputError for other names, MissingPackageError for "vllm" if it is not installed.
    """
    if name not in ("auto", "vllm", "transformers"):
        raise InputError(f"backend is {name!r}; expected auto, vllm or transformers")
    has_vllm = importlib.util.find_spec("vllm") is not None
    if name == "vllm" and not has_vllm:
        raise MissingPackageError("vLLM is not installed: pip install vllm, or set --backend transformers (slower)")
    if name == "auto":
        return "vllm" if has_vllm else "transformers"
    return name


def vllm_sampler(
    model: str, tokenizer: Any, settings: Sampling, *, context: int, batch_size: int, tensor_parallel: int = 1
) -> Sampler:
    """A sampler with vLLM.

    Args:
        model: folder or Hub name.
        tokenizer: of the prompts.
        settings: see `Sampling`.
        context: tokens of the longest prompt and completion.
        batch_size: problems at once.
        tensor_parallel: GPUs for one model.
    """
    from vllm import LLM, SamplingParams

    engine = LLM(
        model=model,
        tokenizer=tokenizer.name_or_path,
        seed=settings.seed,
        max_model_len=context,
        tensor_parallel_size=tensor_parallel,
    )
    common = {"n": settings.n, "temperature": settings.temperature, "top_p": settings.top_p}
    common["max_tokens"] = settings.max_new_tokens

    def sample(problems: Sequence[Problem]) -> Iterator[Generations]:
        for chunk in batches(problems, batch_size):
            prompts = [{"prompt_token_ids": list(problem.tokens)} for problem in chunk]
            parameters = [SamplingParams(**common, seed=seed_of(settings.seed, problem.id)) for problem in chunk]
            results = engine.generate(prompts, parameters, use_tqdm=False)
            for problem, result in zip(chunk, results, strict=True):
                outputs = sorted(result.outputs, key=lambda output: output.index)
                truncated = sum(output.finish_reason == "length" for output in outputs)
                yield Generations(problem.id, problem.answer, tuple(output.text for output in outputs), truncated)

    return sample


def transformers_sampler(
    model: str, tokenizer: Any, settings: Sampling, *, batch_size: int, device: str | None = None
) -> Sampler:
    """A sampler with transformers.

    Every completion has its own stream of random numbers, so that the batch size changes only the rounding of matrix
    products.

    Args:
        model: folder or Hub name.
        tokenizer: of the prompts.
        settings: see `Sampling`.
        batch_size: completions of one problem at once.
        device: default: the accelerator, if there is one.

    Raises InputError if neither the model nor the tokenizer has an end-of-sequence token.
    """
    import torch
    from transformers import AutoModelForCausalLM

    network: Any = AutoModelForCausalLM.from_pretrained(model, dtype="auto")
    usual = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    complete = token_sampler(network.to(device or usual).eval(), tokenizer, settings, batch_size=batch_size)
    stops = _stops(network, tokenizer)

    def sample(problems: Sequence[Problem]) -> Iterator[Generations]:
        for problem in problems:
            drawn = complete(problem)
            ended = [tokens[-1] in stops for tokens in drawn]
            texts = [
                tokenizer.decode(tokens[:-1] if end else tokens, skip_special_tokens=True)
                for tokens, end in zip(drawn, ended, strict=True)
            ]
            yield Generations(problem.id, problem.answer, tuple(texts), ended.count(False))

    return sample


def token_sampler(
    network: Any, tokenizer: Any, settings: Sampling, *, batch_size: int
) -> Callable[[Problem], list[list[int]]]:
    """A function that draws n completions of a problem, as tokens. The last token is that which ended the completion,
    unless it was cut off.

    Args:
        network: the model. Its sampling defaults are replaced.
        tokenizer, settings, batch_size: as for `transformers_sampler`.
    """
    import torch
    from transformers import GenerationConfig, LogitsProcessorList

    from viprl.evaluate.nucleus import DrawByNumbers

    stops = _stops(network, tokenizer)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else stops[0]
    # Replaces the sampling defaults of the model (top_k, repetition penalty).
    network.generation_config = GenerationConfig(eos_token_id=stops, pad_token_id=pad)

    def some(problem: Problem, numbers: np.ndarray) -> list[list[int]]:
        prompt = torch.tensor([problem.tokens] * len(numbers), device=network.device)
        draw = DrawByNumbers(numbers, prompt.shape[1], settings.temperature, settings.top_p)
        made = network.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=settings.max_new_tokens,
            logits_processor=LogitsProcessorList([draw]),
        )
        return made[:, prompt.shape[1] :].tolist()

    def complete(problem: Problem) -> list[list[int]]:
        first = seed_of(settings.seed, problem.id)
        streams = [np.random.default_rng([first, i]) for i in range(settings.n)]
        completions = []
        for rngs in batches(streams, batch_size):
            for tokens in some(problem, np.stack([rng.random(settings.max_new_tokens) for rng in rngs])):
                end = next((i for i, token in enumerate(tokens) if token in stops), len(tokens) - 1)
                completions.append(tokens[: end + 1])
        return completions

    return complete


def _stops(network: Any, tokenizer: Any) -> list[int]:
    """Tokens that end a completion: those of the model and that of the tokenizer."""
    own = network.generation_config.eos_token_id
    stops = [] if own is None else own if isinstance(own, list) else [own]
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in stops:
        stops = [*stops, tokenizer.eos_token_id]
    if not stops:
        raise InputError("neither the model nor its tokenizer has an end-of-sequence token; set eos_token_id")
    return stops
