"""The policy: the quickstart's tiny model, sampled with shared prefixes, with exact success probabilities."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, LlamaForCausalLM
from transformers.utils import logging

from viprl.quickstart.model import build_model, build_tokenizer, pretrain
from viprl.quickstart.tasks import Problem
from viprl.utils.arrays import FloatArray, IntArray

MOST_TOKENS = 12


@dataclass(frozen=True)
class Task:
    """A problem as tokens."""

    key: str
    prompt: tuple[int, ...]
    solution: tuple[int, ...]
    """The only right completion, eos included."""


@dataclass(frozen=True)
class Completion:
    """A distinct completion of a prompt, which was drawn `times` times."""

    tokens: tuple[int, ...]
    times: int
    logprob: float


def tasks_of(problems: Sequence[Problem]) -> list[Task]:
    """The problems as the tokenizer of the quickstart reads them."""
    tokenizer = build_tokenizer()

    def encoded(text: str) -> tuple[int, ...]:
        return tuple(tokenizer(text)["input_ids"])

    return [Task(p.prompt, encoded(p.prompt), (*encoded(p.solution), tokenizer.eos_token_id)) for p in problems]


class Policy:
    """A language model with what the experiment needs of it."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        self.model = model
        self.eos: Any = model.config.eos_token_id

    @classmethod
    def pretrained(cls, cache: Path) -> Policy:
        """The supervised start of the quickstart, seed 0; kept in the folder `cache`."""
        logging.disable_progress_bar()
        if not (cache / "config.json").exists():
            model = build_model(0)
            pretrain(model, build_tokenizer(), seed=0)
            model.save_pretrained(cache)
        return cls(LlamaForCausalLM.from_pretrained(cache).eval())

    def copy(self) -> Policy:
        """The same policy with weights of its own."""
        return Policy(copy.deepcopy(self.model))

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        return list(self.model.parameters())

    @torch.no_grad()
    def sample(
        self, prompts: Sequence[tuple[int, ...]], counts: IntArray, rng: torch.Generator
    ) -> list[list[Completion]]:
        """The rollouts of each prompt. Those with the same beginning are computed once."""
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        position, cache = (mask.cumsum(1) - 1).clamp(min=0), DynamicCache(config=self.model.config)
        owner, times = torch.arange(len(prompts)), torch.as_tensor(np.asarray(counts), dtype=torch.int64)
        history, logprob = torch.zeros(len(prompts), 0, dtype=torch.long), torch.zeros(len(prompts))
        done: list[list[Completion]] = [[] for _ in prompts]
        for step in range(MOST_TOKENS):
            logits = self.model(
                ids, attention_mask=mask, position_ids=position, past_key_values=cache, logits_to_keep=1
            ).logits[:, -1]
            logp = logits.log_softmax(-1)
            row = torch.repeat_interleave(torch.arange(len(owner)), times)
            token = torch.multinomial(logp.exp()[row], 1, generator=rng)[:, 0]
            pair, times = torch.unique(row * logp.shape[1] + token, return_counts=True)
            row, token = pair // logp.shape[1], pair % logp.shape[1]
            owner, logprob = owner[row], logprob[row] + logp[row, token]
            history = torch.cat([history[row], token[:, None]], 1)
            ended = (token == self.eos) | (step + 1 == MOST_TOKENS)
            for i in ended.nonzero()[:, 0].tolist():
                one = Completion(tuple(history[i].tolist()), int(times[i]), float(logprob[i]))
                done[int(owner[i])].append(one)
            alive = (~ended).nonzero()[:, 0]
            if len(alive) == 0:
                break
            owner, times, logprob, history, row = (x[alive] for x in (owner, times, logprob, history, row))
            cache.batch_select_indices(row)
            ids, position = token[alive, None], position[row, -1:] + 1
            mask = torch.cat([mask[row], torch.ones(len(row), 1, dtype=mask.dtype)], 1)
        return done

    @torch.no_grad()
    def free_text(self, texts: int, length: int, rng: torch.Generator) -> torch.Tensor:
        """[texts, length] tokens that the policy writes after the end of an answer, whatever it was."""
        tokens = torch.full((texts, 1), self.eos)
        cache = DynamicCache(config=self.model.config)
        for _ in range(length):
            logits = self.model(tokens[:, -1:], past_key_values=cache).logits[:, -1]
            tokens = torch.cat([tokens, torch.multinomial(logits.softmax(-1), 1, generator=rng)], 1)
        return tokens[:, 1:]

    def text_logprobs(self, texts: torch.Tensor) -> torch.Tensor:
        """[N] log probability of free texts [N, length], differentiable."""
        ids = torch.cat([torch.full((len(texts), 1), self.eos), texts], 1)
        logp = self.model(ids[:, :-1], use_cache=False).logits.log_softmax(-1)
        return logp.gather(2, ids[:, 1:, None])[:, :, 0].sum(1)

    def logprobs(self, prompts: Sequence[tuple[int, ...]], completions: Sequence[tuple[int, ...]]) -> torch.Tensor:
        """[N] log probability of each completion after its prompt, differentiable."""
        rows = [[*p, *c] for p, c in zip(prompts, completions, strict=True)]
        width = max(map(len, rows)) - 1
        ids = torch.tensor([row[:-1] + [0] * (width - len(row) + 1) for row in rows])  # attention is causal
        logits = self.model(ids, use_cache=False).logits
        place = [
            (i, len(p) - 1 + j)
            for i, (p, c) in enumerate(zip(prompts, completions, strict=True))
            for j in range(len(c))
        ]
        row, column = torch.tensor(place).T
        target = torch.tensor([token for completion in completions for token in completion])
        chosen = logits[row, column]
        logp = chosen.gather(1, target[:, None])[:, 0] - chosen.logsumexp(-1)
        return torch.zeros(len(rows)).index_add(0, row, logp)

    @torch.no_grad()
    def success(self, tasks: Sequence[Task], chunk: int = 256) -> FloatArray:
        """[N] exact success probabilities: that of the only right completion."""
        order = sorted(range(len(tasks)), key=lambda i: len(tasks[i].prompt) + len(tasks[i].solution))
        p = np.zeros(len(tasks))
        for start in range(0, len(order), chunk):
            part = order[start : start + chunk]
            logp = self.logprobs([tasks[i].prompt for i in part], [tasks[i].solution for i in part])
            p[part] = logp.exp().double().numpy()
        return p
