"""`manifest.json`: what made the synthetic files of a folder, and the SHA-256 of each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.data.files import sha256_of, write_text
from latentdrift.data.provenance.marks import STATEMENT, TAGS, package_versions
from latentdrift.errors import DataError

if TYPE_CHECKING:
    import torch

MANIFEST_FILE = "manifest.json"
SCHEMA = "latentdrift.manifest/1"


@dataclass(frozen=True)
class Origin:
    """What made all files of a folder.

    Attributes:
        model: name, sha256 of the weights (see `latentdrift.models.identity`), and what else is known of it.
        drift: in words under "used", and in full.
        editor: name and config; None where images were made from noise alone.
        settings: what else the images depend on, such as steps and guidance.
        command: how to make them again.
    """

    model: Mapping[str, Any]
    drift: Mapping[str, Any]
    editor: Mapping[str, Any] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    command: str | None = None

    def marks(self) -> dict[str, Any]:
        """Return what each file says of it."""
        own = {"model": self.model.get("name"), "model_sha256": self.model.get("sha256"), "drift": self.drift["used"]}
        return own if self.editor is None else {**own, "editor": self.editor["name"]}


@dataclass(frozen=True)
class SyntheticFile:
    """One synthetic file.

    Attributes:
        file: its name in the folder.
        seed: of its noise; None for one that shows several images.
        prompt: what it was to show.
        attributes: the same as attributes.
        source: the edited image's file, as it was given.
        source_sha256: of that file; of a series, of its files' digests.
        source_prompt: the caption of that image.
        facts: what else differs from file to file, such as a ladder's value.
    """

    file: str
    seed: int | None = None
    prompt: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None
    source_sha256: str | None = None
    source_prompt: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def marks(self) -> dict[str, Any]:
        """Return what the file says of itself, beside its origin."""
        named = {name: getattr(self, name) for name in TAGS if hasattr(self, name)}
        return {**named, **self.facts}

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of a manifest, without the file's hash."""
        source = {"file": self.source, "sha256": self.source_sha256, "prompt": self.source_prompt}
        return {
            "file": self.file,
            "seed": self.seed,
            "prompt": self.prompt,
            "attributes": dict(self.attributes),
            "source": None if self.source is None and self.source_sha256 is None else source,
            **self.facts,
        }


def write_manifest(folder: Path, origin: Origin, files: Sequence[SyntheticFile]) -> Path:
    """Write the manifest of files that are in the folder already, whole or not at all; return its path.

    Raises:
        DataError: a file is missing, or the folder is not writable.
    """
    record = {
        "schema": SCHEMA,
        "statement": STATEMENT,
        "synthetic": True,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": origin.command,
        "model": dict(origin.model),
        "drift": dict(origin.drift),
        "editor": None if origin.editor is None else dict(origin.editor),
        "settings": dict(origin.settings),
        "versions": package_versions(),
        "files": [{**one.to_dict(), "sha256": sha256_of(folder / one.file)} for one in files],
    }
    path = folder / MANIFEST_FILE
    write_text(path, json.dumps(record, indent=2, default=str) + "\n")
    return path


def write_marked_images(
    folder: Path, origin: Origin, made: Sequence[tuple[SyntheticFile, torch.Tensor]], *, gray: bool = False
) -> Path:
    """Write images as PNG, each with its marks, and their manifest; return the manifest's path.

    Args:
        folder: is made where it is not there.
        origin: what made them.
        made: each file, and its image (3, H, W) in [-1, 1].
        gray: store one channel.

    Raises:
        DataError: an image that cannot be stored, or a folder that is not writable.
    """
    from latentdrift.data.images import write_png

    for one, image in made:
        write_png(folder / one.file, image, gray=gray, text=origin.marks() | one.marks(), synthetic=True)
    return write_manifest(folder, origin, [one for one, _ in made])


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a folder, None where there is none.

    Raises:
        DataError: it is damaged, or of a schema that this version does not know.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        schema, entries = found["schema"], found["files"]
        names = [str(Path(folder, entry["file"])) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error!r}). Restore it, or make the images again.") from error
    if schema != SCHEMA:
        raise DataError(f"{path} follows the schema {str(schema)[:40]!r}, not {SCHEMA!r}: update latentdrift.")
    if len(set(names)) < len(names):
        raise DataError(f"{path} is damaged: it lists a file twice. Restore it, or make the images again.")
    return dict(found)
