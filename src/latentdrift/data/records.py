"""One image with what is known about it, and the fingerprint of its contents."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from latentdrift.errors import DataError

Value = str | int | float

CLASS_NAMES = ("label", "class", "diagnosis", "stage", "finding", "group")
"""Attributes that are taken for the class where nobody says which it is."""

_digests: dict[tuple[str, int, int], str] = {}


@dataclass(frozen=True)
class Record:
    """One image of a cohort.

    Attributes:
        image: the file.
        subject: who it shows, or None where that is not known.
        session: which visit, or None.
        attributes: what else the table says: text as written, numbers as numbers.
        key: a name that is unique in the cohort and stays the same: the path relative to the cohort's folder.
    """

    image: Path
    subject: str | None = None
    session: str | None = None
    attributes: Mapping[str, Value] = field(default_factory=dict, hash=False)
    key: str = ""

    def __post_init__(self) -> None:
        if not self.key:
            object.__setattr__(self, "key", self.image.name)

    def content_hash(self) -> str:
        """Return the SHA-256 (hex) over the file's bytes, the key, subject, session and attributes.

        Raises:
            DataError: the file cannot be read.
        """
        described = [self.key, self.subject, self.session, dict(sorted(self.attributes.items())), _digest(self.image)]
        return hashlib.sha256(json.dumps(described, ensure_ascii=False).encode()).hexdigest()


def content_hash(records: Iterable[Record]) -> str:
    """Return the SHA-256 (hex) over all records, whatever their order."""
    with ThreadPoolExecutor(4) as pool:
        hashes = sorted(pool.map(Record.content_hash, records))
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file, remembered for as long as its size and time of change stay the same."""
    try:
        status = path.stat()
        known = (str(path), status.st_size, status.st_mtime_ns)
        if known not in _digests:
            with path.open("rb") as file:
                _digests[known] = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}. Was it moved since the cohort was opened?"
        ) from error
    return _digests[known]
