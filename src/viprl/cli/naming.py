"""The file of a configuration in the errors that concern it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from viprl.errors import ConfigError


@contextmanager
def naming(config: Path) -> Iterator[None]:
    """Add the name of the file to an error in it that does not name it yet."""
    try:
        yield
    except ConfigError as error:
        if str(config) in str(error):
            raise
        raise ConfigError(f"{config}: {error}") from error
