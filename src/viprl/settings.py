"""Every option of VIP, declared once: name, type, default and help.

`VIP`, the configs of the TRL trainers, verl's options, tinker's builder and the command line derive from it, so that an
option has the same name, default and help everywhere. To add one: a field here, and its use in `viprl.vip` (or, for an
option that only engines have, in `viprl.engines`).
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
import math
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field, dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from viprl.advantages import check_prompt_weighting
from viprl.errors import InputError, InputTypeError
from viprl.features.encoders import FeatureChoice
from viprl.outcomes import Success
from viprl.prompts import Prompt
from viprl.utils.sequences import check_choice, listed, positive_number, scalar, short, whole_number
from viprl.utils.words import did_you_mean

if TYPE_CHECKING:
    from viprl.strategies import Strategy

logger = logging.getLogger(__name__)

Documented = TypeVar("Documented", bound=Callable[..., Any])


def _option(default: Any, kind: Any, help: str) -> Any:
    """A field; `kind` is its type in configuration files, None if it can only be given in Python."""
    return field(default=default, metadata={"kind": kind, "help": help})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of `viprl.VIP`."""

    estimator: str = _option(
        "auto",
        str,
        "Gradient estimator: 'rloo', 'dr_grpo' or 'grpo'. It decides the variance model and the smallest legal "
        "group, 2 for rloo and 3 otherwise. 'auto': what the engine's configuration implies, otherwise 'rloo'.",
    )
    min_rollouts: int | None = _option(
        None, int | None, "Fewest rollouts of a prompt. Default: the smallest legal group of the estimator."
    )
    max_rollouts: int | float | None = _option(
        None,
        int | None,
        "Most rollouts of a prompt; infinity for no limit. Default: six times the average group of the batch.",
    )
    strategy: str | Strategy = _option(
        "default", str, "What allocates: 'default', 'paper', 'uniform' or another name in viprl.STRATEGIES."
    )
    shadow: str | Strategy | Sequence[str | Strategy] | None = _option(
        None,
        list[str] | None,
        "Further strategies that see the same outcomes and log what they would have achieved, without acting.",
    )
    features: FeatureChoice = _option(
        "auto",
        str,
        "What strategies read of a prompt: 'minilm', 'length', 'minilm+length', 'none' or the folder of a "
        "sentence-transformers model. 'auto': what each strategy asks for, with 'length' in place of MiniLM if "
        "sentence-transformers is not installed.",
    )
    cache: str | Path | None = _option(
        "auto",
        str | None,
        "Folder of the feature cache; none keeps features in memory only. 'auto': $VIPRL_CACHE if set, otherwise "
        "~/.cache/viprl/features.",
    )
    success: Success = _option(
        None,
        str | None,
        "What counts as success in metrics; it changes no count. Default: a reward of 1, if rewards are 0/1 or -1/+1. "
        "A number is a threshold on the total reward, 'NAME' or 'NAME>=0.5' (also >, <=, <, ==) a single reward, "
        "'module:function' a function of the total reward.",
    )
    spend: str = _option(
        "budget",
        str,
        "'budget': spend all of it, for the smallest variance. 'match': spend the least with which the gradient has "
        "the variance that uniform counts have at the whole budget. Prompts that the predictor has never seen get "
        "their share of the budget.",
    )
    variance_target: float = _option(
        1.0, float, "With spend='match': the variance to reach, relative to that of uniform counts."
    )
    cost: str = _option(
        "rollouts",
        str,
        "What is saved or limited: 'rollouts' or 'tokens'. With 'tokens' VIP predicts the length of each prompt's "
        "rollouts, and a step spends at most as many tokens, and rollouts, as uniform counts would.",
    )
    baseline: str = _option(
        "group",
        str,
        "What the advantage of a rollout is relative to: 'group', the mean of the other rollouts of its prompt; "
        "'expected', that mean shrunk towards the reward that VIP expects of the prompt, which lowers the variance of "
        "small groups. Both are unbiased. 'expected' needs the estimator 'rloo'.",
    )
    score_signal: float = _option(
        1.0,
        float,
        "With two waves: the squared distance between the mean scores of a prompt's successes and failures, over the "
        "variance of a score. The more, the larger first waves must be. 1 is cautious; 0.3 suits long free text "
        "(docs/waves.md).",
    )
    on_bad_prediction: str = _option(
        "uniform",
        str,
        "What to do with a batch for which a predictor returns NaN or impossible numbers, or its arithmetic fails. "
        "'uniform': warn, and sample it as without predictions. 'stop': raise a PredictionError; nothing changes, and "
        "the state can be saved. Shadows never stop a run (docs/faults.md).",
    )
    text: Callable[[Prompt], str] | None = _option(
        None, None, "The text of a prompt that is embedded. Default: a text itself, the user's turns of a chat."
    )
    seed: int = _option(0, int, "Seed of the generator that breaks ties.")

    def __post_init__(self) -> None:
        """For subclasses."""

    def shadows(self) -> tuple[str | Strategy, ...]:
        """The shadow strategies."""
        if self.shadow is None:
            return ()
        several = isinstance(self.shadow, Iterable) and not isinstance(self.shadow, str)
        return tuple(listed("shadow strategies", self.shadow, "of strategies")) if several else (self.shadow,)  # type: ignore[return-value]

    def learned(self, estimator: str) -> dict[str, str]:
        """The options that decide what VIP learns, as text, for its state. `estimator` is what 'auto' stands for."""
        words = {name: in_words(getattr(self, name)) for name in ("success", "text", "spend", "cost")}
        return {"estimator": estimator, **words}

    def check_types(self) -> None:
        """Raise InputTypeError for options of VIP of another type. Values are checked where they are used."""
        expected: dict[str, tuple[Any, str]] = {
            "estimator": (str, "a text"),
            "min_rollouts": (Real | None, "a whole number"),
            "max_rollouts": (Real | None, "a whole number, or infinity for no limit"),
            "cache": (str | Path | None, "a folder or None"),
            "variance_target": (Real, "a positive number"),
            "score_signal": (Real, "a number from 0 to 100"),
            "text": (Callable | None, "a function from a prompt to a text"),
            "seed": (Integral, "a whole number of at least 0"),
        }
        for name, (kind, words) in expected.items():
            value = getattr(self, name)
            if not isinstance(value, kind) or isinstance(value, bool) or (name == "seed" and value < 0):
                raise InputTypeError(f"{name} is {short(value)}; expected {words}")

    def check_choices(self) -> None:
        """Raise InputError for options with other values than those that exist."""
        choices = {
            "spend": ("budget", "match"),
            "cost": ("rollouts", "tokens"),
            "baseline": ("group", "expected"),
            "on_bad_prediction": ("uniform", "stop"),
        }
        for name, values in choices.items():
            check_choice(name, getattr(self, name), values)
        target = positive_number("variance_target", self.variance_target)
        if not 0 <= self.score_signal <= 100:
            raise InputError(f"score_signal is {self.score_signal:g}; expected a number from 0 to 100")
        if target > 100:
            raise InputError(f"variance_target is {target:g}; expected a ratio of variances, at most 100")
        if target != 1.0 and self.spend != "match":
            raise InputError(f"variance_target is {target:g}, but spend is {self.spend!r}; set spend='match'")

    @property
    def aims_at(self) -> float | None:
        """The variance to reach, relative to uniform counts; None if the budget is spent for the smallest."""
        return self.variance_target if self.spend == "match" else None

    @property
    def spends_all(self) -> bool:
        """Whether every batch spends its whole budget of rollouts."""
        return self.spend == "budget" and self.cost == "rollouts"

    def __repr__(self) -> str:
        values = {f.name: (in_words(getattr(self, f.name)), in_words(f.default)) for f in dataclasses.fields(self)}
        changed = (f"{name}={now}" for name, (now, default) in values.items() if now != default)
        return f"{type(self).__name__}({', '.join(changed)})"


@dataclass(frozen=True, kw_only=True, repr=False)
class EngineSettings(Settings):
    """The options of VIP inside a training engine."""

    prompt_weighting: str = _option(
        "prompt",
        str,
        "'prompt': every prompt has the same weight in the gradient. 'rollout': a prompt has the weight n_q/C, as "
        "in a mean over all rollouts.",
    )
    candidates: int = _option(
        1,
        int,
        "How many prompts are considered for each one that is sampled. With 2, a step takes twice as many prompts from "
        "the data, samples half of them, those with large gradients more often, and weights them so that the expected "
        "gradient is that of all. The rollouts of a step stay the same; an epoch has fewer steps.",
    )
    unbiased: bool = _option(
        True,
        bool,
        "Weight selected prompts by the inverse of the probability of their selection. False: prompts that are "
        "selected often count more in the gradient, as in most published methods.",
    )
    waves: int = _option(
        1,
        int,
        "How many calls of generation a step may make. With 2, prompts that may be hopeless or solved get a few "
        "rollouts first, and the second call places the rest of the budget by what these showed, without a bias. Where "
        "one call is better, a step makes one. 2 needs the estimator 'rloo'.",
    )
    id_column: str | None = _option(
        None,
        str | None,
        "Column of the data set that identifies a prompt; dots reach inside. Default: the content of the prompt.",
    )
    warm_start: str | None = _option(
        None, str | None, "Log of an earlier run to learn from before the first step: whatever `viprl replay` reads."
    )
    register_pool: bool = _option(False, bool, "Compute the features of the whole training set before the first step.")
    use_logprobs: bool = _option(
        True,
        bool,
        "Learn from the log probabilities of the rollouts, where the engine knows them, which prompts have large "
        "gradients.",
    )
    gradient_moments: bool = _option(
        False,
        bool,
        "Log the second moment of the batch gradient, and which part of it comes from the rollouts. With TRL only.",
    )

    def __post_init__(self) -> None:
        self.check_types()
        check_prompt_weighting(self.prompt_weighting)
        self.check_choices()
        whole_number("candidates", self.candidates, least=1)
        check_waves(self.waves)

    def for_vip(self) -> dict[str, Any]:
        """The options that `viprl.VIP` takes."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(Settings)}


def check_waves(waves: Any) -> None:
    """Raise InputError for anything but 1 and 2."""
    if not isinstance(waves, Real) or isinstance(waves, bool) or waves not in (1, 2):
        raise InputError(f"waves is {short(waves)}; expected 1 or 2")


def in_words(value: Any) -> str:
    """An option as text, the same in every process: functions by their name."""
    value = scalar(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(in_words, value))}]"
    if value is None or isinstance(value, str | Real | Path):
        return repr(str(value)) if isinstance(value, Path) else repr(value)
    if name := getattr(value, "__qualname__", ""):
        return f"{getattr(value, '__module__', '')}:{name}"
    text = short(value)
    return type(value).__name__ if " at 0x" in text or len(text) > 60 else text  # an address says nothing


def warn_of_other_options(saved: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Warn if a state was saved with other options than it is loaded with."""
    other = [name for name in now if saved.get(name, now[name]) != now[name]]
    if other:
        logger.warning(
            "the state was saved with %s, but this VIP has %s; the history in it is kept",
            ", ".join(f"{name}={saved[name]}" for name in other),
            ", ".join(f"{name}={now[name]}" for name in other),
        )


def check_option_names(given: Iterable[str], cls: type = Settings) -> None:
    """Raise InputTypeError for names that are not options of `cls`."""
    known = [f.name for f in dataclasses.fields(cls)]
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known) or f"expected {', '.join(known)}"
            raise InputTypeError(f"VIP has no option {name!r}; {hint}")


def options(cls: type = EngineSettings, *, without: Mapping[str, str] | Sequence[str] = ()) -> list[Field]:
    """The fields of `cls` that configuration files can hold, but for the names in `without`."""
    return [f for f in dataclasses.fields(cls) if f.metadata["kind"] is not None and f.name not in without]


def parameter_list(fields: Sequence[Field], prefix: str = "") -> str:
    """The options as the parameter list of a docstring."""
    entries = []
    for f in fields:
        help_text = textwrap.fill(f.metadata["help"], 108, initial_indent=" " * 4, subsequent_indent=" " * 4)
        kind = getattr(f.metadata["kind"], "__name__", str(f.metadata["kind"]))
        entries.append(f"{prefix}{f.name} (`{kind}`, *optional*, defaults to `{f.default!r}`):\n{help_text}")
    return "\n".join(entries)


def documented(fields: Sequence[Field], prefix: str = "") -> Callable[[Documented], Documented]:
    """A decorator that puts the parameter list of `fields` in place of the line {options} in a docstring."""

    def decorate(target: Documented) -> Documented:
        doc, listed = inspect.cleandoc(target.__doc__ or ""), parameter_list(fields, prefix)
        target.__doc__ = re.sub(r"(?m)^( *)\{options\}$", lambda line: textwrap.indent(listed, line[1]), doc)
        return target

    return decorate


def read_settings(
    given: Mapping[str, Any], *, where: str, refused: Mapping[str, str] | None = None, prefix: str = ""
) -> EngineSettings:
    """Settings from options that were given by name.

    Args:
        given: option -> value.
        where: what holds the options, for errors: "trainer.v1.vip_sync".
        refused: option -> why this engine does not have it.
        prefix: of the names, for errors.

    Raises InputError for names that do not exist or that the engine does not have, and for values of other types.
    """
    refused = refused or {}
    known = {f.name: f for f in dataclasses.fields(EngineSettings)}
    for name, value in given.items():
        if name in refused:
            raise InputError(f"{where} does not take {prefix}{name}: {refused[name]}")
        if name not in known:
            allowed = [n for n in known if n not in refused]
            hint = did_you_mean(str(name), allowed) or f"expected one of {', '.join(allowed)}"
            raise InputError(f"{where} has no option {name!r}; {hint}")
        if not _fits(value, known[name]):
            raise InputError(f"{where}: {prefix}{name} is {value!r}; expected {_words(known[name])}")
    return EngineSettings(**given)


def _fits(value: Any, option: Field) -> bool:
    if option.metadata["kind"] in (int, int | None):
        limitless = option.name == "max_rollouts" and isinstance(value, float) and value == math.inf
        return type(value) is int or limitless or (value is None and option.default is None)
    if option.metadata["kind"] is bool:
        return type(value) is bool
    return True  # checked where it is used


def _words(option: Field) -> str:
    return "true or false" if option.metadata["kind"] is bool else "a whole number"
