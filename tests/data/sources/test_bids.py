from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest

from latentdrift.data.formats.reading import read_scan
from latentdrift.data.scan import Volume
from latentdrift.data.source import Listing, data_source
from latentdrift.data.sources.bids import BidsConfig, BidsSource
from latentdrift.errors import ConfigurationError, DataError

FILES = [
    "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz",
    "sub-01/ses-b/anat/sub-01_ses-b_acq-mprage_run-1_T1w.nii.gz",
    "sub-01/ses-b/anat/sub-01_ses-b_acq-mprage_run-2_T1w.nii.gz",
    "sub-01/ses-b/anat/sub-01_ses-b_FLAIR.nii.gz",
    "sub-01/ses-b/func/sub-01_ses-b_task-rest_bold.nii.gz",
    "sub-02/anat/sub-02_T1w.nii",
    "sub-02/anat/sub-02_T1w.json",
    "sub-xyz9/anat/sub-xyz9_T1w.nii.gz",
    "derivatives/fmriprep/sub-02/anat/sub-02_desc-preproc_T1w.nii.gz",
    "derivatives/fmriprep/sub-02/anat/sub-02_space-MNI152_desc-preproc_T1w.nii.gz",
    "derivatives/fmriprep/sub-02/anat/sub-02_desc-brain_mask.nii.gz",
]
PARTICIPANTS = """participant_id\tage\tsex\tdiagnosis\thandedness
sub-01\t61\tF\tAD\tn/a
02\t70.5\tmale\tCN\t1
sub-03\t50\tM\tCN\t2
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "study"
    for name in FILES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".json"):
            path.write_text("{}")
        else:
            nibabel.save(nibabel.Nifti1Image(np.ones((3, 4, 5), np.int16), np.eye(4)), path)
    (folder / "dataset_description.json").write_text('{"Name": "Study", "BIDSVersion": "1.9.0"}')
    (folder / "participants.tsv").write_text(PARTICIPANTS)
    (folder / "participants.json").write_text(
        json.dumps(
            {"handedness": {"Levels": {"1": "right", "2": "left"}}, "diagnosis": {"Levels": {"AD": "Alzheimer"}}}
        )
    )
    (folder / "sub-01/sub-01_sessions.tsv").write_text(
        "session_id\tage\tdiagnosis\tacq_time\nses-a\t61.2\tMCI\t2009-01-01\nses-b\t64\tn/a\t2012-01-01\n"
    )
    return folder


def listed(root: Path, **settings: object) -> Listing:
    return BidsSource(BidsConfig(**settings)).list_scans(root)  # type: ignore[arg-type]


def test_scans_with_what_is_known_of_each_visit(root: Path) -> None:
    found = listed(root)
    assert [scan.key for scan in found.scans] == [FILES[0], FILES[1], FILES[2], FILES[5], FILES[7]]
    first, second, _, third, unknown = found.scans
    assert (first.subject, first.session) == ("01", "a")
    assert first.attributes == {"age": 61.2, "sex": "F", "diagnosis": "MCI"}
    assert second.attributes == {"age": 64, "sex": "F", "diagnosis": "AD"}
    assert type(second.attributes["age"]) is int
    assert (third.subject, third.session) == ("02", None)
    assert third.attributes == {"age": 70.5, "sex": "M", "diagnosis": "CN", "handedness": "right"}
    assert unknown.attributes == {}
    assert [(r.name, r.reason) for r in found.refused] == [
        ("participants.tsv, line 4", "sub-03 has no T1w image that was asked for.")
    ]
    found_volume = read_scan(first.files)
    assert isinstance(found_volume, Volume)
    assert found_volume.voxels.shape == (3, 4, 5)
    assert data_source.get("bids") is BidsSource


def test_filters(root: Path) -> None:
    assert [s.key for s in listed(root, suffix="FLAIR").scans] == [FILES[3]]
    assert [s.key for s in listed(root, suffix="bold", datatype="func").scans] == [FILES[4]]
    assert [s.key for s in listed(root, entities=("run-2",)).scans] == [FILES[2]]
    assert [s.key for s in listed(root, entities=("acq-mprage", "run-1")).scans] == [FILES[1]]
    assert [s.key for s in listed(root, entities=("acq-",)).scans] == [FILES[0], FILES[5], FILES[7]]
    assert [s.key for s in listed(root, sessions=("ses-a",)).scans] == [FILES[0]]
    made = listed(root, derivatives="fmriprep")
    assert [s.key for s in made.scans] == [FILES[8], FILES[9]]
    assert made.scans[0].attributes["sex"] == "M"
    assert [s.key for s in listed(root, derivatives="fmriprep", entities=("space-",)).scans] == [FILES[8]]
    with pytest.raises(DataError, match="Pipelines in it: fmriprep"):
        listed(root, derivatives="freesurfer")
    for wrong in ({"derivatives": "../x"}, {"datatype": ""}, {"entities": ("run=1",)}):
        with pytest.raises(ConfigurationError):
            listed(root, **wrong)


def test_the_folder_must_say_that_it_is_bids(root: Path, tmp_path: Path) -> None:
    for path in sorted(root.rglob("*T1w*")):
        path.unlink()
    (root / "participants.tsv").write_text("participant_id\n")
    with pytest.raises(DataError, match="holds no sub-"):
        listed(root)
    for text, message in (("{", "not JSON"), ("[]", "not a JSON object"), ('{"Name": "x"}', "no 'BIDSVersion'")):
        (root / "dataset_description.json").write_text(text)
        with pytest.raises(DataError, match=rf"dataset_description\.json.*{message}"):
            listed(root)
    (root / "dataset_description.json").unlink()
    with pytest.raises(DataError, match=r"dataset_description\.json: there is no such file"):
        listed(root)
    with pytest.raises(DataError, match="not a folder"):
        listed(tmp_path / "nowhere")


def test_without_participants_the_images_are_listed_and_it_is_said(root: Path) -> None:
    (root / "participants.tsv").unlink()
    found = listed(root)
    assert len(found.scans) == 5
    assert found.refused[0].name == "participants.tsv"
    assert found.scans[0].attributes == {"age": 61.2, "diagnosis": "MCI"}


def test_units_codes_and_words(root: Path) -> None:
    lines = ["participant_id\tage\tsex\tscore", "sub-01\t120\t2\t01", "sub-02\t36\t1\t3.5", "sub-xyz9\tn/a\tO\t-2"]
    (root / "participants.tsv").write_text("\n".join(lines))
    (root / "participants.json").write_text(
        json.dumps({"age": {"Units": "months"}, "sex": {"Levels": {"1": "male", "2": {"Description": "female"}}}})
    )
    (root / "sub-01/sub-01_sessions.tsv").unlink()
    first, _, _, second, third = listed(root).scans
    assert first.attributes == {"age": 10, "sex": "F", "score": "01"}
    assert second.attributes == {"age": 3, "sex": "M", "score": 3.5}
    assert third.attributes == {"sex": "O", "score": -2}


@pytest.mark.parametrize(
    ("line", "name", "reason"),
    [
        ("sub-01\t62\tF\tAD\tn/a", "sub-01/ses-a", "describes sub-01 twice, differently"),
        ("../etc\t62\tF\tAD\tn/a", "participants.tsv, line 5", "no participant_id"),
        ("sub-02b\t90+\tF\tAD\tn/a", "participants.tsv, line 5", "'90\\+'"),
        ("sub-02b\t900\tF\tAD\tn/a", "participants.tsv, line 5", "900"),
        ("sub-02b\t60", "participants.tsv, line 5", "2 cells"),
    ],
)
def test_doubtful_lines_are_refused_and_the_rest_goes_on(root: Path, line: str, name: str, reason: str) -> None:
    (root / "participants.tsv").write_text(PARTICIPANTS + line + "\n")
    found = listed(root)
    assert any(refusal.name.startswith(name) and re.search(reason, refusal.reason) for refusal in found.refused)
    assert "02" in [scan.subject for scan in found.scans]


def test_the_same_line_twice_and_visits_in_participants_are_fine(root: Path) -> None:
    (root / "participants.tsv").write_text(
        "participant_id\tsession_id\tage\nsub-01\tses-a\t60\nsub-01\tses-b\t63\nsub-01\tses-b\t63\nsub-02\tn/a\t70\n"
    )
    (root / "sub-01/sub-01_sessions.tsv").unlink()
    found = listed(root)
    assert [scan.attributes.get("age") for scan in found.scans] == [60, 63, 63, 70, None]


def test_links_without_content_empty_files_and_wrong_names_are_refused(root: Path, tmp_path: Path) -> None:
    (root / FILES[0]).unlink()
    (root / FILES[0]).symlink_to("../../../.git/annex/objects/xx/MD5E-s123.nii.gz")
    (root / FILES[1]).write_bytes(b"")
    (root / FILES[5]).rename(root / "sub-02/anat/sub-03_T1w.nii")
    (root / "sub-xyz9/anat/sub-xyz9_T1w_copy_T1w.nii.gz").write_bytes((root / FILES[7]).read_bytes())
    outside = tmp_path / "secret.nii.gz"
    outside.write_bytes((root / FILES[7]).read_bytes())
    (root / FILES[7]).unlink()
    (root / FILES[7]).symlink_to(outside)
    found = listed(root)
    assert [scan.key for scan in found.scans] == [FILES[2]]
    reasons = {refusal.name: refusal.reason for refusal in found.refused}
    assert "datalad get" in reasons[FILES[0]]
    assert "empty" in reasons[FILES[1]]
    assert "its name" in reasons["sub-02/anat/sub-03_T1w.nii"]
    assert "its name" in reasons["sub-xyz9/anat/sub-xyz9_T1w_copy_T1w.nii.gz"]
    assert "leads out of the folder" in reasons[FILES[7]]


def test_damaged_tables_of_sessions_cost_only_themselves(root: Path) -> None:
    (root / "sub-01/sub-01_sessions.tsv").write_bytes(b"session_id\tage\nses-a\t\xff\n")
    found = listed(root)
    assert found.scans[0].attributes["age"] == 61
    assert any(refusal.name == "sub-01/sub-01_sessions.tsv" for refusal in found.refused)
    (root / "participants.tsv").write_text("id\tage\n01\t3\n")
    with pytest.raises(DataError, match="participants.tsv has no column 'participant_id'"):
        listed(root)
