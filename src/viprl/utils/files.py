"""Files that are whole at any moment, and locks."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from viprl.errors import FileError

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Raise FileError in place of an OSError, which does not always say of which file it is: a full disk's does not."""
    try:
        yield
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"{path} cannot be written: {error.strerror or error}") from error


@contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """A new file to write to. After the block it is on the disk, and takes the place of `path`.

    At any moment, crashes and power cuts included, the old or the new one is whole. A crash can leave a hidden `.tmp`
    file behind, which is never read. A device or a pipe, such as /dev/stdout, is written to and not replaced. Raises
    FileError.
    """
    path = Path(path)
    if path.is_dir():
        raise FileError(f"{path} is a folder; give the name of a file")
    if (descriptor := _device(path)) is not None:
        with writing(path), open(descriptor, "wb") as device:  # noqa: PTH123 - may be a descriptor
            yield device
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with writing(path):
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            if os.name == "posix":  # elsewhere a folder cannot be opened; the rename is still atomic
                _sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _device(path: Path) -> Path | int | None:
    """What to open if `path` is a device, a pipe or what this process prints to; None for a file, or if it is new.

    A rename would destroy a device, which root can do to /dev/null, and lose what is printed. Standard output may be a
    file: only its own descriptor knows where the next line goes.
    """
    try:
        found = path.stat()
    except OSError:  # no such file
        return None
    for printed in (1, 2):
        with contextlib.suppress(OSError):  # closed
            if os.path.samestat(found, os.fstat(printed)):
                return os.dup(printed)
    return None if stat.S_ISREG(found.st_mode) else path


def write_bytes(path: str | Path, payload: bytes) -> None:
    """Write a file so that the old or the new one is whole at any moment, see `replacing`. Raises FileError."""
    with replacing(path) as file:
        file.write(payload)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def make_folder(path: str | Path) -> None:
    """Create a folder, and its parents, if it does not exist. Raises FileError."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise FileError(f"{path} is a file; give the name of a folder") from error
    except OSError as error:
        raise FileError(f"the folder {path} cannot be created: {error.strerror}") from error


def write_text(path: str | Path, text: str) -> None:
    """`write_bytes` for text in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


@contextmanager
def locked(file: IO, patience: float = 0.0) -> Iterator[None]:
    """Hold an exclusive lock on an open file. The system releases it when the process ends, however it ends.

    Raises TimeoutError (an OSError) if another process still holds it after `patience` seconds.
    """
    if fcntl is None:
        raise OSError("this system has no file locks that end with their process")
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"another process has held the lock for {patience:.0f} seconds") from None
            time.sleep(0.005)
    try:
        yield
    finally:
        file.flush()
        fcntl.flock(file, fcntl.LOCK_UN)
