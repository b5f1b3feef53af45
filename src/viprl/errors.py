"""Errors that a user can fix.

The message of each says what is wrong, what was given and what to do. The command line prints these errors as one line;
every other exception keeps its traceback.
"""

from __future__ import annotations


class ViprlError(Exception):
    """Base class."""


class InputError(ViprlError, ValueError):
    """An argument or an option has a value that cannot be used."""


class InputTypeError(InputError, TypeError):
    """An argument has a type that cannot be used."""


class PredictionError(InputError):
    """A predictor returned numbers that no counts can be based on, or none at all because its arithmetic failed."""


class ConfigError(InputError):
    """A configuration file has a key or a value that cannot be used."""


class DataError(ViprlError, ValueError):
    """A file, a data set or a log has content that cannot be used."""


class StateError(ViprlError, ValueError):
    """A saved state cannot be used: damaged, from another version, or saved with other options."""


class FileError(ViprlError, OSError):
    """A file or a folder is missing or cannot be read or written."""


class MissingPackageError(ViprlError, ImportError):
    """An optional package is missing, or an installed version of it lacks something that is needed."""


class TrainingFailedError(ViprlError, RuntimeError):
    """A training that runs in a process of its own ended with an error."""
