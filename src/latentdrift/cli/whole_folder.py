"""Output folders that are there whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from latentdrift.errors import DataError


@contextmanager
def whole_folder(out: Path, last: str = "result.json", stale: str | None = None) -> Iterator[Path]:
    """Yield an empty folder beside `out`; when the block ends well it becomes `out`, else nothing is left of it.

    Where `out` is there already, files of the same names are replaced, `last` after all others, and the rest stay, but
    for those whose names match the pattern `stale`: parts of a former result that the new one does not have.

    Raises:
        DataError: `out` is a file, the disk is full, or the place is not writable.
    """
    target = out.resolve()
    if target.exists() and not target.is_dir():
        raise DataError(f"{out} is a file; give --out a folder to make.")
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        yield partial
        if target.exists():
            made = {file.name for file in partial.iterdir()}
            for file in [] if stale is None else sorted(target.glob(stale)):
                if file.name not in made:
                    file.unlink()
            for file in sorted(partial.iterdir(), key=lambda path: (path.name == last, path.name)):
                file.replace(target / file.name)
        else:
            partial.rename(target)
    except OSError as error:
        raise DataError(
            f"{out} cannot be written: {error.strerror or error}. Free space or choose another folder."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
