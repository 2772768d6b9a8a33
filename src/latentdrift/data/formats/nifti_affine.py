"""Where the voxels of a NIfTI file are in the world: sform, qform, units, and what to do without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentdrift.errors import DataError

SPACINGS = (1e-4, 1e4)
"""Distances of voxels that are believed, mm."""

TO_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""Of the spatial codes of xyzt_units: unknown (taken as mm), metre, millimetre, micrometre."""


def read_affine(path: Path, header: Any, shape: tuple[int, int, int], facts: dict[str, Any]) -> NDArray[np.float64]:
    """Return the (4, 4) affine in mm: the sform if its code is above 0, else the qform, else one of the spacing.

    Args:
        path: for messages.
        header: nibabel's NIfTI header, unchecked.
        shape: (I, J, K).
        facts: gets what the affine is from, and what had to be assumed.

    Raises:
        DataError: distances that cannot be, or neither affine is one.
    """
    code = int(header["xyzt_units"]) & 7
    to_mm = TO_MM.get(code, 1.0)
    steps = np.array(header["pixdim"][1:4], dtype=np.float64)
    for axis, (step, side) in enumerate(zip(steps, shape, strict=True)):
        if step == 0 and side == 1:
            steps[axis] = 1.0 / to_mm
            facts["thickness"] = "not given; taken as 1 mm"
        elif not SPACINGS[0] <= step * to_mm <= SPACINGS[1]:
            raise DataError(f"{path}: the distance of voxels along axis {axis + 1} is {step:g}. Repair the header.")
    filled = header.copy()
    filled["pixdim"][1:4] = steps
    # qfac: by the standard -1 mirrors the third axis, and anything else is 1.
    filled["pixdim"][0] = -1 if float(header["pixdim"][0]) == -1 else 1
    sform, qform = int(header["sform_code"]), int(header["qform_code"])
    affine, origin = None, ""
    if sform > 0:
        affine, origin = _plausible(np.asarray(filled.get_sform(), np.float64), shape, to_mm), "sform"
    if affine is None and qform > 0:
        if sform > 0:
            facts["sform"] = "damaged; the qform is used"
        affine, origin = _plausible(_qform(path, filled), shape, to_mm), "qform"
    if affine is None and (sform > 0 or qform > 0):
        raise DataError(f"{path}: the affine in the header is singular or not finite. Repair it (sform, qform).")
    if affine is None:
        affine = np.asarray(filled.get_base_affine(), np.float64)
        affine[:3] *= to_mm
        origin = "assumed: the header has neither sform nor qform; left and right cannot be told"
    facts["orientation_from"] = origin
    facts["unit"] = {1: "metre, made mm", 3: "micrometre, made mm", 2: "mm"}.get(code, "not given; taken as mm")
    return affine


def _qform(path: Path, header: Any) -> NDArray[np.float64]:
    from nibabel.spatialimages import HeaderDataError

    try:
        return np.asarray(header.get_qform(), np.float64)
    except (HeaderDataError, ValueError) as error:
        raise DataError(f"{path}: the qform in the header is no rotation ({error}). Repair it.") from error


def _plausible(affine: NDArray[np.float64], shape: tuple[int, int, int], to_mm: float) -> NDArray[np.float64] | None:
    """Return a 4 x 4 affine in mm, the missing direction of a single slice filled in; None if it cannot be one."""
    affine = affine.copy()
    affine[:3] *= to_mm
    if not np.isfinite(affine).all():
        return None
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    dead = [axis for axis in range(3) if sides[axis] == 0]
    if len(dead) == 1 and shape[dead[0]] == 1:
        first, second = (affine[:3, axis] for axis in range(3) if axis != dead[0])
        affine[:3, dead[0]] = np.cross(first, second) / np.linalg.norm(np.cross(first, second))
        sides = np.linalg.norm(affine[:3, :3], axis=0)
    if not ((sides >= SPACINGS[0]) & (sides <= SPACINGS[1])).all():
        return None
    # The volume of a voxel, as a part of the box with the same sides: 1 where the axes are at right angles.
    return affine if abs(np.linalg.det(affine[:3, :3] / sides)) > 1e-3 else None
