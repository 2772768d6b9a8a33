"""Files that commands leave beside their images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latentdrift.errors import DataError


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as CSV, whole or not at all.

    Raises:
        DataError: the disk is full or the folder is not writable.
    """
    import pandas as pd

    partial = path.with_suffix(".partial")
    try:
        pd.DataFrame(rows).to_csv(partial, index=False)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise DataError(f"{path} cannot be written: {error.strerror}. Free space or choose another --out.") from error
    return path
