from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentdrift.cli.__main__ import main
from latentdrift.cli.scans import ScanOptions, image_files, scan_settings, unique_stems
from latentdrift.data.prepare import PrepareConfig
from latentdrift.errors import ConfigurationError, DataError
from latentdrift.models import ModelCard

CARD = ModelCard("tiny", "basic", 1, 32, True, "{stage}")


@pytest.fixture
def head(tmp_path: Path) -> Path:
    import nibabel

    grid = np.meshgrid(*(np.linspace(-1, 1, side) for side in (40, 40, 20)), indexing="ij")
    values = np.where(sum((axis / 0.85) ** 2 for axis in grid) < 1, 700 - 200 * grid[0], 0).astype(np.int16)
    values += np.random.default_rng(0).integers(0, 9, values.shape).astype(np.int16)
    path = tmp_path / "scans" / "head.nii.gz"
    path.parent.mkdir()
    nibabel.save(nibabel.Nifti1Image(values, np.diag([2.0, 2.0, 4.0, 1.0])), path)
    return path


def test_a_volume_goes_in_and_its_counterfactual_comes_out(toy_run: Path, head: Path, tmp_path: Path) -> None:
    import nibabel

    out = tmp_path / "out"
    words = ["counterfactual", "--model", str(toy_run), "--image", str(head), "--out", str(out), "--quiet"]
    words += ["--source", "stage=NonDemented", "--target", "stage=MildDemented", "--steps", "4", "--position", "4"]
    assert main([*words, "--export", "nifti", "png16", "residual"]) == 0
    (row,) = json.loads((out / "result.json").read_text())["images"]
    assert row["exported"] == "head-edited.nii.gz head-edited.png head-edited.npz"
    before, after = nibabel.load(head), nibabel.load(out / "head-edited.nii.gz")
    assert np.array_equal(before.affine, after.affine)
    different = np.argwhere(before.get_fdata() != after.get_fdata())
    assert len(set(different[:, 2])) <= 1
    with Image.open(out / "head-edited.png") as file:
        assert file.size == (40, 40)
        assert file.text["SyntheticData"] == "YES"
    # Without --export the same image is edited, and nothing is written back.
    assert main([*words[:5], "--out", str(tmp_path / "plain"), *words[7:]]) == 0
    assert (tmp_path / "plain" / "head.png").read_bytes() == (out / "head.png").read_bytes()
    assert not list((tmp_path / "plain").glob("*edited*"))


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (["--export", "nifty"], "Did you mean 'nifti'"),
        (["--export", "dicom"], "is no DICOM file"),
        (["--plane", "axal"], "Did you mean 'axial'"),
        (["--position", "900"], "axial slice at +900 mm"),
        (["--frame", "3"], "there is no frame 3"),
    ],
)
def test_what_cannot_be(
    toy_run: Path, head: Path, tmp_path: Path, extra: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["counterfactual", "--model", str(toy_run), "--image", str(head), "--out", str(tmp_path / "o"), "--quiet"]
    words += ["--source", "stage=NonDemented", "--target", "stage=MildDemented", "--steps", "2", *extra]
    assert main(words) == 2
    assert says in " ".join(capsys.readouterr().err.split())


def test_scans_are_cut_as_the_cohort_was_unless_told_otherwise() -> None:
    import dataclasses

    assert scan_settings(ScanOptions(), CARD) == PrepareConfig()
    kept = {"plane": "coronal", "positions": [3.0, 9.0], "extent_mm": 200.0, "of_a_later_version": 1}
    card = dataclasses.replace(CARD, notes={"preparation": kept})
    found = scan_settings(ScanOptions(), card)
    assert (found.plane, found.positions, found.extent_mm) == ("coronal", (3.0,), 200.0)
    found = scan_settings(ScanOptions(plane="axial", position=-5.0, frame=1), card)
    assert (found.plane, found.positions, found.extent_mm, found.frame) == ("axial", (-5.0,), 200.0, 1)
    with pytest.raises(ConfigurationError, match="extent_mm is -1"):
        scan_settings(ScanOptions(extent_mm=-1), card)


def test_folders_are_pictures_volumes_or_one_series(tmp_path: Path) -> None:
    series = tmp_path / "series"
    series.mkdir()
    for name in ("IM2", "IM1.dcm"):
        (series / name).touch()
    assert image_files([series]) == [[series / "IM1.dcm", series / "IM2"]]
    (series / "a.nii").touch()
    assert image_files([series]) == [[series / "a.nii"]]
    (series / "a.png").touch()
    assert image_files([series, series / "IM2"]) == [[series / "a.png"], [series / "IM2"]]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="There is no image"):
        image_files([tmp_path / "empty"])
    with pytest.raises(DataError, match="does not exist"):
        image_files([tmp_path / "nowhere"])


def test_names_stay_apart() -> None:
    files = [Path(name) for name in ("a/x.nii.gz", "b/x.png", "c/x.1.dcm", "d/x", ".hidden")]
    assert unique_stems(files) == ["x", "x-2", "x.1", "x-3", ".hidden"]


def test_a_run_remembers_how_its_cohort_was_prepared(toy_model: Path, toy_cohort: Path, tmp_path: Path) -> None:
    import shutil

    from latentdrift.data import Cohort
    from latentdrift.finetune import TrainingConfig, finetune_model
    from latentdrift.models import read_model_card

    folder = shutil.copytree(toy_cohort, tmp_path / "cohort")
    (folder / "prepare.json").write_text(json.dumps({"settings": {"plane": "sagittal", "positions": [8.0]}}))
    config = TrainingConfig(steps=1, batch_size=2, sample_steps=1, warmup_steps=0)
    model = finetune_model(Cohort.open(folder), tmp_path / "run", base=toy_model, template="{stage}", config=config)
    card = read_model_card(model)
    assert card is not None
    assert card.notes["preparation"] == {"plane": "sagittal", "positions": [8.0]}
    assert scan_settings(ScanOptions(), card).plane == "sagittal"


def test_gray_stays_bit_by_bit_and_a_tint_goes() -> None:
    from latentdrift.edit.gray import as_gray

    gray = (torch.rand(2, 1, 9, 9) * 2 - 1).expand(-1, 3, -1, -1)
    assert torch.equal(as_gray(gray), gray)
    tinted = gray + torch.tensor([0.3, 0.0, -0.3])[:, None, None]
    assert torch.allclose(as_gray(tinted), gray, atol=1e-6)
    assert torch.equal(as_gray(tinted)[:, 0], as_gray(tinted)[:, 2])
