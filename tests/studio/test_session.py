"""One tab's work without a page: open, edit, cancel, climb, compare and export, on a toy model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from latentdrift.errors import ConfigurationError, DataError, LatentDriftError
from latentdrift.studio.edits import Cancelled, EditSettings
from latentdrift.studio.exports import MAP, PICTURE, formats_of
from latentdrift.studio.ladders import DELTA, parse_values, proposed_values
from latentdrift.studio.page import Studio
from latentdrift.studio.pictures import before_after, judged_table, map_shown, pins_table, summary
from latentdrift.studio.session import AS_IT_IS, Session
from latentdrift.studio.shelf import drift_under, value_of

SETTINGS = EditSettings(steps=3, guidance=4.0)
SOURCE, TARGET = {"stage": "NonDemented"}, {"stage": "MildDemented"}


def edit(session: Session, settings: EditSettings = SETTINGS, target: dict[str, str] = TARGET):
    return session.make("run", session.wish("run", SOURCE, target, ["", ""]), settings)


def test_a_picture_is_opened_edited_and_shown(session: Session, picture: Path) -> None:
    assert not session.open([picture]).is_volume
    view = session.look("run")
    assert view.image.shape == (3, 32, 32)
    assert view.notes == ("resized from 60 x 60 to 32 x 32 pixels",)
    made = edit(session)
    assert made.result.source_captions == ("a slice, non demented",)
    assert made.result.target_captions == ("a slice, mild demented",)
    assert made.evaluations == 9
    assert float((made.result.image - made.result.source).abs().mean()) > 0
    assert (made.result.image[0, 0] == made.result.image[0, 2]).all()
    before, after = before_after(made, at_scan=False)
    assert before.shape == after.shape == (512, 512, 3)
    before, after = before_after(made, at_scan=True)
    assert before.shape == after.shape == (540, 540, 3)
    assert (before != after).any()
    assert map_shown(made).shape == (512, 512, 3)
    assert "stage MildDemented" in summary(made)
    assert "No judge" in judged_table(made.judged)


def test_one_inversion_serves_edits_that_differ_in_guidance_and_delta(session: Session, picture: Path) -> None:
    session.open([picture])
    session.look("run")
    first = edit(session)
    again = edit(session, EditSettings(steps=3, guidance=1.0))
    assert again.evaluations == 3
    moved = edit(session, EditSettings(steps=3, guidance=4.0, delta=0.3))
    assert moved.evaluations == 3
    assert not torch.equal(moved.result.image, first.result.image)
    assert torch.equal(moved.result.reconstruction, first.result.reconstruction)
    other = edit(session, EditSettings(steps=2))
    assert other.evaluations == 6


def test_delta_is_the_ladder_of_drifts_own(session: Session, picture: Path) -> None:
    session.open([picture])
    session.look("run")
    wish = session.wish("run", SOURCE, TARGET, ["", ""])
    made = session.make("run", wish, EditSettings(steps=3, guidance=4.0, delta=0.3))
    found, files = session.climb("run", wish, SETTINGS, DELTA, "0, 0.3")
    assert found.labels == ("0", "0.3")
    assert torch.allclose(found.result.frames[0, 1], made.result.image[0], atol=1e-4)
    assert [path.name for path in files] == ["strip.png", "ladder.gif"]


def test_a_ladder_goes_along_an_attribute(session: Session, picture: Path) -> None:
    session.open([picture])
    session.look("run")
    wish = session.wish("run", SOURCE, {"stage": AS_IT_IS}, ["", ""])
    found, _ = session.climb("run", wish, SETTINGS, "stage", "NonDemented, MildDemented")
    assert found.result.frames.shape == (1, 2, 3, 32, 32)
    assert found.result.target_captions == (("a slice, non demented", "a slice, mild demented"),)
    with pytest.raises(ConfigurationError, match="the model knows"):
        session.climb("run", wish, SETTINGS, "stage", "Other")


def test_an_edit_is_cancelled_at_its_next_step(session: Session, picture: Path) -> None:
    session.open([picture])
    session.look("run")
    steps = []

    def tell(done: int, total: int) -> None:
        steps.append((done, total))
        if done == 2:
            session.cancel()

    wish = session.wish("run", SOURCE, TARGET, ["", ""])
    with pytest.raises(Cancelled):
        session.make("run", wish, SETTINGS, tell=tell)
    assert steps == [(1, 9), (2, 9)]
    assert session.edit is None
    session.ask()
    assert edit(session).evaluations == 9


def test_an_edit_is_cancelled_while_it_waits_its_turn(session: Session) -> None:
    done = []

    def take_turn() -> None:
        with session.turn():
            done.append(1)

    session.ask()
    session.cancel()
    session.ask()  # pressed again while it still waits: what was cancelled is not revived under other settings
    with pytest.raises(Cancelled):
        take_turn()
    assert not done
    session.ask()
    take_turn()
    assert done
    session.cancel()  # nothing is made
    session.ask()
    take_turn()
    assert len(done) == 2


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (EditSettings(steps=0), "steps is 0"),
        (EditSettings(steps=3, strength=0.0), "strength"),
        (EditSettings(steps=3, strength=0.5, delta=0.1), "strength"),
        (EditSettings(steps=3, editor="sdedit", delta=0.1), "draws its noise"),
        (EditSettings(steps=3, editor="classifier_guided"), "choose a guide"),
        (EditSettings(steps=3, editor="nothing"), "nothing"),
        (EditSettings(steps=3, drift="/etc/passwd"), "not understood"),
    ],
)
def test_what_cannot_be_is_said(session: Session, picture: Path, settings: EditSettings, says: str) -> None:
    session.open([picture])
    session.look("run")
    with pytest.raises(LatentDriftError, match=says):
        edit(session, settings)


def test_nothing_wanted_and_nothing_open_are_said(session: Session, picture: Path) -> None:
    with pytest.raises(ConfigurationError, match="No scan is open"):
        edit(session)
    with pytest.raises(ConfigurationError, match="to export"):
        session.export([PICTURE])
    with pytest.raises(ConfigurationError, match="to pin"):
        session.pin()
    session.open([picture])
    session.look("run")
    with pytest.raises(ConfigurationError, match="Nothing is wanted"):
        edit(session, target={"stage": AS_IT_IS})


def test_models_outside_the_workspace_are_refused(toy_studio: Studio, toy_run: Path) -> None:
    for name in (str(toy_run), "elsewhere", "../x", "/"):
        with pytest.raises(ConfigurationError, match=r"outside|does not exist"):
            toy_studio.shelf.model(name)
    assert toy_studio.shelf.names() == ["tiny-brain", "tiny", "run"]


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\nbroken", b"\0" * 128 + b"DICM"])
@pytest.mark.parametrize("name", ["bad.png", "bad.dcm", "bad.nii.gz"])
def test_bad_files_are_named_without_their_folder(session: Session, tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        session.open([path])
    assert name in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert session.scan is None


def test_a_volume_has_a_slice_chooser(session: Session, nifti: Path) -> None:
    scan = session.open([nifti])
    assert (scan.slices("axial"), scan.slices("coronal")) == (12, 48)
    middle = session.look("run").place["index"]
    assert 4 <= middle <= 8
    assert session.look("run", "axial", 3).place["index"] == 3
    assert session.look("run", "sagittal").place["plane"] == "sagittal"
    with pytest.raises(LatentDriftError, match="slice 12"):
        session.look("run", "axial", 12)
    with pytest.raises(DataError):
        session.open([nifti], frame=7)


def test_colour_is_edited_but_not_put_back(session: Session, colourful: Path) -> None:
    session.open([colourful])
    view = session.look("run")
    assert view.source is None
    assert "made gray" in view.notes[0]
    made = edit(session)
    assert formats_of(made) == [PICTURE, MAP]
    assert before_after(made, at_scan=True)[0].shape == (512, 512, 3)


def test_pins_are_compared(session: Session, picture: Path) -> None:
    session.open([picture])
    session.look("run")
    edit(session)
    session.pin()
    with pytest.raises(ConfigurationError, match="already"):
        session.pin()
    edit(session, EditSettings(steps=3, guidance=1.0))
    assert len(session.pin()) == 2
    table = pins_table(session.pins)
    assert table.count("<tr>") == 3
    assert "prompt_swap" in table
    assert "Nothing is pinned" in pins_table([])


def test_dicom_goes_back_as_marked_derived_dicom(session: Session, dicom: Path) -> None:
    from pydicom import dcmread

    session.open([dicom])
    session.look("run")
    made = edit(session)
    assert "DICOM" in formats_of(made)
    assert "NIfTI" not in formats_of(made)
    files = {path.name: path for path in session.export([PICTURE, MAP, "DICOM", "change alone"])}
    assert set(files) == {"counterfactual.png", "difference.png", "edited-scan.dcm", "edited-scan.npz", "manifest.json"}
    found, source = dcmread(files["edited-scan.dcm"]), dcmread(dicom)
    assert found.SyntheticData == "YES"
    assert "Doe" not in str(found)
    assert (found.Rows, found.Columns) == (96, 96)
    assert found.SOPInstanceUID != source.SOPInstanceUID
    assert (found.pixel_array != source.pixel_array).any()
    record = json.loads(files["manifest.json"].read_text())
    assert record["synthetic"] is True
    assert len(record["model"]["sha256"]) == 64
    assert record["versions"]["latentdrift"]
    assert record["settings"]["guidance"] == 4.0
    entry = record["files"][0]
    assert entry["seed"] == 0
    assert entry["source"]["sha256"] == made.view.sha256
    assert "IM0001" not in json.dumps(record)
    assert str(session.folder) not in json.dumps(record)


def test_nifti_goes_back_into_its_volume(session: Session, nifti: Path) -> None:
    import nibabel as nib

    session.open([nifti])
    session.look("run", "axial", 6)
    edit(session)
    files = {path.suffix: path for path in session.export(["NIfTI"])}
    before, after = (np.asarray(nib.load(path).dataobj) for path in (nifti, files[".gz"]))
    changed = np.flatnonzero((before != after).any(axis=(0, 1)))
    assert list(changed) == [6]


def test_exports_that_cannot_be_are_refused(session: Session, picture: Path) -> None:
    session.open([picture])
    session.look("run")
    edit(session)
    for formats in ([], ["DICOM"], ["../x"]):
        with pytest.raises(ConfigurationError, match="can be written as"):
            session.export(formats)


def test_provenance_is_checked_by_the_package_itself(session: Session, picture: Path) -> None:
    from latentdrift.data.provenance.verify import verify

    session.open([picture])
    session.look("run")
    made = edit(session)
    session.export([PICTURE, MAP, "PNG, 16 bit, at the scan's resolution"])
    folder = max(session.folder.iterdir())
    checked = verify(folder, model_sha256=made.model["sha256"], sources={made.view.sha256})
    assert len(checked) == 3
    assert all(one.synthetic and not one.problems for one in checked)


def test_values_and_drifts_of_fields(toy_studio: Studio) -> None:
    assert value_of("age", "71", [60, 70]) == 71
    assert value_of("age", "71.5", [60, 70]) == 71.5
    for wrong in ("old", "nan", "inf"):
        with pytest.raises(ConfigurationError, match="age cannot be"):
            value_of("age", wrong, [60, 70])
    assert proposed_values("age", {"age": [60, 70, 80]}) == "60, 65, 70, 75, 80"
    assert parse_values(DELTA, "0, 0.1", ()) == [0.0, 0.1]
    with pytest.raises(ConfigurationError, match="numbers"):
        parse_values("guidance", "a", ())
    model = toy_studio.shelf.model("run")
    own, warnings = drift_under(model, "the model's own")
    assert own is not None
    assert not warnings
    none, warnings = drift_under(model, "none")
    assert none is None
    assert "trained under" in warnings[0]
    number, _ = drift_under(model, "0.07")
    assert number is not None
    assert number.value == 0.07


def test_a_closed_session_writes_nothing_any_more(session: Session, picture: Path) -> None:
    """A ladder that was being made when its tab was given up must not bring the folder back."""
    session.open([picture])
    session.look("run")
    assert not session.folder.exists()  # nothing to be forgotten where nothing was written
    session.fresh_folder("export")
    session.close()
    assert not session.folder.exists()
    with pytest.raises(ConfigurationError, match="Load the page again"):
        session.fresh_folder("ladder")
    assert not session.folder.exists()
