"""n completions for each problem, by vLLM or by transformers.

Each problem has a seed of its own, made of the run's seed and the problem's id. What is sampled for it therefore
depends neither on the other problems nor on their order, nor on where a run was interrupted.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from viprl.evaluate.generations import Generations, seed_of
from viprl.evaluate.problems import Task

Sampler = Callable[[Sequence[Task]], Iterator[Generations]]
"""Yields the completions of each problem as they are finished, in order."""


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn; the defaults are the paper's."""

    n: int = 32
    temperature: float = 1.0
    top_p: float = 0.7
    max_new_tokens: int = 3072
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n < 1 or self.max_new_tokens < 1:
            raise ValueError(f"n is {self.n} and max_new_tokens {self.max_new_tokens}; expected at least 1 each")
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}; expected more than 0 (completions are to differ)")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; expected more than 0 and at most 1")


def choose_backend(name: str) -> str:
    """ "vllm" or "transformers"; "auto" takes vLLM where it is installed. ValueError or ImportError otherwise."""
    if name not in ("auto", "vllm", "transformers"):
        raise ValueError(f"the backend is {name!r}; expected auto, vllm or transformers")
    has_vllm = importlib.util.find_spec("vllm") is not None
    if name == "vllm" and not has_vllm:
        raise ValueError("vLLM is not installed: pip install vllm, or take --backend transformers (slower)")
    if name == "auto":
        return "vllm" if has_vllm else "transformers"
    return name


def vllm_sampler(
    model: str, tokenizer: Any, settings: Sampling, *, context: int, batch_size: int, tensor_parallel: int = 1
) -> Sampler:
    """A sampler on vLLM, `batch_size` problems at a time. `context` is the longest prompt plus completion."""
    from vllm import LLM, SamplingParams

    engine = LLM(
        model=model,
        tokenizer=tokenizer.name_or_path,
        seed=settings.seed,
        max_model_len=context,
        tensor_parallel_size=tensor_parallel,
    )

    def parameters(task: Task) -> Any:
        return SamplingParams(
            n=settings.n,
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_tokens=settings.max_new_tokens,
            seed=seed_of(settings.seed, task.id),
        )

    def sample(tasks: Sequence[Task]) -> Iterator[Generations]:
        for start in range(0, len(tasks), batch_size):
            chunk = tasks[start : start + batch_size]
            prompts = [{"prompt_token_ids": list(task.tokens)} for task in chunk]
            results = engine.generate(prompts, [parameters(task) for task in chunk], use_tqdm=False)
            for task, result in zip(chunk, results, strict=True):
                outputs = sorted(result.outputs, key=lambda output: output.index)
                truncated = sum(output.finish_reason == "length" for output in outputs)
                yield Generations(task.id, task.answer, tuple(output.text for output in outputs), truncated)

    return sample


def transformers_sampler(
    model: str, tokenizer: Any, settings: Sampling, *, batch_size: int, device: str | None = None
) -> Sampler:
    """A sampler on transformers, `batch_size` completions of one problem at a time, on the accelerator if there is one.

    Every completion has its own stream of random numbers, so the batch size changes nothing but the last bits of the
    matrix products.
    """
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig, LogitsProcessorList

    from viprl.evaluate.drawing import DrawByNumbers

    network: Any = AutoModelForCausalLM.from_pretrained(model, dtype="auto")
    network = network.to(device or _device()).eval()
    stops = _stops(network, tokenizer)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else stops[0]
    # The model's own sampling defaults (top_k, repetition penalty) must not mix with ours.
    network.generation_config = GenerationConfig(eos_token_id=stops, pad_token_id=pad)

    def complete(task: Task, numbers: np.ndarray) -> list[list[int]]:
        prompt = torch.tensor([task.tokens] * len(numbers), device=network.device)
        draw = DrawByNumbers(numbers, prompt.shape[1], settings.temperature, settings.top_p)
        made = network.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=settings.max_new_tokens,
            logits_processor=LogitsProcessorList([draw]),
        )
        return made[:, prompt.shape[1] :].tolist()

    def sample(tasks: Sequence[Task]) -> Iterator[Generations]:
        for task in tasks:
            first = seed_of(settings.seed, task.id)
            streams = [np.random.default_rng([first, i]) for i in range(settings.n)]
            texts, truncated = [], 0
            for start in range(0, settings.n, batch_size):
                numbers = np.stack([rng.random(settings.max_new_tokens) for rng in streams[start : start + batch_size]])
                for tokens in complete(task, numbers):
                    end = next((i for i, token in enumerate(tokens) if token in stops), None)
                    truncated += end is None
                    texts.append(tokenizer.decode(tokens[:end], skip_special_tokens=True))
            yield Generations(task.id, task.answer, tuple(texts), truncated)

    return sample


def _stops(network: Any, tokenizer: Any) -> list[int]:
    """Tokens that end a completion: the model's and the tokenizer's."""
    own = network.generation_config.eos_token_id
    stops = [] if own is None else own if isinstance(own, list) else [own]
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in stops:
        stops = [*stops, tokenizer.eos_token_id]
    if not stops:
        raise ValueError("neither the model nor its tokenizer has an end-of-sequence token; set eos_token_id")
    return stops


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
