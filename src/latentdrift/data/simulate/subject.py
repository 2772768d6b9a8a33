"""Who is simulated: a person's constants, and what age and diagnosis do to the anatomy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from latentdrift.errors import ConfigurationError, UnknownNameError

DIAGNOSES = ("CN", "MCI", "AD")
"""Cognitively normal, mild cognitive impairment, Alzheimer's disease."""

VENTRICLE_GROWTH = {"CN": 0.0, "MCI": 0.6, "AD": 1.3}
"""Added to how far the growth flow of the ventricles is followed. A flow of 0.5, 1, 1.5 and 2 makes the template's
ventricles 1.4, 1.8, 2.2 and 2.6 times as large. Chosen by hand to be seen in one slice: 1.8 in AD for 1 in CN
at the same age, and 1.7 by area in the slice."""

CORTICAL_THINNING = {"CN": 0.0, "MCI": 0.13, "AD": 0.32}
"""Millimetres taken from the cortex; a sulcus has two banks, so it widens by twice as much."""

VENTRICLE_GROWTH_A_YEAR = 0.018
CORTICAL_THINNING_A_YEAR = 0.008
REFERENCE_AGE = 70.0


@dataclass(frozen=True)
class SimulatedSubject:
    """One person and one scan; everything random about them follows from `seed`.

    Attributes:
        name: the subject's identifier.
        seed: decides anatomy, scanner contrast, bias field and noise.
        age: years, 55 to 90.
        sex: "F" or "M".
        diagnosis: one of `DIAGNOSES`.
        slice_mm: height of the slice in the template, MNI mm.
        ventricle: the person's own deviation, in the same unit as `VENTRICLE_GROWTH`.
        sulci: the person's own sulcal width at 70 years without disease, mm.
    """

    name: str
    seed: int
    age: float
    sex: str
    diagnosis: str
    slice_mm: float = 15.0
    ventricle: float = 0.0
    sulci: float = 1.1

    def __post_init__(self) -> None:
        if self.diagnosis not in DIAGNOSES:
            raise UnknownNameError("diagnosis", self.diagnosis, DIAGNOSES)
        if self.sex not in ("F", "M"):
            raise UnknownNameError("sex", self.sex, ("F", "M"))
        check_age(self.age)
        if not -2 <= self.slice_mm <= 32:
            raise ConfigurationError(f"slice_mm is {self.slice_mm}; the simulator draws slices from -2 to 32 mm.")

    @classmethod
    def draw(cls, index: int, seed: int) -> SimulatedSubject:
        """Return subject number `index` of the cohort with `seed`: age, sex and diagnosis independent of each other."""
        rng = np.random.default_rng([seed, index])
        return cls(
            name=f"sim-{index + 1:04d}",
            seed=int(rng.integers(2**31)),
            age=float(rng.integers(55, 91)),
            sex=str(rng.choice(["F", "M"])),
            diagnosis=DIAGNOSES[index % 3],
            slice_mm=round(float(np.clip(rng.normal(15.5, 2.0), 10, 21)), 2),
            ventricle=round(float(np.clip(rng.normal(0.0, 0.22), -0.5, 0.5)), 3),
            sulci=round(float(np.clip(rng.normal(1.1, 0.15), 0.7, 1.5)), 3),
        )

    def ventricle_growth(self, diagnosis: str, age: float) -> float:
        """Return how far the growth flow is followed from the template, whose ventricles are young adults'."""
        return 0.45 + self.ventricle + VENTRICLE_GROWTH[diagnosis] + VENTRICLE_GROWTH_A_YEAR * (age - REFERENCE_AGE)

    def sulcal_width(self, diagnosis: str, age: float) -> float:
        """Return the mean width of the sulci, mm."""
        thinning = CORTICAL_THINNING[diagnosis] + CORTICAL_THINNING_A_YEAR * (age - REFERENCE_AGE)
        return max(0.2, self.sulci + 2 * thinning)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, for a JSON file."""
        return asdict(self)


def check_age(age: float) -> None:
    """Raise `ConfigurationError` unless `age` is within what the simulator covers."""
    if not 50 <= age <= 95:
        raise ConfigurationError(f"age is {age}; the simulator covers 50 to 95 years.")
