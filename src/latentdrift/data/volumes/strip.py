"""Skull stripping by a tool that is installed. The tool gives a mask; the values inside stay the scan's own."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

import numpy as np

from latentdrift.data.formats.nifti import read_nifti
from latentdrift.data.scan import Volume
from latentdrift.data.volumes.external import check_same_grid, run_program, write_for_program
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError

BRAIN_SHARE = (0.005, 0.95)
"""Shares of a scan that a brain may fill; outside them the tool found none."""

ANTSPYNET = """
import sys, ants, antspynet
image = ants.image_read(sys.argv[1])
brain = antspynet.brain_extraction(image, modality="t1")
ants.image_write(ants.threshold_image(brain, 0.5, 1.5, 1, 0), sys.argv[2])
"""


@dataclass(frozen=True)
class Stripper:
    """A skull-stripping tool.

    Attributes:
        title: what it is called, with its paper.
        install: how to get it.
        program: the console program it needs on PATH, or None.
        modules: the Python packages it needs.
        command: (program, scan, folder, device) → the command line; the scan is NIfTI.
        mask: the file in the folder that holds the mask afterwards.
        environment: variables it needs.
    """

    title: str
    install: str
    program: str | None
    modules: tuple[str, ...]
    command: Callable[[str, Path, Path, str], list[str]]
    mask: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def found(self) -> str | None:
        """Return the program to run, or None where the tool is not installed."""
        if self.program is not None:
            return shutil.which(self.program)
        return sys.executable if all(find_spec(module) is not None for module in self.modules) else None


STRIPPERS: Mapping[str, Stripper] = MappingProxyType(
    {
        "hd-bet": Stripper(
            "HD-BET 2 (Isensee et al. 2019, Hum. Brain Mapp. 40:4952)",
            "pip install 'hd-bet>=2.0'; it downloads its weights when first used",
            "hd-bet",
            (),
            lambda program, scan, folder, device: [
                *(program, "-i", str(scan), "-o", str(folder / "brain.nii.gz"), "-device", device),
                *(["--disable_tta"] if device == "cpu" else []),
                *("--save_bet_mask", "--no_bet_image"),
            ],
            "brain_bet.nii.gz",
        ),
        "synthstrip": Stripper(
            "SynthStrip (Hoopes et al. 2022, NeuroImage 260:119474)",
            "install FreeSurfer 7.3 or later and source its SetUpFreeSurfer.sh",
            "mri_synthstrip",
            (),
            lambda program, scan, folder, device: [
                *(program, "-i", str(scan), "-m", str(folder / "mask.nii.gz")),
                *(["--gpu"] if device.startswith("cuda") else []),
            ],
            "mask.nii.gz",
        ),
        "ants": Stripper(
            "ANTsPyNet (Tustison et al. 2021, Sci. Rep. 11:9068)",
            "pip install antspyx antspynet; it downloads its weights when first used",
            None,
            ("ants", "antspynet"),
            lambda program, scan, folder, device: [program, "-c", ANTSPYNET, str(scan), str(folder / "mask.nii.gz")],
            "mask.nii.gz",
        ),
        "bet": Stripper(
            "BET of FSL (Smith 2002, Hum. Brain Mapp. 17:143)",
            "install FSL 6 and source its fsl.sh",
            "bet",
            (),
            lambda program, scan, folder, device: [program, str(scan), str(folder / "brain"), "-R", "-n", "-m"],
            "brain_mask.nii.gz",
            {"FSLOUTPUTTYPE": "NIFTI_GZ"},
        ),
    }
)
"""The tools, the most accurate first."""


def installed_strippers() -> list[str]:
    """Return the names of the tools that are installed, the most accurate first."""
    return [name for name, tool in STRIPPERS.items() if tool.found()]


def choose_stripper(name: str = "auto") -> str:
    """Return the name of a tool that is installed: `name`, or for "auto" the first there is.

    Raises:
        UnknownNameError: no such tool.
        ConfigurationError: it is not installed; the message says how to.
    """
    if name != "auto" and name not in STRIPPERS:
        raise UnknownNameError("skull-stripping tool", name, ["auto", *STRIPPERS])
    installed = installed_strippers()
    if name == "auto" and installed:
        return installed[0]
    if name in installed:
        return name
    wanted = STRIPPERS if name == "auto" else {name: STRIPPERS[name]}
    ways = "; ".join(f"{known}: {tool.install}" for known, tool in wanted.items())
    have = f" Installed: {', '.join(installed)}." if installed else ""
    raise ConfigurationError(f"No skull-stripping tool {name!r} is installed.{have} To install {ways}.")


def brain_mask(volume: Volume, tool: str = "auto", *, device: str = "cpu", limit_s: float = 3600) -> np.ndarray:
    """Return (I, J, K) bool, true where the tool found brain.

    Args:
        volume: an MRI of a head, with its skull.
        tool: a name of `STRIPPERS`, or "auto".
        device: "cpu" or "cuda", for tools that take one.
        limit_s: seconds the tool may take.

    Raises:
        UnknownNameError, ConfigurationError: as `choose_stripper`.
        DataError: the tool failed, took too long, or found no brain.
    """
    name = choose_stripper(tool)
    stripper = STRIPPERS[name]
    program = stripper.found()
    assert program is not None  # choose_stripper has looked
    with tempfile.TemporaryDirectory(prefix="latentdrift-strip-") as made:
        folder = Path(made)
        scan = folder / "scan.nii.gz"
        write_for_program(volume, scan)
        command = stripper.command(program, scan, folder, device)
        run_program(command, folder, limit_s=limit_s, extra=stripper.environment)
        path = folder / stripper.mask
        if not path.is_file():
            raise DataError(f"{name} ended without an error and without a mask. It was: {' '.join(command)}")
        found = read_nifti(path)
    check_same_grid(name, found, volume)
    mask: np.ndarray = found.voxels > 0.5
    share = float(mask.mean())
    if not BRAIN_SHARE[0] <= share <= BRAIN_SHARE[1]:
        raise DataError(f"{name} takes {share:.1%} of the scan for brain. Is it a head, and not stripped already?")
    return mask


def strip_skull(volume: Volume, tool: str = "auto", *, device: str = "cpu", limit_s: float = 3600) -> Volume:
    """Return the volume with everything but the brain at 0 (CT: at -1000 HU), on the same grid.

    Arguments and errors as `brain_mask`; the facts name the tool.
    """
    name = choose_stripper(tool)
    mask = brain_mask(volume, name, device=device, limit_s=limit_s)
    outside = np.float32(-1000 if volume.modality == "CT" else 0)
    return replace(volume, voxels=np.where(mask, volume.voxels, outside), facts={**volume.facts, "stripped_by": name})
