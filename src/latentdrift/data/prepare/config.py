"""How scans become images: the settings of `prepare`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal, get_args, get_type_hints

from latentdrift.errors import ConfigurationError, UnknownNameError

VERSION = 1
"""Raised whenever the same settings give other images, so that a former preparation is not gone on with."""

AS_OFTEN = ("workers", "time_limit_s")
"""Settings that do not change the images."""


@dataclass(frozen=True)
class PrepareConfig:
    """Settings shared by all sources."""

    size: int = 256
    """Side of the images in pixels."""
    fit: Literal["pad", "crop"] = "pad"
    """pad shows the whole slice on black; crop keeps the central square."""
    extent_mm: float | None = None
    """Side of the square in mm, the same for every slice, so that heads keep their relative size; by default each
    slice's own longer (pad) or shorter (crop) side."""
    plane: Literal["axial", "coronal", "sagittal"] = "axial"
    """Which slices of a volume."""
    positions: tuple[float, ...] = (0.0,)
    """Where, in mm along the plane's normal (towards superior, anterior or right), from `reference`."""
    reference: Literal["origin", "centre", "top"] = "centre"
    """What positions are measured from: the scanner's or template's origin, the middle of the head, or its top."""
    intensity: str = "auto"
    """auto: percentiles of the foreground for MRI, the file's own window for X-rays, the brain window for CT; or one of
    percentiles, window, minmax, or a CT window by name (brain, soft-tissue, lung, bone)."""
    frame: int = 0
    """Which volume of a 4-D file, or frame of a multi-frame image."""
    strip: str = "none"
    """Skull stripping by an installed tool: hd-bet, synthstrip, ants or bet, auto for the first there is, or none."""
    register: Literal["none", "rigid", "affine"] = "none"
    """Registration to the MNI152 template by ANTs, where that is installed; strip the skull too, and measure positions
    from the origin. A registered slice is resampled, so an edit of it cannot go back into its scan."""
    min_foreground: float = 0.02
    """Slices of which less than this part is foreground are refused."""
    bits: Literal["auto", "8", "16"] = "auto"
    """Bits of the written images: 16 where the source has more than 8, or as told."""
    workers: int = 0
    """Processes; 0 for one a core."""
    time_limit_s: int = 600
    """A scan that takes longer is refused, in seconds; 0 for no limit."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for name in ("fit", "plane", "reference", "register", "bits"):
            if getattr(self, name) not in get_args(hints[name]):
                raise UnknownNameError(name, str(getattr(self, name)), get_args(hints[name]))
        if not 8 <= self.size <= 4096:
            raise ConfigurationError(f"size is {self.size}; give a whole number of pixels from 8 to 4096.")
        if self.extent_mm is not None and not 0 < self.extent_mm < 1e5:
            raise ConfigurationError(f"extent_mm is {self.extent_mm}; it must be above 0.")
        if not self.positions or len(set(self.positions)) < len(self.positions):
            raise ConfigurationError(f"positions are {self.positions}; give at least one, each once.")
        if not all(abs(position) < 1e4 for position in self.positions):
            raise ConfigurationError(f"positions are {self.positions}; give millimetres.")
        if not 0 <= self.min_foreground < 1:
            raise ConfigurationError(f"min_foreground is {self.min_foreground}; it must be at least 0 and below 1.")
        for name in ("workers", "time_limit_s", "frame"):
            if getattr(self, name) < 0:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it must be 0 or more.")

    def fingerprint(self) -> str:
        """Return 16 hex digits that change with any setting that changes the images."""
        settings = {name: value for name, value in asdict(self).items() if name not in AS_OFTEN}
        text = json.dumps({"version": VERSION, **settings}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
