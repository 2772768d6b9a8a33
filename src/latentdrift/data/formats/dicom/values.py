"""Stored values ↔ real values: the modality look-up table, pixel padding, and luminance of colour images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.formats.dicom.pixels import PixelFormat
from latentdrift.data.formats.dicom.tags import Tags

AIR_HU = -1000.0
"""What pixels outside a CT scanner's field of reconstruction are taken for."""

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of R, G and B (ITU-R BT.601), as DICOM's own YBR_FULL has them."""


@dataclass(frozen=True)
class ModalityMap:
    """The modality transformation (PS3.3, C.11.1): real = slope · stored + intercept, or a table.

    Attributes:
        slope, intercept: of the linear one; not used with a table.
        units: what the real values are: "HU", or as the file says, or None.
        table: real values of stored ones from `first` on, or None. Stored values beyond its ends take its ends.
        first: the stored value of the table's first entry.
    """

    slope: float = 1.0
    intercept: float = 0.0
    units: str | None = None
    table: NDArray[np.float64] | None = None
    first: int = 0

    def real(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Return the real values of stored ones."""
        if self.table is not None:
            return self.table[self._entries(stored)].astype(np.float32)
        if (self.slope, self.intercept) == (1.0, 0.0):
            return stored.astype(np.float32)
        real = stored * self.slope
        real += self.intercept
        return real.astype(np.float32)

    def change_stored(
        self, stored: NDArray[Any], change: NDArray[np.floating[Any]], limits: tuple[int, int]
    ) -> NDArray[Any]:
        """Return stored values whose real ones are as near as can be to those of `stored` plus a change.

        Where the change is exactly 0 the very same stored value comes back. Others are rounded to the nearest value
        and clipped to `limits`.

        Args:
            stored: whole numbers, of any shape.
            change: of the same shape, in real units.
            limits: lowest and highest value that can be stored.
        """
        if self.table is None:
            wanted = np.rint(stored + change.astype(np.float64) / self.slope)
        else:
            low = max(self.first, limits[0])
            high = min(self.first + len(self.table) - 1, limits[1])
            table = self.table[low - self.first : high - self.first + 1]
            order = np.argsort(table, kind="stable")
            goal = self.table[self._entries(stored)] + change.astype(np.float64)
            after = np.clip(np.searchsorted(table[order], goal), 1, max(len(table) - 1, 1))
            before = order[after - 1]
            after = order[np.minimum(after, len(table) - 1)]
            wanted = low + np.where(np.abs(table[before] - goal) <= np.abs(table[after] - goal), before, after)
        found = np.clip(wanted, *limits).astype(stored.dtype)
        return np.where(change == 0, stored, found)

    def _entries(self, stored: NDArray[Any]) -> NDArray[Any]:
        assert self.table is not None
        return np.clip(stored.astype(np.int64) - self.first, 0, len(self.table) - 1)


def modality_map(tags: Tags, form: PixelFormat) -> ModalityMap:
    """Return the modality transformation of a frame; without one, real values are the stored ones.

    Raises:
        DataError: a slope of 0, or a table that contradicts its descriptor.
    """
    if not form.gray:
        return ModalityMap()
    tables = tags.raw("ModalityLUTSequence")
    if tables:
        item = Tags(tables[0], tags.path)
        values, first, _ = lookup_table(item, form.signed, big_endian=is_big_endian(tags))
        return ModalityMap(units=item.text("ModalityLUTType"), table=values, first=first)
    slope, intercept = tags.number("RescaleSlope"), tags.number("RescaleIntercept")
    if slope == 0:
        raise tags.refusal("RescaleSlope", "is 0, which makes every pixel the same")
    found = ModalityMap(1.0 if slope is None else slope, intercept or 0.0, tags.text("RescaleType"))
    if found.units in (None, "US") and tags.text("Modality") == "CT" and intercept is not None:
        # CT images of which no type is told are in Hounsfield units by definition (PS3.3, C.8.2.1.1).
        return replace(found, units="HU")
    return found


def lookup_table(item: Tags, signed: bool, *, big_endian: bool = False) -> tuple[NDArray[np.float64], int, int]:
    """Return (entries, first stored value mapped, bits of an entry) of a LUT sequence's item (PS3.3, C.11.1.1).

    Args:
        item: the item.
        signed: stored values are signed, and so is the first one mapped.
        big_endian: byte order of entries that the file keeps as bytes.

    Raises:
        DataError: it has no descriptor, or fewer entries than that says.
    """
    value = item.raw("LUTDescriptor")
    if isinstance(value, bytes) and len(value) == 6:
        value = np.frombuffer(value, ">u2" if big_endian else "<u2").tolist()
    if value is None or isinstance(value, bytes | str) or len(value) != 3:
        raise item.refusal("LUTDescriptor", "is missing or has not three values")
    count, first = int(value[0]) % 2**16 or 2**16, int(value[1]) % 2**16
    first = first - 2**16 if signed and first >= 2**15 else first
    data = item.raw("LUTData")
    if isinstance(data, bytes):
        kind = np.dtype(np.uint8) if len(data) < 2 * count else np.dtype(">u2" if big_endian else "<u2")
        data = np.frombuffer(data[: len(data) // kind.itemsize * kind.itemsize], kind)
    entries = np.atleast_1d(np.asarray([] if data is None else data, dtype=np.float64))
    if len(entries) < count:
        raise item.refusal("LUTData", f"has {len(entries)} entries instead of {count}")
    return entries[:count], first, int(value[2])


def padding_bounds(tags: Tags, form: PixelFormat) -> tuple[int, int] | None:
    """Return the lowest and highest stored value that is padding (PixelPaddingValue, …RangeLimit), None without."""
    value, limit = (in_stored_sign(tags, form, name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if value is None or not form.gray or form.keyword != "PixelData":
        return None
    other = value if limit is None else limit
    return min(value, other), max(value, other)


def padding(tags: Tags, form: PixelFormat, stored: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Return where the pixels only fill up the rectangle, None if nowhere or (for it says nothing then) everywhere."""
    bounds = padding_bounds(tags, form)
    if bounds is None:
        return None
    found: NDArray[np.bool_] = (stored >= bounds[0]) & (stored <= bounds[1])
    return found if found.any() and not found.all() else None


def fill_padding(real: NDArray[np.float32], units: str | None, inverted: bool) -> None:
    """Replace NaN, in place: by air where the values are HU, else by the darkest of the other values."""
    missing = np.isnan(real)
    if missing.any():
        rest = real[~missing]
        real[missing] = AIR_HU if units == "HU" else (rest.max() if inverted else rest.min())


def luminance(rgb: NDArray[Any]) -> NDArray[np.float32]:
    """Return Y of (H, W, 3) values, on the scale of the channels."""
    return (rgb @ np.array(LUMINANCE)).astype(np.float32)


def is_big_endian(tags: Tags) -> bool:
    """Tell whether the file keeps its numbers with the highest byte first."""
    return str(tags.dataset.file_meta.TransferSyntaxUID) == "1.2.840.10008.1.2.2"


def in_stored_sign(tags: Tags, form: PixelFormat, keyword: str) -> int | None:
    """Return a value of the VR "US or SS", whichever of both the file wrote, with the sign of the pixels."""
    value = tags.raw(keyword)
    if isinstance(value, bytes):
        value = int.from_bytes(value[:2], "big" if is_big_endian(tags) else "little")
    if value is None:
        return None
    try:
        number = int(value)
    except (TypeError, ValueError) as error:
        raise tags.refusal(keyword, f"is {str(value)[:60]!r}, no whole number") from error
    if form.signed:
        return (number + 2**15) % 2**16 - 2**15 if number >= 2**15 else number
    return number % 2**16 if number < 0 else number
