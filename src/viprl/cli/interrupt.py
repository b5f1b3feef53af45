"""What a command says when it is interrupted with Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

CODE = 130
"""Exit code: 128 + SIGINT."""
AGAIN = "nothing was saved; run the same command again"

messages = Console(stderr=True, soft_wrap=True)


@contextmanager
def goes_on(advice: Callable[[], str] = lambda: AGAIN) -> Iterator[None]:
    """Turn Ctrl-C into one line and exit code 130; `advice` says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        messages.print(f"interrupted: {advice()}", markup=False, highlight=False)
        raise typer.Exit(CODE) from None
