"""The public interface, one line each: python tests/core/public_api.py > tests/core/public_api.txt

Names and parameters of `viprl`, commands and options of the command line, and names of metrics. `docs/versions.md` says
what may change when.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import typer

import viprl
from viprl import metrics
from viprl.cli import app


def public_api() -> list[str]:
    return [*_python(), *_commands(), *_metrics()]


def _python() -> Iterator[str]:
    for name in sorted(viprl.__all__):
        member = getattr(viprl, name)
        yield f"viprl.{name}{_parameters(member) if callable(member) else ''}"
        if inspect.isclass(member):
            for attribute in sorted(set(dir(member)) - set(dir(object))):
                if not attribute.startswith("_"):
                    value = inspect.getattr_static(member, attribute)
                    method = inspect.isroutine(value) or isinstance(value, classmethod | staticmethod)
                    yield f"viprl.{name}.{attribute}{_parameters(getattr(member, attribute)) if method else ''}"
    yield from (f"strategy {name}" for name in viprl.STRATEGIES)


def _parameters(member: object) -> str:
    """The parameters without annotations and types."""
    signature = inspect.signature(member)  # type: ignore[arg-type]
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    text = str(signature.replace(parameters=plain, return_annotation=inspect.Signature.empty))
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def _commands() -> Iterator[str]:
    yield from _options("viprl", typer.main.get_command(app))


def _options(path: str, command: object) -> Iterator[str]:
    for name, child in sorted(getattr(command, "commands", {}).items()):
        yield from _options(f"{path} {name}", child)
    if not hasattr(command, "commands"):
        names = sorted(name for parameter in command.params for name in parameter.opts)  # type: ignore[attr-defined]
        yield f"{path} {' '.join(names)}"


def _metrics() -> Iterator[str]:
    values = {value for name, value in vars(metrics).items() if name.isupper() and isinstance(value, str)}
    yield from (f"metric {value}" for value in sorted(values))


if __name__ == "__main__":
    print("\n".join(public_api()))
