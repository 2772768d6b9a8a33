"""Named scanners: what a scan adds to the anatomy, and can be exchanged with everything else equal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType

from latentdrift.errors import ConfigurationError, UnknownNameError


@dataclass(frozen=True)
class Scanner:
    """Settings of a scan. The figures are chosen by hand to look different; they are no measurement of any product.

    Attributes:
        name: how the table calls it.
        field_strength: tesla, for the table alone.
        contrast: gap between gray and white matter, 1 being the standard's.
        gamma: exponent of the intensities; above 1 darkens gray matter.
        bias: strength of the receive coils' shading, 1 being the standard's; 0 for none.
        noise: standard deviation of the noise of each channel of the complex signal, white matter being about 0.85.
        blur: standard deviation of the point spread, mm.
    """

    name: str
    field_strength: float
    contrast: float = 1.0
    gamma: float = 1.0
    bias: float = 1.0
    noise: float = 0.022
    blur: float = 0.0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("contrast", 0, 3), ("gamma", 0.3, 3), ("bias", 0, 6), ("noise", 0, 0.5), ("blur", 0, 5),
        ):  # fmt: skip
            if not low <= getattr(self, name) <= high:
                raise ConfigurationError(
                    f"The scanner's {name} is {getattr(self, name)}; the simulator takes {low} to {high}."
                )

    def with_settings(self, noise: float | None = None, bias: float | None = None) -> Scanner:
        """Return the scanner with another noise or shading, where given."""
        return replace(self, noise=self.noise if noise is None else noise, bias=self.bias if bias is None else bias)


STANDARD = "standard-1.5T"

SCANNERS = MappingProxyType(
    {
        scanner.name: scanner
        for scanner in (
            Scanner(STANDARD, 1.5),
            Scanner("noisy-1.5T", 1.5, contrast=0.9, noise=0.05, blur=0.5),
            Scanner("soft-1T", 1.0, contrast=0.75, gamma=0.9, bias=0.6, noise=0.04, blur=1.0),
            Scanner("sharp-3T", 3.0, contrast=1.15, bias=1.8, noise=0.014),
            Scanner("shaded-3T", 3.0, contrast=1.05, gamma=1.2, bias=3.0, noise=0.016),
        )
    }
)
"""The scanners by name."""


def scanner_of(scanner: str | Scanner) -> Scanner:
    """Return a scanner by its name, or as given.

    Raises:
        UnknownNameError: no such scanner.
    """
    if isinstance(scanner, Scanner):
        return scanner
    if scanner not in SCANNERS:
        raise UnknownNameError("scanner", scanner, SCANNERS)
    return SCANNERS[scanner]
