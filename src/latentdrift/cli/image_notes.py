"""What was done to an image so that the model can see it, in words; and colour taken out where the model knows none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentdrift.edit.gray import as_gray
from latentdrift.models.modality import strange_modality

if TYPE_CHECKING:
    import torch

    from latentdrift.cli.scans import Opened
    from latentdrift.models import ModelCard


def prepare_image(opened: Opened, card: ModelCard) -> tuple[torch.Tensor, list[str], list[str]]:
    """Return the image as the model is to see it (3, S, S), notes on what was done, and warnings.

    A warning is of what may make the edit worthless: another modality than the model's.
    """
    import numpy as np

    image, notes, warnings = opened.image, [], []
    if opened.source is None:
        from latentdrift.data.formats.reading import stored_bits
        from latentdrift.data.images import has_colour, read_array

        pixels = read_array(opened.file)
        height, width = pixels.shape[:2]
        if stored_bits(opened.file) > 8:
            low, high = (float(np.rint(end * 65535)) for end in (pixels.min(), pixels.max()))
            notes.append(f"16 bit: 0 to 65535 is black to white; the image goes from {low:.0f} to {high:.0f}")
        if card.gray and has_colour(pixels):
            image = as_gray(image)
            notes.append("colour: made gray (mean of the channels), as all images of the model's cohort were")
    else:
        plane, placement = opened.source.plane, opened.source.placement
        height, width = plane.pixels.shape
        if opened.source.cut is not None:
            cut = opened.source.cut
            notes.append(f"{cut.plane} slice at {cut.position:+.1f} mm of the volume")
        if plane.bits > 8 or opened.source.cut is not None:
            unit = " HU" if plane.modality == "CT" else ""
            stored = "" if opened.source.cut is not None else f"{plane.bits} bit: "
            notes.append(
                f"{stored}{placement.low:g} to {placement.high:g}{unit} is black to white; the image goes from "
                f"{float(plane.pixels.min()):g} to {float(plane.pixels.max()):g}{unit}"
            )
        told = strange_modality(card, plane.modality)
        if told is not None:
            warnings.append(f"{opened.file} {told}")
    if (height, width) != (card.size, card.size):
        padded = ", padded with black" if height != width else ""
        notes.insert(0, f"resized from {width} x {height} to {card.size} x {card.size} pixels{padded}")
    return image, notes, warnings


def source_digest(opened: Opened) -> str:
    """Return the SHA-256 (hex) of the image's file; of a series, that of its files' digests."""
    from latentdrift.data.files import sha256_of

    if opened.source is not None and not opened.file.is_file():
        return opened.source.source_hash()
    return sha256_of(opened.file)
