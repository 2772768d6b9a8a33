"""What a finding does: fluid that settles in the pleural space, lung filled by pneumonia; and the lung's vessels."""

from __future__ import annotations

import numpy as np

from latentdrift.data.simulate.chest.thorax import FIELD_OF_VIEW, Thorax
from latentdrift.data.simulate.sampling import Volume

MENISCUS = 5.5
"""How much higher the fluid stands at the wall than in the middle of the lung, cm."""

FISSURE = -0.9
"""Height of the minor fissure, between the right upper and middle lobe, cm."""

PLACES = {
    "right upper": (-0.52, -7.0, 4.4, 4.2),
    "right middle": (-0.42, 3.0, 4.2, 3.6),
    "right lower": (-0.60, 5.2, 4.2, 4.2),
    "left upper": (0.50, -6.5, 4.2, 4.8),
    "left lower": (0.62, 5.4, 4.0, 4.2),
}
"""Middle of a lobe's shadow, as a share of the half width and cm, and its half width and half height, cm."""


def fluid_share(thorax: Thorax, lung: Volume, side: str, volume: float) -> Volume:
    """Return the share of the beam's way through the lung that is fluid instead, (pixels, pixels).

    The surface is level, with a meniscus that climbs the chest wall; its height is the one at which `volume` (mL) fits
    below. A very large effusion stops short where it fills the lung.
    """
    if volume <= 0:
        return np.zeros_like(lung)
    step = max(step for step in range(1, thorax.pixels // 64 + 1) if thorax.pixels % step == 0)
    coarse = Thorax(thorax.shape, thorax.pixels // step)
    room = lung.reshape(coarse.pixels, step, coarse.pixels, step).mean((1, 3))
    area = (FIELD_OF_VIEW / coarse.pixels) ** 2
    low, high = thorax.shape.apex, 14.0
    for _ in range(22):
        level = (low + high) / 2
        if float((_below(coarse, side, level) * room).sum(dtype=np.float64)) * area > volume:
            low = level
        else:
            high = level
    return _below(thorax, side, level)


def _below(thorax: Thorax, side: str, level: float) -> Volume:
    """Return how far the pleural space of a side lies below a surface at the height `level`, 0 to 1."""
    sign = 1 if side == "left" else -1
    outwards = np.minimum(np.abs(thorax.across), 1)
    surface = level - MENISCUS * outwards**3 - 0.8 * np.exp(-np.abs(thorax.x) / 2)
    # Towards the middle the fluid's layer behind and before the lung is thin at its upper end: the edge is soft.
    below = np.clip((thorax.y - surface) / (3.2 - 2.2 * outwards**2), 0, 1)
    below = below * below * (3 - 2 * below)
    found: Volume = (below * (sign * (thorax.x - thorax.shape.shift) > 0)).astype(np.float32)
    return found


def consolidation(thorax: Thorax, lobe: str, extent: float, seed: int, vessels: Volume) -> Volume:
    """Return the share of the lung's air that pneumonia has replaced, (pixels, pixels), 0 to 0.7.

    A soft-edged patch in the lobe, ragged and patchy by smooth noise; bronchi stay open in it as darker branches. At
    the minor fissure it ends sharply. More extent is a larger patch that contains the smaller one.
    """
    if extent <= 0:
        return np.zeros((thorax.pixels, thorax.pixels), np.float32)
    share, middle, half_width, half_height = PLACES[lobe]
    away = ((thorax.x - share * thorax.shape.half_width) / half_width) ** 2 + ((thorax.y - middle) / half_height) ** 2
    rng = np.random.default_rng([seed, 3])
    ragged = _plane_noise(thorax, rng, 2.8) * 0.28 + _plane_noise(thorax, rng, 1.0) * 0.07
    inside = np.clip((0.3 + 1.1 * extent - np.sqrt(away) + ragged) / 0.95, 0, 1)
    found = 0.7 * inside * inside * (3 - 2 * inside)
    found *= 1 - 0.3 * np.clip(vessels / 0.8, 0, 1)
    if lobe == "right upper":
        found = found * np.clip((FISSURE - thorax.y) / 0.3, 0, 1)
    elif lobe == "right middle":
        found = found * np.clip((thorax.y - FISSURE) / 0.3, 0, 1)
    sign = 1 if lobe.startswith("left") else -1
    return (found * (sign * (thorax.x - thorax.shape.shift) > 0)).astype(np.float32)


def _plane_noise(thorax: Thorax, rng: np.random.Generator, length: float) -> Volume:
    """Return a smooth random field of unit variance over the picture, (pixels, pixels), cubic between knots."""
    from scipy.ndimage import map_coordinates

    knots = rng.standard_normal([int(FIELD_OF_VIEW / length) + 6] * 2)
    index = (np.arange(thorax.pixels) + 0.5) * (FIELD_OF_VIEW / thorax.pixels / length) + 2
    rows, columns = np.meshgrid(index, index, indexing="ij")
    found: Volume = map_coordinates(knots, [rows, columns], order=3, prefilter=False, output=np.float32)
    return found * np.float32((151 / 315) ** -1)


def vessels(thorax: Thorax, seed: int) -> Volume:
    """Return the lung's vessels, cm of blood, (pixels, pixels): trees that branch from both hila."""
    from PIL import Image, ImageDraw
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng([seed, 2])
    scale = thorax.pixels / FIELD_OF_VIEW
    canvas = Image.new("F", (thorax.pixels, thorax.pixels), 0.0)
    pen = ImageDraw.Draw(canvas)
    growing = []
    for side in (-1, 1):
        hilum = (side * 2.4 + thorax.shape.shift, -0.6 if side < 0 else -1.6)
        for angle in np.linspace(-72, 78, 9) + rng.normal(0, 6, 9):
            growing.append((*hilum, np.deg2rad(angle), side, 0.95, 2.8))
    while growing:
        x, y, angle, side, width, length = growing.pop()
        end = (x + side * length * np.cos(angle), y + length * np.sin(angle))
        line = [((value + FIELD_OF_VIEW / 2) * scale) for value in (x, y, *end)]
        pen.line(line, fill=float(2.4 * width), width=max(1, round(0.85 * width * scale)))
        if width > 0.16:
            for turn in rng.normal((-0.33, 0.3), 0.14):
                growing.append((*end, angle + turn, side, 0.68 * width, length * rng.uniform(0.68, 0.92)))
    found: Volume = gaussian_filter(np.asarray(canvas, np.float32), 0.09 * scale, truncate=3.0)
    return found
