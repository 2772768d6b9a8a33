"""What stands between a file and a cohort's image: a `Scan` that a source lists, a `Volume` or `Plane` read from it.

    source folder → Scan (files, subject, session, attributes) → Volume (3-D) → Plane (2-D) → square image → Record

Pixels are real values (HU in CT, arbitrary units in MRI), after the file's own slope and intercept; nothing is cut to a
display range before a `Placement` does it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.records import Value
from latentdrift.errors import DataError


@dataclass(frozen=True)
class Scan:
    """One acquisition as a source lists it, before anything but its table was read.

    Attributes:
        key: unique in the source and stable: the path of its file or folder relative to the root, with "/".
        files: one file, or the files of one DICOM series.
        subject: who it shows, or None where that is not known.
        session: which visit, or None.
        attributes: what the tables say: text as written, numbers as numbers. `age` is in years.
    """

    key: str
    files: tuple[Path, ...]
    subject: str | None = None
    session: str | None = None
    attributes: Mapping[str, Value] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Refusal:
    """Something a source names that cannot be used: which (a path or a table's line), and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Volume:
    """A three-dimensional scan.

    Attributes:
        voxels: (I, J, K) float32, real values, in the order of the file.
        affine: (4, 4) float64, voxel index to millimetres, right-anterior-superior positive (as NIfTI).
        modality: DICOM's code: "MR", "CT", "PT", …; "OT" where the file does not say.
        facts: what else the file says and a reader may want; never a patient's identifiers.
    """

    voxels: NDArray[np.float32]
    affine: NDArray[np.float64]
    modality: str = "OT"
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.voxels.ndim != 3 or 0 in self.voxels.shape:
            raise DataError(f"A volume has three axes, none empty; this one has the shape {self.voxels.shape}.")
        if self.affine.shape != (4, 4) or not np.isfinite(self.affine).all():
            raise DataError(f"The affine of a volume is 4 x 4 and finite, not {self.affine.tolist()}.")
        if abs(np.linalg.det(self.affine[:3, :3])) < 1e-9:
            raise DataError("The affine of the volume is singular: a voxel has no volume. Repair the header.")


@dataclass(frozen=True)
class Plane:
    """A two-dimensional image, as it is looked at: rows run down, columns to the right.

    Attributes:
        pixels: (H, W) float32, real values.
        spacing: (row, column) distance of neighbours in mm; (1, 1) where the file does not say.
        modality: as `Volume.modality`; X-rays are "CR" or "DX".
        bits: significant bits of a stored value.
        window: (low, high) real values that the file wants shown as black and white, or None.
        inverted: low values are bright (DICOM's MONOCHROME1); `pixels` are as stored all the same.
        facts: as `Volume.facts`; of a slice, where in the volume it was (`Cut.to_dict`).
    """

    pixels: NDArray[np.float32]
    spacing: tuple[float, float] = (1.0, 1.0)
    modality: str = "OT"
    bits: int = 8
    window: tuple[float, float] | None = None
    inverted: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.pixels.ndim != 2 or 0 in self.pixels.shape:
            raise DataError(f"A plane has rows and columns; this one has the shape {self.pixels.shape}.")
        if not all(np.isfinite(step) and step > 0 for step in self.spacing):
            raise DataError(f"The distance of pixels is {self.spacing} mm; it must be above 0. Repair the header.")
