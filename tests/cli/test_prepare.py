"""`latentdrift prepare`, from folders as they are distributed to the page that tells what came out."""

from __future__ import annotations

import csv
import html
import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from latentdrift.cli.__main__ import main
from latentdrift.cli.prepare import kind_of
from latentdrift.data import Cohort
from latentdrift.data.scan import Refusal
from latentdrift.data.source import data_source
from tests.data.damage import head
from tests.data.damaged_dicom import good_series
from tests.data.formats.dicom_files import dx_attributes, header, save, with_pixels

AFFINE = np.diag([4.0, 4.0, 5.0, 1.0])


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Return the exit status of a command, and what it printed on both streams."""
    status = main(["prepare", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def prepared(
    capsys: pytest.CaptureFixture[str], source: str, root: Path, out: Path, *more: object
) -> dict[str, object]:
    """Prepare, and return what `--json` printed."""
    fixed = ("--json", "--quiet", "--workers", 1, "--size", 32)
    status, printed, err = run(capsys, source, "--root", root, "--out", out, *fixed, *more)
    assert status == 0, err
    found: dict[str, object] = json.loads(printed)
    return found


def volume(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = head((20, 24, 16)) + np.random.default_rng(seed).normal(0, 5, (20, 24, 16))
    nibabel.save(nibabel.Nifti1Image(values.astype(np.int16), AFFINE), path)
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Six NIfTI files with a table, one damaged, one not listed, one listed and not there."""
    root = tmp_path / "tree"
    lines = ["file_name,subject,age,sex,diagnosis"]
    for number in range(6):
        volume(root / f"scans/{number}.nii.gz", number)
        lines.append(
            f"scans/{number}.nii.gz,s{number // 2},{58 + 4 * number},{'FM'[number % 2]},{['CN', 'AD'][number % 2]}"
        )
    damaged = root / "scans/5.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:900])
    volume(root / "unlisted.nii")
    lines.append("scans/missing.nii.gz,s9,70,F,CN")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    return root


def test_nifti_to_a_cohort_with_its_page(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    found = prepared(capsys, "nifti", tree, out, "--positions", "-10", "0", "10")
    assert found == {
        "folder": str(out), "images": 15, "subjects": 3, "refused": 3, "reasons": str(out / "refused.csv"),
        "done before": 0, "report": str(out / "report.html"),
    }  # fmt: skip
    cohort = Cohort.open(out)
    assert cohort.counts("diagnosis") == {"AD": 6, "CN": 9}
    assert sorted(set(cohort.values("age"))) == [58, 62, 66, 70, 74]
    with (out / "refused.csv").open(newline="") as file:
        reasons = {row["name"]: row["reason"] for row in csv.DictReader(file)}
    assert set(reasons) == {"scans/5.nii.gz", "unlisted.nii", "metadata.csv, line 8"}
    page = (out / "report.html").read_text()
    text = html.unescape(re.sub(r"\s+", " ", re.sub(r"<style.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL)))
    assert "15 images of 3 subjects; 3 refused." in text
    assert "Prepared: NIfTI tree" in text
    assert "AD 6 2" in text
    assert "CN 9 3" in text
    assert "58 3 1" in text
    for name in reasons:
        assert name in text
    assert str(tree) not in text
    # These are somebody's scans: what stands on pages of generated images would be untrue here.
    assert "synthetic" not in text
    assert "The images on this page are the data set's own" in text
    assert "data:image/png;base64," in page
    with Image.open(out / "contact-sheet.png") as sheet:
        assert sheet.width > 8 * 90
        assert np.ptp(np.asarray(sheet.convert("L"))) > 100


def test_again_is_done_before_and_a_repaired_file_is_added(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = prepared(capsys, "nifti", tree, tmp_path / "out")
    assert (first["images"], first["done before"]) == (5, 0)
    assert prepared(capsys, "nifti", tree, tmp_path / "out")["done before"] == 6
    volume(tree / "scans/5.nii.gz", 5)
    third = prepared(capsys, "nifti", tree, tmp_path / "out")
    assert (third["images"], third["done before"], third["refused"]) == (6, 5, 2)
    assert prepared(capsys, "nifti", tree, tmp_path / "out", "--plane", "sagittal")["done before"] == 0


def test_a_limit_spreads_over_the_source(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepared(capsys, "nifti", tree, tmp_path / "out", "--limit", 3)["images"] == 3
    assert {record.subject for record in Cohort.open(tmp_path / "out")} == {"s0", "s1", "s2"}


def test_bids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "study"
    for subject in ("01", "02"):
        for session in ("a", "b"):
            volume(root / f"sub-{subject}/ses-{session}/anat/sub-{subject}_ses-{session}_T1w.nii.gz", int(subject))
    (root / "dataset_description.json").write_text('{"Name": "Study", "BIDSVersion": "1.9.0"}')
    (root / "participants.tsv").write_text("participant_id\tage\tsex\nsub-01\t61\tF\nsub-02\t70\tM\n")
    # Into the study, as derivatives are: what was written is not read again as if it were the study's.
    out = root / "derivatives" / "slices"
    for done in (0, 4):
        found = prepared(capsys, "bids", root, out)
        assert (found["images"], found["subjects"], found["refused"], found["done before"]) == (4, 2, 0, done)
    cohort = Cohort.open(out)
    assert [(record.subject, record.session) for record in cohort] == [
        ("01", "a"),
        ("01", "b"),
        ("02", "a"),
        ("02", "b"),
    ]
    assert cohort.counts("sex") == {"F": 2, "M": 2}


def test_dicom(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "disc"
    for name, content in good_series(tmp_path / "work").items():
        (root / "A").mkdir(parents=True, exist_ok=True)
        (root / "A" / name).write_bytes(content)
    pixels = np.ascontiguousarray(head((40, 48, 9), 4000)[:, :, 4].T).astype("<u2")
    save(with_pixels(header("DX", **dx_attributes()), pixels, bits=12), root / "B" / "1")
    (root / "B" / "2").write_bytes((root / "B" / "1").read_bytes()[:300])
    (root / "README.txt").write_text("a disc")
    out = tmp_path / "out"
    found = prepared(capsys, "dicom", root, out)
    assert (found["images"], found["refused"]) == (2, 1)
    assert Cohort.open(out, missing="keep").counts("modality") == {"CT": 1, "DX": 1}
    written = " ".join(path.read_text() for path in out.iterdir() if path.suffix in (".csv", ".html"))
    assert "HOSP-4711" not in written
    assert "Quixote" not in written


def test_a_folder_of_images_that_holds_its_own_cohort(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "images"
    for stage in ("AD", "CN"):
        (root / stage).mkdir(parents=True)
        for number in range(3):
            pixels = (head((24, 28, 8))[:, :, 4] / 4 + number).astype(np.uint8)
            Image.fromarray(pixels).save(root / stage / f"{number}.png")
    Image.fromarray(np.full((9, 9, 3), (200, 0, 0), np.uint8)).save(root / "AD" / "colour.png")
    for done in (0, 7):
        found = prepared(capsys, "imagefolder", root, root / "prepared", "--class-column", "stage")
        assert (found["images"], found["refused"], found["done before"]) == (6, 1, done)
    assert Cohort.open(root / "prepared").counts("stage") == {"AD": 3, "CN": 3}


def test_lines_for_people(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "nifti", "--root", tree, "--out", tmp_path / "out", "--workers", 1, "--size", 32)
    assert status == 0
    assert re.search(r"^images +5$", out, re.MULTILINE)
    assert re.search(r"^refused +3$", out, re.MULTILINE)
    assert "scans: 6 of 6" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nfti", "--root", "{tree}"], "There is no source 'nfti'. Did you mean 'nifti'"),
        (["nifti", "--root", "{tree}/nowhere"], "nowhere is not a folder. Give the folder of the source by --root."),
        (["nifti", "--root", "{tree}/metadata.csv"], "is not a folder"),
        (["nifti", "--root", "{tree}", "--files", "*.mgz"], "holds no .nii"),
        (["bids", "--root", "{tree}"], "dataset_description.json"),
        (["chexpert", "--root", "{tree}"], "train"),
        (["nifti", "--root", "{tree}", "--plane", "axial", "--intensity", "percentile"], "Did you mean 'percentiles'"),
        (["nifti", "--root", "{tree}", "--size", "2"], "size is 2; give a whole number of pixels"),
        (["nifti", "--root", "{tree}", "--pattern", "("], "no regular expression"),
        (["nifti", "--root", "{tree}", "--limit", "0"], "The limit is 0"),
    ],
)
def test_what_cannot_be_is_said_with_status_2(
    arguments: list[str], says: str, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.replace("{tree}", str(tree)) for word in arguments]
    status, out, err = run(capsys, *words, "--out", tmp_path / "out", "--workers", 1, "--quiet")
    assert status == 2, out
    # The parser of flags folds its messages into a box.
    assert says in re.sub(r"[\s│]+", " ", err)
    assert "Traceback" not in err


def test_flags_that_are_wrong_or_missing_end_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "nifti", "--plane", "axal")[0] == 2
    assert run(capsys, "nifti")[0] == 2
    status, out, err = run(capsys)
    assert (status, out) == (2, "")
    assert "usage: latentdrift prepare SOURCE" in err


def test_the_list_of_sources(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--help")
    assert status == 0
    for name in data_source.names():
        assert re.search(rf"^  {name} +{re.escape(data_source.get(name).title)}$", out, re.MULTILINE)


@pytest.mark.parametrize("name", ["bids", "dicom", "imagefolder", "nifti", "adni", "chexpert"])
def test_the_help_of_a_source_tells_what_it_needs(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    status, out, _ = run(capsys, name, "--help")
    assert status == 0
    flat = re.sub(r"[\s│]+", " ", out)
    assert re.sub(r"\s+", " ", data_source.get(name).needs) in flat
    for flag in ("--root", "--out", "--limit", "--positions", "--workers", "--json"):
        assert flag in out
    for field in data_source.get(name).config_class.__dataclass_fields__:
        assert "--" + field.replace("_", "-") in out


def test_reasons_are_counted_by_what_they_have_in_common() -> None:
    root = Path("/data/set")
    reasons = [
        ("a/1.nii", "/data/set/a/1.nii is cut short: 348 bytes of 8,416. Copy it again."),
        ("a/2.nii", "/data/set/a/2.nii is cut short: 9 bytes of 12. Copy it again."),
        ("s", "/data/set/s/IM7: PixelSpacing is (0.0, 1.0), not above 0. Repair the header."),
        ("t", "/data/set/t/IM1: PixelSpacing is (-1.0, 1.0), not above 0. Repair the header."),
    ]
    kinds = [kind_of(Refusal(name, reason), root) for name, reason in reasons]
    assert kinds == ["is cut short", "is cut short", "PixelSpacing is", "PixelSpacing is"]
