"""The soft parts of a chest as path lengths of the beam, cm: body, thoracic cavity, diaphragm, mediastinum, stomach.

The picture plane is (x, y) in cm: x to the right of the picture, which is the person's left; y downwards; (0, 0) is the
middle. Depth is projected: a solid is given by the length of the beam in it, as ellipsoids and cylinders have it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from latentdrift.data.simulate.chest.subject import SimulatedChest
from latentdrift.data.simulate.sampling import Volume

FIELD_OF_VIEW = 36.0
"""Side of the square picture, cm."""

WIDEST = 8.0
"""Height at which the thorax is widest, cm below the middle."""


@dataclass(frozen=True)
class Shape:
    """A person's measures, cm. Drawn by hand around an adult's; men's are larger.

    Attributes:
        half_width: of the thoracic cavity at its widest.
        half_depth: of the same.
        apex: height of the lungs' apices.
        dome_right: top of the right hemidiaphragm.
        dome_left: top of the left one, lower.
        wall: thickness of the chest wall at the side.
        tilt: of the heart's axis, radians.
        heart_y: height of the heart's centre.
        shift: of the midline structures, to the picture's right.
        knob: radius of the aortic arch.
        gas: half width of the gas in the stomach.
        breast: thickness of the breasts, 0 for men.
        bone: density of bones, an adult's of 50 years being 1.
    """

    half_width: float
    half_depth: float
    apex: float
    dome_right: float
    dome_left: float
    wall: float
    tilt: float
    heart_y: float
    shift: float
    knob: float
    gas: float
    breast: float
    bone: float

    @classmethod
    def of(cls, person: SimulatedChest) -> Shape:
        """Return the person's measures; the random numbers do not depend on age, sex or view."""
        rng = np.random.default_rng([person.seed, 0])
        own = np.clip(rng.standard_normal(12), -2.2, 2.2)
        man, bedside = person.sex == "M", person.view == "AP"
        scale = 1.0 if man else 0.92
        dome = 8.0 + 0.8 * own[3] - (1.5 if bedside else 0)
        return cls(
            half_width=scale * (14.3 + 0.6 * own[0]),
            half_depth=scale * (9.4 + 0.6 * own[1]),
            apex=-14.6 + 0.6 * own[2],
            dome_right=dome,
            dome_left=dome + 1.0 + 0.35 * own[4],
            wall=2.0 + 0.35 * own[5],
            tilt=float(np.deg2rad(36 + 4 * own[6])),
            heart_y=4.2 + 0.3 * own[7] - (0.6 if bedside else 0),
            shift=0.35 * own[8],
            knob=1.35 + 0.1 * own[9] + 0.012 * (person.age - 50),
            gas=2.3 + 0.5 * own[10],
            breast=0.0 if man else max(1.2, 2.6 + 0.6 * own[11]),
            bone=float(np.clip(1.0 - 0.005 * (person.age - 50), 0.75, 1.1)),
        )


@dataclass(frozen=True)
class Thorax:
    """A person's soft parts on a grid of `pixels` by `pixels`; every property is (pixels, pixels), cm of beam."""

    shape: Shape
    pixels: int

    @cached_property
    def x(self) -> Volume:
        """Position to the picture's right, (1, pixels)."""
        return self._axis[None, :]

    @cached_property
    def y(self) -> Volume:
        """Position downwards, (pixels, 1)."""
        return self._axis[:, None]

    @property
    def _axis(self) -> Volume:
        axis = ((np.arange(self.pixels) + 0.5) / self.pixels - 0.5) * FIELD_OF_VIEW
        return axis.astype(np.float32)

    @cached_property
    def half_width(self) -> Volume:
        """Half the width of the cavity at each height, (pixels, 1), not below 1 mm."""
        up = np.clip((WIDEST - self.y) / (WIDEST - self.shape.apex), 0, 1)
        width = self.shape.half_width * np.sqrt(1 - up**3.4)
        return np.maximum(width, 0.1).astype(np.float32)

    @cached_property
    def across(self) -> Volume:
        """Position across the cavity: -1 and 1 at its walls."""
        return self.x / self.half_width

    @cached_property
    def cavity(self) -> Volume:
        """The thoracic cavity."""
        depth = self.shape.half_depth * (self.half_width / self.shape.half_width) ** 0.7
        return 2 * depth * root(1 - self.across**2) * (self.y > self.shape.apex)

    @cached_property
    def body(self) -> Volume:
        """The whole body without the breasts: trunk, shoulders and neck."""
        s = self.shape
        # The trunk widens into the shoulders; their upper edge falls from the neck outwards.
        shoulder = 1 / (1 + np.exp(np.clip((self.y + 8.5) / 1.3, -30, 30)))
        width = s.half_width + s.wall + 9 * shoulder
        trunk = 2 * (s.half_depth + 1.8) * root(1 - (self.x / width) ** 2) ** 0.8
        trunk *= 1 - 0.35 * shoulder * np.clip(np.abs(self.x) / 14, 0, 1)
        edge = -19.2 + 0.22 * np.abs(self.x) + 0.004 * self.x**2
        trunk = trunk * np.clip((self.y - edge) / 2.0, 0, 1) ** 0.6
        neck = 11.5 * root(1 - ((self.x - s.shift) / 6.2) ** 2)
        return np.maximum(trunk, neck * (self.y < -14))

    @cached_property
    def breasts(self) -> Volume:
        """Both breasts."""
        s = self.shape
        if not s.breast:
            return np.zeros((self.pixels, self.pixels), np.float32)
        away = ((np.abs(self.x) - 0.52 * s.half_width) / 6.0) ** 2 + ((self.y - 5.2) / 5.4) ** 2
        # The lower edge stands out, the upper one runs into the chest wall.
        return s.breast * root(1 - away) ** 1.2 * np.clip((self.y + 0.5) / 6, 0, 1)

    @cached_property
    def abdomen(self) -> Volume:
        """What lies under the two domes of the diaphragm, within the cavity."""
        s = self.shape
        floor = 13.5
        found = np.zeros((self.pixels, self.pixels), np.float32)
        for side, top in ((-1, s.dome_right), (1, s.dome_left)):
            across = (side * self.x - 0.5 * s.half_width) / (0.6 * s.half_width)
            up = np.maximum(0, floor - self.y) / (floor - top)
            found = np.maximum(found, root(1 - np.abs(across) ** 2.3 - up**2) ** 0.55)
        # Between the domes the heart rests on the central tendon; below the floor there is no lung.
        middle = np.maximum(0, floor - self.y) / (floor - s.dome_left - 0.8)
        found = np.maximum(found, root(1 - ((self.x - s.shift) / 7.0) ** 2 - middle**2) ** 0.4)
        found = np.maximum(found, np.clip((self.y - 10.5) / 3, 0, 1))
        return (self.cavity * np.minimum(1, found)).astype(np.float32)

    @cached_property
    def mediastinum(self) -> Volume:
        """The great vessels and the oesophagus above the heart, and the spine's soft parts behind it."""
        s, x, y = self.shape, self.x - self.shape.shift, self.y
        half = 2.3 + 0.045 * np.maximum(0, -y - 9) ** 1.5 + 0.5 * np.exp(-(((y + 1) / 3.5) ** 2))
        found = 12 * root(1 - (x / half) ** 2)
        arch = ((x - 2.05) / s.knob) ** 2 + ((y + 5.6) / (1.15 * s.knob)) ** 2
        trunk = ((x - 2.2) / 1.75) ** 2 + ((y + 2.1) / 2.3) ** 2
        ascending = ((x + 1.7) / 1.5) ** 2 + ((y + 3.0) / 3.6) ** 2
        descending = ((x - 1.5) / 1.3) ** 2 * (y > -5.6) + 9.0 * (y <= -5.6)
        for depth, away in ((6.0, arch), (6.0, trunk), (6.0, ascending), (3.0, descending)):
            found = np.maximum(found, depth * root(1 - away) + 2.5 * (away < 1))
        return found.astype(np.float32)

    @cached_property
    def airway(self) -> Volume:
        """The air in the trachea and the main bronchi."""
        x, y = self.x - self.shape.shift, self.y
        trachea = 1.7 * root(1 - ((x + 0.25) / 0.9) ** 2) * (y < -4.6) * (y > -19.5)
        down = np.clip((y + 4.6) / 3.2, 0, 1) * (y < -1.4)
        right = 1.2 * root(1 - ((x + 0.4 + 2.0 * down) / 0.65) ** 2) * (down > 0)
        left = 1.1 * root(1 - ((x - 0.1 - 3.0 * down) / 0.6) ** 2) * (down > 0)
        return np.maximum(trachea, np.maximum(right, left)).astype(np.float32)

    @cached_property
    def stomach_gas(self) -> Volume:
        """The gas in the stomach, under the left dome."""
        s = self.shape
        away = ((self.x - 0.5 * s.half_width) / s.gas) ** 2 + ((self.y - s.dome_left - 2.3) / (0.55 * s.gas)) ** 2
        return (1.6 * s.gas * root(1 - away)).astype(np.float32)

    def heart(self, ratio: float) -> Volume:
        """Return the heart, a tilted ellipsoid whose width is `ratio` of the thorax's: a third right of the midline."""
        s = self.shape
        slim = 0.74
        cosine, sine = np.cos(s.tilt), np.sin(s.tilt)
        half = ratio * s.half_width
        long = half / np.hypot(cosine, slim * sine)
        x, y = self.x - s.shift - 0.30 * half, self.y - s.heart_y - 0.12 * (half - 6.4)
        along, beside = (x * cosine + y * sine) / long, (y * cosine - x * sine) / (slim * long)
        found: Volume = (2.1 * slim * long * root(1 - along**2 - beside**2)).astype(np.float32)
        return found


def root(square: Volume) -> Volume:
    """Return the square root, 0 for negative numbers: half the chord of a unit circle."""
    found: Volume = np.sqrt(np.maximum(square, np.float32(0)))
    return found
