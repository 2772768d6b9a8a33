"""A ladder as one picture and as a moving one; both are marked as synthetic, as `write_png` marks images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from latentdrift.data.files import replacing
from latentdrift.data.images import write_png
from latentdrift.data.provenance.marks import marks
from latentdrift.errors import DataError
from latentdrift.report.figures import gray_difference, image_grid, signed_difference, to_pixels

LEAST_SIDE = 256
"""Pixels of a side below which frames of a GIF are enlarged, by a whole factor."""
CAPTION_HEIGHT = 22


def strip_figure(
    path: str | Path,
    source: Any,
    frames: Sequence[Any],
    labels: Sequence[str],
    *,
    real: Sequence[Any] | None = None,
    name: str = "",
    title: str = "",
    threshold: float | npt.ArrayLike = 0.0,
    scale: float | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Write a ladder: the source and the frames, below each frame what was added and removed, below that real images.

    Args:
        path: PNG file to write.
        source: image; see `to_pixels`.
        frames: images of the same size.
        labels: the values, one a frame.
        real: a real image a frame, or None where there is none.
        name: of the row of frames, such as "synthetic, age".
        title: above everything.
        threshold: differences not to be shown, as a fraction of the full range: a number, or a map (H, W) such as the
            error of the round trip.
        scale: difference at which a colour is full; None takes the 99.5th percentile of all, at least 0.1.
        facts: what made the frames, written into the file, which is marked as synthetic.

    Raises:
        DataError: numbers that differ, an image that cannot be shown, or a file that cannot be written.
    """
    if not frames or len(labels) != len(frames) or (real is not None and len(real) != len(frames)):
        raise DataError(
            f"{len(frames)} frames, {len(labels)} labels and {'no' if real is None else len(real)} real images do not "
            "form a strip: give one of each a frame."
        )
    if scale is None:
        found = np.concatenate([np.abs(gray_difference(source, frame)).ravel() for frame in frames])
        scale = max(0.1, float(np.quantile(found, 0.995)))
    maps = [signed_difference(source, frame, threshold=threshold, scale=scale) for frame in frames]
    rows: list[list[Any]] = [[source, *frames], [None, *maps]]
    names = [name or "synthetic", "difference"]
    if real is not None and any(image is not None for image in real):
        rows.append([None, *real])
        names.append("real")
    return image_grid(
        path,
        rows,
        row_labels=names,
        column_labels=["source", *labels],
        title=title,
        note=f"green: added, red: removed; full colour at {scale:.0%} of the range of gray. Frames are synthetic.",
        synthetic=facts or {},
    )


def write_gif(
    path: str | Path,
    frames: Sequence[Any],
    labels: Sequence[str] = (),
    *,
    milliseconds: int = 400,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Write frames as an endless GIF that goes there and back; its comment says, as JSON, that it is synthetic.

    Args:
        path: GIF file to write.
        frames: images of one size; see `to_pixels`.
        labels: written below each frame.
        milliseconds: each frame is shown.
        facts: metadata for the comment.

    Raises:
        DataError: no frame, labels of another number, frames of different size, or a file that cannot be written.
    """
    if not frames or (labels and len(labels) != len(frames)):
        raise DataError(f"{len(frames)} frames and {len(labels)} labels do not form a GIF: give one label a frame.")
    if milliseconds < 20:
        raise DataError(f"A frame of {milliseconds} ms is not shown as such by viewers; give 20 ms or more.")
    sizes = sorted({to_pixels(frame).shape[:2] for frame in frames})
    if len(sizes) > 1:
        raise DataError(f"Frames of a GIF must have one size, not {sizes}.")
    pictures = [_picture(frame, labels[i] if labels else None) for i, frame in enumerate(frames)]
    order = [*pictures, *pictures[-2:0:-1]]
    told = marks(facts)
    with replacing(path) as partial:
        order[0].save(
            partial,
            format="GIF",
            save_all=True,
            append_images=order[1:],
            duration=milliseconds,
            loop=0,
            comment=json.dumps(told).encode("ascii"),
        )
    return Path(path)


def mark(path: Path, facts: Mapping[str, Any]) -> Path:
    """Write a figure again with its facts, marked as synthetic; return its path."""
    from PIL import Image

    with Image.open(path) as file:
        pixels = np.asarray(file.convert("RGB"))
    write_png(path, pixels, text=facts, synthetic=True)
    return path


def _picture(frame: Any, label: str | None) -> Any:
    """Return a frame as a Pillow image, gray where it has no colour, enlarged and labelled."""
    from PIL import Image, ImageDraw, ImageFont

    levels = np.round(to_pixels(frame) * 255).astype(np.uint8)
    gray = bool((levels == levels[..., :1]).all())
    picture = Image.fromarray(levels[..., 0] if gray else levels)
    factor = max(1, -(-LEAST_SIDE // max(picture.size)))
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.BICUBIC)
    if label is None:
        return picture
    whole = Image.new(picture.mode, (picture.width, picture.height + CAPTION_HEIGHT))
    whole.paste(picture)
    middle = (picture.width / 2, picture.height + CAPTION_HEIGHT / 2)
    fill = 235 if gray else (235, 235, 235)
    ImageDraw.Draw(whole).text(middle, label, fill=fill, anchor="mm", font=ImageFont.load_default(14))
    return whole
