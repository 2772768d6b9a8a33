"""What was done to an image so that the model can see it, in words; and colour taken out where the model knows none."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from latentdrift.cli.scans import Opened
    from latentdrift.edit import EditResult
    from latentdrift.models import ModelCard

MODALITIES: Mapping[str, frozenset[str]] = {
    "MRI": frozenset({"MR"}),
    "CT": frozenset({"CT"}),
    "X-ray": frozenset({"CR", "DX", "DR", "RG"}),
}
"""DICOM's codes by the name that captions use."""

_NAMED = {
    "MRI": re.compile(r"\b(?:mri?|t1|t2|flair)\b", re.IGNORECASE),
    "CT": re.compile(r"\bct\b", re.IGNORECASE),
    "X-ray": re.compile(r"\bx-?rays?\b|\bradiographs?\b", re.IGNORECASE),
}


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
        trained = trained_modalities(card)
        known = {code for name in trained for code in MODALITIES[name]}
        if known and plane.modality not in known | {"OT", ""}:
            told = " and ".join(sorted(trained))
            warnings.append(
                f"{opened.file} is of modality {plane.modality}, the model was trained on {told}: do not trust it."
            )
    if (height, width) != (card.size, card.size):
        padded = ", padded with black" if height != width else ""
        notes.insert(0, f"resized from {width} x {height} to {card.size} x {card.size} pixels{padded}")
    return image, notes, warnings


def as_gray(images: torch.Tensor) -> torch.Tensor:
    """Return images (..., 3, H, W) with the mean of the channels in each; images that are gray stay bit by bit."""
    first = images[..., :1, :, :]
    mean = first + (images - first).mean(-3, keepdim=True)
    return mean.expand(images.shape).contiguous()


def gray_edit(result: EditResult) -> EditResult:
    """Return an edit without the tint that the decoder leaves and guidance can push further.

    What is measured is then what the files of a gray cohort's model show.
    """
    kept = None if result.reconstruction is None else as_gray(result.reconstruction)
    return dataclasses.replace(result, image=as_gray(result.image), reconstruction=kept)


def trained_modalities(card: ModelCard) -> set[str]:
    """Return what the model was trained on, by name, as far as its captions and settings say."""
    told: Mapping[str, Any] = card.notes.get("instructions", {})
    template = card.template if isinstance(card.template, str) else " ".join(map(str, card.template.get("texts", ())))
    values = [str(value) for value in card.attributes.get("modality", ())]
    text = " ".join([template, *values, str(told.get("modality", ""))])
    return {name for name, pattern in _NAMED.items() if pattern.search(text)}


def source_digest(opened: Opened) -> str:
    """Return the SHA-256 (hex) of the image's file; of a series, that of its files' digests."""
    from latentdrift.data.files import sha256_of

    if opened.source is not None and not opened.file.is_file():
        return opened.source.source_hash()
    return sha256_of(opened.file)
