"""The truth in numbers: areas in a slice, and volumes of a brain."""

from __future__ import annotations

import numpy as np

from latentdrift.data.simulate.anatomy import Anatomy, load_anatomy
from latentdrift.data.simulate.lesions import lesion_share
from latentdrift.data.simulate.position import FIELD_OF_VIEW, locate
from latentdrift.data.simulate.render import HIGHEST, LOWEST, as_if
from latentdrift.data.simulate.sampling import Volume, finer, sample
from latentdrift.data.simulate.subject import SimulatedSubject, check_number

PIXELS = round(FIELD_OF_VIEW)


def ventricle_area(
    subject: SimulatedSubject, diagnosis: str | None = None, age: float | None = None, *, sex: str | None = None
) -> float:
    """Return the true area of the ventricles in the subject's slice, mm squared."""
    person = as_if(subject, diagnosis=diagnosis, age=age, sex=sex)
    anatomy = load_anatomy()
    return float(_share(anatomy.ventricles, locate(person, person.slice_mm, anatomy).points, anatomy).sum())


def lesion_area(
    subject: SimulatedSubject,
    diagnosis: str | None = None,
    age: float | None = None,
    *,
    sex: str | None = None,
    lesion_load: float | None = None,
) -> float:
    """Return the true area of the white-matter lesions in the subject's slice, mm squared."""
    person = as_if(subject, diagnosis=diagnosis, age=age, sex=sex)
    load = person.lesion_load() if lesion_load is None else lesion_load
    anatomy = load_anatomy()
    return 4 * float(lesion_share(person.seed, locate(person, person.slice_mm, anatomy).points, load, anatomy).sum())


def true_volumes(
    subject: SimulatedSubject,
    diagnosis: str | None = None,
    age: float | None = None,
    *,
    sex: str | None = None,
    spacing: float = 2.0,
) -> dict[str, float]:
    """Return the true volumes of the subject's brain in mL, summed over slices `spacing` mm apart.

    Keys: brain (the skull-stripped outline), ventricles, hippocampus_left, hippocampus_right, lesions.

    Raises:
        ConfigurationError: a spacing below 0.5 or above 10 mm.
    """
    check_number("spacing", spacing, 0.5, 10)
    person = as_if(subject, diagnosis=diagnosis, age=age, sex=sex)
    anatomy = load_anatomy()
    low, high = anatomy.medial_temporal
    found = dict.fromkeys(("brain", "ventricles", "hippocampus_left", "hippocampus_right", "lesions"), 0.0)
    for height in np.arange(LOWEST, HIGHEST, spacing):
        place = locate(person, height, anatomy)
        found["brain"] += float(_share(anatomy.brain, place.template, anatomy).sum())
        if not place.inside.any():
            continue
        found["ventricles"] += float(_share(anatomy.ventricles, place.points, anatomy).sum())
        if low < place.points[2].max() and place.points[2].min() < high:
            hippocampi = _share(anatomy.hippocampi, place.points, anatomy)
            found["hippocampus_left"] += float(hippocampi[:, : PIXELS // 2].sum())
            found["hippocampus_right"] += float(hippocampi[:, PIXELS // 2 :].sum())
        found["lesions"] += 4 * float(lesion_share(person.seed, place.points, person.lesion_load(), anatomy).sum())
    return {name: area * spacing / 1000 for name, area in found.items()}


def _share(structure: Volume, points: Volume, anatomy: Anatomy) -> Volume:
    """Return the share of a structure in the slice's 1 mm pixels, (208, 208), from the points of its 2 mm grid."""
    return sample(structure, finer(points, PIXELS), anatomy.origin).reshape(PIXELS, PIXELS)
