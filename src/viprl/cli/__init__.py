"""The command line: `viprl quickstart | train | sweep | data | evaluate | replay | report`, one file a command.

Each file imports what its command needs inside the command, so that `viprl --help` does not wait for torch.
"""

from __future__ import annotations

import sys
from typing import Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from viprl.cli.data import data
from viprl.cli.evaluate import evaluate
from viprl.cli.quickstart import quickstart
from viprl.cli.replay import replay
from viprl.cli.report import report
from viprl.cli.sweep import sweep
from viprl.cli.train import train
from viprl.errors import ViprlError

RESUMABLE = ("quickstart", "train", "sweep")

messages = Console(stderr=True, soft_wrap=True)


class _Commands(TyperGroup):
    def invoke(self, context: Any) -> Any:
        """Run a command. Typer would end it at Ctrl-C without a word."""
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            resume = "; run the same command again to continue" if context.invoked_subcommand in RESUMABLE else ""
            messages.print(f"interrupted{resume}")
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Commands,
    help="Adaptive rollout allocation for reinforcement learning with verifiable rewards.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(quickstart)
app.command()(train)
app.command()(sweep)
app.add_typer(data, name="data")
app.command()(evaluate)
app.command()(replay)
app.command()(report)


def main() -> None:
    """Entry point. An error that the user can fix (`viprl.errors`) is printed as one line, with exit code 2. Any other
    exception, for example one raised by a reward function, keeps its traceback."""
    try:
        app()
    except ViprlError as error:
        messages.print("[red]error:[/red]", end=" ")
        messages.print(str(error), markup=False, highlight=False)
        sys.exit(2)
