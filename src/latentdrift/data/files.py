"""Files that are there whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from latentdrift.errors import DataError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`, whose folder is made, and give it the real name when the block ends well.

    Raises:
        DataError: the disk is full, or the folder is not writable; nothing is left behind.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(target)
    except OSError as error:
        raise DataError(
            f"{target} cannot be written: {error.strerror or error}. Free space or choose another folder."
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink()


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file; errors as `replacing`."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file as UTF-8; errors as `replacing`."""
    write_bytes(path, text.encode())


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 (hex) of a file's bytes.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}. Check that it is there.") from error
