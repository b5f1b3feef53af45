"""A stand-in for vLLM below TRL's own generation code: TRL merges, gathers, slices and parses; this makes up the texts.

Each answer begins with its prompt, so that a test sees which prompt a row answers.
"""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from trl import GRPOTrainer

EOS = 1
LETTERS = range(3, 11)
UNKNOWN = 0.05 if 'float("nan") if x is None' in inspect.getsource(GRPOTrainer) else 0.0
"""Share of tokens without a log probability; older versions of TRL fail on those."""


class Engine:
    """Answers in the order of the requests, from one seeded generator. `script` may write them instead."""

    def __init__(self, script: Callable[[list[int]], list[int]] | None = None) -> None:
        self.script = script
        self.random = random.Random(0)
        self.requests: list[tuple[int, int]] = []
        """(prompts, answers to each) of every call."""
        self.syncs = 0
        """How often the trainer sent its weights."""
        self.answers: dict[tuple[int, ...], list[tuple[tuple[int, ...], list[float]]]] = {}
        """By prompt: (tokens, log probability of each; NaN where vLLM returned none)."""

    def answer(self, prompts: Sequence[Sequence[int]], n: int) -> list[list[tuple[list[int], list[float]]]]:
        """n answers to each prompt."""
        self.requests.append((len(prompts), n))
        return [[self._one(list(prompt)) for _ in range(n)] for prompt in prompts]

    def _one(self, prompt: list[int]) -> tuple[list[int], list[float]]:
        if self.script is not None:
            tokens = self.script(prompt)
        else:
            tokens = [*prompt, *self.random.choices(LETTERS, k=self.random.randint(0, 3)), EOS]
        logps = [math.nan if self.random.random() < UNKNOWN else -3 * self.random.random() for _ in tokens]
        self.answers.setdefault(tuple(prompt), []).append((tuple(tokens), logps))
        return tokens, logps


class Client:
    """In place of TRL's `VLLMClient`, in server mode."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def init_communicator(self, **_: Any) -> None: ...

    def get_server_info(self) -> dict[str, Any]:
        return {"model_config": {"logprobs_mode": "processed_logprobs"}}

    def update_named_params(self, metadata: Any, named_params: Any) -> None:
        assert [name for name, _, _ in metadata] == [name for name, _ in named_params]

    def update_named_param(self, name: str, weights: Any) -> None: ...

    def reset_prefix_cache(self) -> None:
        self.engine.syncs += 1

    def generate(self, prompts: list[list[int]], n: int = 1, **_: Any) -> dict[str, Any]:
        answers = [answer for group in self.engine.answer(prompts, n) for answer in group]
        return {
            "prompt_ids": prompts,
            "completion_ids": [tokens for tokens, _ in answers],
            "logprobs": [[[None if math.isnan(p) else p] for p in logps] for _, logps in answers],
        }


class Colocated:
    """In place of `vllm.LLM`, in colocate mode."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        runner = SimpleNamespace(model=SimpleNamespace(load_weights=lambda named: None))
        executor = SimpleNamespace(driver_worker=SimpleNamespace(model_runner=runner))
        self.llm_engine = SimpleNamespace(model_executor=executor, model_config=SimpleNamespace(max_model_len=64))

    def reset_prefix_cache(self) -> None:
        self.engine.syncs += 1

    def generate(self, prompts: list[Any], sampling_params: Any, **_: Any) -> list[SimpleNamespace]:
        ids = [row["prompt_token_ids"] for row in prompts]
        return [
            SimpleNamespace(prompt_token_ids=prompt, outputs=[_output(*answer) for answer in group])
            for prompt, group in zip(ids, self.engine.answer(ids, sampling_params.n), strict=True)
        ]


def _output(tokens: list[int], logps: list[float]) -> SimpleNamespace:
    chosen = [{t: SimpleNamespace(rank=1, logprob=p)} for t, p in zip(tokens, logps, strict=True)]
    return SimpleNamespace(token_ids=tokens, logprobs=chosen)


def install(engine: Engine, patch: Callable[[Any, str, Any], None] = setattr) -> Engine:
    """Let TRL's generation code use `engine` instead of vLLM. `patch(module, name, value)` sets a name."""
    from trl.generation import vllm_generation

    patch(vllm_generation, "is_vllm_available", lambda *_: True)
    patch(torch.cuda, "current_device", lambda: 0)  # TRL 1.9 asks for the GPU's number
    patch(vllm_generation, "VLLMClient", lambda **_: Client(engine))
    patch(vllm_generation, "LLM", lambda **_: Colocated(engine))
    patch(vllm_generation, "SamplingParams", SimpleNamespace)
    return engine
