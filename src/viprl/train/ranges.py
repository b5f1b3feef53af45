"""Values of the trainer's options that it takes without a word, or answers with an exception from its depths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from viprl.errors import ConfigError
from viprl.utils.json_lines import parse_json

_COUNTS = (
    "num_generations", "num_generations_eval", "per_device_train_batch_size", "per_device_eval_batch_size",
    "gradient_accumulation_steps", "generation_batch_size", "steps_per_generation", "num_iterations",
    "max_completion_length", "vllm_tensor_parallel_size", "vllm_max_model_length", "save_total_limit",
)  # fmt: skip
_POSITIVE = ("temperature", "num_train_epochs", "save_steps", "eval_steps", "logging_steps", "repetition_penalty")
_NOT_NEGATIVE = ("learning_rate", "beta", "weight_decay", "max_grad_norm", "top_k", "epsilon", "warmup_steps")
_FRACTIONS = ("top_p", "vllm_gpu_memory_utilization")
LARGEST_SEED = 2**32 - 1


def check_ranges(options: Mapping[str, Any]) -> None:
    """Raise ConfigError for values out of range; `options` are the given options of the trainer."""
    for names, fits, expected in (
        (_COUNTS, lambda value: value >= 1, "at least 1"),
        (_POSITIVE, lambda value: value > 0, "more than 0"),
        (_NOT_NEGATIVE, lambda value: value >= 0, "at least 0"),
        (_FRACTIONS, lambda value: 0 < value <= 1, "more than 0 and at most 1"),
        (("max_steps",), lambda value: value >= 1 or value == -1, "at least 1, or -1 if num_train_epochs decides"),
        (("seed", "data_seed"), lambda value: 0 <= value <= LARGEST_SEED, f"0 to {LARGEST_SEED}"),
    ):
        for name in names:
            value = options.get(name)
            if value is not None and not fits(value):
                raise ConfigError(f"{name} is {value!r}; expected {expected}")
    low, high = options.get("vip_min_rollouts"), options.get("vip_max_rollouts")
    if low is not None and high is not None and low > high:
        raise ConfigError(f"vip_min_rollouts is {low} and vip_max_rollouts is {high}; expected at most as much")
    for name, value in options.items():
        if name.endswith("_kwargs") and isinstance(value, str) and not _is_mapping(value):
            raise ConfigError(f"{name} is {value!r}; expected a mapping such as {name}: {{key: value}}")
    _check_dtype(options.get("model_init_kwargs"))


def _is_mapping(text: str) -> bool:
    try:
        return isinstance(parse_json(text), dict)
    except ValueError:
        return False


def _check_dtype(model_options: Any) -> None:
    """Raise ConfigError for a type of the weights that torch does not have."""
    import torch

    for name in ("dtype", "torch_dtype"):
        given = model_options.get(name) if isinstance(model_options, Mapping) else None
        if isinstance(given, str) and given != "auto" and not isinstance(getattr(torch, given, None), torch.dtype):
            raise ConfigError(f"model_init_kwargs: {name} is {given!r}; expected auto, float32, bfloat16 or float16")
