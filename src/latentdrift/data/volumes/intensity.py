"""Which real values become black and white: one range a volume, so that its slices stay comparable."""

from __future__ import annotations

import math
import re

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.scan import Plane, Volume
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError

CT_WINDOWS = {
    "brain": (40.0, 80.0),
    "stroke": (40.0, 40.0),
    "subdural": (75.0, 215.0),
    "soft-tissue": (50.0, 400.0),
    "mediastinum": (50.0, 350.0),
    "liver": (30.0, 150.0),
    "lung": (-600.0, 1500.0),
    "bone": (400.0, 1800.0),
}
"""(level, width) in HU, as radiology departments use them (Radiopaedia, "Windowing (CT)")."""

METHODS = ("auto", "percentiles", "window", "minmax", *CT_WINDOWS)
LEVEL_AND_WIDTH = re.compile(r"(-?\d+(?:\.\d+)?)/(\d+(?:\.\d+)?)")

PERCENTILES = (0.5, 99.5)
"""Of the foreground: what is beyond is a vessel, an artefact, a marker."""

SAMPLE = 1_000_000
"""Voxels that statistics are taken from, evenly spread over larger volumes."""

LARGEST_RANGE = 1e37
"""Between the lowest and the highest value; sums and differences of float32 overflow soon after."""

CT_FOREGROUND = -500.0
"""HU between air and every tissue but lung."""

XRAY = frozenset({"CR", "DX", "MG", "RG", "RF", "XA", "PX", "IO"})
NOT_HU = XRAY | {"MR", "US", "NM", "PT"}


def intensity_range(scan: Volume | Plane, method: str = "auto") -> tuple[float, float]:
    """Return the real values (low, high) to show as black and white.

    Args:
        scan: all of a volume, or one image.
        method: "percentiles": 0.5 % to 99.5 % of the foreground (MRI and other volumes; black no higher than the
            middle of the background, so dark fluid is kept) or of all pixels (X-rays); "window": the file's own;
            "minmax"; a CT window by name, or level and width in HU as "40/80". "auto": the brain window for CT, the
            file's window where an X-ray or a picture has one, percentiles otherwise.

    Raises:
        UnknownNameError: no such method.
        ConfigurationError: a CT window for a scan whose values are not HU.
        DataError: a constant image, or one without the window that is asked for.
    """
    values = scan.voxels if isinstance(scan, Volume) else scan.pixels
    window = scan.facts.get("window") if isinstance(scan, Volume) else scan.window
    own = LEVEL_AND_WIDTH.fullmatch(method)
    if method not in METHODS and not own:
        raise UnknownNameError("intensity range", method, METHODS)
    if method == "auto":
        shown = window is not None and isinstance(scan, Plane) and scan.modality not in ("MR", "CT", "PT")
        method = "brain" if scan.modality == "CT" else "window" if shown else "percentiles"
        if method == "window" and window is not None and _misses(values, (window[0], window[1])):
            method = "percentiles"  # a window left over from before the values were rescaled
    if method in CT_WINDOWS or own:
        if scan.modality in NOT_HU:
            raise ConfigurationError(
                f"The intensity range {method!r} is in HU; this scan is {scan.modality}. Choose auto or percentiles."
            )
        level, width = (float(own[1]), float(own[2])) if own else CT_WINDOWS[method]
        return _checked(level - width / 2, level + width / 2)
    if method == "window":
        if window is None:
            raise DataError("The file has no window to show it in. Choose the intensity range auto or percentiles.")
        return _checked(float(window[0]), float(window[1]))
    low, high = float(values.min()), float(values.max())
    _checked(low, high)
    if method == "minmax":
        return low, high
    sample = _sample(values)
    if scan.modality in XRAY:
        low, high = (float(value) for value in np.percentile(sample, PERCENTILES))
        return _checked(low, high)
    return _checked(*_of_foreground(sample))


def foreground_threshold(scan: Volume | Plane) -> float:
    """Return the real value above which a voxel shows something: Otsu's, or between air and tissue in CT.

    Raises:
        DataError: a constant image.
    """
    if scan.modality == "CT":
        return CT_FOREGROUND
    values = _sample(scan.voxels if isinstance(scan, Volume) else scan.pixels)
    _checked(float(values.min()), float(values.max()))
    return otsu_threshold(values)


def foreground_fraction(pixels: NDArray[np.float32], low: float, high: float) -> float:
    """Return the share of pixels that are visibly above black: by more than a tenth of the range."""
    return float(np.mean(pixels > low + 0.1 * (high - low)))


def otsu_threshold(values: NDArray[np.float32], bins: int = 256) -> float:
    """Return the threshold with the most variance between the two classes (Otsu 1979, IEEE Trans. SMC 9:62).

    The top thousandth is counted as if it were at its lower end: a few hot voxels would leave one bin for the rest.
    """
    lowest = float(values.min())
    top = float(np.percentile(values, 99.9))
    top = top if top > lowest else float(values.max())
    counts, edges = np.histogram(np.minimum(values, np.float32(top)), bins, (lowest, top))
    middles = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts).astype(np.float64)[:-1]
    above = counts.sum() - below
    sums = np.cumsum(counts * middles)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    between = np.nan_to_num(between)
    # Between two separate peaks every threshold is as good as the next: take the middle.
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))
    return float(edges[1 + round(float(best.mean()))])


def _of_foreground(values: NDArray[np.float32]) -> tuple[float, float]:
    blank = next((value for value in (np.float32(0), values.min()) if np.mean(values == value) > 0.05), None)
    if blank is not None and np.mean(values < blank) > 0.01:
        # Centred values (z-scores) with a blank background in their middle: that is no dark tissue.
        low, high = np.percentile(values[values != blank], PERCENTILES)
        return float(low), float(high)
    threshold = otsu_threshold(values)
    inside = values > threshold
    low, high = np.percentile(values[inside], PERCENTILES)
    return min(float(low), float(np.median(values[~inside]))), float(high)


def _sample(values: NDArray[np.float32]) -> NDArray[np.float32]:
    flat = values.ravel(order="K")
    step = -(-flat.size // SAMPLE)
    while math.gcd(step, flat.size) > 1 and step > 1:
        step += 1  # a step that divides a side of the volume would see few of its columns
    return flat[::step]


def _misses(values: NDArray[np.float32], window: tuple[float, float]) -> bool:
    return float(values.max()) <= window[0] or float(values.min()) >= window[1] or window[1] <= window[0]


def _checked(low: float, high: float) -> tuple[float, float]:
    if not (np.isfinite(low) and np.isfinite(high) and high > low):
        raise DataError(f"The image is constant, or nearly: its range is {low:g} to {high:g}. Leave it out.")
    if high - low > LARGEST_RANGE:
        raise DataError(f"The image has values from {low:g} to {high:g}: it is damaged. Replace it, or leave it out.")
    return low, high
