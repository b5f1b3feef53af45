"""A model, a tokenizer, data and a reward so small that a step of verl takes a second or two."""

from __future__ import annotations

from pathlib import Path

LETTERS = "abcdefgh"
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'tool' %} <answer>{% endif %} {{ message['content'] }}"
    "{% endfor %}{% if add_generation_prompt %} <go>{% endif %}"
)
ANSWERS = ["a", "abcdefgh", "ab", "h", "abcd", "x", "bcdefgh", "c"]
"""Letters of which a response needs one, by prompt: from hopeless (x) to nearly certain."""


WORDS = ("<go>", "<call>", "<answer>", "<tools>", *LETTERS, *"0123456789")


def save_model(folder: Path, seed: int = 0) -> Path:
    import tiny

    tiny.model(seed, WORDS).save_pretrained(folder)
    tiny.tokenizer(WORDS, chat_template=TEMPLATE).save_pretrained(folder)
    return folder


def save_data(path: Path, prompts: int = 16, tools: bool = False) -> Path:
    import pandas

    rows = []
    for i in range(prompts):
        agent = {"agent_name": "tool_agent" if i % 2 else "single_turn_agent"} if tools else {}
        text = f"{'<tools> ' if tools and i % 2 else ''}{i // 10} {i % 10}"
        rows.append(
            {
                "data_source": "toy",
                "prompt": [{"role": "user", "content": text}],
                "ability": "letters",
                "reward_model": {"style": "rule", "ground_truth": ANSWERS[i % len(ANSWERS)]},
                "extra_info": {"index": i},
                **agent,
            }
        )
    pandas.DataFrame(rows).to_parquet(path)
    return path


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **_):
    """1 where the response holds one of the letters."""
    return float(any(letter in solution_str.split() for letter in ground_truth))
