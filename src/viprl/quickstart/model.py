"""The tiny language model of the quickstart: tokenizer, network, supervised start, fast sampler."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from viprl.quickstart.tasks import supervised_corpus, vocabulary
from viprl.utils.batches import batches

# Messages are joined without separators: a chat with one message has the text of the message.
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with one token for each word. It pads on the left and adds no special tokens."""
    special = ["<pad>", "<bos>", "<eos>", "<unk>"]
    words = {word: index for index, word in enumerate([*special, *vocabulary()])}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
        # Without token types, which fast tokenizers return by default and Llama does not take.
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=64,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def build_model(seed: int) -> LlamaForCausalLM:
    """An untrained Llama with 2 layers, width 128, 4 heads and tied embeddings: about 0.44 M parameters.

    The global random generator of torch does not change.
    """
    tokenizer = build_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        # With both, attention by position is learned faster.
        initializer_range=0.06,
        attention_bias=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def pretrain(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    *,
    seed: int,
    steps: int = 400,
    batch_size: int = 96,
    lr: float = 4e-3,
    progress: Callable[[int, float], None] | None = None,
) -> None:
    """Train the model on right answers and mistakes, in place: AdamW, a short warm-up, cosine decay to zero.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        seed: seed of the data.
        steps: optimizer steps.
        batch_size: pairs of prompt and answer in a step.
        lr: largest learning rate.
        progress: called with the step, from 1, and the loss after every step.
    """
    pairs = batches(supervised_corpus(steps * batch_size, np.random.default_rng(seed)), batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    warm_up = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1.0, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))),
    )
    model.train()
    for step, batch in enumerate(pairs, start=1):
        loss = model(**_answer_batch(batch, tokenizer)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(step, float(loss.detach()))
    model.eval()


def _answer_batch(pairs: Sequence[tuple[str, str]], tokenizer: PreTrainedTokenizerFast) -> dict[str, torch.Tensor]:
    """Right-padded prompt + answer + eos; labels are -100 outside answers."""
    prompts = tokenizer([prompt for prompt, _ in pairs])["input_ids"]
    answers = tokenizer([answer for _, answer in pairs])["input_ids"]
    rows = [[*p, *a, tokenizer.eos_token_id] for p, a in zip(prompts, answers, strict=True)]
    width = max(map(len, rows))
    input_ids = torch.full((len(rows), width), tokenizer.pad_token_id)
    labels = torch.full((len(rows), width), -100)
    for i, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        input_ids[i, : len(row)] = torch.tensor(row)
        labels[i, len(prompt) : len(row)] = torch.tensor(row[len(prompt) :])
    # No attention mask: padding is to the right of all tokens, and attention is causal.
    return {"input_ids": input_ids, "labels": labels}


@torch.inference_mode()
def sample_completions(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[str],
    n: int,
    generator: torch.Generator,
    max_new_tokens: int = 12,
    temperature: float = 1.0,
    max_rows: int = 4096,
) -> list[list[list[int]]]:
    """Sample completions. Each prompt is prefilled once for all of its rollouts.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        prompts: [Q] texts.
        n: rollouts of every prompt.
        generator: source of the random numbers.
        max_new_tokens: longest completion.
        temperature: of the softmax.
        max_rows: rollouts that are sampled at the same time; at least those of one prompt.

    Returns: for each prompt a list of rollouts, each a list of token ids that ends with eos unless it was cut off.
    """
    eos = tokenizer.eos_token_id
    completions: list[list[list[int]]] = []
    for chunk in batches(prompts, max(1, max_rows // n)):
        inputs = tokenizer(chunk, return_tensors="pt", padding=True)
        mask, cache = inputs["attention_mask"], DynamicCache(config=model.config)
        position = (mask.cumsum(1) - 1).clamp(min=0)
        logits = model(
            inputs["input_ids"], attention_mask=mask, position_ids=position, past_key_values=cache, logits_to_keep=1
        ).logits[:, -1]
        owner = torch.arange(len(chunk)).repeat_interleave(n)
        cache.batch_select_indices(owner)
        logits, mask, position = logits[owner], mask[owner], position[owner, -1:]
        tokens = torch.full((len(owner), max_new_tokens), eos)
        rows = torch.arange(len(owner))  # rollouts that have not ended
        for step in range(max_new_tokens):
            token = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)
            tokens[rows, step] = token[:, 0]
            alive = (token[:, 0] != eos).nonzero()[:, 0]
            if len(alive) == 0 or step + 1 == max_new_tokens:
                break
            rows, token, mask, position = rows[alive], token[alive], mask[alive], position[alive] + 1
            cache.batch_select_indices(alive)
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1)
            logits = model(token, attention_mask=mask, position_ids=position, past_key_values=cache).logits[:, -1]
        ended = [row[: row.index(eos) + 1] if eos in row else row for row in tokens.tolist()]
        completions += batches(ended, n)
    return completions


@torch.inference_mode()
def success_probabilities(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, problems: Sequence[tuple[str, str]], chunk: int = 256
) -> list[float]:
    """The exact probability that each problem is solved: that of its only right completion, eos included.

    Args:
        model: the policy, at temperature 1.
        tokenizer: its tokenizer.
        problems: pairs of prompt and solution.
        chunk: problems that are computed at the same time.
    """
    found = []
    for part in batches(problems, chunk):
        inputs = _answer_batch(part, tokenizer)
        labels = inputs.pop("labels")[:, 1:]
        logp = model(**inputs).logits[:, :-1].log_softmax(-1)
        own = logp.gather(2, labels.clamp(min=0)[..., None])[..., 0]
        found += (own * (labels >= 0)).sum(1).exp().tolist()
    return found
