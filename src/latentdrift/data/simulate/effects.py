"""What age, sex and diagnosis do to the anatomy, in numbers, each with where it comes from.

Effects of the diagnosis are given at knots of severity: 0 cognitively normal, 1 MCI, 2 AD, and 3 after `1 /
PROGRESS_A_YEAR["AD"]` further years of AD. They are differences at the same age and sex, of the logarithm of a volume
or in mm, and a subject's `strength` multiplies them; 1 is the published size. Effects of age and sex are not
multiplied. Sources, in full in docs/simulator.md: [B] Barnes 2009, [S] Shi 2009, [J] Jack 2000, [L] Jochems 2022,
[D] de Leon 1989, [F] Fjell 2009, [R] Ruigrok 2014, [K] de Kort 2024, [M] Mitchell 2009.
"""

from __future__ import annotations

import numpy as np

DIAGNOSES = ("CN", "MCI", "AD")
"""Cognitively normal, mild cognitive impairment, Alzheimer's disease."""

STRENGTH = 1.75
"""Default factor on the diagnosis's effects: an exaggeration, for AD to be visible in one slice of 128 pixels."""

REFERENCE_AGE = 70.0
YOUNGEST, OLDEST = 50.0, 100.0

VENTRICLES = (0.0, np.log(1.24), np.log(1.45), np.log(1.45) + 0.06 / 0.227)
"""Log of the ventricles' volume. 1.24 and 1.45 are chosen by hand (the order is that of Carmichael 2007). In AD the
volume grows by 9 % a year [D], 6 % more than with age alone."""

HIPPOCAMPUS_LEFT = (0.0, np.log(1 - 0.129), np.log(1 - 0.242), np.log(1 - 0.242) - 0.0325 / 0.227)
HIPPOCAMPUS_RIGHT = (0.0, np.log(1 - 0.111), np.log(1 - 0.231), np.log(1 - 0.231) - 0.0325 / 0.227)
"""Log of the hippocampi's volume: 12.9 % and 11.1 % (left, right) smaller in MCI, 24.2 % and 23.1 % in AD [S]; in AD
4.66 % lost a year, in controls 1.41 % [B]."""

CORTEX = (0.0, 0.09, 0.22, 0.30)
"""Thinning of the cortex, mm: chosen by hand in the range of 0.1 to 0.3 mm reported for the regions AD thins most."""

LESIONS = (0.0, np.log(1.3), np.log(1.7), np.log(1.9))
"""Log of the lesion load. Chosen by hand; the order is that of Yoshita 2006."""

VENTRICLES_A_YEAR = 0.03
"""Log volume: 3 % a year between 73 and 79 [L], and later. Before, half of it: by hand, as atrophy speeds up [F]."""

HIPPOCAMPUS_A_YEAR = -0.0141
"""Log volume [B]."""

CORTEX_A_YEAR = 0.008
"""Thinning, mm: 0.3 % of 2.5 mm. Chosen by hand below the 0.5 % of the temporal and prefrontal cortex [F]."""

LESIONS_A_YEAR = 0.06
"""Log of the load: doubling in 12 years. Chosen by hand; that the growth is exponential is from [K]."""

LESIONS_AT_REFERENCE = 4.0
"""Median load at 70 without disease, mL. Chosen by hand."""

LESIONS_FEMALE = 1.1
"""Load of women, men being 1. Chosen by hand; that it is larger is from [K]."""

BRAIN_MALE = 1.11
"""Volume of the brain, women being 1 [R]."""

VENTRICLES_FEMALE = 0.81
"""Volume of the lateral ventricles, men being 1 [L]; taken to include the smaller head."""

VENTRICLES_AT_REFERENCE = 1.36
"""Ventricles at 70 years without disease, the template's, of young adults, being 1. Chosen by hand."""

PROGRESS_A_YEAR = {"CN": 0.0, "MCI": 0.06, "AD": 0.227}
"""Severity gained a year without converting: MCI so that its hippocampi lose what stable MCI loses more than stable
controls (2.55 % less 1.73 % a year [J]), AD as above."""

CONVERSION_A_YEAR = {"CN": 0.04, "MCI": 0.081}
"""Probability of the next diagnosis within a year: MCI to AD 8.1 % in specialist settings [M]; CN to MCI by hand."""


def of_severity(effect: tuple[float, ...], severity: float) -> float:
    """Return an effect between its knots, and beyond the last as it went on before.

    >>> of_severity((0.0, 1.0, 3.0, 5.0), 1.5), of_severity((0.0, 1.0, 3.0, 5.0), 4.0)
    (2.0, 7.0)
    """
    last = len(effect) - 1
    beyond = max(0.0, severity - last) * (effect[last] - effect[last - 1])
    return float(np.interp(severity, range(last + 1), effect)) + float(beyond)


def ventricles_of_age(age: float) -> float:
    """Return the log of the ventricles' volume, that at `REFERENCE_AGE` being 0."""

    def since_73(years: float) -> float:
        return VENTRICLES_A_YEAR * (years - 73) * (1 if years > 73 else 0.5)

    return since_73(age) - since_73(REFERENCE_AGE)


def head_scale(sex: str) -> float:
    """Return the linear size of the brain, both sexes' mean being 1."""
    ratio = BRAIN_MALE ** (1 / 3)
    return float((ratio if sex == "M" else 1) / ((1 + ratio) / 2))


def ventricles_of_sex(sex: str) -> float:
    """Return the log of the ventricles' volume relative to the head, both sexes' mean being 0."""
    beside_size = np.log(VENTRICLES_FEMALE * BRAIN_MALE) / 2
    return float(beside_size if sex == "F" else -beside_size)
