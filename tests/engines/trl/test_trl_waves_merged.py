"""What TRL returns and logs of two waves, merged: fields, padding, pictures, metrics and columns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from viprl.engines.planned_batch import PlannedBatch
from viprl.engines.trl.generation import Generation, Sampled
from viprl.engines.trl.merged_outputs import merged
from viprl.engines.trl.wave_logs import joined_columns, joined_metrics, reward_metrics
from viprl.errors import InputError

PAD = 9


def wave(prompts: list[int], answers: list[int], *, start: int = 0, **more) -> dict:
    """Rows with prompts and answers of these lengths; the tokens of row i are i + 1, and its values too."""
    rows = range(start + 1, start + 1 + len(prompts))
    width, length = max(prompts), max(answers)
    ids = [[PAD] * (width - n) + [i] * n for i, n in zip(rows, prompts, strict=True)]
    answer_ids = [[i] * n + [PAD] * (length - n) for i, n in zip(rows, answers, strict=True)]
    tokens = torch.tensor(answer_ids)
    found = {
        "prompt_ids": torch.tensor(ids), "prompt_mask": (torch.tensor(ids) != PAD).long(), "completion_ids": tokens,
        "completion_mask": (tokens != PAD).long(), "advantages": torch.tensor([*rows]).float(),
        "old_logps": -torch.tensor([*rows]).float(), "num_items_in_batch": torch.tensor(sum(answers)),
        "tool_mask": torch.ones_like(tokens), "ref_per_token_logps": None,
        "sampling_per_token_logps": -tokens.float(),
    }  # fmt: skip
    return found | more


@pytest.mark.parametrize(
    ("first", "second"),
    [(([2, 4], [3, 1]), ([1, 3, 2], [2, 5, 1])), (([1], [5]), ([4, 2], [1, 2])), (([3], [2]), ([3], [2]))],
)
def test_every_row_keeps_its_tokens_and_values(first, second):
    one, two = wave(*first), wave(*second, start=len(first[0]))
    found = merged([one, two], PAD)
    prompts, answers = first[0] + second[0], first[1] + second[1]
    assert found.keys() == one.keys() and found["ref_per_token_logps"] is None
    width, length, n = max(prompts), max(answers), len(prompts)
    rows = [*range(1, n + 1)]
    assert found["advantages"].tolist() == rows and found["old_logps"].tolist() == [-i for i in rows]
    assert found["num_items_in_batch"] == sum(answers)
    for i, row in enumerate(rows):
        left, right = width - prompts[i], length - answers[i]
        assert found["prompt_ids"][i].tolist() == [PAD] * left + [row] * prompts[i]
        assert found["prompt_mask"][i].tolist() == [0] * left + [1] * prompts[i]
        assert found["completion_ids"][i].tolist() == [row] * answers[i] + [PAD] * right
        assert found["completion_mask"][i].tolist() == [1] * answers[i] + [0] * right
        assert found["sampling_per_token_logps"][i][: answers[i]].tolist() == [-row] * answers[i]
        assert found["tool_mask"][i].tolist() == [1] * length
    dtypes = {name: value.dtype for name, value in found.items() if value is not None}
    assert dtypes == {name: value.dtype for name, value in one.items() if value is not None}


def test_padding_leaves_a_kl_term_finite():
    """The reference's log probability of a padding token is unknown; the policy's may be anything."""
    one, two = (wave([1], [n], ref_per_token_logps=torch.zeros(1, n)) for n in (1, 3))
    found = merged([one, two], PAD)["ref_per_token_logps"]
    for logp in (0.0, -30.0, -300.0):
        gap = found[0, 1:] - logp
        assert torch.isfinite(gap.exp() - gap - 1).all()


def test_ratios_of_whole_sequences_and_of_tokens():
    """One column for the whole sequence stays one; otherwise it is padded with 1."""
    for columns, expected in (((1, 1), [[2.0], [2.0]]), ((1, 2), [[2.0, 1.0], [2.0, 2.0]])):
        one, two = (
            wave([1], [length], importance_sampling_ratio=torch.full((1, width), 2.0))
            for length, width in zip((1, 2), columns, strict=True)
        )
        assert merged([one, two], PAD)["importance_sampling_ratio"].tolist() == expected


def test_fields_that_cannot_be_merged_are_named():
    with pytest.raises(InputError, match=r"'novel'.*vip_waves=1"):
        merged([wave([1], [1]), wave([1], [1], novel=torch.zeros(1))], PAD)
    with pytest.raises(InputError, match=r"'old_per_token_logps'.*vip_waves=1"):
        merged([wave([1], [1]), wave([1], [1], old_per_token_logps=torch.zeros(1, 1))], PAD)
    with pytest.raises(InputError, match=r"'pixel_values'.*vip_waves=1"):
        merged([wave([1], [1], num_images=[1], pixel_values=torch.zeros(1, n)) for n in (2, 3)], PAD)
    with pytest.raises(InputError, match=r"'num_images'.*vip_waves=1"):  # TRL has dropped the pictures of one wave
        merged([wave([1], [1], num_images=given) for given in ([1], None)], PAD)


def test_one_wave_stays_as_it_is():
    one = wave([1, 2], [2, 1])
    found = merged([one], PAD)
    assert all(found[name] is one[name] for name in one)


def pictures(numbers: list[int], first: int) -> dict:
    """The layout of Qwen: a grid for each picture, and a row of pixels for each place in it."""
    grid = torch.tensor([[1, 1, 1 + (first + i) % 3] for i in range(sum(numbers))]).view(-1, 3)
    owner = torch.arange(first, first + sum(numbers)).repeat_interleave(grid.prod(-1))
    return {"num_images": numbers, "image_grid_thw": grid, "pixel_values": owner[:, None].float()}


def test_pictures_stay_with_their_rows():
    types = [torch.full((rows, columns), 1 + at) for at, (rows, columns) in enumerate(((2, 5), (2, 6)))]
    one = wave([3, 2], [2, 1], **pictures([2, 0], 0), mm_token_type_ids=types[0])
    two = wave([2, 1], [4, 4], **pictures([1, 1], 2), mm_token_type_ids=types[1])
    found = merged([one, two], PAD)
    assert found["num_images"] == [2, 0, 1, 1] and found["image_grid_thw"].shape == (4, 3)
    assert sorted(set(found["pixel_values"].flatten().tolist())) == [0, 1, 2, 3]
    assert len(found["pixel_values"]) == found["image_grid_thw"].prod(-1).sum()
    # 3 columns of prompts and 4 of completions
    assert found["mm_token_type_ids"].tolist() == [[1] * 5 + [0] * 2] * 2 + [[0] + [2] * 6] * 2


@pytest.mark.parametrize("at", [0, 1])
def test_one_wave_without_pictures(at):
    shown = wave([2], [1], **pictures([1], 1), mm_token_type_ids=torch.ones(1, 3, dtype=torch.long))
    waves = [shown, shown]
    waves[at] = wave([1, 2], [3, 1])
    found = merged(waves, PAD)
    blank = [[0] * 5] * 2
    assert found["num_images"] == ([0, 0, 1] if at == 0 else [1, 0, 0])
    assert len(found["pixel_values"]) == 2 and found["image_grid_thw"].tolist() == [[1, 1, 2]]
    row = [1, 1, 1, 0, 0]
    assert found["mm_token_type_ids"].tolist() == ([*blank, row] if at == 0 else [row, *blank])
    with pytest.raises(InputError, match="'pixel_values'"):  # one entry for each row, whatever its pictures are
        merged([wave([1], [1], num_images=[2], pixel_values=torch.zeros(1, 2, 4)), wave([1], [1])], PAD)


def test_rows_of_prompts_on_two_processes():
    """Each process has its rollouts of the first wave before those of the second."""
    first, whole = np.array([2, 3, 1]), np.array([4, 3, 3])
    pairs = [[Generation(first, rank, 2), Generation(whole, rank, 2, before=first)] for rank in (0, 1)]
    values = [np.arange(6.0), np.arange(6.0, 10.0)]  # 0 0 1 | 1 1 2, then 0 0 | 2 2
    for rank, waves in enumerate(pairs):
        for one, given in zip(waves, values, strict=True):
            one.rewards, one.lengths = torch.tensor(given)[:, None], given * 10
        sampled = Sampled(PlannedBatch([], whole, np.ones(3)), waves)
        assert sampled.rewards[:, 0].tolist() == [0, 1, 6, 7, 2, 3, 4, 5, 8, 9]
        assert sampled.lengths.tolist() == [10 * value for value in sampled.rewards[:, 0]] and sampled.logprobs is None
        assert [one.local.tolist() for one in waves] == [[[0, 0, 1], [0, 0]], [[1, 1, 2], [2, 2]]][rank]
        assert sampled.own(sampled.rewards[:, 0]).tolist() == [[0, 1, 2, 6, 7], [3, 4, 5, 8, 9]][rank]


def test_metrics_of_two_waves():
    first = {
        "num_tokens": 100.0, "completions/mean_length": 4.0, "completions/min_length": 2.0,
        "completions/max_length": 9.0, "completions/clipped_ratio": 1.0, "completions/mean_terminated_length": 0.0,
        "completions/min_terminated_length": 0.0, "completions/max_terminated_length": 0.0,
        "tools/call_frequency": 0.5, "tools/failure_frequency": 0.2, "max_depth": 4.0, "once": 3.0,
        "sampling/sampling_logp_difference/mean": 1.0, "sampling/sampling_logp_difference/max": 2.0,
        "sampling/importance_sampling_ratio/min": 0.5,
    }  # fmt: skip
    second = first | {
        "num_tokens": 150.0, "completions/mean_length": 8.0, "completions/min_length": 3.0,
        "completions/max_length": 8.0, "completions/clipped_ratio": 0.5, "completions/mean_terminated_length": 6.0,
        "completions/min_terminated_length": 5.0, "completions/max_terminated_length": 7.0,
        "tools/call_frequency": 2.0, "tools/failure_frequency": 0.8, "max_depth": 8.0,
        "sampling/sampling_logp_difference/mean": 4.0, "sampling/sampling_logp_difference/max": 1.0,
        "sampling/importance_sampling_ratio/min": 0.3,
    }  # fmt: skip
    del second["once"]
    assert joined_metrics([first, second], [30, 10]) == pytest.approx(
        {
            "num_tokens": 150, "completions/mean_length": 5, "completions/min_length": 2, "completions/max_length": 9,
            "completions/clipped_ratio": 0.875, "completions/mean_terminated_length": 6,
            "completions/min_terminated_length": 5, "completions/max_terminated_length": 7,
            "tools/call_frequency": 0.875, "tools/failure_frequency": (15 * 0.2 + 20 * 0.8) / 35, "max_depth": 5,
            "once": 3, "sampling/sampling_logp_difference/mean": (120 + 320) / 200,
            "sampling/sampling_logp_difference/max": 2, "sampling/importance_sampling_ratio/min": 0.3,
        }
    )  # fmt: skip
    nothing = joined_metrics([first, first], [3, 1])
    assert nothing["completions/mean_terminated_length"] == nothing["completions/min_terminated_length"] == 0


def test_metrics_of_rewards():
    rewards = np.array([[1.0, np.nan], [0.0, 2.0], [np.inf, np.nan], [1.0, 1.0]])
    found = reward_metrics(rewards, ["a", "b"], np.array([1.0, 0.5]))
    assert found == pytest.approx(
        {
            "rewards/a/mean": 2 / 3, "rewards/a/std": np.std([1, 0, 1], ddof=1), "rewards/b/mean": 1.5,
            "rewards/b/std": np.std([2, 1], ddof=1), "reward": 3.5 / 3, "reward_std": np.std([1, 1, 1.5], ddof=1),
        }
    )  # fmt: skip
    assert math.isnan(reward_metrics(rewards[2:3], ["a", "b"], np.ones(2))["reward"])


def test_columns_of_two_waves():
    tables = [{"prompt": ["a", "a", "b"], "rewards": {}}, {"prompt": ["b", "c"], "later": [1, 2], "images": []}]
    assert joined_columns(tables, [3, 2], [4, 0, 1, 3, 2]) == {
        "prompt": ["c", "a", "a", "b", "b"],
        "later": [2, None, None, 1, None],
    }
