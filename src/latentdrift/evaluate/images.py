"""Image sets from tensors, folders or cohorts, read a batch at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.errors import EvaluationError
from latentdrift.evaluate.features.base import to_bytes

if TYPE_CHECKING:
    import torch

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}


@dataclass(frozen=True)
class ImageSet:
    """A set of images in memory or in files."""

    role: str
    """What the set is called in messages: real, synthetic."""
    names: Sequence[str]
    """What an image is called in messages: its path below the folder, or its index."""
    sizes: frozenset[tuple[int, int]]
    """All sizes (width, height) in the set."""
    files: Sequence[Path] = ()
    pixels: torch.Tensor | None = None
    """uint8 (B, 3, H, W), for a set in memory."""

    def __len__(self) -> int:
        return len(self.names)

    def batches(self, batch_size: int, size: int | None) -> Iterator[torch.Tensor]:
        """Yield uint8 batches (B, 3, H, W); files padded to a square of `size` pixels, or as they are."""
        if self.pixels is not None:
            yield from self.pixels.split(batch_size)
            return
        import torch

        from latentdrift.data import ImageTransform

        read = read_as_is if size is None else ImageTransform(size=size).read
        for start in range(0, len(self.files), batch_size):
            images = [read(path) for path in self.files[start : start + batch_size]]
            if all(len(image) == 1 for image in images):
                yield to_bytes(torch.stack(images))
            else:
                yield to_bytes(torch.stack([image.expand(3, -1, -1) for image in images]))


def open_images(source: Any, role: str) -> ImageSet:
    """Return the images of `source` as a set.

    Args:
        source: tensor or array (B, 3, H, W), uint8 or float in [-1, 1]; a list of (3, H, W); a folder; a `Cohort`; or a
            list of image files. A folder with a metadata table stands for the files in the table, another one for all
            images below it.
        role: what messages call the set.

    Raises:
        EvaluationError: nothing there, fewer than two images, NaN, or shapes that differ within a list.
        DataError: a folder or file that cannot be read.
    """
    from latentdrift.data import Cohort

    if isinstance(source, (str, Path)):
        found = _from_folder(Path(source), role)
    elif isinstance(source, Cohort):
        found = _from_files([record.image for record in source], source.root, role)
    elif isinstance(source, (list, tuple)) and source and all(isinstance(item, (str, Path)) for item in source):
        found = _from_files([Path(item) for item in source], None, role)
    else:
        found = _from_pixels(source, role)
    if len(found) < 2:
        raise EvaluationError(
            f"The {role} set has {len(found)} image(s); a distribution needs at least two. Add images."
        )
    return found


def _from_folder(folder: Path, role: str) -> ImageSet:
    if not folder.is_dir():
        raise EvaluationError(f"There is no folder {folder} for the {role} images. Check the path.")
    if any((folder / name).is_file() for name in ("metadata.csv", "metadata.jsonl")):
        from latentdrift.data import Cohort

        return _from_files([record.image for record in Cohort.open(folder, missing="keep")], folder, role)
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise EvaluationError(f"There are no images below {folder}, the folder of the {role} images.")
    return _from_files(files, folder, role)


def _from_files(files: list[Path], root: Path | None, role: str) -> ImageSet:
    from PIL import Image

    sizes = set()
    for path in files:
        try:
            with Image.open(path) as file:
                # Orientations 5 to 8 stand on their side; they are turned when read. Asking a PNG decodes it.
                sideways = file.width != file.height and file.getexif().get(0x0112, 1) >= 5
                sizes.add((file.height, file.width) if sideways else file.size)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow raises all of these
            raise EvaluationError(f"{path} of the {role} set cannot be read ({error}). Repair or remove it.") from error
    names = [str(path.relative_to(root)) if root and path.is_relative_to(root) else str(path) for path in files]
    return ImageSet(role, names, frozenset(sizes), files=files)


def read_as_is(path: Path) -> torch.Tensor:
    """Return an image file as (3, H, W), a gray one as (1, H, W), in [-1, 1]."""
    import torch

    from latentdrift.data.images import read_array

    pixels = torch.from_numpy(read_array(path))
    image = pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)
    return image * 2 - 1


def _from_pixels(source: Any, role: str) -> ImageSet:
    import torch

    if isinstance(source, (list, tuple)):
        shapes = {tuple(item.shape) for item in source}
        if len(shapes) > 1:
            raise EvaluationError(f"The {role} images have different shapes: {sorted(shapes)}. Resize them first.")
        source = torch.stack([torch.as_tensor(item) for item in source]) if source else torch.zeros(0, 3, 1, 1)
    try:
        pixels = to_bytes(source)
    except EvaluationError as error:
        raise EvaluationError(f"The {role} set: {error}") from error
    size = (int(pixels.shape[3]), int(pixels.shape[2]))
    return ImageSet(role, [f"image {i}" for i in range(len(pixels))], frozenset({size}), pixels=pixels)


def common_size(first: ImageSet, second: ImageSet, size: int | None) -> int | None:
    """Return the size files are read at: `size`, or None where all images have one size already.

    Raises:
        EvaluationError: sizes that differ without `size`, or a set in memory of another size.
    """
    for images in (first, second):
        if size is not None and images.pixels is not None and images.sizes != {(size, size)}:
            raise EvaluationError(
                f"The {images.role} images in memory are {_described(images)}, not {size} x {size}. Resize them first."
            )
    if size is None and len(first.sizes | second.sizes) > 1:
        raise EvaluationError(
            f"Images differ in size: {first.role} {_described(first)}, {second.role} {_described(second)}. "
            "Give size (such as 128) to read all files at one size."
        )
    return size


def _described(images: ImageSet) -> str:
    shown = [f"{width} x {height}" for width, height in sorted(images.sizes)[:3]]
    return ", ".join(shown) + (f" and {len(images.sizes) - 3} other sizes" if len(images.sizes) > 3 else "")


def digests(batch: torch.Tensor) -> list[bytes]:
    """Return a digest of the pixels of every image of a uint8 batch (B, 3, H, W)."""
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in batch.cpu().numpy()]
