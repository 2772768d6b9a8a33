"""From a chest to a radiograph: attenuation along the beam, then exposure, scatter, blur, noise and display."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.simulate.chest.bones import bones
from latentdrift.data.simulate.chest.findings import consolidation, fluid_share, vessels
from latentdrift.data.simulate.chest.subject import (
    LARGEST_HEART,
    MOST_FLUID,
    SMALLEST_HEART,
    SimulatedChest,
)
from latentdrift.data.simulate.chest.thorax import FIELD_OF_VIEW, Shape, Thorax
from latentdrift.data.simulate.sampling import Volume
from latentdrift.data.simulate.subject import check_number
from latentdrift.errors import ConfigurationError

WATER = 0.19
"""Attenuation of soft tissue, 1 / cm, at about 70 keV."""

BONE = 0.48
"""What cortical bone attenuates more than soft tissue, 1 / cm."""

LUNG_DENSITY = 0.26
"""Of inflated lung, water being 1."""

SCATTER = 0.16
"""Share of the surrounding primary beam that arrives as a veil behind the grid."""

NOISE = 0.011
"""Relative standard deviation of the unattenuated exposure's square root: quantum noise."""


@dataclass(frozen=True)
class _Parts:
    """What no finding changes: (P, P) each, cm of beam."""

    thorax: Thorax
    vessels: Volume
    fixed: Volume


def render_chest(
    subject: SimulatedChest,
    finding: str | None = None,
    *,
    size: int = 128,
    age: float | None = None,
    sex: str | None = None,
    view: str | None = None,
    heart_size: float | None = None,
    effusion: float | None = None,
    side: str | None = None,
    opacity: float | None = None,
    lobe: str | None = None,
    noise: float | None = None,
) -> NDArray[np.float32]:
    """Return the subject's frontal radiograph, (size, size) in [0, 1], the person's left on the right; dense is bright.

    An attribute that is not given is the subject's own; one that is given makes the true counterfactual. Exposure,
    scatter and display are those of the subject without the finding: where the beam meets nothing that changed, the
    picture stays the same bit for bit.

    Args:
        subject: the person.
        finding: one of `FINDINGS`.
        size: pixels of a side; the field of view stays 36 cm.
        age: years.
        sex: "F" or "M".
        view: "PA" or "AP".
        heart_size: cardiothoracic ratio in the picture, 0.35 to 0.75, whatever the finding.
        effusion: fluid in mL, 0 to 2000, whatever the finding.
        side: of the effusion.
        opacity: extent of a pneumonia, 0 to 1, whatever the finding.
        lobe: of the pneumonia.
        noise: quantum noise, 1 being the usual; 0 for none.

    Raises:
        UnknownNameError: no such finding, sex, view, side or lobe.
        ConfigurationError: a number outside what the simulator covers.
    """
    changed = {"finding": finding, "age": age, "sex": sex, "view": view, "side": side, "lobe": lobe}
    person = replace(subject, **{name: value for name, value in changed.items() if value is not None})  # type: ignore[arg-type]
    if not 32 <= size <= 1024:
        raise ConfigurationError(f"size is {size}; a simulated radiograph has 32 to 1024 pixels a side.")
    ratio = person.heart_size() if heart_size is None else heart_size
    fluid = (person.fluid if person.finding == "Effusion" else 0.0) if effusion is None else effusion
    extent = (person.extent if person.finding == "Pneumonia" else 0.0) if opacity is None else opacity
    check_number("heart_size", ratio, SMALLEST_HEART, LARGEST_HEART)
    check_number("effusion", fluid, 0, MOST_FLUID)
    check_number("opacity", extent, 0, 1)
    check_number("noise", 1.0 if noise is None else noise, 0, 20)

    parts = _parts(person.seed, person.age, person.sex, person.view, 2 * size if size <= 256 else size)
    usual = lung_path(parts.thorax, replace(person, finding="NoFinding").heart_size())
    lung = lung_path(parts.thorax, ratio)
    solid = fluid_share(parts.thorax, lung, person.side, fluid)
    ill = consolidation(parts.thorax, person.lobe, extent, person.seed, parts.vessels)
    return _expose(
        _shrink_to(_attenuation(parts, lung, 1 - (1 - solid) * (1 - ill)), size),
        _shrink_to(_attenuation(parts, usual, np.zeros_like(usual)), size),
        np.random.default_rng([person.seed, 4, person.scan]),
        1.0 if noise is None else noise,
    )


def lung_path(thorax: Thorax, ratio: float) -> Volume:
    """Return the beam's way through the lungs, cm, with a heart of the cardiothoracic `ratio`."""
    middle = np.maximum(thorax.heart(ratio), thorax.mediastinum)
    both = np.maximum(middle, thorax.abdomen) + np.float32(0.4) * np.minimum(middle, thorax.abdomen)
    # Before and behind the heart the two lungs end close to the midline.
    beside = np.clip((np.abs(thorax.x - thorax.shape.shift) - 0.6) / 2.2, 0, 1)
    found: Volume = (np.maximum(thorax.cavity - both, 0) * beside).astype(np.float32)
    return found


@lru_cache(maxsize=4)
def _parts(seed: int, age: float, sex: str, view: str, pixels: int) -> _Parts:
    person = SimulatedChest("", seed, age, sex, "NoFinding", view)
    thorax = Thorax(Shape.of(person), pixels)
    body = np.maximum(thorax.body, thorax.cavity) + thorax.breasts
    gas = np.minimum(thorax.airway + thorax.stomach_gas, body)
    bone = np.float32(thorax.shape.bone * BONE) * bones(thorax, seed, age, view) * (body > 0.5)
    return _Parts(thorax, vessels(thorax, seed), np.float32(WATER) * (body - gas) + bone)


def _attenuation(parts: _Parts, lung: Volume, filled: Volume) -> Volume:
    """Return the line integral of the attenuation; of the lung's air, the share `filled` is fluid."""
    blood = np.minimum(parts.vessels, np.float32(0.2) * lung)
    air = np.float32(1 - LUNG_DENSITY) * (lung - blood) * (1 - filled)
    found: Volume = np.maximum(parts.fixed - np.float32(WATER) * air, 0)
    return found


def _expose(attenuation: Volume, usual: Volume, rng: np.random.Generator, noise: float) -> NDArray[np.float32]:
    """Return the picture of an attenuation; scatter and display are set by the `usual` one, without the finding."""
    from scipy.ndimage import gaussian_filter

    side = attenuation.shape[0]
    exposure = rng.normal(0, [0.06, 0.05])
    quanta = rng.standard_normal((side, side), dtype=np.float32)
    usual_beam = np.exp(-usual)
    veil = np.float32(SCATTER) * gaussian_filter(usual_beam, 3.0 * side / FIELD_OF_VIEW, mode="nearest", truncate=2.5)
    sharp = 0.45 * side / 128
    beam = gaussian_filter(np.exp(-attenuation), sharp, truncate=3.0) + veil
    usual_level = -np.log(gaussian_filter(usual_beam, sharp, truncate=3.0) + veil)
    if noise:
        beam = beam + np.float32(noise * NOISE) * np.sqrt(beam) * quanta
    level = -np.log(np.maximum(beam, np.float32(1e-4)))
    dark, bright = np.quantile(usual_level[usual > 0.8], [0.01, 0.995])
    dark -= 0.04 * (bright - dark)
    shown = np.maximum((level - dark) / (bright - dark), 0)
    picture = np.float32(0.06) + np.float32(0.9 + exposure[0]) * shown ** np.float32(1.15 * np.exp(exposure[1]))
    # Like a film's shoulder, so that nothing dense is lost in a ceiling of white.
    over = np.maximum(picture - np.float32(0.82), 0)
    picture = np.minimum(picture, np.float32(0.82)) + np.float32(0.18) * (1 - np.exp(-over / np.float32(0.18)))
    found: NDArray[np.float32] = np.clip(picture * np.clip(level / 0.25, 0, 1), 0, 1).astype(np.float32)
    return found


def _shrink_to(image: Volume, size: int) -> Volume:
    factor = image.shape[0] // size
    found: Volume = image.reshape(size, factor, size, factor).mean((1, 3), dtype=np.float32)
    return found
