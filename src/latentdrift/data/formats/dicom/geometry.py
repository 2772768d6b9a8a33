"""Where the pixels of a DICOM image are: the distance of neighbours, and the stack of slices in space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.formats.dicom.tags import Tags
from latentdrift.errors import DataError

SPACING_KEYWORDS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
"""In the order of their worth: in the patient, at the detector, of a scanned film."""

ORIENTATION_TOLERANCE = 1e-3
"""By which direction cosines of one stack may differ; they are written with few digits."""

GAP_TOLERANCE = 0.05
"""Part of the distance of slices by which one distance may differ."""

SAME_PLACE_MM = 1e-3

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""DICOM's axes point to the patient's left and back, those of NIfTI to right and front."""


@dataclass(frozen=True)
class Slice:
    """One slice in space.

    Attributes:
        position: (3,) centre of the first pixel, mm, left-posterior-superior positive.
        right: (3,) unit vector in which columns count up.
        down: (3,) unit vector in which rows count up.
        spacing: (row, column) distance in mm.
    """

    position: NDArray[np.float64]
    right: NDArray[np.float64]
    down: NDArray[np.float64]
    spacing: tuple[float, float]

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector, rows to columns by the right hand."""
        return np.cross(self.right, self.down)


def pixel_spacing(tags: Tags) -> tuple[tuple[float, float], str]:
    """Return ((row, column) distance in mm, the attribute it is from).

    Without any, PixelAspectRatio gives the proportion with a column distance of 1, and (1, 1) stands for nothing known.

    Raises:
        DataError: a distance that is not above 0.
    """
    for keyword in SPACING_KEYWORDS:
        found = tags.numbers(keyword, 2)
        if found is not None:
            if min(found) <= 0:
                raise tags.refusal(keyword, f"is {found}, not above 0")
            return (found[0], found[1]), keyword
    ratio = tags.numbers("PixelAspectRatio", 2)
    if ratio is not None:
        if min(ratio) <= 0:
            raise tags.refusal("PixelAspectRatio", f"is {ratio}, not above 0")
        return (ratio[0] / ratio[1], 1.0), "PixelAspectRatio"
    return (1.0, 1.0), "none"


def slice_geometry(tags: Tags) -> Slice | None:
    """Return where a frame is, or None where its position or orientation is not told.

    Raises:
        DataError: directions that are not perpendicular unit vectors.
    """
    position, cosines = tags.numbers("ImagePositionPatient", 3), tags.numbers("ImageOrientationPatient", 6)
    if position is None or cosines is None:
        return None
    right, down = np.array(cosines[:3]), np.array(cosines[3:])
    lengths = np.array([np.linalg.norm(right), np.linalg.norm(down)])
    if np.abs(lengths - 1).max() > 0.01 or abs(right @ down) > 0.01:
        raise tags.refusal("ImageOrientationPatient", f"is {cosines}, no pair of perpendicular unit vectors")
    return Slice(np.array(position), right / lengths[0], down / lengths[1], pixel_spacing(tags)[0])


def stack(slices: Sequence[Slice], where: str) -> tuple[list[int], NDArray[np.float64]]:
    """Return (order along the normal, affine) of slices that make up a volume.

    The affine takes (column, row, place in the order) to millimetres, right-anterior-superior positive. A stack whose
    slices are shifted within their plane (a tilted gantry) gets a sheared one, which is exact.

    Args:
        slices: at least two.
        where: the series, for messages.

    Raises:
        DataError: mixed orientations or distances, two slices at one place, or a gap.
    """
    first = slices[0]
    for one in slices:
        apart = max(np.abs(one.right - first.right).max(), np.abs(one.down - first.down).max())
        if apart > ORIENTATION_TOLERANCE:
            raise DataError(
                f"{where} mixes slices of several orientations, as a localizer does. Give those of one orientation."
            )
        if not np.allclose(one.spacing, first.spacing, rtol=1e-3):
            raise DataError(f"{where} mixes pixel distances: {first.spacing} and {one.spacing} mm. Split the series.")
    along = np.array([one.position @ first.normal for one in slices])
    order = np.argsort(along, kind="stable")
    gaps = np.diff(along[order])
    if gaps.min() < SAME_PLACE_MM:
        place = along[order][int(gaps.argmin())]
        raise DataError(
            f"{where} has more than one slice at {place:+.3f} mm along its normal: several volumes (times, echoes, "
            "diffusion weights) in one series, or a file twice. Split the series into one folder a volume."
        )
    step = float(np.median(gaps))
    worst = int(np.abs(gaps - step).argmax())
    if abs(gaps[worst] - step) > GAP_TOLERANCE * step:
        raise DataError(
            f"{where}: slices are {step:.3f} mm apart, but {gaps[worst]:.3f} mm after the one at "
            f"{along[order][worst]:+.3f} mm along the normal. Is a slice missing? Complete the series."
        )
    positions = np.array([slices[index].position for index in order])
    stride = (positions[-1] - positions[0]) / (len(slices) - 1)
    strayed = np.linalg.norm(positions - positions[0] - np.arange(len(slices))[:, None] * stride, axis=1).max()
    if strayed > max(GAP_TOLERANCE * step, 1.5e-2) * 2:
        raise DataError(f"{where}: the slices do not lie on a line ({strayed:.3f} mm off). Split the series.")
    affine = np.eye(4)
    affine[:3, 0] = first.right * first.spacing[1]
    affine[:3, 1] = first.down * first.spacing[0]
    affine[:3, 2] = stride
    affine[:3, 3] = positions[0]
    return [int(index) for index in order], LPS_TO_RAS @ affine


def shear_degrees(affine: NDArray[np.float64]) -> float:
    """Return the angle between a stack's direction and the normal of its slices."""
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    along = affine[:3, 2]
    cosine = abs(normal @ along) / (np.linalg.norm(normal) * np.linalg.norm(along))
    return float(np.degrees(np.arccos(np.clip(cosine, 0, 1))))
