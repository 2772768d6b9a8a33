"""Bones as path lengths of cortical bone, cm: ribs, clavicles, spine, shoulder blades."""

from __future__ import annotations

import numpy as np

from latentdrift.data.simulate.chest.thorax import Thorax, root
from latentdrift.data.simulate.sampling import Volume

RIBS = 11
FALL, MORE, LEAN = 1.1, 0.17, 0.13
"""How much the first rib falls, cm; how much more for each cm that another starts lower; slope of all of them."""

MARROW = 0.22
"""Attenuation inside a bone, its shell being 1."""


def bones(thorax: Thorax, seed: int, age: float, view: str) -> Volume:
    """Return the beam's length in bone, (pixels, pixels), its shell being 1 and its marrow less."""
    rng = np.random.default_rng([seed, 1])
    found = ribs(thorax, rng, age)
    found += clavicles(thorax, rng, view)
    found += spine(thorax)
    found += shoulder_blades(thorax, view)
    return found


def tube(away: Volume, radius: Volume | float, shell: float) -> Volume:
    """Return the beam's length in a hollow cylinder at the distance `away` from its axis: bright edges."""
    outer = 2 * root(radius**2 - away**2)
    inner = 2 * root(np.maximum(0, radius - shell) ** 2 - away**2)
    return outer - (1 - MARROW) * inner


def ribs(thorax: Thorax, rng: np.random.Generator, age: float) -> Volume:
    """Return the ribs.

    Each goes from the spine around the side to the front and falls on the way: its height is `start + fall * (1 -
    cos(angle))` and a little steeper, the angle being 0 at the back and 180 degrees in front. Backwards, each pixel
    belongs to one rib at the back and one in front: those that start nearest to where its own curve would.
    """
    starts = -14.6 + np.concatenate([[0.0], np.cumsum(np.linspace(1.75, 2.45, RIBS - 1))])
    starts = starts + np.clip(rng.normal(0, 0.1, RIBS), -0.2, 0.2)
    widths = 0.52 * (1 + np.clip(rng.normal(0, 0.08, RIBS), -0.15, 0.15))
    reach = thorax.half_width + np.float32(0.25)
    across = np.clip(thorax.x / reach, -1, 1)
    cosine = root(1 - across**2)
    outside = np.abs(thorax.x) > reach
    calcified = float(np.clip((age - 45) / 60, 0, 0.6))
    found = np.zeros((thorax.pixels, thorax.pixels), np.float32)
    for sign in (1, -1):
        # The fall grows from the first rib to the last; solved for the start that leads through the pixel.
        bend = 1 - sign * cosine
        way = np.abs(thorax.x) if sign > 0 else 2 * reach - np.abs(thorax.x)
        start = (thorax.y - LEAN * way - (FALL - MORE * starts[0]) * bend) / (1 + MORE * bend)
        nearest = np.clip(np.rint(np.interp(start, starts, np.arange(RIBS))), 0, RIBS - 1).astype(np.intp)
        fall = FALL + MORE * (starts[nearest] - starts[0])
        curve = starts[nearest] + fall * bend + LEAN * way
        slope = fall * np.abs(across) / (np.maximum(cosine, 0.08) * reach) + LEAN
        away = np.abs(thorax.y - curve) / np.sqrt(1 + slope**2)
        radius = (widths[nearest] * (1.0 if sign > 0 else 0.92)).astype(np.float32)
        rib = tube(away.astype(np.float32), radius, 0.13)
        rib *= 1 + 0.9 * across**4
        if sign > 0:
            rib *= np.clip((np.abs(thorax.x) - 1.2) / 0.8, 0, 1)
        else:
            # Cartilage begins where the rib is still well away from the breastbone, and calcifies with age.
            bony = np.clip((np.abs(across) - 0.42) / 0.06, calcified, 1) * np.clip((np.abs(thorax.x) - 2.5), 0, 1)
            rib *= 0.9 * bony * (nearest < RIBS - 3)
        found += np.where(outside, 0, rib)
    return found


def clavicles(thorax: Thorax, rng: np.random.Generator, view: str) -> Volume:
    """Return both collar bones: S-shaped, rising outwards; flatter and higher at the bedside."""
    found = np.zeros((thorax.pixels, thorax.pixels), np.float32)
    lift = 1.3 if view == "AP" else 0.0
    for side in (-1, 1):
        inner, angle = -10.4 + 0.3 * rng.normal(), 0.13 + 0.03 * rng.normal() - 0.05 * (view == "AP")
        x = side * (thorax.x - thorax.shape.shift)
        along = np.clip((x - 1.6) / 14.5, 0, 1)
        curve = inner - lift - angle * (x - 1.6) + 0.75 * np.sin(2 * np.pi * along)
        slope = -angle + 0.75 * 2 * np.pi / 14.5 * np.cos(2 * np.pi * along)
        away = np.abs(thorax.y - curve) / np.sqrt(1 + slope**2)
        radius = 0.62 + 0.25 * (1 - along) ** 4 + 0.12 * along
        ends = np.clip((x - 1.4) / 0.5, 0, 1) * np.clip((16.3 - x) / 0.6, 0, 1)
        found += tube(away.astype(np.float32), radius.astype(np.float32), 0.17) * ends
    return found


def spine(thorax: Thorax) -> Volume:
    """Return the vertebrae: bodies between thin discs, and the two pedicles of each."""
    x = thorax.x - np.float32(0.6 * thorax.shape.shift)
    height = 2.0 + 0.03 * (thorax.y + 14)
    within = np.abs((thorax.y / height) % 1 - 0.5)
    body = 2.6 * root(1 - (x / 1.75) ** 4) * np.clip((0.45 - within) / 0.08, 0.2, 1)
    pedicles = 0.7 * root(1 - ((np.abs(x) - 1.15) / 0.33) ** 2 - ((within - 0.15) * 3.2) ** 2)
    processes = 0.8 * root(1 - (x / 0.3) ** 2) * (within < 0.3)
    return (0.12 * (body + pedicles + processes)).astype(np.float32)


def shoulder_blades(thorax: Thorax, view: str) -> Volume:
    """Return both shoulder blades: turned out of the lungs in PA, over them at the bedside."""
    reach = thorax.shape.half_width * (0.86 if view == "AP" else 1.03)
    border = reach + 0.035 * (thorax.y + 5) ** 2 - 0.8
    inside = (np.abs(thorax.x) - border) / 0.5
    upper, lower = np.clip((thorax.y + 13) / 2, 0, 1), np.clip((2.5 - thorax.y) / 3, 0, 1)
    plate = 0.28 * np.clip(inside, 0, 1) + 0.35 * np.exp(-((inside - 0.6) ** 2) / 0.6)
    return (plate * upper * lower).astype(np.float32)
