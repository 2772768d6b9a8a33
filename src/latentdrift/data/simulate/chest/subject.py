"""Who is radiographed: a person's constants and the finding."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from latentdrift.data.simulate.subject import SEXES, check_number
from latentdrift.errors import UnknownNameError

FINDINGS = ("NoFinding", "Cardiomegaly", "Effusion", "Pneumonia")
VIEWS = ("PA", "AP")
SIDES = ("left", "right")
LOBES = ("right upper", "right middle", "right lower", "left upper", "left lower")

YOUNGEST, OLDEST = 18.0, 95.0

HEART = {"F": 0.467, "M": 0.452}
"""Mean cardiothoracic ratio in 1,989 adults (Ghana Medical Journal 2015)."""

HEART_A_YEAR = 0.001
"""Growth of the ratio. Chosen by hand; that it grows is from Potter 1982 (men) and Inoue 1998 (women)."""

REFERENCE_AGE = 50.0

AP_DISTANCE = 100.0
"""Distance of the tube from the detector in a bedside radiograph, cm."""

AP_MAGNIFICATION = 1 / (0.00099 * AP_DISTANCE + 0.79)
"""Of the heart's width, AP against PA: the ratio PA / AP is 0.00099 times the distance in cm plus 0.79 (Chon 2011)."""

SMALLEST_HEART, LARGEST_HEART = 0.35, 0.75
MOST_FLUID = 2000.0


@dataclass(frozen=True)
class SimulatedChest:
    """One person and one frontal radiograph; everything random follows from `seed`, of the exposure from `scan` too.

    The finding decides which of the others shows: each subject has a heart, an effusion and a pneumonia of their own.

    Attributes:
        name: the subject's identifier.
        seed: decides anatomy, vessels, texture.
        age: years, 18 to 95.
        sex: "F" or "M".
        finding: one of `FINDINGS`.
        view: "PA" or "AP"; AP is a bedside exposure from 1 m.
        heart: cardiothoracic ratio at 50 years without cardiomegaly, in PA.
        enlarged: the same with it.
        side: of the effusion, the person's "left" or "right".
        fluid: volume of the effusion, mL.
        lobe: of the pneumonia, one of `LOBES`.
        extent: of the pneumonia, 0 to 1, where 1 fills about a lobe.
        scan: number of the exposure: another one has other noise.
    """

    name: str
    seed: int
    age: float
    sex: str
    finding: str
    view: str = "PA"
    heart: float = 0.45
    enlarged: float = 0.58
    side: str = "left"
    fluid: float = 600.0
    lobe: str = "right lower"
    extent: float = 0.6
    scan: int = 0

    def __post_init__(self) -> None:
        for kind, value, known in (
            ("sex", self.sex, SEXES),
            ("finding", self.finding, FINDINGS),
            ("view", self.view, VIEWS),
            ("side", self.side, SIDES),
            ("lobe", self.lobe, LOBES),
        ):
            if value not in known:
                raise UnknownNameError(kind, value, known)
        check_number("age", self.age, YOUNGEST, OLDEST)
        check_number("heart", self.heart, SMALLEST_HEART, LARGEST_HEART)
        check_number("enlarged", self.enlarged, SMALLEST_HEART, LARGEST_HEART)
        check_number("fluid", self.fluid, 0, MOST_FLUID)
        check_number("extent", self.extent, 0, 1)

    @classmethod
    def draw(cls, index: int, seed: int, *, age_correlation: float = 0.0, bedside: float = 0.0) -> SimulatedChest:
        """Return subject number `index` of the cohort with `seed`; the findings take turns.

        Age, sex and finding are independent, unless `age_correlation` (-1 to 1) ties age to there being a finding.
        `bedside` is the share of AP views.
        """
        check_number("age_correlation", age_correlation, -1, 1)
        check_number("bedside", bedside, 0, 1)
        rng = np.random.default_rng([seed, index])
        own, finding = int(rng.integers(2**31)), FINDINGS[index % 4]
        age, sex = float(rng.integers(20, 91)), str(rng.choice(SEXES))
        if age_correlation:
            age = _tied_age(age, finding, age_correlation)
        return cls(
            name=f"chest-{index + 1:04d}",
            seed=own,
            age=age,
            sex=sex,
            finding=finding,
            view="AP" if rng.random() < bedside else "PA",
            heart=round(float(np.clip(rng.normal(HEART[sex], 0.025), 0.38, 0.5)), 3),
            enlarged=round(float(np.clip(rng.normal(0.59, 0.03), 0.54, 0.66)), 3),
            side=str(rng.choice(SIDES)),
            fluid=round(float(rng.uniform(350, 1300))),
            lobe=str(rng.choice(LOBES)),
            extent=round(float(rng.uniform(0.5, 1.0)), 2),
        )

    def heart_size(self) -> float:
        """Return the cardiothoracic ratio of the image: with the finding, the age and the view's magnification."""
        own = self.enlarged if self.finding == "Cardiomegaly" else self.heart
        ratio = own + HEART_A_YEAR * (self.age - REFERENCE_AGE)
        return float(np.clip(ratio * (AP_MAGNIFICATION if self.view == "AP" else 1), SMALLEST_HEART, LARGEST_HEART))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, for a JSON file."""
        return asdict(self)


def _tied_age(age: float, finding: str, correlation: float) -> float:
    """Return a whole age from 20 to 90 correlated with there being a finding (3 of 4 subjects)."""
    from scipy.stats import norm

    found = (float(finding != "NoFinding") - 0.75) / (0.75 * 0.25) ** 0.5
    own = norm.ppf((age - 19.5) / 71)
    return float(round(20 + 70 * norm.cdf(correlation * found + (1 - correlation**2) ** 0.5 * own)))
