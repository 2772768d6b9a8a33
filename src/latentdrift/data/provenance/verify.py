"""Does what a file says of itself agree with the manifest beside it, with a model, and with the sources?"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentdrift.data.files import sha256_of
from latentdrift.data.provenance.manifest import MANIFEST_FILE, read_manifest
from latentdrift.data.provenance.reading import FileMarks, can_carry_marks, read_marks
from latentdrift.errors import DataError


@dataclass(frozen=True)
class Checked:
    """What was found of one file.

    Attributes:
        file: its path.
        marks: what it says of itself; None where it is missing or cannot be read.
        entry: what the manifest says of it; None where no manifest names it.
        model: what the manifest says of the model.
        problems: what does not agree, in words; empty where all does.
    """

    file: Path
    marks: FileMarks | None
    entry: Mapping[str, Any] | None
    model: Mapping[str, Any]
    problems: tuple[str, ...]

    @property
    def synthetic(self) -> bool:
        """Whether the file is marked as synthetic, inside it or by a manifest."""
        return self.entry is not None or (self.marks is not None and self.marks.synthetic)

    @property
    def model_name(self) -> str | None:
        """The model that made it, by the manifest or else by its marks."""
        own = {} if self.marks is None else self.marks.facts
        return self.model.get("name") or own.get("model")

    @property
    def model_sha256(self) -> str | None:
        """The hash of the model's weights, by the manifest or else by its marks."""
        own = {} if self.marks is None else self.marks.facts
        return self.model.get("sha256") or own.get("model_sha256")


def verify(
    path: str | Path, *, model_sha256: str | None = None, sources: Collection[str] | None = None
) -> list[Checked]:
    """Return what was found of a file, or of all files of a folder that can carry marks and all that it lists.

    Args:
        path: file or folder. The manifest is the folder's own; of a file, that of its folder. Folders in it are looked
            at too, each with its own manifest.
        model_sha256: hash that the model of every synthetic file must have.
        sources: hashes among which that of every edited image's source must be.

    Raises:
        DataError: there is no such path, no file to look at, or a damaged manifest.
    """
    path = Path(path)
    if path.is_file():
        found = verify_files(path.parent, [path], all_listed=False)
    elif path.is_dir():
        folders = [path, *sorted(one for one in path.rglob("*") if one.is_dir())]
        found = []
        for folder in folders:
            files = sorted(one for one in folder.iterdir() if one.is_file() and can_carry_marks(one))
            found += verify_files(folder, files, all_listed=True)
        if not found:
            raise DataError(f"{path} holds no image, volume or manifest. Give a file or the folder of one.")
    else:
        raise DataError(f"There is no {path}. Give a file or a folder.")
    return [compared(one, model_sha256, sources) for one in found]


def verify_files(folder: Path, files: Sequence[Path], *, all_listed: bool) -> list[Checked]:
    """Return what was found of files of one folder; with `all_listed` of files that only its manifest names, too."""
    manifest = read_manifest(folder) or {"files": []}
    entries = {entry["file"]: entry for entry in manifest["files"]}
    paths = list(files)
    if all_listed:
        there = {one.name for one in files}
        paths += [folder / name for name in entries if name not in there]
    return [check(one, entries.get(one.name), manifest.get("model") or {}) for one in paths]


def check(path: Path, entry: Mapping[str, Any] | None, model: Mapping[str, Any]) -> Checked:
    """Return what was found of one file and its entry in a manifest."""
    if entry is not None and not path.is_file():
        return Checked(path, None, entry, model, (f"is listed in {MANIFEST_FILE}, and missing",))
    try:
        marks = read_marks(path)
    except DataError as error:
        return Checked(path, None, entry, model, (str(error),))
    if entry is None:
        return Checked(path, marks, None, {}, ())
    problems = []
    if entry.get("sha256") != sha256_of(path):
        problems.append(f"has changed since it was made: its SHA-256 is not that of {MANIFEST_FILE}")
    if not marks.synthetic:
        problems.append("is synthetic, and has lost its mark")
    source = entry.get("source") or {}
    stated = {
        "model": model.get("name"),
        "model_sha256": model.get("sha256"),
        "seed": entry.get("seed"),
        "prompt": entry.get("prompt"),
        "source_sha256": source.get("sha256"),
    }
    for name, value in stated.items():
        own = marks.facts.get(name)
        if own is not None and value is not None and own != str(value):
            problems.append(f"says {name} {own[:80]}, {MANIFEST_FILE} says {str(value)[:80]}")
    return Checked(path, marks, entry, model, tuple(problems))


def compared(one: Checked, model_sha256: str | None, sources: Collection[str] | None) -> Checked:
    """Return the same with what does not agree with a model and with sources."""
    if not one.synthetic:
        return one
    problems = list(one.problems)
    if model_sha256 is not None and one.model_sha256 != model_sha256:
        problems.append(f"was made by another model: SHA-256 {one.model_sha256 or 'not stated'}")
    own = {} if one.marks is None else one.marks.facts
    source = ((one.entry or {}).get("source") or {}).get("sha256") or own.get("source_sha256")
    if sources is not None and source is not None and source not in sources:
        problems.append(f"was made from none of the sources given: SHA-256 {source}")
    return Checked(one.file, one.marks, one.entry, one.model, tuple(problems))
