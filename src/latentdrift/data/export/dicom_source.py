"""The stored values that an edit changes: of one DICOM image, or of a plane across the images of a volume."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.formats.dicom.geometry import LPS_TO_RAS
from latentdrift.data.formats.dicom.opening import open_dicom
from latentdrift.data.formats.dicom.pixels import PixelFormat, decode_frames, pixel_format
from latentdrift.data.formats.dicom.reading import frame_order, series_order
from latentdrift.data.formats.dicom.tags import Tags
from latentdrift.data.formats.dicom.values import modality_map, padding, padding_bounds
from latentdrift.data.volumes.cut import Cut
from latentdrift.errors import DataError

SLICE_AXIS = 2
"""The axis of a volume along which its images lie."""


@dataclass(frozen=True)
class EditedImage:
    """An image of the source with the change in its stored values.

    Attributes:
        tags: its attributes; of a plane across images, those of the middle one.
        form: how its pixels are stored.
        stored: (rows, columns), or (rows, columns, 3) RGB, after the change.
        sources: (SOP class, SOP instance, frame numbers from 1) of the images it was made of.
        placement: of a plane across images, attributes that say where it is.
    """

    tags: Tags
    form: PixelFormat
    stored: NDArray[Any]
    sources: tuple[tuple[str | None, str | None, tuple[int, ...]], ...]
    placement: dict[str, list[float]] | None = None


def edit_image(source: Sequence[Path], change: NDArray[np.floating[Any]], cut: Cut | None, frame: int) -> EditedImage:
    """Return an image of the source with a change; see `write_dicom_edit`.

    Raises:
        DataError: a source that cannot be read or stored, or a change of another shape or with NaN.
    """
    if not source:
        raise DataError("There is no source to write an edit of. Give its file, or the files of its series.")
    if not np.isfinite(change).all():
        raise DataError("The change holds NaN or infinite values. The model or its settings diverged.")
    images = _Images(source)
    if cut is not None and cut.axis != SLICE_AXIS:
        return _across(images, change, cut)
    tags, form, stored = images.read(frame if cut is None else cut.index)
    if cut is not None:
        change = _as_stored(change, cut, form)
    return EditedImage(tags, form, _changed(tags, form, stored, change), _references([tags], form))


class _Images:
    """The images of a source, in the order of `read_dicom`'s slices."""

    def __init__(self, source: Sequence[Path]) -> None:
        self._source = source
        self.affine: NDArray[np.float64] | None
        if len(source) > 1:
            self._order, self.affine = series_order(source)
            self._file = None
        else:
            self._file = Tags(open_dicom(source[0]), source[0])
            self._order, self.affine = frame_order(self._file)

    def __len__(self) -> int:
        return len(self._order)

    def read(self, index: int) -> tuple[Tags, PixelFormat, NDArray[Any]]:
        """Return attributes, format and stored values of one."""
        if not 0 <= index < len(self):
            raise DataError(
                f"{self._source[0]}: there is no image {index} (counted from 0) in a source of {len(self)}."
            )
        place = self._order[index]
        if self._file is None:
            tags = Tags(open_dicom(self._source[place]), self._source[place])
        else:
            tags = Tags(self._file.dataset, self._file.path, place)
        form = pixel_format(tags)
        _check_storable(tags, form)
        (stored,) = decode_frames(tags, form, [0 if self._file is None else place])
        return tags, form, stored

    def __iter__(self) -> Iterator[tuple[Tags, PixelFormat, NDArray[Any]]]:
        return (self.read(index) for index in range(len(self)))


def _across(images: _Images, change: NDArray[np.floating[Any]], cut: Cut) -> EditedImage:
    """Return a plane that runs across the images. Their stored values must mean the same for it to be one image."""
    if images.affine is None:
        raise DataError("A plane across images can only be cut from a volume. Give the files of its series.")
    lines, seen = list[NDArray[Any]](), list[Tags]()
    for tags, form, stored in images:
        this = modality_map(tags, form)
        if not seen:
            first, mapping = form, this
            shape = (form.columns, form.rows, len(images))
            if not 0 <= cut.index < shape[cut.axis]:
                raise DataError(f"{tags.path}: the volume {shape} has no plane {cut.index} along axis {cut.axis}.")
        alike = (this.slope, this.intercept, this.units) == (mapping.slope, mapping.intercept, mapping.units)
        if form != first or not alike or this.table is not None or not form.gray:
            raise DataError(
                f"{tags.path} does not store its values like the other slices (rescaling, bits, a table), so that a "
                "plane across them has no stored values. Edit slices in the plane of the images."
            )
        lines.append(stored[:, cut.index] if cut.axis == 0 else stored[cut.index])
        seen.append(tags)
    voxels = np.expand_dims(np.stack(lines, axis=-1), cut.axis)
    plane = np.ascontiguousarray(replace(cut, index=0).take(voxels))
    middle = seen[len(seen) // 2]
    found = _changed(middle, first, plane, change)
    return EditedImage(middle, first, found, _references(seen, first), _placement(images.affine, cut, shape))


def _as_stored(change: NDArray[np.floating[Any]], cut: Cut, form: PixelFormat) -> NDArray[np.float32]:
    """Turn a change as it is looked at into the rows and columns of the file."""
    voxels = np.zeros((form.columns, form.rows, 1), np.float32)
    replace(cut, index=0).put(voxels, change.astype(np.float32))
    return voxels[:, :, 0].T


def _placement(affine: NDArray[np.float64], cut: Cut, shape: tuple[int, int, int]) -> dict[str, list[float]]:
    """Return position, orientation and distances of a cut, in DICOM's terms."""
    lps = LPS_TO_RAS @ affine  # the matrix is its own inverse
    corner, below, beside = (np.array(cut.voxel_of(shape, *at)) for at in ((0, 0), (1, 0), (0, 1)))
    right, down = lps[:3, :3] @ (beside - corner), lps[:3, :3] @ (below - corner)
    steps = float(np.linalg.norm(down)), float(np.linalg.norm(right))
    return {
        "PixelSpacing": list(steps),
        "ImagePositionPatient": (lps[:3, :3] @ corner + lps[:3, 3]).tolist(),
        "ImageOrientationPatient": [*(right / steps[1]).tolist(), *(down / steps[0]).tolist()],
    }


def _references(
    images: Sequence[Tags], form: PixelFormat
) -> tuple[tuple[str | None, str | None, tuple[int, ...]], ...]:
    if form.frames > 1:
        frames = tuple(sorted(tags.frame + 1 for tags in images))
        return ((images[0].text("SOPClassUID"), images[0].text("SOPInstanceUID"), frames),)
    return tuple((tags.text("SOPClassUID"), tags.text("SOPInstanceUID"), ()) for tags in images)


def _check_storable(tags: Tags, form: PixelFormat) -> None:
    if form.keyword != "PixelData" or form.allocated not in (8, 16) or (not form.gray and form.stored != 8):
        raise DataError(
            f"{tags.path}: an edit can be stored in 8 or 16 bits of gray, or 8 of colour, not in {form.allocated} of "
            f"{form.photometric}. Convert the source first."
        )


def _changed(tags: Tags, form: PixelFormat, stored: NDArray[Any], change: NDArray[np.floating[Any]]) -> NDArray[Any]:
    """Return the stored values with the change in them."""
    if change.shape != stored.shape[:2]:
        raise DataError(f"The change has the shape {change.shape}; the image of {tags.path} is {stored.shape[:2]}.")
    if not form.gray:
        found = np.clip(np.rint(stored + change[..., None].astype(np.float64)), 0, 255).astype(stored.dtype)
        return np.where((change == 0)[..., None], stored, found)
    filling = padding(tags, form, stored)
    if filling is not None:
        change = np.where(filling, np.float32(0), change)
    found = modality_map(tags, form).change_stored(stored, change, form.limits)
    return _off_padding(tags, form, stored, found)


def _off_padding(tags: Tags, form: PixelFormat, stored: NDArray[Any], found: NDArray[Any]) -> NDArray[Any]:
    """Keep changed pixels from becoming what a viewer takes for padding: they stop at the nearest value beside it."""
    bounds = padding_bounds(tags, form)
    if bounds is None:
        return found
    low, high = bounds
    wrong = (found >= low) & (found <= high) & (found != stored)
    from_above = (stored > high) | (low - 1 < form.limits[0])
    return np.where(wrong, np.where(from_above, high + 1, low - 1), found)
