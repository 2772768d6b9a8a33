"""Where a prepared image came from, so that an edit of it can go back: `geometry.jsonl` beside `metadata.csv`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentdrift.errors import DataError

GEOMETRY = "geometry.jsonl"
PREPARATION = "prepare.json"


def read_preparation(folder: Path) -> Mapping[str, Any] | None:
    """Return the settings a cohort was prepared with, or None where it was not made by `prepare`.

    Raises:
        DataError: the file is damaged.
    """
    path = folder / PREPARATION
    if not path.is_file():
        return None
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["settings"]
        return dict(settings)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error!r}). Prepare the cohort again.") from error


def read_geometry(image: Path) -> Mapping[str, Any] | None:
    """Return what is known of a prepared image (files, frame, cut, placement), or None where it is no prepared one.

    The folders above the image are searched for the file that `prepare` wrote.

    Raises:
        DataError: the file is damaged, or does not list the image.
    """
    image = image.resolve()
    for folder in image.parents:
        path = folder / GEOMETRY
        if not path.is_file():
            continue
        name = image.relative_to(folder).as_posix()
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if name not in line:
                    continue
                try:
                    found: dict[str, Any] = json.loads(line)
                    if found["file_name"] == name:
                        return found
                except (ValueError, KeyError, TypeError) as error:
                    raise DataError(
                        f"{path}, line {number} is damaged ({error!r}). Prepare the cohort again."
                    ) from error
        raise DataError(f"{path} does not list {name}. Was the image put there by hand?")
    return None
