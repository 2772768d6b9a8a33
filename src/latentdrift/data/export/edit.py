"""A scan opened for an edit, and the edit written back in the formats that viewers, archives and pipelines take.

The model sees a square image of low resolution. What goes back is the *change* it made, enlarged to the scan's own
pixels and added to the scan's own values: detail that the model never saw stays, and so does every pixel that the
change leaves alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.export.residual import confine, residual_of
from latentdrift.data.files import sha256_of
from latentdrift.data.formats.reading import format_of, read_scan
from latentdrift.data.prepare.config import PrepareConfig
from latentdrift.data.prepare.convert import treated
from latentdrift.data.prepare.geometry import read_geometry
from latentdrift.data.scan import Plane, Volume
from latentdrift.data.volumes.cut import Cut, choose_cuts, plane_of
from latentdrift.data.volumes.intensity import intensity_range
from latentdrift.data.volumes.placement import Placement
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError


@dataclass(frozen=True)
class EditSource:
    """One image of a scan, opened for an edit.

    Attributes:
        files: the scan's files.
        frame: which volume or frame of them.
        plane: the image, at the scan's own resolution and in its own units.
        placement: how the model sees it.
        cut: where in the volume it is; None for what is an image by itself.
        prepared: it was found through an image that `prepare` made.
    """

    files: tuple[Path, ...]
    frame: int
    plane: Plane
    placement: Placement
    cut: Cut | None = None
    prepared: bool = False

    def image(self) -> NDArray[np.float32]:
        """Return what the model sees, (size, size) in [0, 1]."""
        return self.placement.show(self.plane.pixels)

    def change(self, difference: NDArray[np.floating[Any]], threshold: Any = 0.0) -> NDArray[np.float32]:
        """Return a difference of the model's image as a change of the plane, (H, W) in its own units.

        Args:
            difference: (size, size), of values in [0, 1].
            threshold: a number or (size, size); smaller differences are none.
        """
        return self.placement.bring_back(confine(difference, threshold))

    def edited(self, change: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the changed plane as it is looked at, (H, W) in [0, 1]."""
        low, high = self.placement.low, self.placement.high
        unit = np.clip((self.plane.pixels + change - low) / (high - low), 0, 1).astype(np.float32)
        return 1 - unit if self.placement.inverted else unit

    def source_hash(self) -> str:
        """Return the SHA-256 (hex) of the scan's file, or of the digests of its files, for provenance."""
        if len(self.files) == 1:
            return sha256_of(self.files[0])
        digest = hashlib.sha256()
        for path in self.files:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()


def open_edit_source(
    files: Sequence[Path], size: int, settings: PrepareConfig | None = None, *, modality: str = "OT"
) -> EditSource:
    """Open an image that `prepare` made, a picture, a DICOM file or series, or a slice of a volume.

    Args:
        files: one file, or the files of a DICOM series.
        size: side of the model's image in pixels.
        settings: how scans are cut and scaled; only the first position is used. An image that `prepare` made brings its
            own.
        modality: what a picture or NIfTI file shows, which they do not say.

    Raises:
        DataError: a file is damaged, has colour, or no slice is where it should be.
    """
    settings = settings or PrepareConfig()
    known = read_geometry(files[0]) if len(files) == 1 and format_of(files[0]) == "picture" else None
    if known is not None:
        return reopen(known, size)
    found = read_scan(files, frame=settings.frame, modality=modality)
    if isinstance(found, Plane):
        return EditSource(tuple(files), settings.frame, found, placed(found, found, size, settings))
    if settings.register != "none":
        raise ConfigurationError(f"{files[0]} would be resampled by registration. Edit the registered file itself.")
    found = treated(found, settings.strip, "none")
    (cut,) = choose_cuts(
        found,
        settings.plane,
        settings.positions[:1],
        reference=settings.reference,
        least_foreground=settings.min_foreground,
    )
    plane = plane_of(found, cut)
    return EditSource(tuple(files), settings.frame, plane, placed(plane, found, size, settings), cut)


def placed(plane: Plane, scan: Volume | Plane, size: int, settings: PrepareConfig) -> Placement:
    """Return the placement of a plane under the intensity range of its whole scan."""
    low, high = intensity_range(scan, settings.intensity)
    return Placement.of(plane, size, low, high, fit=settings.fit, extent=settings.extent_mm)


def reopen(known: Mapping[str, Any], size: int) -> EditSource:
    """Open the scan behind an image that `prepare` made.

    Raises:
        ConfigurationError: the image was registered.
        DataError: the scan was moved, or is no longer what it was.
    """
    if known["register"] != "none":
        raise ConfigurationError(
            f"{known['file_name']} was resampled by registration, so its edit cannot go back into the scan. Leave "
            "--export out, or prepare without --register."
        )
    root = Path(known["root"])
    files = tuple(root / name for name in known["files"])
    for path in files:
        if not path.is_file():
            raise DataError(f"{path}, of which {known['file_name']} was made, is gone. Put it back, or prepare again.")
    found = read_scan(files, frame=known["frame"], modality=known["modality"])
    cut = None if known["cut"] is None else Cut.from_dict(known["cut"])
    if isinstance(found, Volume) == (cut is None):
        raise DataError(f"{files[0]} is no longer what {known['file_name']} was made of. Prepare the cohort again.")
    plane = found if isinstance(found, Plane) else slice_of(found, known["strip"], cut)
    placement = Placement.from_dict({**known["placement"], "size": size})
    if placement.shape != plane.pixels.shape:
        raise DataError(f"{files[0]} has another size than when {known['file_name']} was made. Prepare it again.")
    return EditSource(files, known["frame"], plane, placement, cut, prepared=True)


def slice_of(volume: Volume, strip: str, cut: Cut | None) -> Plane:
    """Return the slice of a volume, its skull stripped as it was when it was prepared."""
    assert cut is not None
    return plane_of(treated(volume, strip, "none"), cut)


def write_edit(
    source: EditSource,
    change: NDArray[np.float32],
    stem: Path,
    formats: Sequence[str],
    description: Mapping[str, Any],
    *,
    mark: bool = False,
    keep_identifiers: bool = False,
) -> list[Path]:
    """Write an edit in every wanted format and return the files.

    Args:
        source: the opened scan.
        change: (H, W) in its units, from `EditSource.change`.
        stem: path without suffix.
        formats: of `EXPORTS`.
        description: where the edit comes from (model, drift, seed, prompt …); JSON values.
        mark: write SYNTHETIC into the pixels of DICOM files.
        keep_identifiers: keep who the patient is in DICOM and NIfTI files.

    Raises:
        UnknownNameError: no such format.
        ConfigurationError: a format that the scan cannot be written in.
        DataError: the disk is full.
    """
    check_formats(formats, source)
    facts = {**description, "source_sha256": source.source_hash()}
    written = [EXPORTS[name](source, change, stem, facts, mark, keep_identifiers) for name in dict.fromkeys(formats)]
    return written


def check_formats(formats: Sequence[str], source: EditSource | None = None) -> None:
    """Raise for the first format that there is not, or that the edit of `source` cannot be written in.

    Raises:
        UnknownNameError: no such format.
        ConfigurationError: the source is in another format.
    """
    for name in formats:
        if name not in EXPORTS:
            raise UnknownNameError("export format", name, EXPORTS)
        if source is not None and name in OWN_FORMATS:
            own = format_of(source.files[0])
            if own != name or (name == "nifti" and source.cut is None):
                raise ConfigurationError(
                    f"{source.files[0]} is no {OWN_FORMATS[name]}, so its edit cannot be one. Leave {name} out."
                )


Export = Callable[[EditSource, NDArray[np.float32], Path, Mapping[str, Any], bool, bool], Path]


def write_png(source: EditSource, change: Any, stem: Path, facts: Mapping[str, Any], *_: bool) -> Path:
    """The edited plane as 16-bit PNG."""
    from latentdrift.data.export.picture import write_picture

    return write_picture(with_suffix(stem, ".png"), source.edited(change), bits=16, text=facts, synthetic=True)


def write_tiff(source: EditSource, change: Any, stem: Path, facts: Mapping[str, Any], *_: bool) -> Path:
    """The edited plane as 16-bit TIFF."""
    from latentdrift.data.export.picture import write_picture

    return write_picture(with_suffix(stem, ".tiff"), source.edited(change), bits=16, text=facts, synthetic=True)


def write_residual(source: EditSource, change: Any, stem: Path, facts: Mapping[str, Any], *_: bool) -> Path:
    """The change alone, to be applied to the same pixels later."""
    residual = residual_of(source.plane, source.plane.pixels, change, source.placement, provenance=facts)
    return residual.save(with_suffix(stem, ".npz"))


def write_nifti(
    source: EditSource, change: Any, stem: Path, facts: Mapping[str, Any], mark: bool, keep_identifiers: bool
) -> Path:
    """A copy of the volume in which the slice has changed."""
    from latentdrift.data.export.nifti import write_nifti_edit

    assert source.cut is not None
    out = with_suffix(stem, ".nii.gz")
    return write_nifti_edit(
        source.files[0], out, source.cut, change, frame=source.frame, description=facts, keep_text=keep_identifiers
    )


def write_dicom(
    source: EditSource, change: Any, stem: Path, facts: Mapping[str, Any], mark: bool, keep_identifiers: bool
) -> Path:
    """A derived DICOM image that references its source."""
    from latentdrift.data.export.dicom import write_dicom_edit

    return write_dicom_edit(
        source.files,
        with_suffix(stem, ".dcm"),
        change,
        cut=source.cut,
        frame=source.frame,
        description=facts,
        mark=mark,
        keep_identifiers=keep_identifiers,
    )


def with_suffix(stem: Path, suffix: str) -> Path:
    """Return the path with a suffix added: names such as "scan.1" keep all their parts."""
    return stem.with_name(stem.name + suffix)


OWN_FORMATS = {"nifti": "NIfTI volume", "dicom": "DICOM file"}
"""Formats that only a scan of that format can be written in."""

EXPORTS: Mapping[str, Export] = {
    "png16": write_png,
    "tiff": write_tiff,
    "nifti": write_nifti,
    "dicom": write_dicom,
    "residual": write_residual,
}
"""Formats by name: pictures at the scan's own resolution, the scan's own format, and the change alone."""
