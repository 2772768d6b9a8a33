"""One scan → its images on disk and their rows. Runs in worker processes."""

from __future__ import annotations

import hashlib
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.formats.reading import read_scan
from latentdrift.data.prepare.config import PrepareConfig
from latentdrift.data.scan import Plane, Scan, Volume
from latentdrift.data.volumes.placement import Placement
from latentdrift.errors import ConfigurationError, DataError, LatentDriftError

IMAGES = "images"
LONGEST_PATH = 400
"""Of a written image below the cohort's folder, in characters; what systems allow in all is 4096, or far less."""

NO_MEMORY = "it needs more memory than there is; make it smaller first."


@dataclass(frozen=True)
class Converted:
    """What a scan gave: a geometry row an image, or the reasons why not.

    Attributes:
        key: the scan's.
        rows: of the images.
        refused: reasons.
        lasting: the same would come out again; not so where time, memory or a tool was wanting.
    """

    key: str
    rows: tuple[dict[str, Any], ...] = ()
    refused: tuple[str, ...] = ()
    lasting: bool = True


@dataclass(frozen=True)
class Made:
    """An image to write: (size, size) float32 in [0, 1], and its geometry row."""

    unit: NDArray[np.float32]
    row: dict[str, Any]


def convert_scan(scan: Scan, root: Path, out: Path, config: PrepareConfig, modality: str) -> Converted:
    """Read, cut, scale and write one scan. Nothing it may contain raises: what cannot be used is told in `refused`.

    Raises:
        DataError: an image cannot be written.
    """
    from latentdrift.data.export.picture import write_picture

    clock = Clock()
    try:
        with time_limit(config.time_limit_s, clock):
            made, refused = make_images(scan, root, config, modality)
    except LatentDriftError as error:
        lasting = not (clock.expired or isinstance(error, ConfigurationError))
        return Converted(scan.key, refused=(clock.expired or str(error),), lasting=lasting)
    except MemoryError:
        return Converted(scan.key, refused=(NO_MEMORY,), lasting=False)
    except Exception as error:  # damaged files make the libraries below raise anything
        return Converted(scan.key, refused=(f"it cannot be read ({type(error).__name__}: {error}).",))
    for image in made:
        write_picture(out / image.row["file_name"], image.unit, bits=image.row["bits"])
    return Converted(scan.key, tuple(image.row for image in made), tuple(refused))


def make_images(scan: Scan, root: Path, config: PrepareConfig, modality: str) -> tuple[list[Made], list[str]]:
    """Return every wanted slice of a scan, or the plane itself, and why others are not there."""
    made: list[Made] = []
    refused: list[str] = []
    found = read_scan(scan.files, frame=config.frame, modality=modality)
    for plane, low, high, name in planes(found, config, refused):
        placement = Placement.of(plane, config.size, low, high, fit=config.fit, extent=config.extent_mm)
        row = {
            "file_name": f"{IMAGES}/{safe_path(scan.key)}{name}.png",
            "key": scan.key,
            "files": [relative(path, root) for path in scan.files],
            "frame": config.frame,
            "modality": plane.modality,
            "cut": plane.facts.get("cut"),
            "strip": config.strip,
            "register": config.register,
            "placement": placement.to_dict(),
            "bits": {"8": 8, "16": 16, "auto": 16 if plane.bits > 8 else 8}[config.bits],
            "facts": {key: value for key, value in plane.facts.items() if key != "cut"},
        }
        made.append(Made(placement.show(plane.pixels), row))
    return made, refused


def planes(
    found: Volume | Plane, config: PrepareConfig, refused: list[str]
) -> Iterator[tuple[Plane, float, float, str]]:
    """Yield (plane, low, high, suffix of the name) of every wanted slice; reasons for the others go to `refused`."""
    from latentdrift.data.volumes.cut import pick_cuts, plane_of
    from latentdrift.data.volumes.intensity import intensity_range

    if isinstance(found, Plane):
        if found.pixels.min() == found.pixels.max():
            raise DataError(f"The image is constant: every pixel is {found.pixels.max():g}. Leave it out.")
        yield found, *intensity_range(found, config.intensity), ""
        return
    found = treated(found, config.strip, config.register)
    low, high = intensity_range(found, config.intensity)
    cuts, missing = pick_cuts(
        found, config.plane, config.positions, reference=config.reference, least_foreground=config.min_foreground
    )
    refused += [f"{refusal.name}: {refusal.reason}" for refusal in missing]
    for position, cut in cuts.items():
        yield plane_of(found, cut), low, high, f"_{config.plane}{position:+g}"


def treated(volume: Volume, strip: str, register: str) -> Volume:
    """Return the volume without its skull, and on the template's grid, where that is asked for.

    Raises:
        ConfigurationError: the tool for it is not installed.
        DataError: the tool failed.
    """
    if strip != "none":
        from latentdrift.data.volumes.strip import strip_skull

        volume = strip_skull(volume, strip)
    if register != "none":
        from latentdrift.data.volumes.register import register_to_mni

        volume = register_to_mni(volume, register)
    return volume


def safe_path(key: str) -> str:
    """Return a key as a relative path of harmless names; keys that would meet are told apart by a hash."""
    parts = [re.sub(r"[^A-Za-z0-9._+-]", "_", part).strip(".") or "_" for part in key.split("/") if part]
    path = "/".join(part[:120] for part in parts)[:LONGEST_PATH].rstrip("/.") or "_"
    for suffix in (".nii.gz", ".nii", ".dcm", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".img", ".hdr", ".mgz"):
        if path.lower().endswith(suffix):
            path = path[: -len(suffix)] or "_"
            break
    return path if path == key else f"{path}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def relative(path: Path, root: Path) -> str:
    """Return the path below the root, or the whole one where it is elsewhere."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def plain(value: object) -> object:
    """Return numpy's numbers as Python's, for JSON."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return str(value)


@dataclass
class Clock:
    """What a time limit did: the reason why a block was ended, or nothing."""

    expired: str = ""


@contextmanager
def time_limit(seconds: int, clock: Clock | None = None) -> Iterator[None]:
    """Raise DataError in the main thread of a process after that many seconds; 0, or no such signal, is no limit.

    It is raised again every second, as libraries try the next decoder after any error of one. `clock`, if given, tells
    afterwards that it was raised, also where a library has made it an error of its own.
    """
    import threading

    if not seconds or not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return
    clock = clock or Clock()

    def expire(number: int, frame: object) -> None:
        clock.expired = f"it took longer than {seconds} s. Raise --time-limit-s if it is only large."
        raise DataError(clock.expired)

    former = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    try:
        yield
    finally:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
        finally:  # also where it rang just now
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, former)
