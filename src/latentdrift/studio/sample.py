"""An image for those who have none at hand: a slice of the MNI152 template, the average of 152 brains."""

from __future__ import annotations

from pathlib import Path


def template_file(folder: Path) -> Path:
    """Write the template's slice as a PNG of 256 pixels and return it.

    Raises:
        DataError: the folder is not writable.
    """
    from latentdrift.data.images import write_png
    from latentdrift.data.simulate import template_slice

    path = folder / "mni152.png"
    write_png(path, (template_slice(size=256) * 255).round().astype("uint8"), text={"source": "MNI152 template"})
    return path
