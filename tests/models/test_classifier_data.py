"""What classifiers are trained on: who is in which part, which class is whose, and the views of an image."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from latentdrift.data import Cohort, ImageTransform
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError
from latentdrift.models.classifier import (
    ClassifierConfig,
    Views,
    divide,
    fit_temperature,
    make_scheme,
    negative_log_likelihood,
)
from latentdrift.models.classifier.images import Autoencoder, read_images
from latentdrift.models.classifier.roles import file_hashes
from latentdrift.models.classifier.views import blurred
from tests.models.test_classifier import QUICK, write_cohort


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return Cohort.open(write_cohort(tmp_path_factory.mktemp("cohort") / "squares"))


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
