"""The command line, one file a command: `viprl quickstart`, `init`, `train`, `sweep`, `data`, `evaluate`, `variance`,
`doctor`, `watch`, `replay` and `report`.

Each file imports what its command needs inside the command, so that `viprl --help` does not wait for torch.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from viprl import __version__
from viprl.cli.data import data
from viprl.cli.doctor import doctor
from viprl.cli.evaluate import evaluate
from viprl.cli.examples import end_of
from viprl.cli.init import init
from viprl.cli.interrupt import CODE, goes_on, messages
from viprl.cli.quickstart import quickstart
from viprl.cli.replay import replay
from viprl.cli.report import report
from viprl.cli.sweep import sweep
from viprl.cli.train import train
from viprl.cli.variance import variance
from viprl.cli.watch import watch
from viprl.errors import ViprlError
from viprl.utils.words import visible


class _Commands(TyperGroup):
    def invoke(self, context: Any) -> Any:
        """Run a command. Typer would end it at Ctrl-C without a word."""
        with goes_on():
            return super().invoke(context)


app = typer.Typer(
    cls=_Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich"
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"viprl {__version__}")
        raise typer.Exit


@app.callback(epilog="Documentation: README.md and the folder docs. Begin with `viprl quickstart` or `viprl init`.")
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Adaptive rollout allocation for reinforcement learning with verifiable rewards."""


for command in (quickstart, init, train, sweep, evaluate, variance, doctor, watch, replay, report):
    app.command(epilog=end_of(command.__name__))(command)
for registered in data.registered_commands:
    registered.epilog = end_of(f"data {registered.callback.__name__}")  # type: ignore[union-attr]
app.add_typer(data, name="data")


def main() -> None:
    """Entry point. An error that the user can fix (`viprl.errors`) is printed as one line, with exit code 2. Any other
    exception, for example one raised by a reward function, keeps its traceback."""
    try:
        app()
    except ViprlError as error:
        messages.print("[red]error:[/red]", end=" ")
        messages.print(visible(str(error)), markup=False, highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:  # before or after the command itself
        sys.exit(CODE)
