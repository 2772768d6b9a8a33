"""Registration to the MNI152 template by ANTs, where it is installed. Slices of different heads then match in mm."""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from latentdrift.data.formats.nifti import read_nifti
from latentdrift.data.scan import Volume
from latentdrift.data.volumes.external import run_program, write_for_program
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError

TRANSFORMS = ("rigid", "affine")

ANTSPYX = """
import sys, ants
fixed, moving = ants.image_read(sys.argv[1]), ants.image_read(sys.argv[2])
found = ants.registration(fixed, moving, type_of_transform=sys.argv[4], random_seed=1)
ants.image_write(found["warpedmovout"], sys.argv[3])
"""


def register_to_mni(
    volume: Volume, transform: str = "rigid", *, template: Volume | None = None, limit_s: float = 3600
) -> Volume:
    """Return the volume resampled linearly on the template's grid (MNI152, 1 mm, nilearn's: a brain without skull).

    Strip the skull first: head and brain do not match. A slice of the result cannot be put back into the native scan.

    Args:
        volume: a skull-stripped MRI.
        transform: "rigid" keeps the size of the brain, "affine" does not.
        template: another volume to register to.
        limit_s: seconds it may take.

    Raises:
        UnknownNameError: no such transform.
        ConfigurationError: ANTs is not installed.
        DataError: it failed, took too long, or gave another grid than the template's.
    """
    if transform not in TRANSFORMS:
        raise UnknownNameError("transform", transform, TRANSFORMS)
    program = shutil.which("antsRegistration")
    if program is None and find_spec("ants") is None:
        raise ConfigurationError(
            "Registration needs ANTs: `pip install antspyx`, or install ANTs 2.4 and put antsRegistration on PATH."
        )
    fixed = template or _template()
    with tempfile.TemporaryDirectory(prefix="latentdrift-register-") as made:
        folder = Path(made)
        target, moving, warped = (str(folder / f"{name}.nii.gz") for name in ("template", "scan", "warped"))
        write_for_program(fixed, Path(target))
        write_for_program(volume, Path(moving))
        if program is not None:
            command = _command(program, target, moving, warped, transform)
        else:
            command = [sys.executable, "-c", ANTSPYX, target, moving, warped, transform.capitalize()]
        # One thread: ANTs adds in the order its threads finish, and would give another result each time.
        run_program(command, folder, limit_s=limit_s, extra={"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"})
        if not Path(warped).is_file():
            raise DataError(f"ANTs ended without an error and without a result. It was: {' '.join(command)}")
        found = read_nifti(Path(warped), modality=volume.modality)
    if found.voxels.shape != fixed.voxels.shape or not np.allclose(found.affine, fixed.affine, atol=0.02):
        raise DataError(f"ANTs gave a result of {found.voxels.shape}, not on the template's grid. Update it.")
    facts = {**volume.facts, "registered": f"{transform}, by ANTs, to {'a template' if template else 'MNI152'}"}
    return replace(found, facts=facts | {name: found.facts[name] for name in ("shape", "spacing", "axes")})


def _command(program: str, fixed: str, moving: str, warped: str, transform: str) -> list[str]:
    """Return antsRegistration's command line: multi-resolution mutual information, rigid, then affine where asked."""
    prefix = str(Path(warped).with_name("transform_"))
    stages = []
    for stage in TRANSFORMS[: 1 + TRANSFORMS.index(transform)]:
        stages += [
            *("--transform", f"{stage.capitalize()}[0.1]"),
            *("--metric", f"MI[{fixed},{moving},1,32,Regular,0.25]"),
            *("--convergence", "[1000x500x250x100,1e-6,10]"),
            *("--shrink-factors", "8x4x2x1", "--smoothing-sigmas", "3x2x1x0vox"),
        ]
    return [
        *(program, "--dimensionality", "3", "--float", "1", "--random-seed", "1"),
        *("--output", f"[{prefix},{warped}]", "--interpolation", "Linear"),
        *("--winsorize-image-intensities", "[0.005,0.995]", "--use-histogram-matching", "0"),
        *("--initial-moving-transform", f"[{fixed},{moving},1]"),
        *stages,
    ]


def _template() -> Volume:
    from nilearn.datasets import load_mni152_template

    image = load_mni152_template(resolution=1)
    return Volume(np.asarray(image.dataobj, np.float32), np.asarray(image.affine, np.float64), "MR")
