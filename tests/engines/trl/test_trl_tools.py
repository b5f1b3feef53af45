"""Tools and environments with ragged counts: a stand-in for vLLM writes the calls, TRL runs them."""

from __future__ import annotations

import inspect
import json
import os
from functools import partial

import pytest
from datasets import Dataset
from fake_vllm import Engine, install
from trl import GRPOTrainer
from trl_runs import KINDS, C, on_loss, options, recording, row_logprobs, watched
from waves import taught

import tiny
from viprl import VIP
from viprl.engines.trl import VIPGRPOTrainer
from viprl.errors import InputError
from viprl.metrics import PREFIX, SPENT_TOKENS
from viprl.prompts import text

if "environment_factory" not in inspect.signature(GRPOTrainer.__init__).parameters:
    pytest.skip("this version of TRL has no environments", allow_module_level=True)
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

CALL = {x: json.dumps({"name": "look", "arguments": {"letter": x}}, separators=(",", ":")) for x in tiny.LETTERS}
WORDS = [*tiny.LETTERS, "<user>", "<assistant>", "<tool>", "<call>", "</call>", *CALL.values()]
ID = {word: i for i, word in enumerate([*tiny.SPECIAL, *WORDS])}
TEMPLATE = (
    "{%- for m in messages %}{{ ' <' ~ m.role ~ '> ' ~ (m.content or '') }}"
    "{%- for c in m.tool_calls or [] %}{{ ' <call> ' ~ (c.function | tojson) ~ ' </call>' }}{%- endfor %}"
    "{{ ' <eos>' }}{%- endfor %}{%- if add_generation_prompt %}{{ ' <assistant>' }}{%- endif %}"
)
RESPONSE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<assistant>",
    "fields": {
        "tool_calls": {
            "open": "<call>", "close_pattern": r"</call>\s*", "repeats": True, "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close_pattern": r"<eos>\s*", "content": "text"},
    },
}  # fmt: skip


def chat_tokenizer():
    tokenizer = tiny.tokenizer(WORDS)
    tokenizer.chat_template, tokenizer.response_template = TEMPLATE, RESPONSE
    return tokenizer


@pytest.fixture
def engine(monkeypatch) -> Engine:
    """Looks a letter up three times in four, and answers with one to three letters."""
    made = Engine(lambda prompt: answer(made, prompt))
    return install(made, partial(monkeypatch.setattr, raising=False))


def answer(engine: Engine, prompt: list[int]) -> list[int]:
    letter = next(x for x in tiny.LETTERS if ID[x] in prompt)
    if ID["<tool>"] not in prompt and engine.random.random() < 0.75:
        return [ID["<call>"], ID[CALL[letter]], ID["</call>"], ID["<eos>"]]
    return [ID[letter]] * engine.random.randint(1, 3) + [ID["<eos>"]]


def train(folder, reward, data, *, vip=None, steps=3, extra, **more) -> VIPGRPOTrainer:
    config = KINDS["grpo"][1]
    settings = options(
        folder, use_vllm=True, vllm_mode="colocate", max_completion_length=20, max_steps=steps, vip_strategy="random",
        vip_features="none", **more,
    )  # fmt: skip
    return VIPGRPOTrainer(
        tiny.model(words=WORDS), reward, config(**settings), train_dataset=data, processing_class=chat_tokenizer(),
        vip=vip, **extra,
    )  # fmt: skip


def chats() -> Dataset:
    return Dataset.from_dict(
        {"prompt": [[{"role": "user", "content": x}] for x in tiny.LETTERS], "solution": list(tiny.LETTERS)}
    )


def looked(completion) -> list[str]:
    """What the tool said in one conversation."""
    return [message["content"] for message in completion if message["role"] == "tool"]


def test_each_rollout_calls_the_tool_for_its_own_prompt(engine, tmp_path):
    calls = []

    def look(letter: str) -> str:
        """Look a letter up.

        Args:
            letter: The letter.
        """
        calls.append(letter)
        return f"{letter} {letter}"

    def reward(prompts, completions, solution, **_):
        for completion, right in zip(completions, solution, strict=True):
            said = {word for message in completion for word in message.get("content", "").split()}
            assert said <= {right}
        return [float(len(looked(completion))) for completion in completions]

    trainer = train(tmp_path, reward, chats(), vip=recording("grpo"), extra={"tools": [look]}, learning_rate=0.0)
    batches, _ = watched(trainer)
    rows: list[list] = []
    on_loss(trainer, lambda model, inputs: rows.append(row_logprobs(model, inputs)))
    trainer.train()
    assert len({tuple(batch.counts) for batch in batches}) > 1
    assert len(calls) == sum(sum(group) for batch in batches for group in batch.rewards) and 0 < len(calls) < 3 * C
    for batch, heard, seen in zip(batches, trainer.vip.heard, rows, strict=True):
        assert [len(group) for group in heard.values()] == batch.counts
        own, everything = (sorted(row[column] for row in seen) for column in (1, 2))
        assert sorted(value for group in heard.values() for value in group) == pytest.approx(own, abs=1e-4)
        assert own != pytest.approx(everything, abs=0.1), "the policy did not write the words of the tool"


def test_tokens_of_tools_count_in_what_a_batch_spends(engine, tmp_path):
    def look(letter: str) -> str:
        """Look a letter up.

        Args:
            letter: The letter.
        """
        return f"{letter} {letter}"

    tokens = []

    def reward(completions, completion_ids, **_):
        tokens.append(sum(map(len, completion_ids)))
        return [float(len(looked(completion))) for completion in completions]

    vip = VIP(strategy="oracle", spend="match", variance_target=1.4)
    vip.tell_oracle(chats()["prompt"], [0.02, 0.02, 0.02, 0.5] * 2)
    more = {"gradient_accumulation_steps": 8, "per_device_train_batch_size": C // 8, "steps": 2}
    trainer = train(tmp_path, reward, chats(), vip=vip, extra={"tools": [look]}, **more)
    batches, _ = watched(trainer)
    trainer.train()
    spent = [row[PREFIX + SPENT_TOKENS] for row in trainer.state.log_history if PREFIX + SPENT_TOKENS in row]
    assert spent == pytest.approx(tokens) and max(sum(batch.counts) for batch in batches) < C


class Room:
    """An environment that owns task and reward: 1 for a look at its own letter, and never at another."""

    def reset(self, solution: str, **_) -> str | None:
        self.solution, self.seen = solution, []
        return None if "prompt" in _ else solution

    def look(self, letter: str) -> str:
        """Look a letter up.

        Args:
            letter: The letter.
        """
        self.seen.append(letter)
        return letter

    def get_reward(self) -> float:
        assert set(self.seen) <= {self.solution}
        return float(len(self.seen))


@pytest.mark.parametrize("own_prompt", [False, True])
def test_each_rollout_has_an_environment_of_its_own(own_prompt, engine, tmp_path, caplog):
    data = Dataset.from_dict({"solution": list(tiny.LETTERS)}) if own_prompt else chats()
    more = {"vip_id_column": "solution"} if own_prompt else {}
    with caplog.at_level("WARNING", logger="viprl.engines.trl"):
        trainer = train(tmp_path, None, data, extra={"environment_factory": Room}, **more)
        batches, _ = watched(trainer)
        trainer.train()
    assert not caplog.text
    for batch in batches:
        assert sum(batch.counts) == C and len(set(batch.observation.keys)) == len(batch.counts)
        assert batch.observation.successes.tolist() == [sum(group) for group in batch.rewards]
    rewards = [r for batch in batches for group in batch.rewards for r in group]
    assert set(rewards) == {0.0, 1.0}


def test_rewards_of_an_environment_have_a_name(engine, tmp_path):
    def short(completions, **_):
        return [0.3] * len(completions)

    extra = {"environment_factory": Room}
    trainer = train(tmp_path, short, chats(), extra=extra, steps=1, vip_success="Room")
    batches, _ = watched(trainer)
    trainer.train()
    assert batches[0].observation.rollouts.sum() == C
    with pytest.raises(InputError, match=r"'Hall'.*short, Room"):
        train(tmp_path, short, chats(), extra=extra, vip_success="Hall")


def test_tasks_that_cannot_be_distinguished_cause_a_warning(engine, tmp_path, caplog):
    with caplog.at_level("WARNING", logger="viprl.engines.trl"):
        train(tmp_path, None, Dataset.from_dict({"solution": ["a"] * 8}), extra={"environment_factory": Room})
    assert "vip_id_column" in caplog.text


def in_waves(folder, reward, **extra):
    """One batch of eight prompts, of which six are never solved."""
    own = {"per_device_train_batch_size": 64, "num_generations": 8, "vip_waves": 2, "learning_rate": 0.0, "steps": 1}
    vip = taught(max_rollouts=24)
    trainer = train(folder, reward, chats(), vip=vip, extra=extra, **own)
    batches, _ = watched(trainer)
    return trainer, batches, vip


def test_tools_in_two_waves(engine, tmp_path):
    """Words of tools are masked, also where a wave is padded, and count in no log probability."""
    calls = []

    def look(letter: str) -> str:
        """Look a letter up.

        Args:
            letter: The letter.
        """
        calls.append(letter)
        return f"{letter} {letter}"

    waves = []

    def reward(completions, solution, vip_wave, **_):
        waves.append(vip_wave)
        for completion, right in zip(completions, solution, strict=True):
            assert {word for message in completion for word in message.get("content", "").split()} <= {right}
        return [float(len(looked(c)) > 0 and s in "gh") for c, s in zip(completions, solution, strict=True)]

    trainer, batches, vip = in_waves(tmp_path, reward, tools=[look])
    heard, rows, observe = [], [], vip.observe
    vip.observe = lambda *args, **more: (heard.append(more["logprobs"]), observe(*args, **more))[1]
    on_loss(trainer, lambda model, inputs: rows.extend(row_logprobs(model, inputs)))
    trainer.train()
    assert [set(wave) for wave in waves] == [{1}, {2}] and sum(map(len, waves)) == 64 == len(rows)
    assert [len(group) for group in heard[0]] == batches[0].counts and len(set(batches[0].counts)) > 1
    given = sorted(value for group in heard[0] for value in group)
    assert given == pytest.approx(sorted(own for _, own, _ in rows), abs=1e-4)
    assert given != pytest.approx(sorted(everything for *_, everything in rows), abs=0.1)
    row = trainer.state.log_history[0]
    assert row["tools/call_frequency"] == pytest.approx(len(calls) / 64) and row["tools/failure_frequency"] == 0


class LockedRoom(Room):
    """Two letters can be found."""

    def get_reward(self) -> float:
        return super().get_reward() * (self.solution in "gh")


def test_environments_in_two_waves(engine, tmp_path):
    trainer, batches, _ = in_waves(tmp_path, None, environment_factory=LockedRoom)
    trainer.train()
    (batch,) = batches
    assert sum(batch.counts) == 64 and len(set(batch.counts)) > 1
    for prompt, group in zip(batch.prompts, batch.rewards, strict=True):
        assert set(group) <= ({0.0, 1.0} if text(prompt)[0] in "gh" else {0.0})
    assert batch.observation.successes.tolist() == [sum(group) for group in batch.rewards]
