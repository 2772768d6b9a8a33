"""An uploaded file → the slice that is edited: pictures, DICOM files and series, NIfTI volumes."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latentdrift.data.export.edit import EditSource, placed
from latentdrift.data.formats.reading import format_of, read_scan
from latentdrift.data.images import has_colour, read_array
from latentdrift.data.prepare.config import PrepareConfig
from latentdrift.data.scan import Plane, Volume
from latentdrift.data.transform import ImageTransform
from latentdrift.data.volumes.cut import PLANES, choose_cuts, cut_at, plane_of
from latentdrift.data.volumes.orient import closest_axes
from latentdrift.errors import ConfigurationError, DataError, LatentDriftError

if TYPE_CHECKING:
    import torch

    from latentdrift.models import ModelCard


@dataclass(frozen=True)
class OpenScan:
    """An opened upload: a volume, a plane, or a picture in colour, which is neither."""

    files: tuple[Path, ...]
    kind: str
    """picture, dicom or nifti."""
    content: Volume | Plane | None
    frame: int = 0

    @property
    def is_volume(self) -> bool:
        """Whether a slice has to be chosen."""
        return isinstance(self.content, Volume)

    def slices(self, plane: str) -> int:
        """Return how many slices a volume has in a plane; 1 for what is no volume."""
        if not isinstance(self.content, Volume):
            return 1
        return int(self.content.voxels.shape[closest_axes(self.content.affine)[PLANES[plane][0]][0]])

    def usual_slice(self, plane: str, card: ModelCard | None) -> int:
        """Return the slice that the model's cohort was prepared at, or else the middle one."""
        if not isinstance(self.content, Volume):
            return 0
        settings = settings_of(card)
        position, reference = (
            (settings.positions[0], settings.reference) if plane == settings.plane else (0.0, "centre")
        )
        try:
            (cut,) = choose_cuts(self.content, plane, [position], reference=reference)
        except LatentDriftError:
            return self.slices(plane) // 2
        return cut.index

    def sha256(self) -> str:
        """Return the SHA-256 (hex) of the file; of a series, that of its files' digests."""
        found = []
        for path in self.files:
            with path.open("rb") as file:
                found.append(hashlib.file_digest(file, "sha256"))
        if len(found) == 1:
            return found[0].hexdigest()
        return hashlib.sha256(b"".join(one.digest() for one in found)).hexdigest()


@dataclass(frozen=True, eq=False)
class View:
    """One image as the model sees it."""

    image: torch.Tensor
    """(3, S, S) in [-1, 1]."""
    source: EditSource | None
    """The slice at the scan's own resolution; None for a picture in colour."""
    sha256: str
    """Of the uploaded file."""
    notes: tuple[str, ...] = ()
    """What was done to it, in words."""
    gray: bool = True
    """Images are written with one channel."""
    place: dict[str, Any] = field(default_factory=dict)
    """Plane and index of a slice."""


def open_scan(files: Sequence[Path], frame: int = 0) -> OpenScan:
    """Open one file, or several DICOM files of one series.

    Raises:
        DataError: a file that is damaged or of no known format, or several files that are no series.
        ConfigurationError: a frame that cannot be.
    """
    if not files:
        raise DataError("No file was given. Drop a PNG, JPEG, DICOM or NIfTI file.")
    if frame < 0:
        raise ConfigurationError(f"The frame is {frame}; they are counted from 0.")
    kind = format_of(files[0])
    ordered = tuple(sorted(files))
    if kind == "picture" and len(files) == 1 and has_colour(read_array(files[0])):
        return OpenScan(ordered, kind, None)
    return OpenScan(ordered, kind, read_scan(ordered, frame=frame), frame)


def view_of(scan: OpenScan, size: int, card: ModelCard | None, plane: str = "axial", index: int = 0) -> View:
    """Return an image as a model sees it.

    Args:
        scan: from `open_scan`.
        size: side of the model's images.
        card: of the model; scans are scaled as its cohort was, and colour is taken out where it knows none.
        plane: of a volume.
        index: slice in that plane.

    Raises:
        DataError: a slice that there is not, or a constant image.
    """
    import torch

    from latentdrift.edit.gray import as_gray

    gray = card is None or card.gray
    if scan.content is None:
        image = ImageTransform(size=size).read(scan.files[0])
        notes = []
        if card is not None and card.gray:
            image = as_gray(image)
            notes.append("colour: made gray, as all images of the model's cohort were")
        return View(image, None, scan.sha256(), tuple(notes), gray=card is not None and card.gray)
    settings, cut = settings_of(card), None
    shown = scan.content
    if isinstance(shown, Volume):
        cut = cut_at(shown, plane, int(index))
        shown = plane_of(shown, cut)
    source = EditSource(scan.files, scan.frame, shown, placed(shown, scan.content, size, settings), cut)
    image = torch.from_numpy(source.image()).expand(3, -1, -1) * 2 - 1
    place = {} if cut is None else {"plane": cut.plane, "index": cut.index, "position_mm": round(cut.position, 2)}
    return View(image, source, scan.sha256(), tuple(notes_of(source, size, card)), gray, place)


def settings_of(card: ModelCard | None) -> PrepareConfig:
    """Return how scans are scaled: as the model's cohort was prepared, else by default."""
    known = {} if card is None else card.notes.get("preparation", {})
    names = {field.name for field in dataclasses.fields(PrepareConfig)} - {"strip", "register"}
    found = {name: value for name, value in known.items() if name in names}
    found["positions"] = tuple(found.get("positions", PrepareConfig.positions))[:1]
    return PrepareConfig(**found)


def notes_of(source: EditSource, size: int, card: ModelCard | None) -> list[str]:
    """Return what was done to a slice, and what may make its edit worthless."""
    from latentdrift.models.modality import strange_modality

    plane, placement = source.plane, source.placement
    height, width = plane.pixels.shape
    notes = [] if (height, width) == (size, size) else [f"resized from {width} x {height} to {size} x {size} pixels"]
    if source.cut is not None:
        notes.insert(0, f"{source.cut.plane} slice {source.cut.index}, at {source.cut.position:+.1f} mm")
    if plane.bits > 8 or source.cut is not None:
        low, high = (float(np.float32(end)) for end in (placement.low, placement.high))
        notes.append(f"{low:g} to {high:g}{' HU' if plane.modality == 'CT' else ''} is black to white")
    told = None if card is None else strange_modality(card, plane.modality)
    return notes if told is None else [*notes, told]
