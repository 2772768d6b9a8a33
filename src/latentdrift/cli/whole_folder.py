"""Output folders that are there whole or not at all, and that take nobody else's files away."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from latentdrift.errors import ConfigurationError, DataError

Own = Mapping[str, str | None]
"""What tells a command's own results: names of files, and for JSON files what they hold; None where the name says it,
which may be a folder's, too."""


AUDITS: Own = {"leakage.json": None, "privacy.json": None}
"""Of both audits, which may share a folder: they have no file of the same name."""


def check_out(out: Path, own: Own, sources: Iterable[Path] = (), beside: Iterable[Path] = ()) -> None:
    """Refuse a folder of files that the command did not make: results carry names such as metadata.csv or scan.png.

    To be called before any work, with all that a command knows by then. Names that begin with a dot, such as
    .DS_Store, do not count: no command writes them.

    Args:
        out: the folder to make; one that is empty, or that holds any file of `own`, may be there.
        own: what a former result of the command is told by.
        sources: files and folders that are read; none may be in the folder, former result or not.
        beside: files of the user that may be there, such as a storage that several processes share.

    Raises:
        ConfigurationError: the folder holds something else, or a source.
        DataError: it is a file, or cannot be read.
    """
    target = out.resolve()
    if not target.exists():
        return
    if not target.is_dir():
        raise DataError(f"{out} is a file; give --out a folder to make.")
    for source in sources:
        if source.resolve().is_relative_to(target):
            raise ConfigurationError(
                f"--out {out} holds {source}, which is read: results could replace it. Choose another folder."
            )
    allowed = {path.resolve() for path in beside}
    try:
        found = sorted(path.name for path in target.iterdir() if path not in allowed and path.name[0] != ".")
    except OSError as error:
        raise DataError(f"{out} cannot be read: {error.strerror or error}. Choose another folder for --out.") from error
    if found and not any(is_own(target / name, key) for name, key in own.items()):
        raise ConfigurationError(
            f"--out {out} holds {found[0]}"
            + (f" and {len(found) - 1} more" if len(found) > 1 else "")
            + f", but no former result of this command ({' or '.join(own)}): its files could be replaced. Choose "
            "another folder, or empty this one."
        )


def is_own(path: Path, key: str | None) -> bool:
    """Tell whether a file or folder is there and, where a key is given, whether it is JSON with that key."""
    if key is None:
        return path.exists()
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(facts, dict) and key in facts


@contextmanager
def whole_folder(
    out: Path, last: str = "result.json", stale: str | None = None, own: Own | None = None
) -> Iterator[Path]:
    """Yield an empty folder beside `out`; when the block ends well it becomes `out`, else nothing is left of it.

    Where a former result is in `out`, files of the same names are replaced, `last` after all others, and the rest stay,
    but for those whose names match the pattern `stale`: parts of a former result that the new one does not have. A
    former result is told by `own`, as in `check_out`; by `last` alone where that is not given.

    Raises:
        ConfigurationError: `out` holds files that are no such result.
        DataError: `out` is a file, the disk is full, or the place is not writable.
    """
    check_out(out, {last: None} if own is None else own)
    target = out.resolve()
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
