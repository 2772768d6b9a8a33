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
from scipy.optimize import minimize_scalar

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
    fit_temperature,
    load_classifier,
    make_scheme,
    negative_log_likelihood,
    train_classifier,
)
from latentdrift.models.classifier.images import Autoencoder, read_images
from latentdrift.models.classifier.roles import file_hashes
from latentdrift.models.classifier.views import blurred

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


def test_guide_and_judge_share_nobody(squares: Cohort) -> None:
    scheme = make_scheme(squares, QUICK)
    guide, judge = (divide(squares, scheme, dataclasses.replace(QUICK, role=role)) for role in ("guide", "judge"))
    people = [{r.subject for r in [*p.train, *p.validation]} for p in (guide, judge)] + [
        {record.subject for record in guide.test}
    ]
    assert sum(map(len, people)) == len(set.union(*people)) == 90
    assert [len(found) for found in people] == pytest.approx([36, 36, 18], abs=1)
    assert [r.key for r in guide.test] == [r.key for r in judge.test]
    assert not {r.subject for r in guide.train} & {r.subject for r in guide.validation}
    # A judge of another attribute has no image of the guide's either.
    other = dataclasses.replace(QUICK, role="judge", attribute="sex")
    assert divide(squares, make_scheme(squares, other), other).hashes == judge.hashes
    another = divide(squares, scheme, dataclasses.replace(QUICK, seed=1))
    assert another.hashes != guide.hashes


def test_the_same_file_is_in_one_role(squares: Cohort, tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    shutil.copytree(squares.root, folder)
    scheme = make_scheme(squares, QUICK)
    guide = divide(squares, scheme, QUICK)
    judge = divide(squares, scheme, dataclasses.replace(QUICK, role="judge"))
    shutil.copyfile(guide.train[0].image, folder / judge.train[0].key)
    shutil.copyfile(guide.test[0].image, folder / guide.train[1].key)
    cohort = Cohort.open(folder)
    parts = [divide(cohort, scheme, dataclasses.replace(QUICK, role=role)) for role in ("guide", "judge")]
    assert not parts[0].hashes & parts[1].hashes
    assert not (parts[0].hashes | parts[1].hashes) & set(file_hashes(parts[0].test))
    assert [any("same file" in note for note in found.notes) for found in parts] == [True, True]
    assert len(parts[0].hashes) == len(guide.hashes) - 1


def test_images_of_a_run_stay_out(squares: Cohort, tmp_path: Path) -> None:
    split = squares.split({"train": 0.6, "validation": 0.2, "test": 0.2}, seed=5)
    path = tmp_path / "split.csv"
    lines = [f"{record.key},{name}" for name, part in split.items() for record in part]
    path.write_text("\n".join(["file_name,part", *lines]) + "\n")
    scheme = make_scheme(squares, QUICK)
    guide, judge = (divide(squares, scheme, dataclasses.replace(QUICK, role=r), path) for r in ("guide", "judge"))
    assert [r.key for r in guide.test] == [r.key for r in split["test"]]
    trained = [{r.subject for r in [*p.train, *p.validation]} for p in (guide, judge)]
    assert not trained[0] & trained[1]
    assert trained[0] | trained[1] == {record.subject for record in split["train"]}
    path.write_text("file_name,part\nother.png,train\n")
    with pytest.raises(DataError, match="None of the 1 images"):
        divide(squares, scheme, QUICK, path)
    path.write_text("\n".join(["file_name,part", *(f"{record.key},train" for record in squares)]) + "\n")
    with pytest.raises(DataError, match="no part called test"):
        divide(squares, scheme, QUICK, path)
    path.write_text("name\nx\n")
    with pytest.raises(DataError, match="no column 'file_name'"):
        divide(squares, scheme, QUICK, path)


@pytest.mark.parametrize(
    ("settings", "classes", "finds"),
    [
        ({"attribute": "stage"}, ("plain", "square"), {"square": 1, "other": None}),
        ({"attribute": "stage", "classes": ("square", "plain")}, ("square", "plain"), {"square": 0}),
        (
            {"attribute": "age", "bins": (60, 70.5)},
            ("under 60", "60 to 70.5", "70.5 and over"),
            {59.9: 0, 60: 1, 70.5: 2, "60 to 70.5": 1, "75": 2, "old": None},
        ),
        (
            {"attribute": "findings", "classes": ("No Finding", "Mass"), "contains": True},
            ("No Finding", "Mass"),
            {"Effusion|Mass": 1, "No Finding": 0, "Effusion": None, "Massive": None, "Mass|No Finding": None},
        ),
        ({"attribute": "findings", "classes": ("No Finding", "Mass")}, ("No Finding", "Mass"), {"Mass|Effusion": None}),
        ({"attribute": "age", "classes": ("40", "41.0")}, (40, 41), {40.0: 0, "41": 1, 42: None}),
    ],
)
def test_classes(
    squares: Cohort, settings: dict[str, object], classes: tuple[object, ...], finds: dict[str | float, int | None]
) -> None:
    scheme = make_scheme(squares, ClassifierConfig(**settings))  # type: ignore[arg-type]
    assert scheme.classes == classes
    assert {value: scheme.find(value) for value in finds} == finds
    for value, place in finds.items():
        if place is None:
            with pytest.raises(UnknownNameError, match="class of"):
                scheme.index(value)
        else:
            assert scheme.index(value) == place


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"attribute": "stagf"}, "Did you mean 'stage'"),
        ({"attribute": "stage", "classes": ("plain", "sqare")}, "Did you mean 'square'"),
        ({"attribute": "stage", "classes": ("plain",)}, "at least two classes"),
        ({"attribute": "stage", "classes": ("plain", "plain")}, "named twice"),
        ({"attribute": "age"}, "50 different values: cut it with --bins"),
        ({"attribute": "age", "bins": (70, 60)}, "must ascend"),
        ({"attribute": "age", "bins": (60,), "classes": ("40",)}, "leave --classes"),
        ({"attribute": "stage", "bins": (60,)}, "'stage' has the value"),
        ({"attribute": "findings", "contains": True}, "--classes A B"),
        ({"attribute": "stage", "role": "umpire"}, "role of a classifier 'umpire'"),
        ({"attribute": "stage", "size": 4}, "size is 4"),
        ({"attribute": "stage", "learning_rate": 0}, "learning_rate is 0"),
        ({"attribute": "stage", "validation": 0.9}, "validation is 0.9"),
    ],
)
def test_settings_that_cannot_be(squares: Cohort, settings: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        make_scheme(squares, ClassifierConfig(**settings))  # type: ignore[arg-type]


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


def test_temperature_is_that_of_the_data() -> None:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((4000, 3)) * 2
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = (rng.uniform(size=(4000, 1)) > p.cumsum(1)).sum(1)
    # Logits three times as sure as they are right.
    assert fit_temperature(3 * logits, truth) == pytest.approx(3, rel=0.06)
    reference = minimize_scalar(
        lambda t: torch.nn.functional.cross_entropy(torch.tensor(3 * logits / t), torch.tensor(truth)).item(),
        bounds=(1, 6),
        method="bounded",
    )
    assert fit_temperature(3 * logits, truth) == pytest.approx(reference.x, rel=1e-3)
    assert negative_log_likelihood(3 * logits, truth, 2.0) == pytest.approx(
        torch.nn.functional.cross_entropy(torch.tensor(3 * logits / 2), torch.tensor(truth)).item()
    )
    # Where all is right, nothing stops the likelihood: the range does.
    assert fit_temperature(np.eye(2)[[0, 1]] * 2, [0, 1]) == pytest.approx(0.25, rel=1e-3)


def test_views_are_seeded_and_stay_in_range() -> None:
    images = torch.rand(6, 1, 24, 24) * 2 - 1
    first, second, third = (Views()(images, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert first.min() >= -1
    assert first.max() <= 1
    still = Views(degrees=0, shift=0, zoom=0, gamma=0, blur=0, noise=0)
    torch.testing.assert_close(still(images, torch.Generator()), images, atol=1e-5, rtol=0)
    mirrored = dataclasses.replace(still, mirror=True)(images, torch.Generator().manual_seed(0))
    sides = [
        min((view - image).abs().max(), (view - image.flip(-1)).abs().max())
        for view, image in zip(mirrored, images, strict=True)
    ]
    assert max(sides) < 1e-4
    assert not torch.allclose(mirrored, images, atol=0.1)
    with pytest.raises(ConfigurationError, match="degrees is 90"):
        Views(degrees=90)


def test_blur_is_the_gaussian_of_scipy() -> None:
    from scipy.ndimage import gaussian_filter

    images = torch.rand(2, 1, 32, 32)
    found = blurred(images, torch.tensor([1.5, 0.0]))
    # scipy's "mirror" is torch's "reflect".
    expected = gaussian_filter(images[0, 0].numpy(), 1.5, mode="mirror", radius=5)
    np.testing.assert_allclose(found[0, 0], expected, atol=1e-5)
    torch.testing.assert_close(found[1], images[1])


def test_half_of_the_draws_are_through_the_autoencoder(squares: Cohort, toy_model: Path) -> None:
    scheme = make_scheme(squares, QUICK)
    autoencoder = Autoencoder.load(toy_model, torch.device("cpu"))
    assert autoencoder.size == 32
    found = read_images(squares[:40], scheme, size=16, gray=True, autoencoder=autoencoder)
    assert found.copies is not None
    image = ImageTransform(size=32).read(squares[0].image)[None]
    latent = autoencoder.vae.encode(image).latent_dist.mean
    back = autoencoder.vae.decode(latent).sample.detach().clamp(-1, 1).mean(1, keepdim=True)
    small = torch.nn.functional.interpolate(back, size=(16, 16), mode="bilinear", antialias=True)
    assert (found.copies[:1] / 127.5 - 1 - small).abs().max() < 0.01
    drawn = found.drawn(torch.arange(40), torch.Generator().manual_seed(0))
    same = [bool(torch.equal(a, b / 127.5 - 1)) for a, b in zip(drawn, found.pixels, strict=True)]
    copied = [bool(torch.equal(a, b / 127.5 - 1)) for a, b in zip(drawn, found.copies, strict=True)]
    assert [a != b for a, b in zip(same, copied, strict=True)] == [True] * 40
    assert 10 <= sum(copied) <= 30


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
