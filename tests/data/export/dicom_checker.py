"""What dciodvfy, an independent program (Debian: dicom3tools), says of a DICOM file."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from pydicom import dcmread

NOT_YET_KNOWN = "(0x0008,0x001c)"
"""SyntheticData is younger (DICOM 2022e) than the dictionary of Debian's dciodvfy, which calls it an unknown tag."""


def check_with_dciodvfy(path: Path, folder: Path) -> None:
    """No error at all without SyntheticData, and with it that it is not known, alone."""
    if shutil.which("dciodvfy") is None:
        return
    bare = dcmread(path)
    del bare.SyntheticData
    bare.save_as(folder / "bare.dcm")
    for file, allowed in ((path, NOT_YET_KNOWN), (folder / "bare.dcm", "nothing")):
        ran = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True, timeout=60, check=False)
        lines = (ran.stdout + ran.stderr).splitlines()
        assert any(line.endswith(("Image", "ImageForPresentation")) for line in lines), lines  # it knew the class
        assert [line for line in lines if line.startswith("Error") and allowed not in line] == []
