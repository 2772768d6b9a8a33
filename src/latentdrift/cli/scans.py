"""What `--image` names: pictures, images that `prepare` made, NIfTI volumes, DICOM files and folders of series."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from latentdrift.data.export.edit import EditSource
    from latentdrift.data.prepare import PrepareConfig
    from latentdrift.models import ModelCard


@dataclass(frozen=True, kw_only=True)
class ScanOptions:
    """Which slice of a scan, and how it is scaled; by default as the model's cohort was prepared."""

    plane: str | None = None
    """Slices of volumes: axial, coronal or sagittal."""
    position: float | None = None
    """Where the slice is, mm along its normal from --reference."""
    reference: str | None = None
    """What the position is measured from: origin, centre (of the head) or top."""
    intensity: str | None = None
    """How real values become gray: auto, percentiles, window, minmax, or a CT window by name."""
    extent_mm: float | None = None
    """Side of the square image in mm."""
    frame: int | None = None
    """Which volume of a 4-D file, or frame of a multi-frame image."""


@dataclass(frozen=True)
class Opened:
    """One image: its file, the model's view of it (3, S, S) in [-1, 1], and the scan behind it where there is one."""

    file: Path
    image: torch.Tensor
    source: EditSource | None


def scan_settings(options: ScanOptions, card: ModelCard) -> PrepareConfig:
    """Return how scans are cut and scaled: by the flags, else as the model's cohort was prepared, else by default."""
    from latentdrift.data.prepare import PrepareConfig

    names = {field.name for field in dataclasses.fields(PrepareConfig)}
    known: Mapping[str, Any] = card.notes.get("preparation", {})
    settings = {name: value for name, value in known.items() if name in names}
    settings["positions"] = tuple(settings.get("positions", PrepareConfig.positions))[:1]
    flags = {field.name: getattr(options, field.name) for field in dataclasses.fields(ScanOptions)}
    if flags["position"] is not None:
        settings["positions"] = (flags["position"],)
    settings |= {name: value for name, value in flags.items() if name != "position" and value is not None}
    return PrepareConfig(**settings)


def open_images(paths: Sequence[Path], options: ScanOptions, card: ModelCard, scans: bool) -> list[Opened]:
    """Open every image that the paths name.

    Args:
        paths: files, folders of pictures, or folders with one DICOM series.
        options: flags of the command line.
        card: of the model.
        scans: pictures are needed as scans too, because their edits are to be written back.

    Raises:
        DataError: a path that does not exist, a folder without images, or a file that cannot be read.
    """
    import torch

    from latentdrift.data import ImageTransform
    from latentdrift.data.export.edit import open_edit_source
    from latentdrift.data.formats.reading import format_of

    settings, transform = scan_settings(options, card), ImageTransform(size=card.size)
    opened = []
    for files in image_files(paths):
        if format_of(files[0]) == "picture" and not scans:
            opened.append(Opened(files[0], transform.read(files[0]), None))
            continue
        source = open_edit_source(files, card.size, settings)
        image = torch.from_numpy(source.image()).expand(3, -1, -1) * 2 - 1
        opened.append(Opened(files[0].parent if len(files) > 1 else files[0], image, source))
    return opened


def image_files(paths: Sequence[Path]) -> list[list[Path]]:
    """Return the files of every image: of a folder its pictures, else its volumes, else the DICOM series it is.

    Raises:
        DataError: a path that does not exist, or a folder without images.
    """
    from latentdrift.data.formats.reading import format_of
    from latentdrift.errors import DataError

    found: list[list[Path]] = []
    for path in paths:
        if not path.exists():
            raise DataError(f"The image {path} does not exist. Check the path.")
        if not path.is_dir():
            found.append([path])
            continue
        files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
        kinds: dict[str, list[Path]] = {}
        for file in files:
            kinds.setdefault(format_of(file), []).append(file)
        if "picture" in kinds:
            found += [[file] for file in kinds["picture"]]
        elif "nifti" in kinds:
            found += [[file] for file in kinds["nifti"]]
        elif "dicom" in kinds:
            found.append(kinds["dicom"])
        else:
            raise DataError(f"There is no image in {path}.")
    return found


def unique_stems(files: Sequence[Path]) -> list[str]:
    """Return one name a file, numbered where two files share theirs."""
    names: list[str] = []
    for file in files:
        stem = file.name.removesuffix(".gz")
        stem = stem.rsplit(".", 1)[0] or stem
        name, number = stem, 2
        while name in names:
            name, number = f"{stem}-{number}", number + 1
        names.append(name)
    return names
