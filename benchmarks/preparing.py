"""Seconds of preparing scans and reading cohorts, beside plain loops. `python -m benchmarks.preparing --help`."""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Before NumPy is loaded: one process is one thread here, in the plain loops too.
for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(threads, "1")

import numpy as np  # noqa: E402

DISTINCT = 8
"""Volumes and images that are made; the others are copies of them."""

PERCENTILES = (0.5, 99.5)
PARTS = ("nifti", "dicom", "cohort")
TITLES = {"nifti": "NIfTI volume", "dicom": "DICOM image", "cohort": "image of a cohort"}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to measure")
    parser.add_argument("--volumes", type=int, default=200, help="NIfTI volumes")
    parser.add_argument("--shape", type=int, nargs=3, default=[96, 112, 96], help="voxels of a volume")
    parser.add_argument("--radiographs", type=int, default=200, help="DICOM images")
    parser.add_argument("--side", type=int, default=1024, help="pixels of a DICOM image's side")
    parser.add_argument("--size", type=int, default=128, help="side of the prepared images")
    parser.add_argument("--images", type=int, default=10_000, help="PNG files of the cohort, 128 pixels a side")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="numbers of processes")
    parser.add_argument("--repeats", type=int, default=3, help="rounds, in each of which everything is measured once")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    for name in ("volumes", "radiographs", "images", "repeats"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be at least 1")
    return args


def machine_facts() -> dict[str, Any]:
    """Return what the seconds depend on."""
    cpu = Path("/proc/cpuinfo")
    models = [line for line in cpu.read_text().splitlines() if line.startswith("model name")] if cpu.exists() else []
    return {
        "processor": models[0].split(":", 1)[1].strip() if models else platform.processor(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_before": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("latentdrift", "numpy", "nibabel", "pydicom", "pillow")},
    }


def make_volumes(root: Path, count: int, shape: tuple[int, int, int]) -> list[Path]:
    """Write heads in noise as int16 .nii.gz."""
    import nibabel

    grid = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    inside = sum((axis / 0.8) ** 2 for axis in grid) < 1
    spacing = np.diag([2.0, 2.0, 2.0, 1.0])
    for number in range(min(DISTINCT, count)):
        noise = np.random.default_rng(number).normal(0, 25, (2, *shape))
        values = np.hypot(np.where(inside, 700 + 300 * grid[1], 0) + noise[0], noise[1])  # Rician, as magnitude MRI
        nibabel.save(nibabel.Nifti1Image(values.astype(np.int16), spacing), root / f"{number:05d}.nii.gz")
    return copies(root, "nii.gz", count)


def make_radiographs(root: Path, count: int, side: int) -> list[Path]:
    """Write 12-bit radiographs with a window, uncompressed."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

    down, right = np.meshgrid(*(np.linspace(-1, 1, side),) * 2, indexing="ij")
    shade = 1500 + 1200 * np.cos(3 * right) * np.cos(2 * down)
    for number in range(count):
        made = Dataset()
        made.SOPClassUID, made.SOPInstanceUID = DigitalXRayImageStorageForPresentation, generate_uid()
        made.StudyInstanceUID, made.SeriesInstanceUID = generate_uid(), generate_uid()
        made.PatientID, made.Modality = f"P{number:05d}", "DX"
        made.Rows = made.Columns = side
        made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
        made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 0
        made.WindowCenter, made.WindowWidth, made.ImagerPixelSpacing = 1800, 3000, [0.3, 0.3]
        if number < DISTINCT:
            noise = np.random.default_rng(number).normal(0, 60, shade.shape)
            pixels = np.clip(shade + noise, 0, 4095).astype("<u2").tobytes()
        made.PixelData = pixels
        made.file_meta = FileMetaDataset()
        made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        made.save_as(root / f"{number:05d}.dcm", enforce_file_format=True)
    return sorted(root.iterdir())


def make_cohort(root: Path, count: int) -> list[Path]:
    """Write gray 8-bit PNG files of 128 pixels a side, and metadata.csv."""
    from PIL import Image

    for number in range(min(DISTINCT, count)):
        noise = np.random.default_rng(number).normal(0, 12, (128, 128))
        pixels = np.clip(128 + 80 * np.sin(np.linspace(0, 9, 128))[:, None] + noise, 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"{number:05d}.png")
    files = copies(root, "png", count)
    with (root / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "subject", "age", "stage"])
        for number, path in enumerate(files):
            writer.writerow([path.name, f"s{number // 3:05d}", 55 + number % 40, ("CN", "MCI", "AD")[number % 3]])
    return files


def copies(root: Path, suffix: str, count: int) -> list[Path]:
    """Copy the files that were made until there are `count`, and return all."""
    for number in range(DISTINCT, count):
        shutil.copyfile(root / f"{number % DISTINCT:05d}.{suffix}", root / f"{number:05d}.{suffix}")
    return sorted(root.glob(f"*.{suffix}"))


def plain_volumes(files: list[Path], out: Path, size: int) -> None:
    """What a short script does: the middle axial slice between percentiles of the voxels above 0, as 16-bit PNG."""
    import nibabel

    for path in files:
        voxels = nibabel.load(path).get_fdata(dtype=np.float32)
        low, high = np.percentile(voxels[voxels > 0], PERCENTILES)
        save_square(np.rot90(voxels[:, :, voxels.shape[2] // 2]), low, high, size, out / f"{path.name}.png")


def plain_radiographs(files: list[Path], out: Path, size: int) -> None:
    """Likewise for DICOM files: the window of the file."""
    import pydicom

    for path in files:
        found = pydicom.dcmread(path)
        low = float(found.WindowCenter) - float(found.WindowWidth) / 2
        pixels = found.pixel_array.astype(np.float32)
        save_square(pixels, low, low + float(found.WindowWidth), size, out / f"{path.name}.png")


def save_square(pixels: np.ndarray, low: float, high: float, size: int, path: Path) -> None:
    from PIL import Image

    unit = np.clip((pixels - low) / (high - low), 0, 1).astype(np.float32)
    side = max(unit.shape)
    square = np.zeros((side, side), np.float32)
    top, left = (side - unit.shape[0]) // 2, (side - unit.shape[1]) // 2
    square[top : top + unit.shape[0], left : left + unit.shape[1]] = unit
    small = np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.BOX))
    Image.fromarray(np.rint(small * 65535).astype(np.uint16)).save(path)


def measured(call: Callable[[], Any]) -> dict[str, float]:
    """Return the wall-clock seconds of a call, and its processor's, those of ended child processes included."""
    wall, before = time.perf_counter(), os.times()
    call()
    after = os.times()
    return {"wall": time.perf_counter() - wall, "processor": sum(after[:4]) - sum(before[:4])}


def measure_preparing(part: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Measure `prepare_cohort` with each number of workers, and the plain loop, in turns."""
    from latentdrift.data.prepare import PrepareConfig, prepare_cohort
    from latentdrift.data.source import data_source

    root = folder / "in"
    root.mkdir(parents=True)
    if part == "nifti":
        files, plain = make_volumes(root, args.volumes, tuple(args.shape)), plain_volumes
    else:
        files, plain = make_radiographs(root, args.radiographs, args.side), plain_radiographs
    source = data_source.get(part)()

    def ours(workers: int) -> None:
        config = PrepareConfig(size=args.size, workers=workers, min_foreground=0.0)
        made = prepare_cohort(source, root, folder / "out", config)
        if len(made.cohort) != len(files):
            raise SystemExit(f"preparing: {len(files)} files gave {len(made.cohort)} images: {made.refused[:3]}")

    def loop() -> None:
        (folder / "out").mkdir()
        plain(files, folder / "out", args.size)

    calls: dict[str, Callable[[], None]] = {"plain loop": loop}
    for workers in args.workers:
        calls[f"{workers} worker{'s' if workers > 1 else ''}"] = lambda workers=workers: ours(workers)  # type: ignore[misc]
    found = in_turns(calls, args.repeats, lambda: shutil.rmtree(folder / "out", ignore_errors=True))
    return {"count": len(files), "bytes_a_file": files[0].stat().st_size, **found}


def measure_cohort(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Measure opening a cohort and reading all of its images, beside a loop of Pillow and torch."""
    import torch
    from PIL import Image

    from latentdrift.data import Cohort, ImageTransform

    folder.mkdir(parents=True)
    files = make_cohort(folder, args.images)
    transform = ImageTransform(size=128)

    def loop() -> None:
        for path in files:
            with Image.open(path) as image:
                pixels = torch.from_numpy(np.asarray(image, np.float32))
            (pixels / 127.5 - 1).expand(3, -1, -1).contiguous()

    calls: dict[str, Callable[[], Any]] = {
        "plain loop": loop,
        "open": lambda: Cohort.open(folder),
        "read": lambda: [transform.read(path) for path in files],
    }
    return {"count": len(files), "bytes_a_file": files[0].stat().st_size, **in_turns(calls, args.repeats)}


def in_turns(
    calls: dict[str, Callable[[], Any]], repeats: int, before: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Return medians of the seconds of each call; a first round, not counted, brings files and libraries to memory."""
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in calls}
    for number in range(repeats + 1):
        for name, call in calls.items():
            before()
            once = measured(call)
            if number:
                seconds[name].append(once)
    return {
        "seconds": {
            name: {clock: statistics.median(one[clock] for one in all_) for clock in ("wall", "processor")}
            for name, all_ in seconds.items()
        },
        "all": seconds,
    }


def print_part(part: str, found: dict[str, Any]) -> None:
    """Print milliseconds a file, ratios to the plain loop, and what more workers save."""
    plain, count = found["seconds"]["plain loop"], found["count"]
    print(f"\n{TITLES[part]}: {count:,} of {found['bytes_a_file']:,} bytes")
    print(f"  {'':<14}{'seconds':>9}{'ms each':>9}{'/ plain':>9}{'processor ms':>14}{'/ plain':>9}")
    for name, one in found["seconds"].items():
        each, busy = (one[clock] / count * 1e3 for clock in ("wall", "processor"))
        ratios = one["wall"] / plain["wall"], one["processor"] / plain["processor"]
        print(f"  {name:<14}{one['wall']:>9.2f}{each:>9.2f}{ratios[0]:>9.2f}{busy:>14.2f}{ratios[1]:>9.2f}")
    workers = {int(name.split()[0]): one["wall"] for name, one in found["seconds"].items() if "worker" in name}
    for number, wall in workers.items():
        if number > 1 and 1 in workers:
            print(f"  {number} workers are {workers[1] / wall:.2f} times as fast as 1")


def main() -> int:
    args = parse_arguments()
    settings = {name: value for name, value in vars(args).items() if name != "out"}
    found: dict[str, Any] = {"machine": machine_facts(), "settings": settings}
    machine = found["machine"]
    print(f"{machine['processor']}; {machine['usable_cores']} cores; load before: {machine['load_before']}")
    with tempfile.TemporaryDirectory() as folder:
        for part in args.only:
            inner = Path(folder) / part
            found[part] = measure_cohort(inner, args) if part == "cohort" else measure_preparing(part, inner, args)
            print_part(part, found[part])
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(found, indent=2) + "\n")
        print(f"\nwritten: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
