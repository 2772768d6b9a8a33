"""The marks inside a file, whatever its format: what it says of itself, and of what made it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentdrift.data.provenance.marks import SYNTHETIC_MARKER
from latentdrift.errors import DataError

PICTURES = (".png", ".tif", ".tiff")
VOLUMES = (".nii", ".nii.gz", ".hdr", ".hdr.gz", ".img", ".img.gz")
KNOWN = (*PICTURES, ".gif", ".dcm", ".npz", *VOLUMES)
"""Suffixes of files that can carry marks. A DICOM file is also known by its first bytes."""

COMMENT = 6
"""NIfTI's extension code for plain text."""

_DERIVED = re.compile(r"\b(model_sha256|source_sha256|model|seed|editor): ([^;]*)")
_CAPTION = re.compile(r"\b(?:source_)?prompt: ")


@dataclass(frozen=True)
class FileMarks:
    """What a file says of itself.

    Attributes:
        synthetic: it says that it is synthetic.
        place: where that stands, such as "PNG text".
        facts: what else stands there, see `latentdrift.data.provenance.marks.TAGS`.
    """

    synthetic: bool
    place: str
    facts: Mapping[str, str] = field(default_factory=dict)


def can_carry_marks(path: Path) -> bool:
    """Tell whether a file is of a format in which marks are looked for."""
    if path.name.startswith("."):
        return False
    return path.name.lower().endswith(KNOWN) or is_dicom(path)


def is_dicom(path: Path) -> bool:
    """Tell whether a file begins as DICOM files do."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_marks(path: str | Path) -> FileMarks:
    """Return the marks of a PNG, TIFF, GIF, NIfTI, DICOM or residual file.

    Raises:
        DataError: no such file, one that is damaged, or of a format that carries no marks.
    """
    path = Path(path)
    name = path.name.lower()
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    if name.endswith(PICTURES):
        from latentdrift.data.export.picture import picture_text

        place = "PNG text" if name.endswith(".png") else "TIFF description"
        return _from_text(picture_text(path), place)
    for suffixes, read in ((".gif", _gif), (".npz", _residual), (VOLUMES, _nifti)):
        if name.endswith(suffixes):
            return read(path)
    if name.endswith(".dcm") or is_dicom(path):
        return _dicom(path)
    raise DataError(f"{path} is of no format that carries marks; these do: {', '.join(KNOWN)}.")


def _from_text(text: Mapping[str, Any], place: str) -> FileMarks:
    key, yes = SYNTHETIC_MARKER
    facts = {str(name): str(value) for name, value in text.items() if name != key}
    return FileMarks(text.get(key) == yes, place, facts)


def _gif(path: Path) -> FileMarks:
    from PIL import Image

    try:
        with Image.open(path, formats=("GIF",)) as image:
            comment: Any = image.info.get("comment", b"")
    except Exception as error:  # Pillow's plug-ins raise anything on damaged files
        raise DataError(f"{path} cannot be read as an image: {error}. Replace or remove the file.") from error
    return _from_text(_json(comment), "GIF comment")


def _nifti(path: Path) -> FileMarks:
    from nibabel.loadsave import load

    try:
        header: Any = load(path).header
        description = bytes(header["descrip"]).rstrip(b"\0").decode("latin-1")
        contents = [extension.get_content() for extension in header.extensions if extension.get_code() == COMMENT]
    except Exception as error:  # nibabel raises anything on damaged files
        raise DataError(f"{path} cannot be read as NIfTI: {error}. Replace or remove the file.") from error
    for content in contents:
        found = _json(content.rstrip(b"\0") if isinstance(content, bytes) else content)
        if SYNTHETIC_MARKER[0] in found:
            return _from_text(found, "NIfTI header and comment extension")
    return FileMarks(description.startswith("SYNTHETIC"), "NIfTI description")


def _dicom(path: Path) -> FileMarks:
    from pydicom import dcmread

    try:
        header = dcmread(path, stop_before_pixels=True)
        synthetic = str(header.get("SyntheticData", "")).upper() == "YES"
        told = str(header.get("DerivationDescription", ""))
        release = header.get("SoftwareVersions", "")
    except Exception as error:  # pydicom raises anything on damaged files
        raise DataError(f"{path} cannot be read as DICOM: {error}. Replace or remove the file.") from error
    facts: dict[str, str] = {}
    # The facts come before the captions, which may say anything, "seed: 3" as well.
    for name, value in _DERIVED.findall(_CAPTION.split(told, maxsplit=1)[0]):
        facts.setdefault(name, value.strip())
    if synthetic and release:
        facts["Software"] = str(release)
    return FileMarks(synthetic, "DICOM attribute SyntheticData (0008,001C)", facts)


def _residual(path: Path) -> FileMarks:
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            found = _json(file["description"].tobytes()) if "description" in file.files else {}
    except Exception as error:  # zip and numpy raise anything on damaged files
        raise DataError(f"{path} cannot be read as a residual: {error}. Replace or remove the file.") from error
    own = found.get("provenance")
    return _from_text({**found, **(own if isinstance(own, dict) else {})}, "description of the residual")


def _json(text: str | bytes) -> dict[str, Any]:
    """Return what JSON says, nothing where it is somebody else's text."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
