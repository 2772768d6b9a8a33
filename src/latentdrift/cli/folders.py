"""Files that commands leave beside their images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from latentdrift.errors import DataError


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as CSV, whole or not at all.

    Raises:
        DataError: the disk is full or the folder is not writable.
    """
    import pandas as pd

    write_text(path, pd.DataFrame(rows).to_csv(index=False))
    return path


def write_json(path: Path, facts: Mapping[str, Any]) -> Path:
    """Write facts as JSON, whole or not at all; errors as `write_table`."""
    write_text(path, json.dumps(facts, indent=2, default=str) + "\n")
    return path


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all; errors as `write_table`."""
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{path} cannot be written: {reason}. Free space or choose another --out.") from error
    finally:
        with suppress(OSError):
            partial.unlink()
