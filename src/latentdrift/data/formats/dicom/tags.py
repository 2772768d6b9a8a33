"""Attributes of one frame of a DICOM data set, whether they stand at its top or in a functional group."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.errors import DataError

if TYPE_CHECKING:
    from pydicom import Dataset

FUNCTIONAL_GROUPS = (
    "PixelMeasuresSequence",
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelValueTransformationSequence",
    "FrameVOILUTSequence",
    "MRImageFrameTypeSequence",
    "CTImageFrameTypeSequence",
)
"""Macros of enhanced multi-frame objects that this package reads (PS3.3, C.7.6.16)."""


class Tags:
    """Typed access to the attributes that hold for one frame.

    An attribute is taken from the frame's own functional groups, else from the shared ones, else from the data set.
    Absent and empty attributes are None; one that cannot be read as what it should be raises DataError with the name
    of file and attribute.

    Args:
        dataset: a pydicom data set.
        path: its file, for messages.
        frame: which frame, from 0.
    """

    def __init__(self, dataset: Dataset, path: Path, frame: int = 0) -> None:
        self.dataset, self.path, self.frame = dataset, path, frame
        self._layers = [dataset]
        try:
            for holder, index in (("SharedFunctionalGroupsSequence", 0), ("PerFrameFunctionalGroupsSequence", frame)):
                items = dataset.get(holder) or []
                if index < len(items):
                    groups = (items[index].get(name) for name in FUNCTIONAL_GROUPS)
                    self._layers[:0] = [group[0] for group in groups if group]
        except Exception as error:  # pydicom parses sequences when they are looked at
            raise DataError(f"{path}: its functional groups are damaged ({error}). Replace the file.") from error

    def raw(self, keyword: str) -> Any:
        """Return pydicom's value, or None."""
        try:
            for layer in self._layers:
                value = layer.get(keyword)
                if value is not None and not (hasattr(value, "__len__") and len(value) == 0):
                    return value
        except Exception as error:  # conversion of a value happens here, and fails in many ways
            raise self.refusal(keyword, f"cannot be read ({str(error)[:120]})") from error
        return None

    def text(self, keyword: str) -> str | None:
        """Return a value as text, several joined by a backslash."""
        value = self.raw(keyword)
        if value is None:
            return None
        parts = [str(part) for part in value] if _several(value) else [str(value)]
        return "\\".join(parts).strip(" \0") or None

    def texts(self, keyword: str) -> tuple[str, ...]:
        """Return the values as text, none where it is absent."""
        value = self.raw(keyword)
        if value is None:
            return ()
        return tuple(str(part).strip(" \0") for part in (value if _several(value) else [value]))

    def numbers(self, keyword: str, count: int | None = None) -> tuple[float, ...] | None:
        """Return the values as finite numbers; `count` is how many there must be."""
        value = self.raw(keyword)
        if value is None:
            return None
        try:
            found = tuple(float(part) for part in (value if _several(value) else [value]))
        except (TypeError, ValueError) as error:
            raise self.refusal(keyword, f"is {str(value)[:60]!r}, no number") from error
        if not all(math.isfinite(number) for number in found):
            raise self.refusal(keyword, f"is {found}, not finite")
        if count is not None and len(found) != count:
            raise self.refusal(keyword, f"has {len(found)} values instead of {count}")
        return found

    def number(self, keyword: str) -> float | None:
        """Return the (first) value as a finite number."""
        found = self.numbers(keyword)
        return found[0] if found else None

    def whole(self, keyword: str, default: int | None = None) -> int:
        """Return the value as a whole number.

        Raises:
            DataError: it is absent and there is no default, or it is no whole number.
        """
        found = self.number(keyword)
        if found is None:
            if default is None:
                raise self.refusal(keyword, "is missing")
            return default
        if found != int(found):
            raise self.refusal(keyword, f"is {found}, no whole number")
        return int(found)

    def refusal(self, keyword: str, what: str) -> DataError:
        """Return the error that an attribute is not as it must be."""
        return DataError(f"{self.path}: {keyword} {what}. Repair the header, or remove the file.")


def _several(value: Any) -> bool:
    from pydicom.multival import MultiValue

    return isinstance(value, list | tuple | MultiValue)
