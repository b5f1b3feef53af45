"""Keys that users know from elsewhere, and what a configuration of `viprl train` has in their place."""

from __future__ import annotations

from collections.abc import Collection

from viprl.train.lora import EXAMPLE
from viprl.utils.words import did_you_mean

_OWN_NAMES = {
    "model": ("model_name_or_path", "model_name", "model_path"),
    "dataset": ("dataset_name", "datasets", "data", "train_dataset", "train_file"),
    "subset": ("dataset_config",),
    "split": ("dataset_train_split",),
    "eval_split": ("dataset_test_split",),
    "prompt_column": ("dataset_prompt_column",),
    "system": ("system_prompt",),
    "tokenizer": ("tokenizer_name",),
    "reward": ("reward_funcs", "reward_functions", "reward_function", "rewards"),
    "output_dir": ("output", "out"),
    "max_completion_length": ("max_new_tokens", "max_tokens", "max_length"),
    "num_generations": ("group_size", "rollouts_per_prompt", "n"),
    "per_device_train_batch_size": ("batch_size", "train_batch_size"),
    "num_train_epochs": ("epochs",),
    "max_steps": ("steps",),
    "learning_rate": ("lr",),
    "optim": ("optimizer",),
    "use_vllm": ("vllm",),
}
"""Key -> other names of it."""
_LORA = {
    "lora_r": "r", "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout", "lora_task_type": "task_type",
    "lora_modules_to_save": "modules_to_save", "lora_target_modules": "target_modules",
    "lora_target_parameters": "target_parameters", "use_rslora": "use_rslora", "use_dora": "use_dora",
}  # fmt: skip
"""Options of TRL's scripts -> options of peft.LoraConfig."""
_MODEL = {
    "dtype": "dtype", "torch_dtype": "dtype", "attn_implementation": "attn_implementation",
    "model_revision": "revision", "revision": "revision", "device_map": "device_map",
}  # fmt: skip
"""Options of TRL's scripts -> arguments of from_pretrained."""

INSTEAD = {
    **{other: f"write `{key}: ...`" for key, others in _OWN_NAMES.items() for other in others},
    **{other: f"write `peft: {{{key}: ...}}`" for other, key in _LORA.items()},
    **{other: f"write `model_init_kwargs: {{{key}: ...}}`" for other, key in _MODEL.items()},
    **dict.fromkeys(("peft_config", "use_peft", "lora", "lora_config", "use_lora"), f"write `{EXAMPLE}`"),
    **dict.fromkeys(
        ("load_in_4bit", "load_in_8bit", "quantization_config", "bnb_4bit_quant_type", "use_bnb_nested_quant"),
        "quantized models need Python: viprl.engines.trl.VIPRLOOTrainer",
    ),
    "extends": "it works in a file, not with --set",
    "trainer": "write the options of the trainer as keys of their own",
    **dict.fromkeys(
        ("resume_from_checkpoint", "resume"), "the newest checkpoint in output_dir is found without it; remove the key"
    ),
}
"""Key -> what to write in its place."""


def advice(key: str, known: Collection[str], algorithm: str, others: Collection[str]) -> str:
    """What to write in place of a key that a configuration does not have.

    Args:
        key: the key.
        known: the keys of the configuration.
        algorithm: the other algorithm.
        others: its options.
    """
    if key in INSTEAD:
        return INSTEAD[key]
    if f"vip_{key}" in known:
        return f"did you mean vip_{key}?"
    if key in others:
        return f"it is an option of `algorithm: {algorithm}`"
    usual = "the keys are those of docs/train.md and all options of VIPRLOOConfig or VIPGRPOConfig"
    return did_you_mean(key, known) or usual
