"""Rewards in TRL: which of them decides about success, unreadable ones, and functions that fail."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
from trl_runs import C, build, independent_advantages, trained, watched

import tiny


def two(prompts, completions, **_):
    return [0.3] * len(prompts)


@pytest.mark.parametrize(
    ("success", "expected"),
    [("contains", "column"), ("two>=0.5", 0), ("two>=0.3", C), ("1.2", "total"), (lambda total: total > 1.2, "total")],
)
def test_success_is_a_named_reward_or_a_function_of_the_total(success, expected, tmp_path):
    trainer = build("rloo", tmp_path, reward=[tiny.contains, two], vip_success=success, max_steps=1)
    batches, _ = watched(trainer)
    trainer.train()
    wins = sum(r > 1.2 for group in batches[0].rewards for r in group)
    assert batches[0].observation.successes.sum() == (wins if expected in ("column", "total") else expected)
    assert isinstance(json.loads(json.dumps(trainer.args.to_dict()))["vip_success"], str)


def test_unscorable_and_unreadable_rewards_never_end_a_run(tmp_path, caplog):
    def reward(prompts, completions, **_):
        return [[None, 0.0, 1.0, 0.5][i % 4] for i in range(len(prompts))]

    with caplog.at_level("WARNING", logger="viprl.outcomes"):
        batches, losses = trained("rloo", tmp_path, reward=reward, vip_strategy="default")
    for batch, advantages in zip(batches, losses, strict=True):
        expected = independent_advantages(batch.rewards, True, True)
        assert np.allclose(sorted(advantages), sorted(expected), atol=1e-6)
        assert batch.observation.rollouts.sum() == 3 * C / 4, "None is not a reward"
        assert np.isnan(batch.observation.successes).all(), "with .5 among 0 and 1, success is undefined"


def test_success_that_judges_nothing_causes_one_warning(tmp_path, caplog):
    build("rloo", tmp_path, reward=two, vip_success="two", max_steps=2).train()
    warned = [record.getMessage() for record in caplog.records if "vip_success" in record.getMessage()]
    assert len(warned) == 1 and "0.3" in warned[0]


def test_unscorable_rewards_do_not_stop_the_first_batch(tmp_path):
    def lost(completions, **_):
        return [None] * len(completions)

    trainer = build("rloo", tmp_path, reward=lost, max_steps=1)
    trainer.vip._rewards.unreadable = 1_000  # as read from a checkpoint
    trainer.train()
    assert trainer.vip_batch.observation.rollouts.sum() == 0


class Failing:
    """A reward function that fails at its third call, as an object; `method`, `plain` and `waiting` are other forms."""

    def __init__(self):
        self.calls = 0

    def __call__(self, completions, **_):
        self.calls += 1
        if self.calls == 3:
            raise KeyError("answer")
        return [0.0] * len(completions)

    def method(self, completions, **_):
        return self(completions)

    def plain(self):
        def accuracy(completions, **_):
            return self(completions)

        return accuracy

    def waiting(self):
        async def judge(completions, **_):
            return self(completions)

        return judge


FORMS = {
    "Failing": lambda: Failing(),
    "method": lambda: Failing().method,
    "accuracy": lambda: Failing().plain(),
    "judge": lambda: Failing().waiting(),
    "contains": lambda: functools.partial(tiny.contains, solution=3),
}


@pytest.mark.parametrize("name", FORMS)
def test_an_exception_of_a_reward_function_names_it_and_the_step(name, tmp_path):
    steps = 1 if name == "contains" else 3  # the partial fails at once
    reward = [two, FORMS[name]()]
    data = tiny.dataset().remove_columns("solution")
    with pytest.raises((KeyError, TypeError)) as error:
        build("rloo", tmp_path, reward=reward, data=data, vip_success="two>=0.1").train()
    (note,) = error.value.__notes__
    assert repr(name) in note and f"step {steps}" in note
    assert "test_trl_rewards.py" in str(error.traceback[-1].path) or name == "contains"


def test_an_exception_in_an_evaluation_and_in_a_reward_model(tmp_path):
    model = tiny.model()
    model.config._name_or_path = "some/judge"
    trainer = build("rloo", tmp_path, reward=[two], extra={"eval_dataset": tiny.dataset(8)})
    trainer.reward_funcs, trainer.reward_func_names = [model], ["judge"]
    trainer.reward_processing_classes = [tiny.tokenizer()]  # the language model has no `logits[:, 0]` of a reward
    with pytest.raises(Exception) as error:
        trainer.evaluate()
    assert "step 0" in error.value.__notes__[0]
    model.forward = lambda **_: 1 / 0
    with pytest.raises(ZeroDivisionError) as error:
        trainer.evaluate()
    assert "'judge'" in error.value.__notes__[0]
