"""TRL's own vLLM code, server and colocate mode, with a stand-in for the engine (fake_vllm.py)."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from fake_vllm import UNKNOWN, Engine, install
from trl_runs import KINDS, C, N, build, on_loss, recording, row_logprobs, trained_like_stock, watched

import tiny

MODES = ("server", "colocate")


@pytest.fixture
def engine(monkeypatch) -> Engine:
    return install(Engine(), partial(monkeypatch.setattr, raising=False))


def odd(prompts, completion_ids, **_):
    """1 where an answer has an odd number of tokens."""
    return [float(len(ids) % 2) for ids in completion_ids]


def vllm(mode: str, **more) -> dict:
    return {"use_vllm": True, "vllm_mode": mode, "max_completion_length": 6} | more


@pytest.mark.parametrize(("kind", "mode"), [("rloo", "colocate"), ("grpo", "server")])
def test_each_rollout_answers_its_own_prompt(kind, mode, engine, tmp_path):
    seen = []

    def spy(prompts, completions, completion_ids, solution, **_):
        for prompt, completion, right in zip(prompts, completions, solution, strict=True):
            assert completion.startswith(prompt) and prompt.startswith(right)
        seen.extend(prompts)
        return odd(prompts, completion_ids)

    trainer = build(kind, tmp_path, reward=spy, **vllm(mode))
    batches, _ = watched(trainer)
    trainer.train()
    assert max(n for batch in batches for n in batch.counts) > N, "more answers than num_generations"
    assert engine.requests == [(C, 1)] * 3, "a request for every rollout, none of them merged"
    assert engine.syncs == 3 and trainer.num_generations == N
    for batch in batches:
        wins = [odd([], group) for group in taken(engine, batch)]
        assert batch.rewards == wins


def taken(engine: Engine, batch) -> list[list[tuple[int, ...]]]:
    """The answers that the engine gave to a batch's prompts, in the order of the rollouts; each is taken once."""
    tokens = [tuple(tiny.tokenizer()(prompt)["input_ids"]) for prompt in batch.prompts]
    return [[engine.answers[t].pop(0)[0] for _ in range(n)] for t, n in zip(tokens, batch.counts, strict=True)]


@pytest.mark.parametrize(("kind", "estimator", "mode"), [("rloo", "rloo", "server"), ("grpo", "dr_grpo", "colocate")])
def test_uniform_equals_stock_with_its_importance_sampling(kind, estimator, mode, monkeypatch, tmp_path):
    """Stock TRL requests num_generations answers to each prompt, we one to each row: the same answers, then the same
    correction by the log probabilities of vLLM, then the same weights."""
    before, after = trained_like_stock(
        kind, tmp_path, odd, tiny.dataset(), estimator,
        prepare=lambda: install(Engine(), partial(monkeypatch.setattr, raising=False)), **vllm(mode),
    )  # fmt: skip
    for a, b in zip(before, after, strict=True):
        for key in (k for k in a if k.startswith("sampling/")):
            assert a[key] == pytest.approx(b[key], abs=1e-5), key


@pytest.mark.parametrize("mode", MODES)
def test_the_log_probabilities_of_vllm_reach_vip(mode, engine, tmp_path):
    """Without TRL's own forward pass (no importance sampling) VIP gets those of vLLM; an unknown one makes a NaN."""
    settings = vllm(mode, vllm_importance_sampling_correction=False)
    trainer = build("grpo", tmp_path, reward=odd, vip=recording("grpo"), **settings)
    batches, _ = watched(trainer)
    trainer.train()
    tokenizer, unknown = tiny.tokenizer(), 0
    for batch, heard in zip(batches, trainer.vip.heard, strict=True):
        for prompt, n in zip(batch.prompts, batch.counts, strict=True):
            mine = engine.answers[tuple(tokenizer(prompt)["input_ids"])]
            given, mine[:n] = [sum(logps) for _, logps in mine[:n]], []
            assert heard[prompt] == pytest.approx(given, nan_ok=True, abs=1e-5)
            unknown += sum(map(math.isnan, given))
    assert unknown > 0 or UNKNOWN == 0, "the stand-in did not leave anything out"


@pytest.mark.parametrize("kind", KINDS)
def test_with_the_log_probabilities_of_the_trainer_none_is_unknown(kind, engine, tmp_path):
    """With importance sampling (TRL's default) and in RLOO the trainer computes them itself."""
    trainer = build(kind, tmp_path, reward=odd, vip=recording(kind), learning_rate=0.0, max_steps=1, **vllm("server"))
    rows = []
    on_loss(trainer, lambda model, inputs: rows.extend(row_logprobs(model, inputs)))
    trainer.train()
    (heard,) = trainer.vip.heard
    for prompt, given in heard.items():
        tokens = tuple(trainer.processing_class(prompt)["input_ids"])
        assert sorted(given) == pytest.approx(sorted(value for name, value, _ in rows if name == tokens), abs=1e-4)


def test_importance_ratios_stay_with_their_rollouts(engine, tmp_path):
    """The correction of a row comes from the log probabilities of that row's own answer."""
    settings = vllm("server", vllm_importance_sampling_mode="token_truncate")
    trainer = build("grpo", tmp_path, reward=odd, max_steps=1, **settings)
    rows = []
    on_loss(trainer, lambda _, inputs: rows.append({k: v for k, v in inputs.items() if isinstance(v, torch.Tensor)}))
    trainer.train()
    (batch,) = rows
    for i in range(C):
        prompt = tuple(batch["prompt_ids"][i][batch["prompt_mask"][i].bool()].tolist())
        answer = tuple(batch["completion_ids"][i][batch["completion_mask"][i].bool()].tolist())
        old, ratio = batch["old_per_token_logps"][i][: len(answer)], batch["importance_sampling_ratio"][i]
        sampled = [torch.tensor(logps) for tokens, logps in engine.answers[prompt] if tokens == answer]
        top = trainer.vllm_importance_sampling_clip_max
        expected = [(old - logps).nan_to_num(0).exp().clamp(max=top) for logps in sampled]
        assert any(torch.allclose(ratio[: len(answer)], one, atol=1e-5) for one in expected)
