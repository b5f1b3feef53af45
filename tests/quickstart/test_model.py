"""The tokenizer, the tiny model and the sampler of the quickstart."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("transformers", reason='needs pip install "viprl[trl]"')

import torch
import transformers

from viprl.quickstart import tasks
from viprl.quickstart.model import _answer_batch, build_model, build_tokenizer, pretrain, sample_completions


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Several threads slow down a model as small as this one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def model():
    return build_model(0).eval()


def generator(seed: int = 0):
    return torch.Generator().manual_seed(seed)


def test_tokenizer_knows_every_word_and_decodes_to_the_solution(tokenizer):
    assert 60 <= len(tokenizer) <= 90 and tokenizer.padding_side == "left"
    for p in tasks.late_rl_pool(np.random.default_rng(0), 300)[0]:
        prompt, answer = tokenizer(p.prompt)["input_ids"], tokenizer(p.solution)["input_ids"]
        assert tokenizer.unk_token_id not in prompt + answer
        # Prompt and answer have the same tokens apart and together, so that answers follow prompts directly.
        assert tokenizer(f"{p.prompt} {p.solution}")["input_ids"] == prompt + answer
        assert tokenizer.decode([*answer, tokenizer.eos_token_id], skip_special_tokens=True).strip() == p.solution
        assert len(answer) + 1 <= 12
    assert set(tokenizer("copy the letters : a b c =")) == {"input_ids", "attention_mask"}


def test_a_chat_has_the_same_text_as_a_plain_prompt(tokenizer):
    prompt = "copy the letters : a b c ="
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    assert text == prompt


def test_model_size_and_seed():
    state = torch.random.get_rng_state()
    first, again, other = (build_model(seed) for seed in (0, 0, 1))
    assert torch.equal(state, torch.random.get_rng_state())
    assert 430_000 < sum(p.numel() for p in first.parameters()) < 450_000
    assert first.lm_head.weight is first.model.embed_tokens.weight
    weights = [m.model.layers[1].mlp.up_proj.weight for m in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_labels_cover_the_answer_and_eos_only(tokenizer):
    batch = _answer_batch([("copy the letters : a b c =", "a b c"), ("how many letters : a b c =", "3")], tokenizer)
    assert batch["input_ids"].shape == batch["labels"].shape
    answers = [row[row != -100] for row in batch["labels"]]
    assert tokenizer.batch_decode(answers) == ["a b c <eos>", "3 <eos>"]


def test_pretraining_lowers_the_loss_and_transformers_loads_the_result(tokenizer, tmp_path):
    losses: list[float] = []
    trained = build_model(0)
    pretrain(trained, tokenizer, seed=0, steps=8, batch_size=32, progress=lambda step, loss: losses.append(loss))
    assert len(losses) == 8 and losses[-1] < losses[0] - 0.5 and not trained.training
    trained.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    reader = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = ["copy the letters : a b c =", "double the letters : a b c d ="]
    batch, expected = (
        reader(texts, return_tensors="pt", padding=True),
        tokenizer(texts, return_tensors="pt", padding=True),
    )
    assert batch.keys() == expected.keys() and torch.equal(batch["input_ids"], expected["input_ids"])
    assert reader.padding_side == "left" and reader.eos_token_id == tokenizer.eos_token_id == loaded.config.eos_token_id
    assert torch.equal(loaded(**batch).logits, trained(**batch).logits)


# ---- sampler --------------------------------------------------------------------------------------------------------

PROMPTS = ["copy the letters : a b c =", "shift by one letter : a b c d e f =", "how many letters : c b a ="]


def test_samples_at_a_low_temperature_equal_greedy_decoding(model, tokenizer):
    samples = sample_completions(model, tokenizer, PROMPTS, 2, generator(), temperature=1e-4)
    for prompt, rollouts in zip(PROMPTS, samples, strict=True):
        ids = tokenizer(prompt, return_tensors="pt")
        greedy = model.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids["input_ids"].shape[1] :].tolist()
        assert rollouts == [greedy, greedy]


def test_samples_follow_the_policy(model, tokenizer):
    """First tokens by frequency, second tokens by their conditional frequency, on a short and a padded prompt."""
    n, temperature = 8_000, 0.5
    samples = sample_completions(
        model, tokenizer, PROMPTS[:2], n, generator(), max_new_tokens=2, temperature=temperature, max_rows=8000
    )
    for prompt, rollouts in zip(PROMPTS, samples, strict=False):
        context = tokenizer(prompt)["input_ids"]
        top = Counter(r[0] for r in rollouts if r[0] != tokenizer.eos_token_id).most_common(1)[0][0]
        seconds = [r[1] for r in rollouts if r[0] == top]
        for prefix, seen in ((context, [r[0] for r in rollouts]), ([*context, top], seconds)):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([prefix])).logits[0, -1]
            q = (logits / temperature).softmax(-1).numpy()
            frequency = np.bincount(seen, minlength=q.size) / len(seen)
            assert np.all(np.abs(frequency - q) < 5 * np.sqrt(q * (1 - q) / len(seen)) + 1e-3)


def test_counts_chunks_and_endings(model, tokenizer):
    for max_rows in (2, 7):  # a prompt at a time; two, then one
        samples = sample_completions(model, tokenizer, PROMPTS, 3, generator(), max_rows=max_rows)
        assert [len(rollouts) for rollouts in samples] == [3, 3, 3]
        for rollout in itertools.chain(*samples):
            assert 1 <= len(rollout) <= 12 and tokenizer.eos_token_id not in rollout[:-1]
            assert len(rollout) == 12 or rollout[-1] == tokenizer.eos_token_id
        assert samples == sample_completions(model, tokenizer, PROMPTS, 3, generator(), max_rows=max_rows)
