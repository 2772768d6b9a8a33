"""From a subject to a slice. The same subject under other attributes shares everything else, noise included."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.simulate.anatomy import Anatomy, load_anatomy
from latentdrift.data.simulate.lesions import MOST, lesion_share
from latentdrift.data.simulate.position import locate
from latentdrift.data.simulate.sampling import Volume, finer, sample
from latentdrift.data.simulate.scanners import Scanner, scanner_of
from latentdrift.data.simulate.scanning import scan
from latentdrift.data.simulate.subject import SimulatedSubject, check_number
from latentdrift.errors import ConfigurationError

LOWEST, HIGHEST = -80.0, 90.0
FLUID, LESION = 0.13, 0.46
"""T1-weighted signal; white matter has 0.86 and gray matter 0.52."""


def render(
    subject: SimulatedSubject,
    diagnosis: str | None = None,
    age: float | None = None,
    *,
    size: int = 128,
    sex: str | None = None,
    lesion_load: float | None = None,
    scanner: str | Scanner | None = None,
    noise: float | None = None,
    bias: float | None = None,
    height: float | None = None,
) -> NDArray[np.float32]:
    """Return the subject's axial slice, (size, size) in [0, 1], anterior at the top, the subject's left on the right.

    An attribute that is not given is the subject's own; one that is given makes the true counterfactual.

    Args:
        subject: the person at one visit.
        diagnosis: "CN", "MCI" or "AD".
        age: years.
        size: pixels of a side; the field of view stays 208 mm.
        sex: "F" or "M".
        lesion_load: expected volume of the white-matter lesions, mL, 0 to 100.
        scanner: a name in `SCANNERS`, or settings of one's own.
        noise: standard deviation of the noise instead of the scanner's; 0 for none.
        bias: strength of the shading instead of the scanner's; 0 for none.
        height: another slice of the same brain, MNI mm.

    Raises:
        UnknownNameError: no such diagnosis, sex or scanner.
        ConfigurationError: a number outside what the simulator covers; nilearn is missing.
    """
    person = as_if(subject, diagnosis=diagnosis, age=age, sex=sex)
    used = scanner_of(subject.scanner if scanner is None else scanner).with_settings(noise, bias)
    if not 32 <= size <= 1024:
        raise ConfigurationError(f"size is {size}; a simulated slice has 32 to 1024 pixels a side.")
    height = person.slice_mm if height is None else height
    load = person.lesion_load() if lesion_load is None else lesion_load
    check_number("height", height, LOWEST, HIGHEST)
    check_number("lesion_load", load, 0, MOST)
    anatomy = load_anatomy()
    place = locate(person, height, anatomy)
    fine = 2 * size if size <= 256 else size
    inside = np.flatnonzero(finer(place.inside[None].astype(np.float32), fine)[0] > 0)
    brain, signal = np.zeros(fine * fine, np.float32), np.zeros(fine * fine, np.float32)
    brain[inside] = sample(anatomy.brain, finer(place.template, fine)[:, inside], anatomy.origin)
    inside = inside[brain[inside] > 0.01]
    brain[brain <= 0.01] = 0
    if inside.size:
        lesions = finer(lesion_share(person.seed, place.points, load, anatomy)[None], fine)[0, inside]
        signal[inside] = brain[inside] * _tissue_signal(
            finer(place.points, fine)[:, inside],
            finer(place.width, fine)[0, inside],
            lesions,
            anatomy,
            used.contrast,
            np.random.default_rng([person.seed, 1]),
        )
    return scan(
        _shrink_to(signal.reshape(fine, fine), size), _shrink_to(brain.reshape(fine, fine), size), used, person, height
    )


def as_if(
    subject: SimulatedSubject, *, diagnosis: str | None = None, age: float | None = None, sex: str | None = None
) -> SimulatedSubject:
    """Return the subject with other attributes, where given, and everything else equal.

    Raises:
        UnknownNameError: no such diagnosis or sex.
        ConfigurationError: an age outside what the simulator covers.
    """
    changed = {"diagnosis": diagnosis, "age": None if age is None else float(age), "sex": sex}
    return replace(subject, **{name: value for name, value in changed.items() if value is not None})  # type: ignore[arg-type]


def _tissue_signal(
    points: Volume, width: Volume, lesions: Volume, anatomy: Anatomy, contrast: float, rng: np.random.Generator
) -> Volume:
    """Return the T1-weighted signal (N,) at template points: white above gray above fluid."""
    t1 = sample(anatomy.t1, points, anatomy.origin)
    away = sample(anatomy.sulci, points, anatomy.origin)
    ventricle = sample(anatomy.ventricles, points, anatomy.origin)
    ventricle = np.clip((ventricle - 0.5) * 1.6 + 0.5, 0, 1)
    low, high = anatomy.medial_temporal
    if low < points[2].max() and points[2].min() < high:
        horn = sample(anatomy.horns, points, anatomy.origin)
        ventricle = np.maximum(ventricle, np.clip((horn - 0.35) * 2 + 0.5, 0, 1))
    # The mean template is flat: pull gray and white apart, and open the sulci that averaging closed.
    gray, white = rng.normal(0.52, 0.02), rng.normal(0.86, 0.02)
    gray = white - contrast * (white - gray)
    tissue = np.clip(gray + (t1 - 0.72) / (0.88 - 0.72) * (white - gray), gray - 0.06, white + 0.03)
    tissue += lesions * (np.minimum(tissue, LESION) - tissue)
    sulcus = np.clip((width / 2 - away) / 0.9 + 0.5, 0, 1)
    fluid = np.maximum(sulcus, ventricle)
    signal: Volume = ((1 - fluid) * tissue + fluid * FLUID).astype(np.float32)
    return signal


def _shrink_to(image: Volume, size: int) -> Volume:
    factor = image.shape[0] // size
    found: Volume = image.reshape(size, factor, size, factor).mean((1, 3), dtype=np.float32)
    return found
