"""`--mask FILE` → where an edit may act, in the model's view of every image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from latentdrift.cli.scans import Opened
    from latentdrift.data.export.edit import EditSource


def read_mask(path: Path, opened: Sequence[Opened], size: int) -> torch.Tensor:
    """Return the mask of every image, (N, 1, size, size) bool, True where the edit may act.

    A pixel of the model's view belongs to the mask if at least half of it does in the scan.

    Args:
        path: a picture, white (at least half of its range) where the edit may act; or .npy or NIfTI, above 0 there. It
            has the shape of the model's view, of the image itself, or, for a NIfTI scan, of the whole volume.
        opened: the images, from `open_images`.
        size: side of the model's view in pixels.

    Raises:
        DataError: the file cannot be read.
        ConfigurationError: another shape or orientation than an image's, or a mask that leaves nothing to edit.
    """
    import torch

    values = mask_values(path)
    masks = [torch.from_numpy(seen_by_model(path, values, one, size)) for one in opened]
    for one, mask in zip(opened, masks, strict=True):
        if not mask.any():
            raise ConfigurationError(
                f"The mask {path} is empty where {one.file} is: nothing could be edited. White, or above 0, is where "
                "the edit may act."
            )
    return torch.stack(masks)[:, None]


def mask_values(path: Path) -> NDArray[np.bool_]:
    """Return the mask as the file has it, (H, W) or (I, J, K).

    Raises:
        DataError: the file is missing, damaged, or holds something else.
    """
    import numpy as np

    from latentdrift.data.formats.reading import format_of, read_scan
    from latentdrift.data.images import read_array
    from latentdrift.data.scan import Volume
    from latentdrift.errors import DataError

    if not path.is_file():
        raise DataError(f"The mask {path} does not exist. Check the path.")
    if path.suffix == ".npy":
        try:
            values = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"The mask {path} is no array: {error}.") from error
        if values.dtype.kind not in "biuf":
            raise DataError(f"The mask {path} holds {values.dtype}; numbers or truth values are needed.")
        return np.asarray(values > 0)
    if format_of(path) == "picture":
        levels = read_array(path)
        return np.asarray((levels if levels.ndim == 2 else levels.mean(2)) >= 0.5)
    found = read_scan([path])
    return np.asarray((found.voxels if isinstance(found, Volume) else found.pixels) > 0)


def seen_by_model(path: Path, values: NDArray[np.bool_], one: Opened, size: int) -> NDArray[np.bool_]:
    """Return the mask in the model's view of one image, (size, size)."""
    import dataclasses

    import numpy as np

    source = one.source
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim == 3 and source is not None:
        values = slice_of_mask(path, values, source)
    if values.shape == (size, size):
        return values
    if source is not None and values.shape == source.plane.pixels.shape:
        placement = dataclasses.replace(source.placement, low=0.0, high=1.0, inverted=False)
        return np.asarray(placement.show(values.astype(np.float32)) >= 0.5)
    own = picture_shape(one)
    if source is None and values.shape == own:
        from latentdrift.data import ImageTransform

        square = ImageTransform(size=size).from_array(values.astype(np.float32))[0].numpy()
        return np.asarray(square >= 0)
    shape = " x ".join(map(str, values.shape))
    other = "" if own == (size, size) else f" or {own[0]} x {own[1]} (its own)"
    raise ConfigurationError(
        f"The mask {path} has the shape {shape}; {one.file} needs {size} x {size} (the model's view){other}, rows "
        "first."
    )


def slice_of_mask(path: Path, values: NDArray[np.bool_], source: EditSource) -> NDArray[np.bool_]:
    """Return the plane (H, W) of a volume's mask (I, J, K) that the image is of.

    Raises:
        ConfigurationError: a mask of another volume, or of a scan that is none.
    """
    import numpy as np

    from latentdrift.data.formats.reading import format_of

    file = source.files[0]
    if source.cut is None or format_of(file) != "nifti":
        raise ConfigurationError(
            f"The mask {path} is a volume, but {file} is no NIfTI volume. Give a mask of the slice's own shape, "
            f"{source.plane.pixels.shape[0]} x {source.plane.pixels.shape[1]}."
        )
    import nibabel

    scan: Any = nibabel.load(file)
    if tuple(scan.shape[:3]) != values.shape:
        raise ConfigurationError(f"The mask {path} has the shape {values.shape}, the scan {file} {scan.shape[:3]}.")
    if path.suffix != ".npy":
        own: Any = nibabel.load(path)
        if not np.allclose(own.affine, scan.affine, atol=1e-3):
            raise ConfigurationError(
                f"The mask {path} lies elsewhere than the scan {file}: their affines differ. Resample it to the scan."
            )
    return np.ascontiguousarray(source.cut.take(values))  # the slice is a view, perhaps backwards


def picture_shape(one: Opened) -> tuple[int, int]:
    """Return the image's own shape, (H, W), upright."""
    if one.source is not None:
        height, width = one.source.plane.pixels.shape
    else:
        from latentdrift.data.images import read_array

        height, width = read_array(one.file).shape[:2]
    return int(height), int(width)
