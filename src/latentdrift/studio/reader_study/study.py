"""The folder of a study: what the server needs, without the truth; the key is another file, elsewhere."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentdrift.data.files import write_text
from latentdrift.errors import DataError

VERSION = 1
FILE = "study.json"
IMAGES = "images"
ANSWERS = "answers.sqlite"


@dataclass(frozen=True)
class Reader:
    """One reader: a name for the tables, the code to log in with, and images in the order in which they are shown."""

    name: str
    code: str
    order: tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """What readers are asked, and in which order; nothing here tells which image is real."""

    title: str
    classes: tuple[str, ...]
    """Diagnoses to choose from; empty where none is asked for."""
    attribute: str | None
    size: int
    """Side of the images in pixels."""
    images: tuple[str, ...]
    readers: tuple[Reader, ...]
    folder: Path = Path()

    def reader(self, code: str) -> Reader | None:
        """Return the reader with this code, or None."""
        import hmac

        found = None
        for one in self.readers:
            # All are compared, and each in the same time, so that the time of an answer tells nothing about a code.
            if hmac.compare_digest(one.code.encode(), code.strip().lower().encode()):
                found = one
        return found

    def image(self, name: str) -> Path:
        """Return the file of an image."""
        return self.folder / IMAGES / f"{name}.png"


def write_study(folder: Path, study: Study) -> None:
    """Write the file of a study.

    Raises:
        DataError: it cannot be written.
    """
    facts = {"version": VERSION, **dataclasses.asdict(study)}
    del facts["folder"]
    write_text(folder / FILE, json.dumps(facts, indent=1) + "\n")


def read_study(folder: str | Path) -> Study:
    """Return the study of a folder.

    Raises:
        DataError: no study, a damaged or a newer one, or images that are missing.
    """
    root = Path(folder)
    path = root / FILE
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if facts["version"] != VERSION:
            raise DataError(f"{path} is of version {facts['version']}; this package reads version {VERSION}.")
        readers = tuple(Reader(one["name"], one["code"], tuple(one["order"])) for one in facts["readers"])
        study = Study(
            str(facts["title"]),
            tuple(facts["classes"]),
            facts["attribute"],
            int(facts["size"]),
            tuple(facts["images"]),
            readers,
            root,
        )
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}. Make a study with `latentdrift reader-study build`."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error!r}). Take it from a copy, or build the study again.") from error
    _check(study, path)
    return study


def _check(study: Study, path: Path) -> None:
    known = set(study.images)
    for reader in study.readers:
        strange = [name for name in reader.order if name not in known]
        if strange or not reader.order:
            raise DataError(f"{path} is damaged: the order of {reader.name} names {strange[:1] or 'nothing'}.")
    # Names stand in paths.
    bad = [name for name in study.images if not name.isalnum() or not study.image(name).is_file()]
    if bad:
        raise DataError(f"{study.folder} lacks {len(bad)} images, first {bad[0]}.png. Take them from a copy.")


@dataclass(frozen=True)
class Truth:
    """The key's row of an image."""

    image: str
    arm: str
    """Set of synthetic images; empty for a real one."""
    shown: str | None
    subject: str | None
    file: str


KEY_COLUMNS = ("image", "kind", "set", "shown", "subject", "file")


def write_key(path: Path, truths: Sequence[Truth]) -> None:
    """Write the key as CSV.

    Raises:
        DataError: it cannot be written.
    """
    import csv
    import io

    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(KEY_COLUMNS)
    for one in truths:
        kind = "synthetic" if one.arm else "real"
        table.writerow([one.image, kind, one.arm, one.shown or "", one.subject or "", one.file])
    write_text(path, text.getvalue())


def read_key(path: str | Path, study: Study) -> dict[str, Truth]:
    """Return the truth by image.

    Raises:
        DataError: no key, or that of another study.
    """
    import csv

    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        found = {
            row["image"]: Truth(
                row["image"],
                (row["set"] or "synthetic") if row["kind"] == "synthetic" else "",
                row["shown"] or None,
                row["subject"] or None,
                row["file"],
            )
            for row in rows
        }
    except OSError as error:
        raise DataError(
            f"The key {path} cannot be read: {error.strerror}. Give the file that `build` wrote."
        ) from error
    except (KeyError, ValueError) as error:
        raise DataError(f"{path} is no key of a reader study: it lacks the column {error}.") from error
    missing = [name for name in study.images if name not in found]
    if missing:
        raise DataError(
            f"{path} is the key of another study: it lacks {len(missing)} of {len(study.images)} images, first "
            f"{missing[0]}."
        )
    return found
