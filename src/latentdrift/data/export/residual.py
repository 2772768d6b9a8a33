"""An edit as what it changes: pixels that it leaves alone keep the very bits they had.

A residual file (.npz) holds the change in real units (H, W; float32), how the slice was placed on the model's image and
in its volume, where the edit came from, and the SHA-256 of the stored pixels it is a change of.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.files import write_bytes
from latentdrift.data.images import MAX_PIXELS
from latentdrift.data.provenance.marks import marks
from latentdrift.data.scan import Plane
from latentdrift.data.volumes.cut import Cut
from latentdrift.data.volumes.placement import Placement
from latentdrift.errors import ConfigurationError, DataError

FORMAT = "latentdrift residual 1"
EXACT_INTEGERS = 2**53
"""Larger 64-bit integers are not exact as float64."""

MAX_DESCRIPTION = 2**24
"""Bytes of the JSON in a residual file."""


def apply_change(
    stored: NDArray[Any],
    change: NDArray[np.floating[Any]],
    slope: float = 1.0,
    intercept: float = 0.0,
    low: float | None = None,
    high: float | None = None,
) -> NDArray[Any]:
    """Return stored values (H, W) changed by real units (H, W), in the same type and byte order.

    The real value is stored * slope + intercept. Where the change is 0 every bit stays, outside [low, high] too.
    Integers are rounded, so a change of less than half a slope is lost. Results are clipped to what the type can hold.
    Stored values that are not finite stay.

    Args:
        stored: integers or floating-point numbers, as in the file.
        change: real units.
        slope: of the file, not 0.
        intercept: of the file.
        low: real value below which no change leads.
        high: real value above which no change leads.

    Raises:
        DataError: other shapes, a change that is not finite, a slope of 0, or integers too large to be exact.
    """
    if stored.shape != change.shape:
        raise DataError(f"The change has the shape {change.shape}; the stored pixels have {stored.shape}.")
    if not np.isfinite(change).all():
        raise DataError("The change holds NaN or infinite values. The model or its settings diverged.")
    if stored.dtype.kind not in "iuf":
        raise DataError(f"Stored pixels of {stored.dtype} cannot be changed by real values. Convert the source first.")
    if slope == 0 or not np.isfinite([slope, intercept]).all():
        raise DataError(f"The slope is {slope} and the intercept {intercept}; no value can be stored so.")
    found = stored.copy()
    changed = change != 0
    before = stored[changed].astype(np.float64)
    finite = np.isfinite(before)
    after = before + change[changed].astype(np.float64) / slope
    least, most = (low, high) if slope > 0 else (high, low)
    lowest = -np.inf if least is None else (least - intercept) / slope
    highest = np.inf if most is None else (most - intercept) / slope
    # What is out of range already is not pulled into it: that would be more than the change.
    after = np.clip(after, np.minimum(lowest, before), np.maximum(highest, before))
    if stored.dtype.kind in "iu":
        if before.size and np.abs(before).max() > EXACT_INTEGERS:
            raise DataError("Stored integers above 2**53 cannot be changed exactly. Convert the source to 32 bits.")
        limits = np.iinfo(stored.dtype)
        after = np.clip(np.rint(after), limits.min, limits.max)
        # The float64 next to a 64-bit limit is beyond it.
        top = after >= limits.max
        values = np.where(top, 0, after).astype(stored.dtype)
        values[top] = limits.max
    else:
        largest = np.finfo(stored.dtype).max
        values = np.where(finite, np.clip(np.where(finite, after, 0), -largest, largest), before).astype(stored.dtype)
        values[~finite] = stored[changed][~finite]
    found[changed] = values
    return found


def confine(
    change: NDArray[np.floating[Any]],
    threshold: float | NDArray[np.floating[Any]] = 0.0,
    mask: NDArray[np.bool_] | None = None,
    feather: float = 0,
) -> NDArray[np.float32]:
    """Return the change (H, W) where it matters: 0 where it is smaller than the threshold, and outside the mask.

    Args:
        change: real units.
        threshold: one, or (H, W), of the change's unit, at least 0.
        mask: (H, W), true where the edit may change something.
        feather: width in pixels of the border inside the mask over which the change fades to 0.

    Raises:
        ConfigurationError: a threshold or feather below 0.
        DataError: other shapes, or a change that is not finite.
    """
    for name, found in (("change", change), ("threshold", np.asarray(threshold))):
        if not np.isfinite(found).all():
            raise DataError(f"The {name} holds NaN or infinite values.")
    if np.min(threshold) < 0 or feather < 0:
        raise ConfigurationError(f"The threshold ({np.min(threshold):g}) and feather ({feather:g}) must be at least 0.")
    for name, shape in (("threshold", np.shape(threshold)), ("mask", change.shape if mask is None else mask.shape)):
        if shape not in ((), change.shape):
            raise DataError(f"The {name} has the shape {shape}; the change has {change.shape}.")
    kept = np.where(np.abs(change) >= threshold, change, 0).astype(np.float32)
    if mask is None:
        return kept
    inside = mask.astype(bool)
    if feather and not inside.all():
        from scipy.ndimage import distance_transform_edt

        kept = kept * np.clip(distance_transform_edt(inside) / (feather + 1), 0, 1).astype(np.float32)
    # np.where, not a product: -1 times 0 is -0.
    return np.where(inside, kept, np.float32(0))


def pixels_hash(stored: NDArray[Any]) -> str:
    """Return the SHA-256 (hex) of stored pixels: their shape, their type and their values, whatever the byte order."""
    plain = np.ascontiguousarray(stored, dtype=stored.dtype.newbyteorder("<"))
    described = json.dumps([list(plain.shape), plain.dtype.str]).encode()
    return hashlib.sha256(described + b"\0" + plain.tobytes()).hexdigest()


@dataclass(frozen=True)
class Residual:
    """A change of one slice or image, with all that is needed to apply it later.

    Attributes:
        change: (H, W) float32, real units, as looked at.
        source_hash: `pixels_hash` of the stored pixels (H, W), as looked at.
        slope: of the source's values.
        intercept: of the source's values.
        placement: how the model saw the slice, or None.
        cut: where in its volume the slice was, or None.
        provenance: what made the edit: JSON values, no identifiers.
    """

    change: NDArray[np.float32]
    source_hash: str
    slope: float = 1.0
    intercept: float = 0.0
    placement: Placement | None = None
    cut: Cut | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def apply(self, stored: NDArray[Any], low: float | None = None, high: float | None = None) -> NDArray[Any]:
        """Return the stored pixels (H, W) with the change (see `apply_change`).

        Raises:
            DataError: these are not the pixels the change was made for.
        """
        if pixels_hash(stored) != self.source_hash:
            raise DataError(
                f"This change was made for other pixels (SHA-256 {self.source_hash[:12]}…, these have "
                f"{pixels_hash(stored)[:12]}…). Give the scan, frame and slice that were edited."
            )
        return apply_change(stored, self.change, self.slope, self.intercept, low, high)

    def save(self, path: Path) -> Path:
        """Write a residual file, whole or not at all; the same residual gives the same bytes.

        Raises:
            DataError: provenance that is no JSON, or a disk that is full or read-only.
        """
        described = {
            "format": FORMAT,
            **marks(),
            "source_hash": self.source_hash,
            "slope": self.slope,
            "intercept": self.intercept,
            "placement": None if self.placement is None else self.placement.to_dict(),
            "cut": None if self.cut is None else self.cut.to_dict(),
            "provenance": dict(self.provenance),
        }
        try:
            text = json.dumps(described, sort_keys=True, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise DataError(f"What describes the change is no JSON: {error}.") from error
        packed = io.BytesIO()
        change = np.ascontiguousarray(self.change, dtype="<f4")
        np.savez_compressed(packed, change=change, description=np.frombuffer(text, np.uint8))
        write_bytes(path, packed.getvalue())
        return path

    @classmethod
    def load(cls, path: Path) -> Residual:
        """Return what `save` wrote.

        Raises:
            DataError: no residual file, or a damaged one.
        """
        try:
            with zipfile.ZipFile(path) as packed:
                sizes = {entry.filename: entry.file_size for entry in packed.infolist()}
            if sizes.get("change.npy", 0) > 4 * MAX_PIXELS + 4096 or sizes.get("description.npy", 0) > MAX_DESCRIPTION:
                raise DataError(f"{path} claims more than an image can hold. It is damaged; make it again.")
            with np.load(path, allow_pickle=False) as arrays:
                change, text = arrays["change"], arrays["description"].tobytes()
            found = json.loads(text)
            if found["format"] != FORMAT or change.ndim != 2 or change.dtype != np.dtype("<f4"):
                raise ValueError(f"format {found['format']!r}, {change.dtype} {change.shape}")
            if not np.isfinite(change).all():
                raise ValueError("a change that is not finite")
            return cls(
                change,
                str(found["source_hash"]),
                float(found["slope"]),
                float(found["intercept"]),
                None if found["placement"] is None else Placement.from_dict(found["placement"]),
                None if found["cut"] is None else Cut.from_dict(found["cut"]),
                dict(found["provenance"]),
            )
        except DataError:
            raise
        except Exception as error:  # zipfile and numpy raise anything on damaged files
            raise DataError(f"{path} is no residual file, or damaged ({error}). Make it again.") from error


def residual_of(
    plane: Plane,
    stored: NDArray[Any],
    change: NDArray[np.float32],
    placement: Placement | None = None,
    *,
    slope: float = 1.0,
    intercept: float = 0.0,
    provenance: Mapping[str, Any] | None = None,
) -> Residual:
    """Return the residual of an edited plane; its cut is taken from the plane's facts.

    Raises:
        DataError: plane, stored pixels and change are not of one shape.
    """
    if not plane.pixels.shape == stored.shape == change.shape:
        raise DataError(f"Plane {plane.pixels.shape}, stored {stored.shape} and change {change.shape} do not match.")
    cut = plane.facts.get("cut")
    return Residual(
        change.astype(np.float32),
        pixels_hash(stored),
        slope,
        intercept,
        placement,
        None if cut is None else Cut.from_dict(cut),
        provenance or {},
    )
