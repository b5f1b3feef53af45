"""Two waves with vLLM (a stand-in), pictures and rollout functions. With tools: test_trl_tools.py."""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np
import pytest
import tiny_vision
import torch
from fake_vllm import Engine, install
from trl import GRPOTrainer
from trl_runs import on_loss, options, watched
from waves import SCALE, TOKENIZER, C, N, Q, Seen, build_waves, expected_advantages, rows_of, taught

from viprl.engines.trl import VIPGRPOTrainer
from viprl.errors import InputError


@pytest.fixture
def engine(monkeypatch) -> Engine:
    return install(Engine(), partial(monkeypatch.setattr, raising=False))


@pytest.mark.parametrize("mode", ["server", "colocate"])
def test_vllm_is_asked_twice_and_its_importance_ratios_stay_with_their_rollouts(mode, engine, tmp_path):
    seen, vip, rows = Seen(), taught(), []
    more = {"use_vllm": True, "vllm_mode": mode, "vllm_importance_sampling_mode": "token_truncate", "max_steps": 1}
    trainer = build_waves("grpo", tmp_path, seen=seen, vip=vip, max_completion_length=8, **more)
    on_loss(trainer, lambda _, inputs: rows.append((rows_of(inputs), inputs)))
    batches, _ = watched(trainer)
    trainer.train()
    first = sum(len(call) for call in seen.calls[:1])
    assert engine.requests == [(first, 1), (C - first, 1)] and 0 < first < C and engine.syncs == 1
    (calls,), (looks,), (batch,), ((rollouts, inputs),) = seen.batches, vip.looks, batches, rows
    expected, top = expected_advantages(calls, looks), trainer.vllm_importance_sampling_clip_max
    counts = dict(zip(batch.prompts, batch.counts, strict=True))
    for i, (prompt, ids, reward) in enumerate(rollouts):
        assert TOKENIZER.decode(ids).startswith(prompt)
        advantage = SCALE["grpo"] * expected[prompt, reward] * N / counts[prompt]
        assert float(inputs["advantages"][i]) == pytest.approx(advantage, abs=1e-5)
        old, ratio = inputs["old_per_token_logps"][i], inputs["importance_sampling_ratio"][i]
        given = [torch.tensor(p) for t, p in engine.answers[tuple(TOKENIZER(prompt)["input_ids"])] if t == ids]
        wanted = [(old[: len(ids)] - logps).nan_to_num(0).exp().clamp(max=top) for logps in given]
        assert any(torch.allclose(ratio[: len(ids)], one, atol=1e-5) for one in wanted)
    names = [name for name in trainer.state.log_history[0] if name.startswith("sampling/")]
    assert len(names) == 5 and all(np.isfinite(trainer.state.log_history[0][name]) for name in names)


@pytest.mark.parametrize("mode", ["sequence_truncate", "sequence_mask"])
def test_importance_ratios_of_sequences(mode, engine, tmp_path):
    """One column, whatever the lengths of the waves are."""
    shapes = []
    more = {"use_vllm": True, "vllm_mode": "colocate", "vllm_importance_sampling_mode": mode, "max_steps": 1}
    trainer = build_waves("grpo", tmp_path, seen=Seen(), max_completion_length=8, **more)
    on_loss(trainer, lambda _, inputs: shapes.append(tuple(inputs["importance_sampling_ratio"].shape)))
    trainer.train()
    assert shapes == [(C, 1)]


def test_pictures(tmp_path):
    """Each row keeps the picture of its prompt. Pictures are known by their brightness, before and after processing."""
    data, calls, rows = tiny_vision.dataset(), [], []
    mean = {letter: np.asarray(image[0]).mean() for letter, image in zip(data["solution"], data["images"], strict=True)}

    def reward(solution, completion_ids, **_):
        calls.append([(mean[one], tuple(ids)) for one, ids in zip(solution, completion_ids, strict=True)])
        return [float(one in "gh" and sum(ids) % 2) for one, ids in zip(solution, completion_ids, strict=True)]

    def look(_, inputs):
        bright = np.round(inputs["pixel_values"].mean((1, 2, 3)).double().numpy(), 4).tolist()
        tokens = zip(inputs["completion_ids"], inputs["completion_mask"].bool(), strict=True)
        rows.extend(zip(bright, [tuple(ids[kept].tolist()) for ids, kept in tokens], strict=True))

    more: dict = {"per_device_train_batch_size": 64, "num_generations": 8, "max_steps": 1, "learning_rate": 0.0}
    more["generation_kwargs"] = {"suppress_tokens": [tiny_vision.IMAGE_TOKEN]}  # an answer has no pictures
    trainer = VIPGRPOTrainer(
        tiny_vision.model(), reward, VIPGRPOTrainer._config_class(**options(tmp_path, **more, vip_waves=2)),
        vip=taught(max_rollouts=24), train_dataset=data, processing_class=tiny_vision.processor(),
    )  # fmt: skip
    batches, _ = watched(trainer)
    on_loss(trainer, look)
    trainer.train()
    assert len(calls) == 2 and len(set(batches[0].counts)) > 1 and len(rows) == 64
    given = [one for call in calls for one in call]
    ranked = [[(sorted({b for b, _ in some}).index(bright), ids) for bright, ids in some] for some in (given, rows)]
    assert Counter(ranked[0]) == Counter(ranked[1])


def test_a_rollout_function_is_called_twice_with_rows_of_its_own(tmp_path):
    lengths = []

    def rollout(prompts, trainer):
        lengths.append(len(prompts))
        ids = [[3 + i % 5] * (1 + i % 3) for i in range(len(prompts))]
        found = {"prompt_ids": trainer.processing_class(list(prompts))["input_ids"], "completion_ids": ids}
        return found | {"logprobs": [[-1.0] * len(one) for one in ids], "position": list(range(len(ids)))}

    def reward(prompts, position, **_):
        assert position == list(range(len(prompts)))
        return [float(p.split()[0] in "ab" and i % 2) for p, i in zip(prompts, position, strict=True)]

    trainer = build_waves("grpo", tmp_path, seen=Seen(), reward=reward, extra={"rollout_func": rollout}, max_steps=1)
    trainer.train()
    assert len(lengths) == 2 and sum(lengths) == C and len(trainer.vip_batch.counts) == Q


def test_a_field_that_cannot_be_merged_stops_the_first_batch(tmp_path):
    """Also one that is sampled at once."""
    source = GRPOTrainer._generate_and_score_completions

    class Novel(GRPOTrainer):
        def _generate_and_score_completions(self, inputs):
            return source(self, inputs) | {"novel": torch.zeros(len(inputs))}

    class Other(*VIPGRPOTrainer.__bases__[:1], Novel):
        _config_class, _vip_advantages = VIPGRPOTrainer._config_class, VIPGRPOTrainer._vip_advantages

    for vip in (taught(), taught(strategy="random")):
        trainer = build_waves("grpo", tmp_path, seen=Seen(), vip=vip, trainer=Other, max_steps=1)
        with pytest.raises(InputError, match=r"'novel'.*vip_waves=1"):
            trainer.train()
