"""Running the programs of others on a volume: in a folder that is removed, with a time limit, their errors told."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from latentdrift.data.scan import Volume
from latentdrift.errors import DataError

TOLD = 600
"""Characters of a failed program's last words that are shown."""


def run_program(command: Sequence[str], folder: Path, *, limit_s: float, extra: Mapping[str, str]) -> None:
    """Run a program to its end; it and its children are ended when it takes too long or this process is interrupted.

    Args:
        command: the program and its arguments.
        folder: its working folder, and what it says goes into output.txt there.
        limit_s: seconds.
        extra: environment variables beside those of this process.

    Raises:
        DataError: it cannot be started, fails, or takes too long; the message has the command and its last words.
    """
    shown = " ".join(command)
    said = folder / "output.txt"
    with said.open("wb") as output:
        try:
            process = subprocess.Popen(
                list(command),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **extra},
                start_new_session=True,
            )
        except OSError as error:
            raise DataError(f"{command[0]} cannot be started ({error.strerror}). Install it again.") from error
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired as error:
            raise DataError(f"{command[0]} took longer than {limit_s:g} s. It was: {shown}") from error
        finally:
            if process.poll() is None:
                _end(process)
    if process.returncode:
        words = said.read_text(encoding="utf-8", errors="replace").strip()[-TOLD:] or "nothing"
        raise DataError(f"{command[0]} failed with status {process.returncode}. It was: {shown}\nIt said: {words}")


def write_for_program(volume: Volume, path: Path) -> None:
    """Write a volume as NIfTI-1 (.nii.gz, float32, affine as sform and qform)."""
    import nibabel

    image = nibabel.Nifti1Image(volume.voxels, volume.affine)
    image.set_qform(volume.affine, code=1)
    image.set_sform(volume.affine, code=1)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


def check_same_grid(name: str, made: Volume, volume: Volume) -> None:
    """Raise DataError where a program's result is not on the grid of what it was given."""
    if made.voxels.shape != volume.voxels.shape or not np.allclose(made.affine, volume.affine, atol=0.02):
        raise DataError(
            f"{name} gave a result on another grid ({made.voxels.shape}) than the scan's ({volume.voxels.shape}). "
            "Use another version of it."
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):  # it may end by itself in between
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
