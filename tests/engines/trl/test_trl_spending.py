"""Batches with fewer rollouts than the budget: their gradient, their micro-batches, and what is logged about them."""

from __future__ import annotations

import inspect
from functools import partial

import fake_vllm
import numpy as np
import pytest
import tiny_vision
import torch
from saving import Gradients, Seen, expected_gradient, saving, with_reference
from trl import GRPOTrainer
from trl_runs import KINDS, C, N, build, distance, on_loss, options, trained, watched, weights

import tiny
from viprl import metrics
from viprl.engines.trl.micro_batches import EMPTY, ROLLOUT, SHARE, UnevenMicroBatches, completed, dealt
from viprl.errors import InputError
from viprl.metrics import PREFIX

LONGEST = 6


def split(accumulation: int, per_generation: int, rows: int) -> dict:
    names = ("gradient_accumulation_steps", "steps_per_generation", "per_device_train_batch_size")
    return dict(zip(names, (accumulation, per_generation, rows), strict=True))


WHOLE, FOURTHS, HALVES, JOINED, SINGLE = (1, 1, C), (4, 4, C // 4), (2, 4, C // 4), (4, 2, C // 2), (8, 16, 1)
"""Micro-batches in an optimizer step and in a generation batch, and rows of a micro-batch."""


@pytest.mark.parametrize(
    ("loss", "how", "beta"),
    [
        ("rloo", WHOLE, 0),
        ("rloo", FOURTHS, 0.3),
        ("rloo", HALVES, 0),
        ("rloo", SINGLE, 0),
        ("dr_grpo", HALVES, 0),
        ("dr_grpo", JOINED, 0),
        ("dr_grpo", SINGLE, 0.3),
        ("grpo", FOURTHS, 0.3),
        ("grpo", JOINED, 0),
        ("dapo", FOURTHS, 0),
        ("dapo", (16, 16, 1), 0),
    ],
)
def test_the_gradient_is_that_of_the_rollouts(loss, how, beta, tmp_path):
    """All prompts have the same weight, and nothing else enters. With a learning rate of 0 the mean over the optimizer
    steps is the mean over the batches."""
    seen, gradients = Seen(), Gradients()
    settings = {
        "reward": seen.reward, "vip": saving(), "data": tiny.dataset(64), "max_completion_length": LONGEST,
        "learning_rate": 0.0, "max_grad_norm": 1e9, "num_iterations": 2 if how == HALVES else 1, **split(*how),
        "max_steps": {WHOLE: 2, FOURTHS: 2, HALVES: 8, JOINED: 1, SINGLE: 4}.get(how, 2),
    }  # fmt: skip
    settings |= {} if loss == "rloo" else {"loss_type": loss, "use_bias_correction_kl": False}
    kind = "rloo" if loss == "rloo" else "grpo"
    make = with_reference if beta else lambda *args, **more: (build(*args, **more), None)
    trainer, ref = make(kind, tmp_path, beta=beta, **settings)
    trainer.add_callback(gradients)
    trainer.train()
    assert [N < len(batch) < C for batch in seen.batches] == [True, True]
    more = {"longest": LONGEST, "beta": beta, "ref": ref}
    expected = torch.stack([expected_gradient(tiny.model(), batch, loss, **more) for batch in seen.batches]).mean(0)
    assert expected.abs().max() > 1e-3 and len(gradients.seen) == settings["max_steps"]
    assert torch.allclose(torch.stack(gradients.seen).mean(0), expected, atol=2e-6)


def test_a_prompt_has_the_weight_of_its_rollouts_if_that_is_wanted(tmp_path):
    batches, losses = trained(
        "rloo", tmp_path, vip=saving(), data=tiny.dataset(64), vip_prompt_weighting="rollout", max_steps=2
    )
    for batch, advantages in zip(batches, losses, strict=True):
        assert len(advantages) < C and sorted(advantages) == pytest.approx(sorted(batch.advantages), abs=1e-6)


def test_nothing_changes_while_nothing_is_saved(tmp_path):
    """In the first epoch nothing is known."""
    more = {"vip_strategy": "default", "max_steps": 4, **split(*HALVES), "log_completions": True}
    ends = []
    for name, spend in (("all", {}), ("match", {"vip_spend": "match", "vip_cost": "tokens"})):
        trainer = build("grpo", tmp_path / name, **more, **spend)
        batches, losses = watched(trainer)
        trainer.train()
        ends.append((weights(trainer), [b.counts for b in batches], losses))
    assert ends[0][1:] == ends[1][1:] and distance(ends[0][0], ends[1][0]) == 0


def test_a_resumed_run_saves_what_the_whole_run_saves(tmp_path):
    """An epoch has 4 steps; prompts are known from the second on."""

    def run(**more):
        own = {"vip_strategy": "default", "vip_spend": "match", "vip_variance_target": 1.5, "vip_cost": "tokens"}
        return build("rloo", tmp_path / "run", max_steps=7, **own, **split(*FOURTHS), **more)

    whole = run(save_strategy="steps", save_steps=5)
    batches, _ = watched(whole)
    whole.train()
    second = run()
    later, _ = watched(second)
    second.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-5"))
    assert [sum(batch.counts) for batch in batches[:4]] == [C] * 4
    assert max(sum(batch.counts) for batch in batches[4:]) < C
    assert [(b.prompts, b.counts) for b in later] == [(b.prompts, b.counts) for b in batches[5:]]
    assert distance(weights(whole), weights(second)) < 1e-6


# --- micro-batches ----------------------------------------------------------------------------------------------------


def rows(n: int, prompt: int = 5, completion: int = 7, **more) -> dict:
    """What TRL returns of n rollouts with completions of different lengths; row i has the prompt i + 1."""
    lengths = torch.arange(n) % completion + 1
    mask = (torch.arange(completion) < lengths[:, None]).long()
    found = {
        "prompt_ids": (torch.arange(n) + 1)[:, None].expand(n, prompt).clone(),
        "prompt_mask": torch.ones(n, prompt, dtype=torch.long), "completion_ids": 9 * mask, "completion_mask": mask,
        "advantages": torch.arange(n) + 1.0, "num_items_in_batch": mask.sum(),
    }  # fmt: skip
    return found | more


def micro_batches(n: int, budget: int, parts: int, *, multiple: int = 1, **more) -> list[dict]:
    """As TRL makes them: shuffled and cut into equal parts."""
    from trl.trainer.utils import shuffle_sequence_dict, split_pixel_values_by_grid, split_tensor_dict
    from trl.trainer.utils import unsplit_pixel_values_by_grid as merged

    whole = shuffle_sequence_dict(split_pixel_values_by_grid(completed(rows(n, **more), budget, parts)))
    return dealt([merged(part) for part in split_tensor_dict(whole, parts)], multiple)


@pytest.mark.parametrize(
    ("n", "budget", "parts"), [(15, 16, 4), (9, 16, 4), (8, 16, 4), (5, 8, 8), (1, 4, 2), (23, 32, 8)]
)
def test_rollouts_are_spread_evenly(n, budget, parts):
    found = micro_batches(n, budget, parts)
    shares = [part[SHARE] for part in found]
    sizes = [len(part["advantages"]) if share else 0 for part, share in zip(found, shares, strict=True)]
    kept = [a for part, share in zip(found, shares, strict=True) if share for a in part["advantages"].tolist()]
    assert sorted(kept) == [i + 1.0 for i in range(n)], "each once"
    assert len(found) == parts and shares == pytest.approx([size * parts / n for size in sizes])
    for width in range(1, parts + 1):  # also over consecutive micro-batches, those of an optimizer step
        sums = [sum(sizes[start : start + width]) for start in range(0, parts - width + 1)]
        assert max(sums) - min(sums) <= 1
    for part, share in zip(found, shares, strict=True):
        whole, mask = rows(n), part["completion_mask"]
        assert ROLLOUT not in part and part["num_items_in_batch"] == pytest.approx(whole["num_items_in_batch"] * share)
        if not share:
            assert len(part["advantages"]) == 1 and part["advantages"] == 0 and mask.sum() == 0
            assert part["prompt_ids"].shape == (1, 1) and mask.shape == (1, 2)
            continue
        origin = part["prompt_ids"][:, 0] - 1
        assert part["advantages"].tolist() == (origin + 1).tolist() and part["prompt_ids"].shape[1] == 5
        assert mask.sum(1).tolist() == whole["completion_mask"][origin].sum(1).tolist()
        assert mask.shape[1] == max(2, int(mask.sum(1).max())) == part["completion_ids"].shape[1]


def test_the_loss_of_a_micro_batch_has_its_share():
    class Trainer:
        def __init__(self):
            self._metrics = {"train": {"entropy": [2.0]}}

        def compute_loss(self, model, inputs, return_outputs=False):
            self._metrics["train"]["entropy"].append(3.0)
            return torch.tensor(8.0)

    class Uneven(UnevenMicroBatches, Trainer): ...

    trainer, rows = Uneven(), {"advantages": torch.zeros(3)}
    for share, loss, counted, seen in ((None, 8, 3, 2), (1, 8, 3, 3), (0.75, 6, 3, 4), (0, 0, 0, 4)):
        inputs = rows if share is None else {**rows, SHARE: share}
        assert trainer.compute_loss(None, inputs, return_outputs=False) == loss and trainer._vip_rows == counted
        assert len(trainer._metrics["train"]["entropy"]) == seen


def test_a_full_batch_is_left_alone():
    whole = rows(8)
    found = completed(whole, 8, 4)
    assert found.keys() == whole.keys() and all(found[name] is whole[name] for name in whole)


def test_padding_is_cut_to_a_multiple():
    widths = {part["completion_ids"].shape[1] for part in micro_batches(3, 8, 4, completion=7, multiple=4)}
    assert widths == {4}
    (empty,) = [part for part in micro_batches(3, 8, 4, prompt=8, completion=7, multiple=4) if not part[SHARE]]
    assert empty["prompt_ids"].shape == empty["completion_ids"].shape == (1, 4)


def test_empty_rows_have_values_with_which_the_loss_is_finite():
    given = {name: torch.full((5, 7), -1e4) for name in EMPTY if "logps" in name and name != "old_logps"}
    given |= {
        "old_logps": torch.full((5,), -1e4),
        "importance_sampling_ratio": torch.full((5, 1), 3.0),
        "tool_mask": None,
    }
    found = completed(rows(5, **given), 8, 4)
    assert found.pop(ROLLOUT).tolist() == [True] * 5 + [False] * 3 and found["tool_mask"] is None
    for name, value in EMPTY.items():
        assert (found[name][5:] == value).all() and (name == "completion_mask" or (found[name][:5] != value).all())


def test_pictures_stay_with_their_rows():
    """The layout of Qwen: each picture has a grid, and a row of pixels for each place in it."""
    grid = torch.tensor([[1, 1, 2], [1, 2, 2], [1, 1, 1], [1, 1, 3]])
    owner = torch.tensor([2, 2, 3, 4]).repeat_interleave(grid.prod(-1))
    more = {"num_images": [0, 2, 1, 1, 0], "image_grid_thw": grid, "pixel_values": owner[:, None].float()}
    more |= {"mm_token_type_ids": torch.arange(12).repeat(5, 1)}
    found = micro_batches(5, 8, 8, **more)
    assert [part["num_images"] for part in found if not part[SHARE]] == [[1]] * 3, "some models need a picture"
    assert sum(sum(part["num_images"]) for part in found if part[SHARE]) == 4
    for part in found:
        assert part["prompt_ids"].shape[1] == 5, "places of pictures are not cut"
        assert part["mm_token_type_ids"].shape[1] == 5 + part["completion_ids"].shape[1]
        assert part["image_grid_thw"].prod(-1).sum() == len(part["pixel_values"]) and len(part["num_images"]) == 1
        assert set(part["pixel_values"].flatten().tolist()) <= set(part["prompt_ids"][:, 0].tolist())


def test_pictures_that_were_dropped_leave_their_types():
    found = micro_batches(3, 8, 4, mm_token_type_ids=torch.arange(12).repeat(3, 1), num_images=None)
    for part in found:
        first = 5 - part["prompt_ids"].shape[1]
        expected = list(range(first, 5 + part["completion_ids"].shape[1]))
        assert part["mm_token_type_ids"].tolist() == [expected] and (first == 4) == (part[SHARE] == 0)


def test_a_field_of_rollouts_that_is_unknown_is_an_error_before_anything_is_saved(tmp_path):
    class Other(KINDS["grpo"][0]):
        def _vip_finish(self, output, current):
            super()._vip_finish(output, current)
            output["novel"] = output["advantages"]

    for more in ({}, {"vip_spend": "match"}):
        trainer = build("grpo", tmp_path, trainer=Other, max_steps=1, **more)
        if not more:
            trainer.train()
            continue
        with pytest.raises(InputError, match=r"'novel'.*vip_spend"):
            trainer.train()


# --- what is logged ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [WHOLE, (16, 16, 1)])
def test_logs_count_the_rollouts(how, tmp_path):
    """Micro-batches of one row: some have no rollout, and none of them counts."""
    import pandas as pd

    seen = Seen()
    trainer = build(
        "grpo", tmp_path, reward=seen.reward, vip=saving(), data=tiny.dataset(64), max_completion_length=LONGEST,
        learning_rate=0.0, max_steps=2, log_completions=True, **split(*how),
    )  # fmt: skip
    batches, _ = watched(trainer)
    trainer.train()
    rows = [row for row in trainer.state.log_history if "reward" in row]
    tables = [pd.read_parquet(file) for file in sorted((tmp_path / "completions").glob("*.parquet"))]
    model = tiny.model()
    for row, table, batch, rollouts in zip(rows, tables, batches, seen.batches, strict=True):
        spent, tokens = len(rollouts), [len(ids) for _, _, ids, _ in rollouts]
        assert spent == sum(batch.counts) < C
        assert row[PREFIX + metrics.SPENT_ROLLOUTS] == spent
        assert row[PREFIX + metrics.SAVED_ROLLOUTS] == pytest.approx(1 - spent / C)
        assert row[PREFIX + metrics.SPENT_TOKENS] == pytest.approx(sum(tokens))
        assert PREFIX + metrics.SAVED_TOKENS in row and "step_time" in row
        assert row["completions/mean_length"] == pytest.approx(np.mean(tokens))
        equal = sum(len(group) for group in batch.rewards if len(set(group)) == 1)
        assert row["frac_reward_zero_std"] == pytest.approx(equal / spent)
        assert row["reward"] == pytest.approx(np.mean([reward for *_, reward in rollouts]))
        assert table["prompt"].tolist() == [prompt for prompt, *_ in rollouts]
        assert table["vip_rollouts"].tolist() == [n for n in batch.counts for _ in range(n)]
        entropies = [_entropies(model, prompt, ids) for prompt, _, ids, _ in rollouts]
        entropies = [torch.cat(entropies).mean()] if how == WHOLE else [one.mean() for one in entropies]
        assert row["entropy"] == pytest.approx(float(torch.stack(entropies).mean()), abs=1e-5)


def _entropies(model, prompt, ids):
    start = tiny.tokenizer()(prompt)["input_ids"]
    with torch.no_grad():
        logps = model(torch.tensor([start + ids])).logits[0, len(start) - 1 : -1].log_softmax(-1)
    return -(logps.exp() * logps).sum(-1)


def test_columns_that_are_not_logged_every_time_have_the_length_of_the_others(tmp_path):
    import pandas as pd

    calls = []

    def reward(prompts, completions, solution, log_extra, **_):
        calls.append(len(prompts))
        if len(calls) == 1:
            log_extra("once", list(range(len(prompts))))
        return tiny.contains(prompts, completions, solution)

    if "log_extra" not in inspect.getsource(GRPOTrainer._calculate_rewards):
        pytest.skip("this version of TRL logs no columns of reward functions")
    more = {"log_completions": True, "max_steps": 4, "vip_spend": "match", "vip_strategy": "default"}
    trainer = build("grpo", tmp_path, reward=reward, data=tiny.dataset(8), vip_variance_target=1.6, **more)
    trainer.train()
    tables = [pd.read_parquet(file) for file in sorted((tmp_path / "completions").glob("*.parquet"))]
    assert [len(table) for table in tables] == calls and min(calls) < C


@pytest.mark.parametrize("masked", [True, False])
def test_lengths_are_what_was_generated(masked, tmp_path):
    """Also of a truncated rollout that the loss does not see."""
    seen = Seen()
    trainer = build(
        "grpo", tmp_path, reward=seen.reward, mask_truncated_completions=masked, max_completion_length=2, max_steps=2
    )
    trainer.train()
    rows = [row for row in trainer.state.log_history if "reward" in row]
    for row, rollouts in zip(rows, seen.batches, strict=True):
        assert row[PREFIX + metrics.SPENT_TOKENS] == pytest.approx(sum(len(ids) for _, _, ids, _ in rollouts))
        assert row["completions/clipped_ratio"] > 0 and PREFIX + metrics.SPENT_ROLLOUTS not in row


# --- with other options -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("grpo", {"vip_candidates": 2, "vip_baseline": "expected"}),
        ("rloo", {"vip_candidates": 2, "mask_truncated_completions": True, "max_completion_length": 12}),
        ("grpo", {"top_entropy_quantile": 0.5, "delta": 2.0}),
        ("grpo", {"importance_sampling_level": "sequence", "loss_type": "bnpo", "pad_to_multiple_of": 4}),
        ("rloo", {"normalize_advantages": True, "reward_clip_range": (-1.0, 0.5)}),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_options(kind, more, tmp_path):
    vip = saving(baseline=more.get("vip_baseline", "group"))
    trainer = build(kind, tmp_path, vip=vip, data=tiny.dataset(64), max_steps=1, **split(*SINGLE), **more)
    before = weights(trainer)
    batches, losses = watched(trainer)
    trainer.train()
    assert all(sum(batch.counts) < C for batch in batches) and np.isfinite([a for x in losses for a in x]).all()
    after = weights(trainer)
    assert all(torch.isfinite(value).all() for value in after.values()) and distance(before, after) > 0


def test_second_moment_of_the_gradient(tmp_path):
    """Micro-batches count as what they have, also those without a rollout."""
    more = {"vip_gradient_moments": True, "max_grad_norm": 1e9, "max_steps": 2, **split(16, 16, 1)}
    trainer = build("grpo", tmp_path, vip=saving(), data=tiny.dataset(64), **more)
    batches, sizes = watched(trainer)[0], []
    moments = trainer._vip_moments_of_run()
    add = moments.add
    moments.add = lambda parameters, rollouts, *, last: (sizes.append(rollouts), add(parameters, rollouts, last=last))[
        1
    ]
    trainer.train()
    assert set(sizes) == {0, 1} and [sum(sizes[:16]), sum(sizes[16:])] == [sum(batch.counts) for batch in batches]
    for row in [row for row in trainer.state.log_history if "grad_norm" in row]:
        assert row[PREFIX + metrics.GRADIENT_SECOND_MOMENT] == pytest.approx(row["grad_norm"] ** 2, rel=0.25)
        assert PREFIX + metrics.GRADIENT_WITHOUT_ROLLOUTS in row


@pytest.mark.parametrize(("kind", "how"), [("grpo", FOURTHS), ("rloo", (16, 16, 1))])
def test_pictures(kind, how, tmp_path):
    """A micro-batch without rollouts still has a picture, so that all weights are part of the step."""

    def reward(completions, solution, **_):
        return [float(right in given[0]["content"].split()) for given, right in zip(completions, solution, strict=True)]

    own = {"vip_features": "none", "vip_strategy": "default", "vip_spend": "match", "vip_variance_target": 1.6}
    own |= {"generation_kwargs": {"suppress_tokens": [tiny_vision.IMAGE_TOKEN]}, "max_steps": 4, **split(*how)}
    trainer = KINDS[kind][0](
        tiny_vision.model(), reward, KINDS[kind][1](**options(tmp_path, **own)),
        train_dataset=tiny_vision.dataset().select(range(4)), processing_class=tiny_vision.processor(),
    )  # fmt: skip
    batches, losses = watched(trainer)
    pictures = []
    on_loss(trainer, lambda _, inputs: pictures.append(len(inputs["pixel_values"])))
    trainer.train()
    assert min(sum(batch.counts) for batch in batches) < C
    assert pictures == [len(loss) for loss in losses] and min(pictures) > 0


@pytest.mark.parametrize("mode", ["server", "colocate"])
def test_vllm_and_its_importance_sampling(mode, monkeypatch, tmp_path):
    engine = fake_vllm.install(fake_vllm.Engine(), partial(monkeypatch.setattr, raising=False))
    more = {"use_vllm": True, "vllm_mode": mode, "max_completion_length": LONGEST, **split(8, 8, 2)}
    trainer = build("grpo", tmp_path, vip=saving(), data=tiny.dataset(64), max_steps=2, **more)
    batches, losses = watched(trainer)
    trainer.train()
    assert [sum(batch.counts) for batch in batches] == [n for n, _ in engine.requests]
    assert all(sum(batch.counts) < C for batch in batches) and np.isfinite([a for x in losses for a in x]).all()
