"""`viprl init`: a small configuration that works, with what the user's data and model suggest, and comments."""

from __future__ import annotations

import importlib.util
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from viprl.data import NAMED, DataSource
from viprl.data.gym import is_gym
from viprl.data.lengths import check_template, context_of, load_model_config, load_tokenizer, token_lengths
from viprl.data.loading import load
from viprl.data.tables import SUFFIXES
from viprl.errors import FileError, InputError
from viprl.settings import EngineSettings, options
from viprl.train.lora import EXAMPLE
from viprl.utils.files import make_folder, write_text
from viprl.utils.words import count

MOST_PROMPTS, ROLLOUTS, LONGEST_COMPLETION = 16, 8, 512
"""Prompts of a step, rollouts of a prompt, tokens of a completion: as much as the data and the model allow."""
LEFT_OUT = ("estimator", "seed")
"""Options of VIP that a beginner does not set."""
SAMPLE = 1_000
"""Rows from which the reward is chosen."""


@dataclass(frozen=True)
class Suggestion:
    """What suits the data and the model."""

    prompts: int = MOST_PROMPTS
    reward: str = "exact_match"
    instruction: str | None = None
    chat: bool | None = None
    max_completion_length: int = LONGEST_COMPLETION
    notes: list[str] = field(default_factory=list)


def write_starter(file: Path, source: DataSource, model: str, output_dir: str, reward: str | None = None) -> list[str]:
    """Write a configuration of `viprl train`; returns notes on what was chosen.

    Args:
        file: where to write it.
        source: the data. Local files and folders are read, to choose the size of a batch and the reward.
        model: folder or Hub name; a local folder is read, to choose the length of completions.
        output_dir: the run folder.
        reward: a built-in reward or "module:function". Default: what suits the answers.

    Raises FileError if the file exists, and what `viprl.data.load` raises for the data.
    """
    if file.exists():
        raise FileError(f"{file} exists; give another name, or delete it")
    found = suggest(source, model, reward)
    make_folder(file.parent)
    write_text(file, configuration(source, model, output_dir, found, str(file)))
    return found.notes


def suggest(source: DataSource, model: str, reward: str | None = None) -> Suggestion:
    """What suits the data and the model; arguments and errors as for `write_starter`."""
    if is_gym(source.name):
        return Suggestion(reward=reward or "viprl.data.gym:solved", instruction="answer_tags")
    if source.name in NAMED:
        usual = "math_last_number" if source.name == "gsm8k" else "math"
        return Suggestion(reward=reward or usual, instruction="boxed" if usual == "math" else None)
    if not Path(source.name).expanduser().exists():
        if source.name.endswith(SUFFIXES) or not re.fullmatch(r"\w[\w.-]*/[\w.-]+", source.name):
            load(source)  # raises: it is neither a file nor a name on the Hub
        return Suggestion(reward=reward or "exact_match", notes=[f"{source.name} was not read; check the reward"])
    loaded = load(source)
    chosen, instruction = _reward(loaded.dataset[:SAMPLE]["solution"])
    instruction = instruction if reward in (None, chosen) else None
    asked = loaded if instruction is None else load(replace(source, instruction=instruction))
    notes = [f"{count(len(loaded.dataset), 'row')}, reward: {reward or chosen}", *loaded.notes]
    prompts = 1
    while prompts * 2 <= min(MOST_PROMPTS, len(loaded.dataset)):
        prompts *= 2
    chat, room = _fit(list(asked.dataset["prompt"]), model, notes)
    completion = LONGEST_COMPLETION if room is None else max(1, min(LONGEST_COMPLETION, room))
    return Suggestion(prompts, reward or chosen, instruction, chat, completion, notes)


def configuration(source: DataSource, model: str, output_dir: str, found: Suggestion, file: str) -> str:
    """The text of the file."""
    columns = {
        name: getattr(source, name)
        for name in ("split", "subset", "prompt_column", "solution_column", "answer_after", "skip_bad_rows")
        if getattr(source, name)
    }
    forms = {"instruction": found.instruction, "chat": found.chat}
    lines = [
        f"# Check this configuration: viprl train --config {file} --dry-run",
        f"# Train, or resume:         viprl train --config {file}",
        "# All keys: docs/train.md.",
        "",
        *_key("model", model, "folder or Hub name of a causal language model"),
        *_key("dataset", source.name, "a named set such as gsm8k, a file, a folder, a Hub name, or reasoning-gym:TASK"),
        *(line for name, value in columns.items() for line in _key(name, value)),
        *(line for name, value in forms.items() if value is not None for line in _key(name, value)),
        *_key("reward", found.reward, "exact_match, math, math_last_number, your own module:function, or a list"),
        *_key("output_dir", output_dir, "the run folder"),
        "",
        "# --- batch",
        *_key("num_generations", ROLLOUTS, "rollouts of a prompt on average; VIP decides how many each one gets"),
        *_key(
            "per_device_train_batch_size", ROLLOUTS * found.prompts,
            f"rollouts of a step on each process: {found.prompts} prompts; counts differ between the prompts of a step",
        ),
        *_key("max_completion_length", found.max_completion_length, "tokens"),
        "",
        "# --- optimization",
        *_key("algorithm", "rloo", "or grpo"),
        *_key("max_steps", 100),
        *_key("learning_rate", "1e-6"),
        *_key("save_steps", 25, "steps between checkpoints; the same command resumes from the newest one"),
        "",
        "# --- examples of further keys",
        "# use_cpu: true                         # trains without a GPU, for small models",
        "# use_vllm: true                        # samples faster; needs vLLM",
        f"# {EXAMPLE}    # trains a LoRA adapter; needs peft",
        "# report_to: wandb                      # or tensorboard, trackio, ...",
        "",
        "# --- allocation of rollouts: the options of VIP with their defaults",
    ]  # fmt: skip
    for option in options(EngineSettings, without=LEFT_OUT):
        lines += textwrap.wrap(option.metadata["help"], 110, initial_indent="# ", subsequent_indent="# ")
        lines.append(f"# vip_{option.name}: {_yaml(option.default)}")
    return "\n".join(lines) + "\n"


def _reward(solutions: Sequence[str]) -> tuple[str, str | None]:
    """The built-in reward for answers, and the instruction that asks for what it reads."""
    if importlib.util.find_spec("math_verify") is None:
        return "exact_match", None
    numbers = sum(bool(re.fullmatch(r"[-+]?[\d,]*\.?\d+", str(answer).strip())) for answer in solutions)
    if numbers > len(solutions) / 2:
        return "math_last_number", None
    formulas = sum(bool(re.search(r"\\|\d", str(answer))) for answer in solutions)
    return ("math", "boxed") if formulas > len(solutions) / 2 else ("exact_match", None)


def _fit(prompts: Sequence[Any], model: str, notes: list[str]) -> tuple[bool | None, int | None]:
    """Whether prompts should become chats, and the tokens that are left for a completion; None if unknown."""
    texts = all(isinstance(prompt, str) for prompt in prompts)
    try:
        tokenizer, context = load_tokenizer(model), context_of(load_model_config(model))
    except InputError as error:
        notes.append(f"the model was not read: {error}")
        return None, None
    chat = True if texts and getattr(tokenizer, "chat_template", None) else None
    check_template(prompts, tokenizer, model)
    shown = [[{"role": "user", "content": prompt}] for prompt in prompts] if chat else prompts
    return chat, None if context is None else context - int(token_lengths(shown, tokenizer).max())


def _key(name: str, value: Any, comment: str = "") -> list[str]:
    line = f"{name}: {value if name == 'learning_rate' else _yaml(value)}"
    return [f"{line:<39} # {comment}" if comment else line]


def _yaml(value: Any) -> str:
    """A value as one line of YAML."""
    return yaml.safe_dump(value, width=10**6, default_flow_style=True, allow_unicode=True).removesuffix("...\n").strip()
