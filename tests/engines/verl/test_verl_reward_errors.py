"""What verl's reward managers make of a reward function that raises: the manager by default passes it on."""

from __future__ import annotations

import asyncio
import traceback
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from verl import DataProto
from verl.experimental.reward_loop.reward_manager.limited import RateLimitedRewardManager
from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager

TOKENIZER = SimpleNamespace(decode=lambda ids, **_: "text")


def rollout() -> DataProto:
    return DataProto.from_dict(
        tensors={"responses": torch.ones(1, 2, dtype=torch.long), "attention_mask": torch.ones(1, 4, dtype=torch.long)},
        non_tensors={
            "data_source": np.array(["mine"], dtype=object),
            "reward_model": np.array([{"ground_truth": "1"}], dtype=object),
            "extra_info": np.array([{}], dtype=object),
        },
    )


def grades_wrongly(**_: object) -> float:
    raise ZeroDivisionError("no digits")


async def scored(manager: type, config: dict) -> dict:
    return await manager(OmegaConf.create(config), TOKENIZER, grades_wrongly).run_single(rollout())


def test_the_default_manager_passes_the_exception_on_and_the_traceback_names_the_function() -> None:
    with pytest.raises(ZeroDivisionError) as error:
        asyncio.run(scored(NaiveRewardManager, {}))
    assert "grades_wrongly" in "".join(traceback.format_exception(error.value))


def test_the_manager_with_limits_scores_it_0() -> None:
    found = asyncio.run(scored(RateLimitedRewardManager, {"reward": {"timeout": 5}}))
    assert found["reward_score"] == 0 and found["reward_extra_info"]["error"] == "no digits"
