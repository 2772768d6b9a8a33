from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from latentdrift.data.scan import Volume
from latentdrift.data.volumes.register import register_to_mni
from latentdrift.data.volumes.strip import STRIPPERS, brain_mask, choose_stripper, installed_strippers, strip_skull
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError

AFFINE = np.array([[0, 0, 2.0, -30], [-2.0, 0, 0, 40], [0, 2.0, 0, -50], [0, 0, 0, 1]], float)

MASKER = """#!{python}
import sys, os
import numpy as np, nibabel
arguments = sys.argv[1:]
open(os.environ["SEEN"], "w").write("\\n".join(sys.argv))
def after(*flags):
    return next(arguments[arguments.index(flag) + 1] for flag in flags if flag in arguments)
{where}
image = nibabel.load(scan)
mask = (image.get_fdata() > 500).astype(np.uint8)
nibabel.save(nibabel.Nifti1Image(mask, image.affine), out)
"""

FAKES = {
    "hd-bet": ("hd-bet", 'scan, out = after("-i"), after("-o")[:-7] + "_bet.nii.gz"'),
    "synthstrip": ("mri_synthstrip", 'scan, out = after("-i"), after("-m")'),
    "bet": (
        "bet",
        'scan, out = arguments[0], arguments[1] + "_mask.nii.gz"; assert os.environ["FSLOUTPUTTYPE"] == "NIFTI_GZ"',
    ),
}
FLAGS = {
    "hd-bet": ["-device", "cpu", "--disable_tta", "--save_bet_mask", "--no_bet_image"],
    "synthstrip": ["-m"],
    "bet": ["-R", "-n", "-m"],
}


def program(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return path


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH, so that nothing on this machine is found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("SEEN", str(tmp_path / "seen.txt"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return folder


@pytest.fixture
def head() -> Volume:
    """A brain of 1000 in a skull of 300."""
    voxels = np.random.default_rng(0).normal(20, 4, (24, 26, 28)).astype(np.float32)
    voxels[3:21, 3:21, 3:21] += 300
    voxels[6:18, 6:18, 6:18] = 1000 + np.arange(12)
    return Volume(voxels, AFFINE, "MR", {"bits": 16})


@pytest.mark.parametrize("name", FAKES)
def test_a_tool_is_run_with_its_own_options_and_only_its_mask_is_used(
    tools: Path, head: Volume, tmp_path: Path, name: str
) -> None:
    file, where = FAKES[name]
    program(tools, file, MASKER.format(python=sys.executable, where=where))
    assert installed_strippers() == [name]
    assert choose_stripper() == name
    found = strip_skull(head)
    brain = head.voxels > 500
    np.testing.assert_array_equal(found.voxels, np.where(brain, head.voxels, 0))
    np.testing.assert_array_equal(found.affine, head.affine)
    assert found.facts == {"bits": 16, "stripped_by": name}
    seen = (tmp_path / "seen.txt").read_text().split("\n")
    assert set(FLAGS[name]) <= set(seen)
    assert seen[0] == str(tools / file)
    assert not list(tmp_path.glob("latentdrift-*"))


def test_antspynet_is_run_in_a_python_of_its_own(
    tools: Path, head: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "ants.py").write_text(
        "import nibabel, numpy as np\n"
        "image_read = nibabel.load\n"
        "def threshold_image(image, low, high, inside, outside):\n"
        "    values = image.get_fdata()\n"
        "    found = np.where((values >= low) & (values <= high), inside, outside)\n"
        "    return nibabel.Nifti1Image(found.astype(np.float32), image.affine)\n"
        "def image_write(image, path):\n    nibabel.save(image, path)\n"
    )
    (packages / "antspynet.py").write_text(
        "import nibabel\n"
        "def brain_extraction(image, modality):\n"
        "    assert modality == 't1'\n"
        "    return nibabel.Nifti1Image((image.get_fdata() / 1012).clip(0, 1), image.affine)\n"
    )
    monkeypatch.syspath_prepend(str(packages))
    monkeypatch.setenv("PYTHONPATH", str(packages))
    assert installed_strippers() == ["ants"]
    np.testing.assert_array_equal(brain_mask(head, "ants"), head.voxels > 506)


def test_what_is_not_installed_is_said_with_the_way_to_get_it(tools: Path, head: Volume) -> None:
    with pytest.raises(ConfigurationError, match=r"'hd-bet' is installed.*pip install 'hd-bet>=2\.0'"):
        strip_skull(head, "hd-bet")
    with pytest.raises(ConfigurationError) as caught:
        strip_skull(head)
    assert all(tool.install in str(caught.value) for tool in STRIPPERS.values())
    with pytest.raises(UnknownNameError, match="'hd-bet'"):
        strip_skull(head, "hdbet")
    program(tools, "bet", "#!/bin/true\n")
    with pytest.raises(ConfigurationError, match="Installed: bet"):
        strip_skull(head, "hd-bet")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("echo no weights >&2; exit 3", r"status 3.*\n.*no weights"),
        ("exit 0", "without an error and without a mask"),
        ("sleep 30 & sleep 30", "took longer than 0.5 s"),
    ],
)
def test_failures_are_told_and_leave_nothing(
    tools: Path, head: Volume, tmp_path: Path, body: str, message: str
) -> None:
    os.environ["PATH"] += ":/usr/bin:/bin"
    program(tools, "bet", f"#!/bin/sh\n{body}\n")
    with pytest.raises(DataError, match=message):
        brain_mask(head, "bet", limit_s=0.5 if "sleep" in body else 60)
    assert not list(tmp_path.glob("latentdrift-*"))


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("mask * 0", "0.0% of the scan"),
        ("mask * 0 + 1", "100.0% of the scan"),
        ("mask[1:]", "another grid"),
    ],
)
def test_masks_that_cannot_be_are_refused(tools: Path, head: Volume, result: str, message: str) -> None:
    text = MASKER.format(python=sys.executable, where=FAKES["bet"][1]).replace("Image(mask,", f"Image({result},")
    program(tools, "bet", text)
    with pytest.raises(DataError, match=message):
        brain_mask(head, "bet")


REGISTER = """#!{python}
import sys, os
import numpy as np, nibabel
open(os.environ["SEEN"], "w").write("\\n".join(sys.argv))
prefix, warped = sys.argv[sys.argv.index("--output") + 1].strip("[]").split(",")
fixed, moving, _ = sys.argv[sys.argv.index("--initial-moving-transform") + 1].strip("[]").split(",")
fixed, moving = nibabel.load(fixed), nibabel.load(moving)
assert os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] == "1"
values = np.full(fixed.shape, moving.get_fdata().mean(), np.float32)
nibabel.save(nibabel.Nifti1Image(values, fixed.affine), warped)
"""


@pytest.mark.parametrize("transform", ["rigid", "affine"])
def test_registration_runs_ants_and_lands_on_the_templates_grid(
    tools: Path, head: Volume, tmp_path: Path, transform: str
) -> None:
    program(tools, "antsRegistration", REGISTER.format(python=sys.executable))
    template = Volume(np.ones((10, 12, 14), np.float32), np.diag([3.0, 3, 3, 1]), "MR")
    found = register_to_mni(head, transform, template=template)
    assert found.voxels.shape == (10, 12, 14)
    assert found.voxels[0, 0, 0] == pytest.approx(head.voxels.mean(), rel=1e-4)
    np.testing.assert_allclose(found.affine, template.affine)
    assert found.facts["registered"] == f"{transform}, by ANTs, to a template"
    assert found.facts["shape"] == [10, 12, 14]
    assert found.modality == "MR"
    stages = (tmp_path / "seen.txt").read_text().count("--transform")
    assert stages == (1 if transform == "rigid" else 2)
    assert register_to_mni(head, transform).voxels.shape == nibabel.Nifti1Image(*_template()).shape


def _template() -> tuple[np.ndarray, np.ndarray]:
    from nilearn.datasets import load_mni152_template

    image = load_mni152_template(resolution=1)
    return np.asarray(image.dataobj), image.affine


def test_registration_without_ants_says_how_to_get_it(
    tools: Path, head: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latentdrift.data.volumes.register.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="pip install antspyx"):
        register_to_mni(head)
    with pytest.raises(UnknownNameError, match="Known|Did you mean"):
        register_to_mni(head, "syn")
