"""Files that commands leave beside their images."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latentdrift.data.files import write_text


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as CSV, whole or not at all.

    Raises:
        DataError: the disk is full or the folder is not writable.
    """
    import pandas as pd

    write_text(path, pd.DataFrame(rows).to_csv(index=False))
    return path


def command_line(command: str, arguments: Sequence[str]) -> str:
    """Return a command as it was typed, to be typed again."""
    return shlex.join(["latentdrift", *command.split(), *arguments])


def write_json(path: Path, facts: Mapping[str, Any]) -> Path:
    """Write facts as JSON, whole or not at all; errors as `write_table`."""
    write_text(path, json.dumps(facts, indent=2, default=str) + "\n")
    return path
