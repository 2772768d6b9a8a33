"""More views of an image than one, none of which makes its caption untrue.

A few degrees, a few pixels, a little larger or darker: what a patient's head does between two scans, and nothing that a
caption speaks of. Views are drawn from a name and not from a running generator, so that two visits of one subject, or
an image and its counterfactual, move alike in the same view: the difference between them stays the difference a pair
shows.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from latentdrift.data import Record
from latentdrift.errors import ConfigurationError

VERSION = 1
"""Raised whenever the same settings give other pixels, so that caches of encoded views are not reused."""

LIMITS = {"degrees": 45.0, "shift": 0.5, "zoom": 1.0, "gamma": 1.0}

SIDES = re.compile(r"(?<![a-z])(left|right|(sinist|dext)(er|ra|rum|ral)(?![a-z]))", re.IGNORECASE)
CHEST = re.compile(
    r"(?<![a-z])((chest|heart|lung|x[- ]?ray)s?(?![a-z])|cxr|radiogra|cardiome|pleura|pneumon|pulmon)|thora[cx]",
    re.IGNORECASE,
)
"""Chests, and the findings in them that a caption may name without saying chest, such as "cardiomegaly"."""


@dataclass(frozen=True)
class Augmentation:
    """Which views of an image are kept beside the image itself."""

    count: int = 0
    """Views an image gets beside itself, each moved and brightened a little."""
    degrees: float = 4.0
    """A view is turned by at most this, either way."""
    shift: float = 0.03
    """A view is moved by at most this part of the side, in each direction."""
    zoom: float = 0.05
    """A view is at most this part larger, or smaller by as much."""
    gamma: float = 0.1
    """A view's brightness is raised to a power of at most 1 plus this, or of one over that; black and white stay."""
    flip: bool = False
    """Keep the mirror image of every view too. Wrong for chests and for lateralised disease: see `check_flip`."""

    def __post_init__(self) -> None:
        if not isinstance(self.count, int) or self.count < 0:
            raise ConfigurationError(f"count is {self.count!r}; it must be a whole number, 0 or more.")
        for name, limit in LIMITS.items():
            if not 0 <= getattr(self, name) <= limit:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it must be from 0 to {limit:g}.")
        if self.count and not any(getattr(self, name) for name in LIMITS):
            raise ConfigurationError(
                f"{self.count} augmented views are asked for, but {', '.join(LIMITS)} are all 0: the views would be "
                "copies. Raise one of them, or set count to 0."
            )

    def __len__(self) -> int:
        """Return the number of views of an image, itself among them."""
        return (1 + self.count) * (1 + self.flip)

    def views(self, image: torch.Tensor, key: str) -> torch.Tensor:
        """Return the views of an image.

        Args:
            image: (3, H, W) in [-1, 1].
            key: decides the draw, see `draw_key`; view v of a key is the same whatever the count.

        Returns:
            (V, 3, H, W) in [-1, 1]: the image, `count` drawn views, and with `flip` the mirror images of all these in
            the same order. Where the image is gray, the channels of every view are equal to the bit.
        """
        upright = image[None]
        if self.count:
            # One channel of a gray image, because a power's rounding may differ between channels.
            gray = torch.equal(image[0], image[1]) and torch.equal(image[0], image[2])
            drawn = self._drawn(image[:1] if gray else image, key)
            upright = torch.cat([upright, drawn.expand(-1, 3, -1, -1)])
        return torch.cat([upright, upright.flip(-1)]) if self.flip else upright

    def fingerprint(self) -> str:
        """Return a text that changes with every setting that changes a view, for the keys of caches."""
        drawn = "".join(f" {name}={float(getattr(self, name))!r}" for name in LIMITS)
        # Without drawn views the text is what it was before there were any: older caches stay valid.
        return f"flip={bool(self.flip)}" + (f" count={self.count}{drawn} version={VERSION}" if self.count else "")

    def _drawn(self, image: torch.Tensor, key: str) -> torch.Tensor:
        """Return (count, C, H, W) of an image (C, H, W)."""
        height, width = image.shape[1:]
        angle, right, down, zoom, gamma = (draws(key, self.count) * 2 - 1).unbind(1)
        angle, zoom = torch.deg2rad(angle * self.degrees), (1 + self.zoom) ** -zoom
        cos, sin = zoom * angle.cos(), zoom * angle.sin()
        # Positions go from -1 to 1 along each side, so a turn has to know how the sides compare.
        place = torch.stack(
            [
                torch.stack([cos, -sin * height / width, 2 * self.shift * right], 1),
                torch.stack([sin * width / height, cos, 2 * self.shift * down], 1),
            ],
            1,
        )
        pixels = (image + 1) / 2
        # What comes in from outside is background. It is taken off and put back, so that outside is 0. torchvision's
        # `affine` would leave a seam along the image's rim where it fills, and it blurs: bilinear keeps a third of the
        # finest scale's power (brain MRI, 128 px), bicubic two thirds.
        background, flat = border_median(pixels)
        grid = F.affine_grid(place.float(), [self.count, *image.shape], align_corners=False)
        # A body that goes on beyond the frame, as in radiographs, has no background: its rim is drawn on instead.
        moved = F.grid_sample(
            (pixels - background).expand(self.count, -1, -1, -1),
            grid,
            mode="bicubic",
            padding_mode="zeros" if flat else "border",
            align_corners=False,
        )
        power = (1 + self.gamma) ** gamma
        return (moved + background).clamp(0, 1) ** power.float()[:, None, None, None] * 2 - 1


def draws(key: str, count: int) -> torch.Tensor:
    """Return five numbers in [0, 1) for each of the views 1 to `count` of a key, (count, 5), float64."""
    digests = [hashlib.sha256(f"{view}:{key}".encode()).digest() for view in range(1, count + 1)]
    words = np.frombuffer(b"".join(digests), dtype="<u4").reshape(count, 8)[:, :5]
    return torch.from_numpy(words / 2**32)


FLAT = 0.03
"""Mean deviation of a rim, in parts of the range from black to white, up to which it is all background."""


def border_median(pixels: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """Return the median of the outermost pixels of (C, H, W) in [0, 1], (C, 1, 1), and whether they are all like it."""
    border = torch.cat([pixels[:, 0], pixels[:, -1], pixels[:, 1:-1, 0], pixels[:, 1:-1, -1]], 1)
    background = border.median(1).values[:, None, None]
    return background, bool((border - background[:, :, 0]).abs().mean() <= FLAT)


def draw_key(record: Record) -> str:
    """Return the name that a record's views are drawn from: all images of a subject move alike."""
    return record.subject or record.key


def check_flip(captions: Iterable[str], flip: bool) -> None:
    """Refuse mirror images where a caption would no longer be true of them.

    Args:
        captions: of the images.
        flip: whether mirror images are asked for; without, any caption will do.

    Raises:
        ConfigurationError: a caption names a side of the body, or a chest, where the heart would be on the right.
    """
    for caption in sorted(set(captions)) if flip else ():
        remedy = "Leave --flip out."
        if found := SIDES.search(caption):
            raise ConfigurationError(
                f"--flip would mirror images whose caption says {found.group()!r}: {caption!r} would no longer be true "
                f"of them. {remedy}"
            )
        if found := CHEST.search(caption):
            raise ConfigurationError(
                f"--flip would mirror a chest and put the heart on the right: the caption {caption!r} says "
                f"{found.group()!r}. {remedy}"
            )
