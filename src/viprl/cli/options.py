"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from viprl.errors import InputError
from viprl.settings import Settings, options

Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="key=value, replaces a key of the file. May be repeated. The value is YAML; a dot reaches into a mapping.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check the configuration and the data, load no weights, and stop.")
]
DATA, PROMPTS = "Data", "Prompts"
"""Groups of options in the help."""

Split = Annotated[
    str | None, typer.Option(help="Split of a Hub data set or of a saved data set.", rich_help_panel=DATA)
]
Subset = Annotated[str | None, typer.Option(help="Configuration name of a Hub data set.", rich_help_panel=DATA)]
PromptColumn = Annotated[
    str | None, typer.Option(help="Column of the prompt; a dot reaches into a struct.", rich_help_panel=DATA)
]
SolutionColumn = Annotated[
    str | None, typer.Option(help="Column of the answer; a dot reaches into a struct.", rich_help_panel=DATA)
]
SkipBadRows = Annotated[
    bool,
    typer.Option("--skip-bad-rows", help="Leave out bad rows of the data set and list them.", rich_help_panel=DATA),
]
Chat = Annotated[
    bool | None,
    typer.Option(
        help="Use the chat template of the model, or plain text. Default: as in the data.", rich_help_panel=PROMPTS
    ),
]
Instruction = Annotated[
    str | None,
    typer.Option(
        help="Added to the prompt: boxed, answer_line, answer_tags, none, or a text.", rich_help_panel=PROMPTS
    ),
]
Duplicates = Annotated[
    str | None, typer.Option(help="keep or drop rows whose prompt occurred before.", rich_help_panel=DATA)
]
ChatTemplateKwargs = Annotated[
    str | None,
    typer.Option(
        help="Options of the chat template (TRL's chat_template_kwargs), a mapping in JSON or YAML, such as "
        "'{enable_thinking: false}'.",
        rich_help_panel=PROMPTS,
    ),
]
JsonFile = Annotated[Path | None, typer.Option(help="Write all numbers to this JSON file.", rich_help_panel="Output")]

_HELP = {option.name: option.metadata["help"] for option in options(Settings)}


def help_of(name: str) -> str:
    """The help text of an option of VIP, without its default: commands have defaults of their own."""
    return _HELP[name].partition(" Default: ")[0]


def template_options(text: str | None) -> dict[str, Any]:
    """The mapping that is given as --chat-template-kwargs. Raises InputError if it is something else."""
    import yaml

    from viprl.utils.safe_yaml import parse_yaml

    try:
        found = parse_yaml(text or "{}")
    except yaml.YAMLError as error:
        raise InputError(f"--chat-template-kwargs is {text!r}, which is neither JSON nor YAML") from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise InputError(f"--chat-template-kwargs is {text!r}; expected a mapping such as '{{enable_thinking: false}}'")
    return found


def names(text: str) -> list[str]:
    """Names separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]
