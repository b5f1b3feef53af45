"""LoRA from a configuration: `peft: {r: 16, target_modules: all-linear}` becomes a `peft.LoraConfig`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from importlib.util import find_spec
from typing import Any

from viprl.errors import ConfigError, MissingPackageError
from viprl.train.option_values import typed
from viprl.utils.words import did_you_mean, first_line

EXAMPLE = "peft: {r: 16, lora_alpha: 32, target_modules: all-linear}"


def lora_config(options: Any) -> Any:
    """The `peft.LoraConfig` of a mapping; `task_type` is CAUSAL_LM unless it is given.

    Raises ConfigError for keys that LoraConfig does not have and for values that it refuses, MissingPackageError if
    peft is not installed.
    """
    if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
        raise ConfigError(f"peft is {options!r}; expected the options of peft.LoraConfig, such as {EXAMPLE}")
    if find_spec("peft") is None:
        raise MissingPackageError("the key `peft` needs the package peft, which is not installed: pip install peft")
    from peft import LoraConfig

    known = {f.name: f for f in fields(LoraConfig) if f.init}
    for key in options:
        if key not in known:
            short = key.removeprefix("lora_")
            hint = f"did you mean {short}?" if short in known else did_you_mean(key, known)
            raise ConfigError(f"peft: unknown key `{key}`; {hint or f'expected options of peft.LoraConfig: {EXAMPLE}'}")
    if str(options.get("peft_type", "LORA")).upper() != "LORA":
        raise ConfigError(
            f"peft: peft_type is {options['peft_type']!r}; `viprl train` takes LORA alone, remove the key"
        )
    try:
        values = {key: typed(LoraConfig, known[key], value) for key, value in options.items()}
        if values.get("r", 8) < 1:
            raise ConfigError(f"r is {values['r']}; expected at least 1")
        return LoraConfig(**{"task_type": "CAUSAL_LM", **values})
    except (ValueError, TypeError) as error:
        raise ConfigError(f"peft: {error}") from error


def check_lora(lora: Any, model_config: Any, model: str, *, trust_remote_code: bool = False) -> None:
    """Raise ConfigError if LoRA cannot be applied to a model. Builds the model without its weights."""
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    modules: dict[str, Any] = {}
    reason = ""
    try:
        with torch.device("meta"):
            network = AutoModelForCausalLM.from_config(model_config, trust_remote_code=trust_remote_code)
            modules = dict(network.named_modules())
            get_peft_model(network, replace(lora, init_lora_weights=True))  # other ways to begin need the weights
    except Exception as error:  # peft and transformers raise many kinds
        reason = first_line(error)
    wanted = [] if lora.target_modules is None or isinstance(lora.target_modules, str) else sorted(lora.target_modules)
    if absent := [want for want in wanted if not any(f".{name}".endswith(f".{want}") for name in modules)]:
        reason = f"no module is called {', '.join(absent)}"  # peft leaves a name out if another one is found
    if reason:
        linear = {name.rpartition(".")[2] for name, module in modules.items() if isinstance(module, torch.nn.Linear)}
        raise ConfigError(
            f"peft: LoRA cannot be applied to {model}: {reason}. Its linear layers are {', '.join(sorted(linear))}; "
            "target_modules: all-linear stands for all of them but the last"
        )
