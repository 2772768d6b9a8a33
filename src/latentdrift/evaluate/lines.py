"""One figure a line: what tables show and files hold."""

from __future__ import annotations

from typing import Any, NamedTuple

from latentdrift.evaluate.interval import Interval

ALL = "all images"


class Line(NamedTuple):
    """A figure with its interval."""

    figure: str
    """Name and unit; where it says x 1000, value, interval and spread are still those without."""
    value: float
    interval: Interval | None = None
    spread: float | None = None
    """Standard deviation over subsets, of the kernel distance."""
    scale: float = 1.0
    """Factor for showing."""
    digits: int = 2
    """Decimals shown."""
    group: str = ALL
    """Whose figure it is."""
    images: str = ""
    """Of how many images, where these are not all."""

    def shown(self, confidence: float) -> dict[str, str]:
        """Return a row of a table for reading: figure, value, interval."""
        value = f"{self.value * self.scale:.{self.digits}f}"
        if self.spread is not None:
            value += f" ± {self.spread * self.scale:.{self.digits}f}"
        ends = self.interval or ()
        interval = " to ".join(f"{end * self.scale:.{self.digits}f}" for end in ends)
        return {"figure": self.figure, "value": value, f"{confidence:.0%} interval": interval}

    def record(self) -> dict[str, Any]:
        """Return a row of a table for computing, in the units that the figure's name says."""
        low, high = self.interval or (None, None)
        return {
            "group": self.group,
            "figure": self.figure,
            "value": self.value * self.scale,
            "low": None if low is None else low * self.scale,
            "high": None if high is None else high * self.scale,
            "images": self.images,
        }


def ends(interval: Interval | None) -> dict[str, float | None]:
    """Return the ends of an interval by name, for JSON."""
    return {"low": None, "high": None} if interval is None else {"low": interval.low, "high": interval.high}
