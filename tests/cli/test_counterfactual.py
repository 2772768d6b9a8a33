"""`latentdrift counterfactual`: cohorts, masks, editors, guides and judges, and what cannot be."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from latentdrift.data import Cohort, ImageTransform
from latentdrift.data.prompts.instructions import instruction
from latentdrift.errors import ConfigurationError
from latentdrift.models.classifier import Classifier, ClassScheme
from tests.cli.test_commands import refused, run

STAGES = ("NonDemented", "MildDemented")


class Brightness(torch.nn.Module):
    """Says the second class of bright images: logits are ±5 times the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = torch.nn.Parameter(torch.tensor([-5.0, 5.0]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((1, 2, 3))[:, None] * self.slope


@pytest.fixture
def classifiers(monkeypatch: pytest.MonkeyPatch, toy_cohort: Path) -> dict[str, Classifier]:
    """Folders' names and the classifiers that are loaded from them."""
    first = hashlib.sha256((toy_cohort / "images" / "s00-0.png").read_bytes()).hexdigest()
    stage, bins = ClassScheme("stage", STAGES), ClassScheme("age", ("under 70", "70 and over"), (70.0,))
    made = {
        "guide": (stage, "guide", {"a", "b"}),
        "judge": (stage, "judge", {"c", first}),
        "again": (stage, "judge", {"d"}),
        "mixed": (stage, "judge", {"a"}),
        "other": (ClassScheme("stage", ("CN", "AD")), "judge", {"c"}),
        "age": (bins, "judge", {"c"}),
        "sex": (ClassScheme("sex", ("F", "M")), "guide", {"e"}),
    }
    found = {
        name: Classifier(Brightness(), scheme, role=role, size=32, gray=True, trained_on=frozenset(seen), path=name)
        for name, (scheme, role, seen) in made.items()
    }

    def load(path: Path, device: Any = None) -> Classifier:
        return found[Path(path).name]

    monkeypatch.setattr("latentdrift.models.classifier.load_classifier", load)
    return found


Edit = Callable[..., dict[str, Any]]


@pytest.fixture
def edit(toy_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Edit:
    """Run the command with four steps; return result.json, and what was printed as "printed"."""

    def call(*words: object, model: Path = toy_run, out: str = "out") -> dict[str, Any]:
        start = ("counterfactual", "--model", model, "--out", tmp_path / out, "--steps", 4, "--quiet")
        status, printed, err = run(capsys, *start, *words)
        assert status == 0, err
        return {**json.loads((tmp_path / out / "result.json").read_text()), "printed": printed}

    return call


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path), dtype=int)


def test_images_of_a_cohort_are_edited_from_what_their_table_says(
    edit: Edit, toy_run: Path, toy_cohort: Path, tmp_path: Path, classifiers: dict[str, Classifier]
) -> None:
    words = ("--image", toy_cohort, "--split", toy_run / "split.csv", "--part", "train")
    chosen = ("--where", "stage=NonDemented", "--take", 3, "--seed", 5)
    facts = edit(*words, *chosen, "--target", "stage=MildDemented", "--judge", "judge", "age", "--guide", "guide")
    table = {row["file_name"]: row["part"] for row in csv.DictReader((toy_run / "split.csv").open())}
    keys = [str(Path(row["source_file"]).relative_to(toy_cohort)) for row in facts["images"]]
    assert len(set(keys)) == 3
    assert {table[key] for key in keys} == {"train"}
    assert facts["captions"] == {"source": "a slice, non demented", "target": "a slice, mild demented"}
    judge, read = classifiers["judge"], ImageTransform(size=32).read
    out = tmp_path / "out"
    for row in facts["images"]:
        assert row["source_sha256"] == hashlib.sha256(Path(row["source_file"]).read_bytes()).hexdigest()
        assert row["subject"] == Path(row["source_file"]).name[:3]
        assert row["source_attributes"] == {"stage": "NonDemented"}
        # The files were rounded to 8 bits.
        before, after = (read(out / f"{Path(row['file_name']).stem}{end}.png")[None] for end in ("-source", ""))
        assert row["judge_stage_wanted_before"] == pytest.approx(judge.probabilities(before)[0, 1], abs=1e-6)
        assert row["judge_stage_wanted_after"] == pytest.approx(judge.probabilities(after)[0, 1], abs=0.02)
    flips = [row["judge_stage_wanted_after"] > 0.5 for row in facts["images"]]
    assert facts["summary"]["judge_stage_validity"]["value"] == pytest.approx(np.mean(flips))
    assert facts["summary"]["placebo"] == "reconstruction"
    # What the model does not know, but the table does, was to stay.
    told = {(row["attribute"], row["wanted"]) for row in facts["leakage"]}
    assert told == {("stage", True), ("age", False)}
    assert all(row["stated"] == row["images"] for row in facts["leakage"])
    assert [one["role"] for one in facts["classifiers"]] == ["guide", "judge", "judge"]
    assert f"{np.mean(flips):.0%} (" in facts["printed"]
    assert [row["seed"] for row in facts["images"]] == [5, 6, 7]
    # The folder is a cohort, and no warning was due.
    assert Cohort.open(out).attribute_names[:3] == ("source_file", "stage", "prompt")
    assert facts["warnings"] == []


def test_the_record_says_what_made_the_images(edit: Edit, toy_run: Path, toy_cohort: Path) -> None:
    from latentdrift.drift import LatentDrift, load_drift
    from latentdrift.models import base_fingerprint, load_pipeline

    words = ("--image", toy_cohort / "images" / "s01-0.png", "--source", "stage=NonDemented")
    facts = edit(*words, "--target", "stage=MildDemented", "--editor", "sdedit", "--away-from", "nothing", "--seed", 7)
    assert facts["editor"] == {"name": "sdedit", "config": {"away_from": "nothing"}}
    drift = load_drift(toy_run / "model")
    assert facts["drift"]["used"] == str(drift)
    keys = ("format", "rule", "target", "per_step", "value")
    assert LatentDrift.from_dict({name: facts["drift"][name] for name in keys}) == drift
    assert facts["model"]["fingerprint"] == base_fingerprint(load_pipeline(toy_run).unet)
    assert torch.__version__.startswith(facts["versions"]["torch"])
    assert facts["settings"]["seed"] == 7
    other = edit(*words, "--target", "stage=MildDemented", "--drift", "none", out="other")
    assert other["drift"]["used"] == "none"
    assert other["editor"]["name"] == "prompt_swap"


@pytest.mark.parametrize(("editor", "flag"), [("sdedit", "--away-from"), ("pix2pix_zero", "--attention-guidance"),
                                              ("classifier_guided", "--scale")])  # fmt: skip
def test_help_shows_the_settings_of_the_editor(
    editor: str, flag: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    status, out, _ = run(capsys, "counterfactual", "--editor", editor, "--help")
    assert status == 0
    assert flag in out
    assert flag not in run(capsys, "counterfactual", "--help")[1]


def test_a_placebo_by_prompt_swap_is_the_reconstruction(
    edit: Edit, toy_cohort: Path, classifiers: dict[str, Classifier]
) -> None:
    pictures = sorted((toy_cohort / "images").glob("s0[04]-0.png"))
    words = ("--image", *pictures, "--source", "stage=MildDemented", "--target", "stage=NonDemented")
    plain = edit(*words, "--judge", "judge")["summary"]
    sham = edit(*words, "--judge", "judge", "--placebo", out="sham")
    assert (plain["placebo"], sham["summary"]["placebo"]) == ("reconstruction", "edit")
    for name in ("judge_stage_placebo_gain", "judge_stage_gain"):
        assert sham["summary"][name]["value"] == pytest.approx(plain[name]["value"], abs=1e-4)
    # The judge has seen one of the two.
    assert any("trained on 1 of the 2" in text for text in sham["warnings"])


def test_a_guide_leads_where_a_placebo_does_not(
    edit: Edit, toy_cohort: Path, classifiers: dict[str, Classifier]
) -> None:
    words = ("--image", toy_cohort / "images" / "s01-0.png", toy_cohort / "images" / "s02-0.png")
    wish = ("--source", "stage=NonDemented", "--target", "stage=MildDemented")
    guided = ("--editor", "classifier_guided", "--guide", "guide", "--scale", 0.3, "--similarity", "l1=0.1", "l2=0.1")
    facts = edit(*words, *wish, *guided, "--weight", 2, "--placebo")
    summary = facts["summary"]
    assert summary["guide_gain"]["value"] > summary["guide_placebo_gain"]["value"] + 0.01
    assert facts["settings"]["similarity"] == ["l1=0.1", "l2=0.1"]
    # Without a weight, and without similarity's pull, nothing leads there.
    still = edit(*words, *wish, *guided, "--weight", 0, out="still")["summary"]
    assert still["guide_gain"]["value"] < summary["guide_gain"]["value"]


def test_outside_the_mask_no_pixel_changes(edit: Edit, toy_cohort: Path, tmp_path: Path) -> None:
    picture = Image.open(toy_cohort / "images" / "s01-0.png").resize((64, 48))
    picture.save(tmp_path / "wide.png")
    own = np.zeros((48, 64), np.uint8)
    own[10:30, 8:40] = 255
    Image.fromarray(own).save(tmp_path / "own.png")
    # 64 x 48 becomes 32 x 24 in the middle of 32 x 32.
    seen = np.zeros((32, 32))
    seen[4 + 5 : 4 + 15, 4:20] = 1
    np.save(tmp_path / "seen.npy", seen)
    words = ("--image", tmp_path / "wide.png", "--source", "stage=NonDemented", "--target", "stage=MildDemented")
    free, one, same = (
        edit(*words, *more, out=out)
        for more, out in (((), "free"), (("--mask", tmp_path / "own.png"), "one"),
                          (("--mask", tmp_path / "seen.npy"), "same"))
    )  # fmt: skip
    source, edited = (pixels(tmp_path / "one" / f"wide{end}.png") for end in ("-source", ""))
    assert np.array_equal(edited[seen == 0], source[seen == 0])
    assert (edited != source)[seen == 1].any()
    assert (pixels(tmp_path / "free" / "wide.png") != source)[seen == 0].any()
    assert np.array_equal(edited, pixels(tmp_path / "same" / "wide.png"))
    assert one["images"][0]["notes"] == ["resized from 64 x 48 to 32 x 32 pixels, padded with black"]
    assert "resized from 64 x 48 to 32 x 32 pixels" in free["printed"]
    assert same["settings"]["mask"] == str(tmp_path / "seen.npy")


def test_a_mask_of_a_volume_is_cut_as_the_volume(tmp_path: Path) -> None:
    import nibabel

    from latentdrift.cli.masks import read_mask
    from latentdrift.cli.scans import Opened
    from latentdrift.data.export.edit import open_edit_source
    from latentdrift.data.prepare import PrepareConfig

    affine = np.diag([-2.0, 2.0, 2.0, 1.0])
    values = np.random.default_rng(0).uniform(1, 2, (32, 32, 8)).astype(np.float32)
    inside = np.zeros(values.shape, np.uint8)
    inside[:10, 20:, 4] = 3
    for name, array in (("scan", values), ("mask", inside), ("short", inside[:, :, :7])):
        nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / f"{name}.nii.gz")
    nibabel.save(nibabel.Nifti1Image(inside, np.diag([2.0, 2.0, 2.0, 1.0])), tmp_path / "flipped.nii.gz")
    settings = PrepareConfig(reference="origin", positions=(8.0,), intensity="minmax")
    source = open_edit_source([tmp_path / "scan.nii.gz"], 32, settings)
    opened = [Opened(tmp_path / "scan.nii.gz", torch.zeros(3, 32, 32), source)]
    assert source.cut is not None
    assert source.cut.index == 4
    # The first voxels are at the patient's right, which is shown right; anterior is up.
    wanted = np.zeros((32, 32), bool)
    wanted[:12, 22:] = True
    assert np.array_equal(read_mask(tmp_path / "mask.nii.gz", opened, 32)[0, 0].numpy(), wanted)
    for name, says in (("short", "has the shape"), ("flipped", "affines differ")):
        with pytest.raises(ConfigurationError, match=says):
            read_mask(tmp_path / f"{name}.nii.gz", opened, 32)


def test_what_is_done_to_unusual_images_is_told(edit: Edit, toy_cohort: Path, tmp_path: Path) -> None:
    gray = pixels(toy_cohort / "images" / "s01-0.png")
    Image.fromarray((gray * 100).astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(np.stack([gray, gray, np.zeros_like(gray)], 2).astype(np.uint8)).save(tmp_path / "colour.png")
    words = ("--image", tmp_path / "deep.png", tmp_path / "colour.png", "--source", "stage=NonDemented")
    facts = edit(*words, "--target", "stage=MildDemented")
    deep, colour = (row["notes"] for row in facts["images"])
    assert deep == [f"16 bit: 0 to 65535 is black to white; the image goes from 0 to {gray.max() * 100}"]
    assert len(colour) == 1
    assert "made gray" in colour[0]
    assert np.abs(pixels(tmp_path / "out" / "colour-source.png") - gray * 2 / 3).max() <= 1


def test_two_judges_of_one_attribute_and_one_of_what_should_stay_are_printed(
    edit: Edit, toy_cohort: Path, classifiers: dict[str, Classifier]
) -> None:
    classifiers["again"].facts["test"] = {"auc": {"value": 0.6, "low": 0.4, "high": 0.8}, "images": 12}
    words = ("--image", toy_cohort, "--take", 3, "--target", "stage=MildDemented")
    facts = edit(*words, "--judge", "judge", "again", "age")
    assert [one["name"] for one in facts["classifiers"]] == ["judge_stage", "judge_stage_2", "judge_age"]
    for line in ("judge stage  ", "judge stage 2  ", "judge age  ", "should stay; ", "of the reconstructions"):
        assert line in facts["printed"]
    doubts = [text for text in facts["warnings"] if "may be chance" in text]
    assert len(doubts) == 1
    assert "again: the AUC of 0.60 [0.40, 0.80] on 12 test images" in doubts[0]
    assert "-0.0 points" not in facts["printed"]
    assert "of the placebo edits" in edit(*words, "--judge", "judge", "--placebo", out="b")["printed"]


def test_another_modality_than_the_models_is_warned_of() -> None:
    from latentdrift.cli.image_notes import prepare_image
    from latentdrift.cli.scans import Opened
    from latentdrift.data.export.edit import EditSource
    from latentdrift.data.scan import Plane
    from latentdrift.data.volumes.placement import Placement
    from latentdrift.models import ModelCard
    from latentdrift.models.modality import trained_modalities

    plane = Plane(np.linspace(-1000, 400, 64 * 32, dtype=np.float32).reshape(64, 32), modality="CT", bits=12)
    source = EditSource((Path("a.dcm"),), 0, plane, Placement.of(plane, 32, 0.0, 80.0))
    card = ModelCard("tiny", "basic", 1, 32, True, "an MRI of a {stage} brain")
    assert trained_modalities(card) == {"MRI"}
    _, notes, warnings = prepare_image(Opened(Path("a.dcm"), torch.zeros(3, 32, 32), source), card)
    assert "a.dcm is of modality CT, the model was trained on MRI" in warnings[0]
    assert notes[1] == "12 bit: 0 to 80 HU is black to white; the image goes from -1000 to 400 HU"
    scanned = dataclasses.replace(card, template="a CT scan")
    assert prepare_image(Opened(Path("a.dcm"), torch.zeros(3, 32, 32), source), scanned)[2] == []


def test_a_model_by_instruction_is_told_what_to_change(
    edit: Edit, toy_model: Path, toy_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from latentdrift.finetune.methods.instruct_pix2pix import editing_pipeline, grow_input
    from latentdrift.models import ModelCard, load_pipeline, save_pipeline

    made: Any = load_pipeline(toy_model)
    grow_input(made.unet, 8)
    told: dict[str, Any] = {"modality": "mri", "style": "question", "age": "decade"}
    attributes: dict[str, list[str | float]] = {"stage": list(STAGES), "age": [60, 61]}
    card = ModelCard(
        "toy", "instruct_pix2pix", 1, 32, True, "a {stage} x, {age}", attributes, {}, {"instructions": told}
    )
    save_pipeline(editing_pipeline(made), tmp_path / "model", card)
    cohort = Cohort.open(toy_cohort)
    picture = toy_cohort / "images" / "s01-0.png"
    words = ("--image", picture, "--source", "stage=NonDemented", "age=61", "--target", "stage=MildDemented", "age=72")
    facts = edit(*words, "--image-guidance", 1.2, model=tmp_path / "model")
    assert facts["editor"] == {"name": "instruct_pix2pix", "config": {"image_guidance": 1.2}}
    assert facts["captions"]["target"] == instruction(
        {"stage": "NonDemented", "age": 61}, {"stage": "MildDemented", "age": 72}, **told
    )
    assert "round_trip_l1" not in facts["images"][0]
    assert facts["images"][0]["stage"] == "MildDemented"
    # Of a cohort, each image has its own wording, and its own attributes.
    facts = edit(
        "--image", toy_cohort, "--take", 2, "--target", "stage=MildDemented", model=tmp_path / "model", out="b"
    )
    for row in facts["images"]:
        record = next(one for one in cohort if str(one.image) == row["source_file"])
        shown = {name: record.attributes[name] for name in ("stage", "age")}
        assert row["prompt"] == instruction(shown, shown | {"stage": "MildDemented"}, key=record.key, **told)
    message = refused(capsys, "counterfactual", "--model", tmp_path / "model", "--out", tmp_path / "c", *words,
                      "--editor", "prompt_swap", "--quiet")  # fmt: skip
    assert "by instruction" in message
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--source stage=NonDemented --target stge=MildDemented", "Did you mean 'stage'"),
        ("--source stage=NonDemented --target stage=Mild", "Did you mean 'MildDemented'"),
        ("{wish} --editor prompt-swap", "Did you mean 'prompt_swap'"),
        ("{wish} --editor classifier_guided", "give --guide DIR"),
        ("{wish} --editor classifier_guided --guide sex", "of which nothing is wanted"),
        ("{wish} --guide guide --judge guide", "cannot judge it"),
        ("{wish} --judge guide", "trained as a guide, not as a judge"),
        ("{wish} --guide judge", "trained as a judge, not as a guide"),
        ("{wish} --guide guide --judge mixed", "both trained on 1 images"),
        ("{wish} --judge judge judge", "the same classifier twice"),
        ("{wish} --judge other", "There is no class of stage in other 'MildDemented'. Known: AD, CN."),
        ("{wish} --similarity l3", "Did you mean 'l"),
        ("{wish} --similarity ssim=much", "NAME=WEIGHT"),
        ("{wish} --weight -1", "weight is -1"),
        ("{wish} --mask {tmp}/none.png", "does not exist"),
        ("{wish} --mask {tmp}/wide.npy", "has the shape 7 x 9"),
        ("{wish} --mask {tmp}/empty.npy", "is empty where"),
        ("{wish} --mask {tmp}/words.npy", "holds <U1"),
        ("{wish} --take 3", "the folder of one cohort"),
        ("--target stage=MildDemented", "Nothing says what the images show"),
        ("--image {data} --target stage=MildDemented --part test", "give --split"),
        ("--image {data} --target stage=MildDemented --split {run} --part tset", "Did you mean 'test'"),
        ("--image {data} --target stage=MildDemented --take 99", "99 images were asked"),
        ("--image {data} --target stage=MildDemented --where stage=Mild", "Mild"),
        ("{wish} --drift 3e38", "no longer finite"),
        ("{wish} --guidance nan", "guidance is nan"),
        ("{wish} --model {long}", "tokens"),
    ],
)
def test_what_cannot_be_leaves_nothing_behind(
    words: str,
    says: str,
    toy_run: Path,
    toy_cohort: Path,
    tmp_path: Path,
    classifiers: dict[str, Classifier],
    capsys: pytest.CaptureFixture[str],
) -> None:
    np.save(tmp_path / "wide.npy", np.ones((7, 9)))
    np.save(tmp_path / "empty.npy", np.zeros((32, 32)))
    np.save(tmp_path / "words.npy", np.full((32, 32), "a"))
    if "{long}" in words:
        shutil.copytree(toy_run / "model", tmp_path / "long")
        card = json.loads((tmp_path / "long" / "latentdrift.json").read_text())
        card["template"] = "a slice, {stage}" + " and so on" * 20
        (tmp_path / "long" / "latentdrift.json").write_text(json.dumps(card))
    places = {"tmp": tmp_path, "data": toy_cohort, "run": toy_run, "long": tmp_path / "long"}
    wish = "--source stage=NonDemented --target stage=MildDemented"
    given = words.format(wish=wish, **places).split()
    if "--image" not in given:
        given += ["--image", str(toy_cohort / "images" / "s01-0.png")]
    model = [] if "--model" in given else ["--model", toy_run]
    before = sorted(tmp_path.iterdir())
    out = ("--out", tmp_path / "out", "--steps", 2, "--quiet")
    status, _, err = run(capsys, "counterfactual", *model, *given, *out)
    assert status == 2
    assert says in " ".join(err.replace("│", " ").split())
    assert sorted(tmp_path.iterdir()) == before


def test_former_results_stay_where_a_new_run_fails(edit: Edit, toy_run: Path, toy_cohort: Path, tmp_path: Path,
                                                   capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    first, second = (toy_cohort / "images" / f"s0{number}-0.png" for number in (1, 2))
    wish = ("--source", "stage=NonDemented", "--target", "stage=MildDemented")
    edit("--image", first, *wish)
    kept = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    start = ("counterfactual", "--model", toy_run, "--out", tmp_path / "out", "--steps", 4, "--quiet")
    assert "no image was made" in refused(capsys, *start, "--image", first, *wish, "--drift", "3e38")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == kept
    facts = edit("--image", second, *wish)
    assert [row["file_name"] for row in facts["images"]] == ["s02-0.png"]
    assert (tmp_path / "out" / "s01-0.png").read_bytes() == kept["s01-0.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
