"""Prompts with their answers, from named sets, files, folders, the Hugging Face Hub and reasoning-gym.

`load(DataSource(name, ...))` reads, checks and formats them.
"""

from viprl.errors import MissingPackageError

try:
    import datasets as _datasets  # noqa: F401
    import pyarrow as _pyarrow  # noqa: F401
except ImportError as error:
    raise MissingPackageError(f'viprl.data needs datasets and pyarrow: pip install "viprl[trl]" ({error})') from error

from viprl.data.loading import DataSource, Findings, Loaded, load
from viprl.data.named import NAMED, NamedSet

__all__ = ["NAMED", "DataSource", "Findings", "Loaded", "NamedSet", "load"]
