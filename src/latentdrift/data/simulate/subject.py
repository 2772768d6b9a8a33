"""Who is simulated: a person's constants, one visit, and what age, sex and diagnosis make of the anatomy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from latentdrift.data.simulate import effects
from latentdrift.data.simulate.effects import DIAGNOSES, OLDEST, REFERENCE_AGE, STRENGTH, YOUNGEST
from latentdrift.data.simulate.lesions import MOST
from latentdrift.data.simulate.scanners import SCANNERS, STANDARD
from latentdrift.errors import ConfigurationError, UnknownNameError

SEXES = ("F", "M")
LOWEST_SLICE, HIGHEST_SLICE = -40.0, 60.0


@dataclass(frozen=True)
class SimulatedSubject:
    """One person at one visit; everything random about them follows from `seed`, and about the scan from `scan` too.

    Attributes:
        name: the subject's identifier.
        seed: decides anatomy, lesions and tissue contrast.
        age: years, 50 to 100.
        sex: "F" or "M".
        diagnosis: one of `DIAGNOSES`.
        slice_mm: height of the slice, MNI mm. About 15 shows the ventricles, about -15 the hippocampi.
        ventricle: the person's own deviation, log of the ventricles' volume.
        sulci: the person's own sulcal width at 70 years without disease, mm.
        hippocampus: the person's own deviation, log of the hippocampi's volume.
        lesions: the person's own deviation, log of the lesion load.
        asymmetry: log of the left over the right ventricle's volume.
        severity: how far into the stage of the diagnosis, where 1 is the next stage (`effects.py`).
        ahead: years by which the anatomy is older than the age.
        strength: factor on the effects of the diagnosis; 1 is the published size.
        scanner: one of `SCANNERS`.
        scan: number of the scan: another one has other noise.
    """

    name: str
    seed: int
    age: float
    sex: str
    diagnosis: str
    slice_mm: float = 15.0
    ventricle: float = 0.0
    sulci: float = 1.1
    hippocampus: float = 0.0
    lesions: float = 0.0
    asymmetry: float = 0.0
    severity: float = 0.0
    ahead: float = 0.0
    strength: float = STRENGTH
    scanner: str = STANDARD
    scan: int = 0

    def __post_init__(self) -> None:
        for kind, value, known in (
            ("diagnosis", self.diagnosis, DIAGNOSES),
            ("sex", self.sex, SEXES),
            ("scanner", self.scanner, SCANNERS),
        ):
            if value not in known:
                raise UnknownNameError(kind, value, known)
        check_age(self.age)
        check_number("slice_mm", self.slice_mm, LOWEST_SLICE, HIGHEST_SLICE)
        check_number("strength", self.strength, 0, 4)
        check_number("severity", self.severity, 0, 4)
        for field in fields(self):
            if field.type == "float" and not np.isfinite(getattr(self, field.name)):
                raise ConfigurationError(f"{field.name} is {getattr(self, field.name)}; give a finite number.")

    @classmethod
    def draw(
        cls,
        index: int,
        seed: int,
        *,
        strength: float = STRENGTH,
        age_correlation: float = 0.0,
        scanner: str = STANDARD,
    ) -> SimulatedSubject:
        """Return subject number `index` of the cohort with `seed`.

        Age, sex and diagnosis are independent, unless `age_correlation` (-1 to 1) ties age to the stage of the disease.
        """
        check_number("age_correlation", age_correlation, -1, 1)
        rng = np.random.default_rng([seed, index])
        own = int(rng.integers(2**31))
        age = float(rng.integers(55, 91))
        sex = str(rng.choice(SEXES))
        stage = index % 3
        person = cls(
            name=f"sim-{index + 1:04d}",
            seed=own,
            age=_tied_age(age, stage, age_correlation),
            sex=sex,
            diagnosis=DIAGNOSES[stage],
            slice_mm=_drawn(rng, 15.5, 2.0, 10, 21),
            ventricle=_drawn(rng, 0.0, 0.14, -0.32, 0.32),
            sulci=_drawn(rng, 1.1, 0.15, 0.7, 1.5),
            hippocampus=_drawn(rng, 0.0, 0.1, -0.25, 0.25),
            lesions=_drawn(rng, 0.0, 0.7, -2, 2),
            asymmetry=_drawn(rng, 0.05, 0.12, -0.3, 0.4),
            strength=strength,
            scanner=scanner,
        )
        return person

    @property
    def stage(self) -> float:
        """Severity of the disease as a number: 0 without, 1 at the begin of MCI, 2 of AD."""
        return DIAGNOSES.index(self.diagnosis) + self.severity

    def _disease(self, effect: tuple[float, ...]) -> float:
        return self.strength * effects.of_severity(effect, self.stage)

    def ventricle_volume(self) -> float:
        """Return the ventricles' volume, that of the template in a head of this size being 1."""
        log = self.ventricle + effects.ventricles_of_age(self.age + self.ahead) + effects.ventricles_of_sex(self.sex)
        return float(effects.VENTRICLES_AT_REFERENCE * np.exp(log + self._disease(effects.VENTRICLES)))

    def hippocampal_volumes(self) -> tuple[float, float]:
        """Return the left and right hippocampus's volume, that of the template in a head of this size being 1."""
        log = self.hippocampus + effects.HIPPOCAMPUS_A_YEAR * (self.age + self.ahead - REFERENCE_AGE)
        left, right = (self._disease(side) for side in (effects.HIPPOCAMPUS_LEFT, effects.HIPPOCAMPUS_RIGHT))
        return float(np.exp(log + left)), float(np.exp(log + right))

    def sulcal_width(self) -> float:
        """Return the mean width of the sulci, mm: both banks of a sulcus thin."""
        older = self.age + self.ahead - REFERENCE_AGE
        return max(0.2, self.sulci + 2 * (self._disease(effects.CORTEX) + effects.CORTEX_A_YEAR * older))

    def lesion_load(self) -> float:
        """Return the expected volume of the white-matter lesions, mL."""
        log = self.lesions + effects.LESIONS_A_YEAR * (self.age + self.ahead - REFERENCE_AGE)
        sex = effects.LESIONS_FEMALE if self.sex == "F" else 1
        return float(min(MOST, effects.LESIONS_AT_REFERENCE * sex * np.exp(log + self._disease(effects.LESIONS))))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, for a JSON file."""
        return asdict(self)


def check_age(age: float) -> None:
    """Raise `ConfigurationError` unless `age` is within what the simulator covers."""
    if not YOUNGEST <= age <= OLDEST:
        raise ConfigurationError(f"age is {age}; the simulator covers {YOUNGEST:g} to {OLDEST:g} years.")


def check_number(name: str, value: float, low: float, high: float) -> None:
    """Raise `ConfigurationError` unless `value` is a number from `low` to `high`."""
    if not low <= value <= high:
        raise ConfigurationError(f"{name} is {value}; the simulator takes {low:g} to {high:g}.")


def _drawn(rng: np.random.Generator, mean: float, deviation: float, low: float, high: float) -> float:
    return round(float(np.clip(rng.normal(mean, deviation), low, high)), 3)


def _tied_age(age: float, stage: int, correlation: float) -> float:
    """Return a whole age from 55 to 90 whose correlation with the stage is about `correlation`.

    The independent age becomes the noise of a normal variable that the stage shifts; its distribution function leads
    back to the range.
    """
    from scipy.stats import norm

    if correlation == 0:
        return age
    own = norm.ppf((age - 54.5) / 36)
    shifted = correlation * (stage - 1) * 1.5**0.5 + (1 - correlation**2) ** 0.5 * own
    return float(round(55 + 35 * norm.cdf(shifted)))
