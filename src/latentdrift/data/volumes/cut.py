"""Slices of a volume as they are looked at, and back to the very voxels they came from.

A cut is a plane of the array itself, never interpolated, so what is put back lands where it was. Where the array is
tilted against the body the slice is tilted too; the facts of the volume say by how much (`tilt_degrees`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.scan import Plane, Refusal, Volume
from latentdrift.data.volumes.intensity import foreground_threshold
from latentdrift.data.volumes.landmarks import head_centre, head_top
from latentdrift.data.volumes.orient import closest_axes, tilt_degrees, voxel_spacing
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError

PLANES = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}
"""World axes (0 right, 1 anterior, 2 superior) of a plane: its normal, what is up, what is to the side."""

DISPLAYS = ("neurological", "radiological")
REFERENCES = ("origin", "centre", "top")


@dataclass(frozen=True)
class Cut:
    """One slice of a volume's array.

    Attributes:
        plane: "axial" (anterior up), "coronal" or "sagittal" (superior up).
        axis: the array axis that is cut.
        index: which of its planes.
        transpose: the later of the two other axes runs down the image.
        flip_rows: the image runs down as the array runs backwards.
        flip_columns: the image runs right as the array runs backwards.
        position: where the plane's middle is along its normal, mm of the world (R, A or S positive).
        spacing: (row, column), mm.
        display: "neurological": the patient's right (sagittal: anterior) is at the image's right; "radiological": at
            its left.
    """

    plane: str
    axis: int
    index: int
    transpose: bool
    flip_rows: bool
    flip_columns: bool
    position: float
    spacing: tuple[float, float]
    display: str = "neurological"

    def __post_init__(self) -> None:
        if self.plane not in PLANES:
            raise UnknownNameError("plane", str(self.plane), PLANES)
        if self.display not in DISPLAYS:
            raise UnknownNameError("display", str(self.display), DISPLAYS)
        if self.axis not in (0, 1, 2) or self.index < 0:
            raise DataError(f"There is no plane {self.index} of axis {self.axis} in a volume. Prepare the scan again.")

    def take(self, voxels: NDArray[Any]) -> NDArray[Any]:
        """Return the slice (H, W) of voxels (I, J, K), of any type, as it is looked at: a view, no copy.

        Raises:
            DataError: an array that has no such slice.
        """
        if voxels.ndim != 3 or not 0 <= self.index < voxels.shape[self.axis]:
            raise DataError(f"A volume of the shape {voxels.shape} has no plane {self.index} along axis {self.axis}.")
        found = voxels[(slice(None),) * self.axis + (self.index,)]
        found = found.T if self.transpose else found
        return found[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]

    def put(self, voxels: NDArray[Any], pixels: NDArray[Any]) -> None:
        """Write pixels (H, W) as they are looked at into voxels (I, J, K), in place, and touch no other voxel.

        Raises:
            DataError: another shape, or a type that the voxels cannot hold.
        """
        place = self.take(voxels)
        if pixels.shape != place.shape:
            raise DataError(f"The slice has the shape {pixels.shape}; its place in the volume is {place.shape}.")
        if not np.can_cast(pixels.dtype, voxels.dtype, "same_kind"):
            raise DataError(f"Pixels of {pixels.dtype} do not fit into voxels of {voxels.dtype}. Round them first.")
        place[...] = pixels

    def voxel_of(self, shape: tuple[int, int, int], row: int, column: int) -> tuple[int, int, int]:
        """Return the voxel (i, j, k) that is shown at a row and column."""
        first, second = (axis for axis in range(3) if axis != self.axis)
        down, right = (second, first) if self.transpose else (first, second)
        index = [0, 0, 0]
        index[self.axis] = self.index
        index[down] = shape[down] - 1 - row if self.flip_rows else row
        index[right] = shape[right] - 1 - column if self.flip_columns else column
        return index[0], index[1], index[2]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        return {**asdict(self), "spacing": list(self.spacing)}

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> Cut:
        """Return what `to_dict` wrote.

        Raises:
            DataError: fields are missing or of another kind.
        """
        try:
            down, right = (float(step) for step in found["spacing"])
            return cls(
                plane=str(found["plane"]),
                axis=int(found["axis"]),
                index=int(found["index"]),
                transpose=bool(found["transpose"]),
                flip_rows=bool(found["flip_rows"]),
                flip_columns=bool(found["flip_columns"]),
                position=float(found["position"]),
                spacing=(down, right),
                display=str(found["display"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"This is no cut of a volume ({error!r}). Prepare the scan again.") from error


def cut_at(volume: Volume, plane: str, index: int, display: str = "neurological") -> Cut:
    """Return the cut of a given plane of the array.

    Raises:
        UnknownNameError: no such plane or display.
        DataError: the volume has no such index.
    """
    if plane not in PLANES:
        raise UnknownNameError("plane", plane, PLANES)
    normal, up, side = PLANES[plane]
    axes = closest_axes(volume.affine)
    axis, (down, up_against), (right, side_against) = axes[normal][0], axes[up], axes[side]
    if not 0 <= index < volume.voxels.shape[axis]:
        raise DataError(f"There is no {plane} slice {index}; the volume has {volume.voxels.shape[axis]}.")
    spacing = voxel_spacing(volume.affine)
    middle = (np.array(volume.voxels.shape) - 1) / 2
    middle[axis] = index
    return Cut(
        plane=plane,
        axis=axis,
        index=index,
        transpose=down > right,
        flip_rows=not up_against,
        flip_columns=side_against == (display == "neurological"),
        position=float(volume.affine[normal, :3] @ middle + volume.affine[normal, 3]),
        spacing=(float(spacing[down]), float(spacing[right])),
        display=display,
    )


def around(spacing: float, count: int) -> tuple[float, ...]:
    """Return `count` positions `spacing` mm apart, evenly to both sides of 0.

    Raises:
        ConfigurationError: no position, or no distance between them.
    """
    if count < 1 or not 0 < spacing < 1e4:
        raise ConfigurationError(f"{count} slices {spacing} mm apart cannot be; give 1 or more, above 0 mm apart.")
    return tuple((step - (count - 1) / 2) * spacing for step in range(count))


def pick_cuts(
    volume: Volume,
    plane: str,
    positions: Sequence[float],
    *,
    reference: str = "origin",
    display: str = "neurological",
    least_foreground: float = 0.02,
) -> tuple[dict[float, Cut], tuple[Refusal, ...]]:
    """Return the cut nearest to each position, and which positions have none and why.

    Args:
        volume: any orientation.
        plane: "axial", "coronal" or "sagittal".
        positions: mm along the plane's normal (towards superior, anterior or right), from the reference.
        reference: "origin" of the affine (as MNI coordinates, where the volume is registered), the "centre" of the
            head, or its "top" (axial only). In tilted volumes the position is that of the slice where it passes the
            head's centre.
        display: see `Cut`.
        least_foreground: share of the slice that must be above the volume's foreground threshold.

    Raises:
        UnknownNameError: no such plane, reference or display.
        ConfigurationError: "top" for another plane than the axial.
        DataError: a constant volume.
    """
    for kind, name, known in (
        ("plane", plane, tuple(PLANES)),
        ("reference", reference, REFERENCES),
        ("display", display, DISPLAYS),
    ):
        if name not in known:
            raise UnknownNameError(kind, name, known)
    if reference == "top" and plane != "axial":
        raise ConfigurationError(f"{plane} slices cannot be counted from the top of the head. Use origin or centre.")
    normal = PLANES[plane][0]
    axis = closest_axes(volume.affine)[normal][0]
    threshold = foreground_threshold(volume)
    centre = head_centre(volume, threshold)
    zero = {"origin": 0.0, "centre": centre[normal]}.get(reference, 0.0)
    if reference == "top":
        zero = head_top(volume, threshold)
    # The world coordinate of plane `index` where it passes the head's centre is start + index * step.
    point = np.linalg.solve(volume.affine[:3, :3], centre - volume.affine[:3, 3])
    step = float(volume.affine[normal, axis])
    start = float(centre[normal] - point[axis] * step)
    last = volume.voxels.shape[axis] - 1
    ends = sorted((start, start + last * step))
    cuts: dict[float, Cut] = {}
    refused: list[Refusal] = []
    for position in positions:
        name = f"{plane} slice at {position:+g} mm"
        where = (zero + position - start) / step
        index = min(max(round(where), 0), last)
        if not -0.5 <= where <= last + 0.5:
            reach = f"{ends[0] - zero:.0f} to {ends[1] - zero:.0f} mm"
            refused.append(Refusal(name, f"the volume reaches from {reach}."))
            continue
        twin = next((known for known, cut in cuts.items() if cut.index == index), None)
        if twin is not None:
            refused.append(Refusal(name, f"it is the slice of {twin:+g} mm too; slices are {abs(step):.3g} mm apart."))
            continue
        cut = cut_at(volume, plane, index, display)
        share = float(np.mean(cut.take(volume.voxels) > threshold))
        if share < least_foreground:
            refused.append(Refusal(name, f"{share:.1%} of it is foreground, less than {least_foreground:.1%}."))
            continue
        cuts[position] = cut
    return cuts, tuple(refused)


def choose_cuts(
    volume: Volume,
    plane: str,
    positions: Sequence[float],
    *,
    reference: str = "origin",
    display: str = "neurological",
    least_foreground: float = 0.02,
) -> tuple[Cut, ...]:
    """Return the cut of every position (see `pick_cuts`).

    Raises:
        DataError: a position has no slice, or one that holds too little; the message names each.
        ConfigurationError: as `pick_cuts`.
    """
    cuts, refused = pick_cuts(
        volume, plane, positions, reference=reference, display=display, least_foreground=least_foreground
    )
    if refused:
        raise DataError("; ".join(f"{refusal.name}: {refusal.reason}" for refusal in refused))
    return tuple(cuts.values())


def plane_of(volume: Volume, cut: Cut) -> Plane:
    """Return a slice as a plane of its own, with a copy of the pixels; `facts["cut"]` says where it was."""
    facts = {**volume.facts, "cut": cut.to_dict(), "tilt_degrees": round(tilt_degrees(volume.affine), 3)}
    window = volume.facts.get("window")
    return Plane(
        np.array(cut.take(volume.voxels), dtype=np.float32, order="C"),
        cut.spacing,
        volume.modality,
        int(volume.facts.get("bits", 16)),
        None if window is None else (float(window[0]), float(window[1])),
        bool(volume.facts.get("inverted", False)),
        facts,
    )
