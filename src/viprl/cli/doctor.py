"""`viprl doctor`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from viprl.cli.options import JsonFile

if TYPE_CHECKING:
    from viprl.report.diagnosis import Diagnosis


def doctor(
    run: Annotated[
        Path,
        typer.Argument(
            help="Run folder, output folder of TRL, log_path of tinker-cookbook, or the file of verl's logger `file`."
        ),
    ],
    strategy: Annotated[str | None, typer.Option(help="Only this strategy of the run. Default: all.")] = None,
    json: JsonFile = None,
) -> None:
    """Say what stands out in a run, and what to do about it. Exit code 1 if there is a problem."""
    from viprl.errors import InputError
    from viprl.report.diagnosis import PROBLEM, diagnose
    from viprl.runs.reader import load_run
    from viprl.utils.files import write_text
    from viprl.utils.words import count, visible

    found = load_run(run)
    if strategy is not None and strategy not in found.strategies:
        raise InputError(f"--strategy is {strategy!r}; the run has {', '.join(found.strategies) or 'none'}")
    named = {name: diagnose(found, name) for name in (found.strategies if strategy is None else (strategy,))}
    for name, findings in named.items():
        typer.echo(visible(name, keep=""))
        for one in findings:
            typer.echo(f"  {one.level:8} {one.name}: {one.sentence}")
            if one.remedy:
                typer.echo(f"           -> {one.remedy}")
    for note in found.notes:
        typer.echo(f"log: {visible(note, keep='')}")
    problems = sum(one.level == PROBLEM for findings in named.values() for one in findings)
    if json is not None:
        write_text(json, _as_json(problems, named, found.notes))
    typer.echo(f"{count(problems, 'problem')}")
    raise typer.Exit(1 if problems else 0)


def _as_json(problems: int, named: Mapping[str, Sequence[Diagnosis]], notes: Sequence[str]) -> str:
    import json
    from dataclasses import asdict

    def plain(one: Diagnosis) -> dict[str, Any]:
        return asdict(one) | {"value": one.value if one.value == one.value else None}  # JSON has no NaN

    findings = {name: [plain(one) for one in of_strategy] for name, of_strategy in named.items()}
    content = {"problems": problems, "findings": findings, "notes": list(notes)}
    return json.dumps(content, indent=1, allow_nan=False) + "\n"
