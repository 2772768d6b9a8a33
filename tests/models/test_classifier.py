"""Classifiers of tiny images whose class is a bright square."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentdrift.data import Cohort, ImageTransform
from latentdrift.errors import ConfigurationError, DataError, ModelError, UnknownNameError
from latentdrift.evaluate.auc import classifier_figures
from latentdrift.models.classifier import (
    Classifier,
    ClassifierConfig,
    ClassScheme,
    Views,
    check_apart,
    divide,
    load_classifier,
    train_classifier,
)
from latentdrift.models.classifier.roles import file_hashes

SIDE = 32
QUICK = ClassifierConfig(attribute="stage", size=SIDE, epochs=10, batch_size=16, views=Views(blur=0.5))


def write_cohort(folder: Path, subjects: int = 90, visits: int = 2, meaning: bool = True) -> Path:
    """Gray noise, with a bright square where the stage is "square"; findings of several words, and ages."""
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True)
    lines = ["file_name,subject,stage,findings,age,sex"]
    for person in range(subjects):
        bright = bool(person % 2)
        for visit in range(visits):
            pixels = rng.integers(20, 60, (SIDE, SIDE))
            if bright and meaning:
                row, column = rng.integers(3, SIDE - 11, 2)
                pixels[row : row + 8, column : column + 8] += 160
            name = f"{person:03d}-{visit}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
            findings = ("Mass|Effusion" if person % 4 == 1 else "Mass") if bright else "No Finding"
            sex = "F" if person % 3 else "M"
            lines.append(f"{name},s{person},{'square' if bright else 'plain'},{findings},{40 + person % 50},{sex}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def measure(*given: object, **more: object) -> dict[str, object]:
    return classifier_figures(*given, **more, resamples=100).to_dict()  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return Cohort.open(write_cohort(tmp_path_factory.mktemp("cohort") / "squares"))


@pytest.fixture(scope="module")
def guide(squares: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return train_classifier(squares, tmp_path_factory.mktemp("runs") / "guide", QUICK, measure=measure, device="cpu")


def test_a_bright_square_is_learnt(guide: Classifier, squares: Cohort) -> None:
    figures = guide.facts["test"]
    assert figures["auc"]["value"] > 0.97
    assert figures["accuracy"]["value"] > 0.85
    assert figures["images"] == 2 * figures["subjects"] == len(divide(squares, guide.scheme, QUICK).test)
    assert guide.classes == ("plain", "square")
    assert (guide.attribute, guide.role, guide.size, guide.gray) == ("stage", "guide", SIDE, True)


def test_labels_without_meaning_are_not(tmp_path: Path) -> None:
    cohort = Cohort.open(write_cohort(tmp_path / "data", meaning=False))
    config = dataclasses.replace(QUICK, epochs=2)
    auc = train_classifier(cohort, tmp_path / "out", config, measure=measure, device="cpu").facts["test"]["auc"]
    assert auc["low"] < 0.5 < auc["high"]


def test_calibration_lowers_the_likelihood_of_validation(guide: Classifier) -> None:
    found = guide.facts["validation_nll"]
    assert found["after"] <= found["before"]
    assert guide.temperature == guide.facts["temperature"]


def test_the_folder_holds_everything(guide: Classifier, squares: Cohort) -> None:
    facts = json.loads((guide.path / "classifier.json").read_text())
    assert sorted(path.name for path in guide.path.iterdir()) == ["classifier.json", "model.safetensors"]
    assert not list(guide.path.parent.glob("*.partial"))
    assert facts["data"] == {"name": "squares", "images": 180, "content_hash": squares.content_hash()}
    assert {"torch", "latentdrift", "python"} <= set(facts["versions"])
    assert (facts["role"], facts["network"], facts["seed"]) == ("guide", "small", 0)
    parts = divide(squares, guide.scheme, QUICK)
    assert set(facts["trained_on"]) == set(file_hashes([*parts.train, *parts.validation])) == guide.trained_on


def test_a_loaded_classifier_says_the_same(guide: Classifier, squares: Cohort) -> None:
    images = torch.stack([ImageTransform(size=SIDE).read(record.image) for record in squares[:9]])
    again = load_classifier(guide.path, "cpu")
    assert torch.equal(again(images), guide(images))
    assert (again.trained_on, again.path, again.classes) == (guide.trained_on, guide.path, guide.classes)
    assert again.temperature == guide.temperature
    probabilities = again.probabilities(images, batch_size=4)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(1), 1)
    np.testing.assert_allclose(probabilities, torch.softmax(guide(images).double(), 1), atol=1e-5)


def test_training_again_gives_the_same_weights(squares: Cohort, tmp_path: Path) -> None:
    config = dataclasses.replace(QUICK, epochs=1)
    first, second = (train_classifier(squares, tmp_path / name, config, device="cpu") for name in ("a", "b"))
    judge = train_classifier(squares, tmp_path / "c", dataclasses.replace(config, role="judge"), device="cpu")
    weights = [dict(found.network.state_dict()) for found in (first, second, judge)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["0.weight"], weights[2]["0.weight"])
    with pytest.raises(ConfigurationError, match=f"both trained on {len(first.trained_on)} images"):
        check_apart(first, second)
    check_apart(first, judge)
    assert not first.trained_on & judge.trained_on


def test_gradients_reach_the_image_and_not_the_weights(guide: Classifier) -> None:
    guide.train()
    assert not guide.training
    assert not guide.network.training
    images = torch.rand(2, 3, 48, 40, dtype=torch.float32).mul(2).sub(1).requires_grad_()
    logits = guide(images)
    assert logits.shape == (2, 2)
    logits[:, 1].sum().backward()
    assert images.grad is not None
    assert (images.grad.abs().amax((1, 2, 3)) > 0).all()
    assert all(weight.grad is None for weight in guide.parameters())
    # An image's logits depend on no other image.
    torch.testing.assert_close(guide(images[1:]), logits[1:], atol=1e-5, rtol=1e-5)


def test_other_shapes_go_the_way_of_files(guide: Classifier, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (50, 70), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    read = ImageTransform(size=SIDE).read(tmp_path / "a.png")[None]
    whole = (torch.from_numpy(pixels).float() / 127.5 - 1).expand(1, 3, -1, -1)
    torch.testing.assert_close(guide(whole), guide(read), atol=0.05, rtol=0.05)
    with pytest.raises(ConfigurationError, match=r"\(B, 3, H, W\)"):
        guide(whole[0])


def test_too_few_images_are_told_before_training(squares: Cohort, tmp_path: Path) -> None:
    config = ClassifierConfig(attribute="age", bins=(88.5,), size=SIDE)
    with pytest.raises(DataError, match="88.5 and over"):
        train_classifier(squares, tmp_path / "out", config, device="cpu")
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_left_alone(squares: Cohort, guide: Classifier) -> None:
    before = (guide.path / "classifier.json").read_bytes()
    with pytest.raises(ConfigurationError, match="is not empty"):
        train_classifier(squares, guide.path, QUICK)
    assert (guide.path / "classifier.json").read_bytes() == before


def test_damaged_folders(guide: Classifier, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no classifier\.json"):
        load_classifier(tmp_path)
    folder = tmp_path / "copy"
    shutil.copytree(guide.path, folder)
    (folder / "model.safetensors").write_bytes(b"\0" * 40)
    with pytest.raises(ModelError, match=r"model\.safetensors is damaged"):
        load_classifier(folder, "cpu")
    facts = json.loads((guide.path / "classifier.json").read_text())
    for change, says in (({"temperature": -1}, "temperature of -1"), ({"format": 99}, "format 99")):
        (folder / "classifier.json").write_text(json.dumps({**facts, **change}))
        with pytest.raises(ModelError, match=says):
            load_classifier(folder, "cpu")
    del facts["size"]
    (folder / "classifier.json").write_text(json.dumps(facts))
    with pytest.raises(ModelError, match="it has no 'size'"):
        load_classifier(folder, "cpu")
    (folder / "classifier.json").write_text("{")
    with pytest.raises(ModelError, match="is damaged"):
        load_classifier(folder, "cpu")


def test_training_through_an_autoencoder_is_measured_apart(squares: Cohort, toy_model: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(QUICK, epochs=1)
    found = train_classifier(squares, tmp_path / "a", config, autoencoder=toy_model, measure=measure, device="cpu")
    facts = load_classifier(found.path, "cpu").facts
    assert facts["autoencoder"] == str(toy_model)
    assert facts["test_through_autoencoder"]["images"] == facts["test"]["images"]
    assert facts["test_through_autoencoder"] != facts["test"]


def test_another_librarys_network_comes_back_from_its_folder(squares: Cohort, tmp_path: Path) -> None:
    config = dataclasses.replace(QUICK, network="timm:resnet10t", epochs=1)
    found = train_classifier(squares, tmp_path / "timm", config, device="cpu")
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    assert torch.equal(load_classifier(found.path, "cpu")(images), found(images))


def test_index_of_bins_takes_numbers(guide: Classifier) -> None:
    scheme = ClassScheme("age", ("under 65", "65 and over"), (65.0,))
    binned = Classifier(guide.network, scheme, role="judge", size=SIDE, gray=True)
    assert [binned.index(value) for value in (64, 65, "65 and over")] == [0, 1, 1]
    with pytest.raises(UnknownNameError, match="'plainn'.*Did you mean 'plain'"):
        guide.index("plainn")
