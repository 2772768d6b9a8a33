"""The range of real values that a file wants to be shown from black to white (VOI LUT module, PS3.3, C.11.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from latentdrift.data.formats.dicom.tags import Tags
from latentdrift.data.formats.dicom.values import is_big_endian, lookup_table
from latentdrift.errors import DataError


@dataclass(frozen=True)
class Window:
    """A display range.

    Attributes:
        range: (low, high) real values shown as black and white, or None where the file wants none.
        note: what it comes from and how exact it is.
        reversed: the file's table shows low values bright.
    """

    range: tuple[float, float] | None
    note: str
    reversed: bool = False


def voi_window(tags: Tags, choice: int | str = 0, *, signed: bool = False) -> Window:
    """Return the display range of a frame.

    A file may give windows and tables as alternatives. Windows come first: a range says exactly what they mean. Of a
    table, and of a SIGMOID window, the range is that of the straight line nearest to it, and the note says so.

    Args:
        tags: of the frame.
        choice: which window, by its place from 0 or by its explanation ("BRAIN"; upper and lower case are the same).
        signed: values that enter a table may be negative.

    Raises:
        DataError: there are windows, and not the one asked for.
    """
    centres, widths = tags.numbers("WindowCenter"), tags.numbers("WindowWidth")
    if centres and widths:
        index = _index(tags, choice, min(len(centres), len(widths)))
        return _of_window(centres[index], widths[index], tags.text("VOILUTFunction") or "LINEAR")
    tables = tags.raw("VOILUTSequence")
    if tables:
        return _of_table(Tags(tables[0], tags.path), signed, is_big_endian(tags))
    return Window(None, "none")


def _index(tags: Tags, choice: int | str, count: int) -> int:
    if isinstance(choice, int):
        if 0 <= choice < count:
            return choice
        raise DataError(f"{tags.path} has {count} window(s); there is no window {choice} (counted from 0).")
    names = [name.casefold() for name in tags.texts("WindowCenterWidthExplanation")][:count]
    if choice.strip().casefold() not in names:
        raise DataError(
            f"{tags.path} has no window called {choice!r}; it has: {', '.join(names) or 'none with names'}."
        )
    return names.index(choice.strip().casefold())


def _of_window(centre: float, width: float, function: str) -> Window:
    """Return the range of a window after C.11.2.1.2 and C.11.2.1.3."""
    if width <= 0 or (function == "LINEAR" and width < 1):
        return Window(None, f"none: the file's window width is {width:g}")
    if function == "LINEAR_EXACT":
        return Window((centre - width / 2, centre + width / 2), "window, LINEAR_EXACT")
    if function == "SIGMOID":
        # 1 / (1 + exp(-4 (x - c) / w)) has the slope 1 / w at its centre: the tangent spans one width.
        return Window((centre - width / 2, centre + width / 2), "window, SIGMOID: its tangent at the centre")
    if width == 1:  # a threshold between centre - 1 and centre, in steps of 1
        return Window((centre - 1, centre), "window, LINEAR: a threshold")
    middle, half = centre - 0.5, (width - 1) / 2
    return Window((middle - half, middle + half), "window, LINEAR")


def _of_table(item: Tags, signed: bool, big_endian: bool) -> Window:
    entries, first, _ = lookup_table(item, signed, big_endian=big_endian)
    falls = bool(entries[-1] < entries[0])
    rising = np.maximum.accumulate(-entries if falls else entries)
    span = rising[-1] - rising[0]
    if span <= 0:
        return Window(None, "none: the file's VOI LUT is constant")
    places = first + np.arange(len(entries), dtype=np.float64)
    level = (rising - rising[0]) / span
    low, high = (_crossing(places, level, part) for part in (0.1, 0.9))
    edge = (high - low) / 8  # the line through 10 % and 90 % reaches 0 and 100 % an eighth further
    if edge <= 0:
        return Window((low - 0.5, high + 0.5), "VOI LUT: a threshold", falls)
    return Window((low - edge, high + edge), "VOI LUT: the line through 10 % and 90 % of its output", falls)


def _crossing(places: np.ndarray, level: np.ndarray, part: float) -> float:
    """Return where a rising curve first reaches a part of its height, between entries by a straight line."""
    after = int(np.argmax(level >= part))
    if after == 0:
        return float(places[0])
    share = (part - level[after - 1]) / (level[after] - level[after - 1])
    return float(places[after - 1] + share * (places[after] - places[after - 1]))
