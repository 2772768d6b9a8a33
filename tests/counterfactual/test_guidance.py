"""The objective of images against the parts it is made of."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from latentdrift.counterfactual.guidance import image_objective
from latentdrift.counterfactual.objective import ObjectiveConfig, counterfactual_objective
from latentdrift.errors import ConfigurationError


class Brightness:
    """Logits (0, 4 · mean, -2): bright images are of class 1."""

    classes = ("dark", "bright", "neither")

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        means = images.mean((1, 2, 3))
        return torch.stack([torch.zeros_like(means), 4 * means, torch.full_like(means, -2.0)], 1)


def drawn(count: int = 5, size: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 1.6 - 0.8


SOURCES, EDITED, WANTED = drawn(), drawn(seed=1), [0, 1, 2, 1, 0]


@pytest.mark.parametrize("rows", [slice(0, 5), slice(0, 2), slice(2, 5), slice(3, 4)])
@pytest.mark.parametrize("loss", ["cross-entropy", "hinge"])
def test_it_is_the_papers_objective_of_these_rows(rows: slice, loss: Any) -> None:
    config = ObjectiveConfig(weight=3.0, label_loss=loss, similarity={"l1": 1.0, "l2": 0.5})
    found = image_objective(Brightness(), WANTED, SOURCES, config)(EDITED[rows], rows)
    expected = counterfactual_objective(
        SOURCES[rows], EDITED[rows], Brightness()(EDITED[rows]), torch.tensor(WANTED)[rows], config
    )
    assert torch.equal(found, expected.total)
    one = image_objective(Brightness(), WANTED, SOURCES, config)(EDITED[rows.start : rows.start + 1], rows_of(rows))
    torch.testing.assert_close(one, found[:1])


def rows_of(rows: slice) -> slice:
    return slice(rows.start, rows.start + 1)


def test_by_hand_and_by_default() -> None:
    """Zero images: logits (0, 0, -2), so that -log softmax of the first is log(2 + e⁻²); l1 is the source's own."""
    sources = torch.full((1, 3, 16, 16), 0.25)
    value = image_objective(Brightness(), [0], sources)(torch.zeros(1, 3, 16, 16), slice(0, 1))
    assert value.tolist() == pytest.approx([math.log(2 + math.exp(-2)) + 0.25])


def test_its_gradient_is_the_images_own() -> None:
    objective = image_objective(Brightness(), WANTED, SOURCES, ObjectiveConfig(similarity="l2"))
    images = EDITED.clone().requires_grad_()
    (together,) = torch.autograd.grad(objective(images, slice(0, 5)).sum(), images)
    for row in range(5):
        image = EDITED[row : row + 1].clone().requires_grad_()
        (alone,) = torch.autograd.grad(objective(image, slice(row, row + 1)).sum(), image)
        torch.testing.assert_close(alone[0], together[row])
    # Class 1 of row 1 wants brighter: of ℓ_o the same everywhere, of ℓ_in 2 (x' - x) / n.
    share = 2 * (EDITED - SOURCES)[1] / EDITED[1].numel()
    label = together[1] - share
    assert label.max() < 0
    assert label.std() < 1e-3 * label.abs().mean()


def test_a_hinge_that_is_content_pulls_no_more() -> None:
    """At logits (0, 2, -2) class 1 leads by 2: with a margin of 1 only the similarity has a gradient, with 3 both."""
    images = torch.full((1, 3, 16, 16), 0.5, requires_grad=True)
    sources = torch.full((1, 3, 16, 16), 0.5)
    gradients = []
    for margin in (1.0, 3.0):
        config = ObjectiveConfig(label_loss="hinge", margin=margin, similarity="l2")
        value = image_objective(Brightness(), [1], sources, config)(images, slice(0, 1))
        gradients.append(torch.autograd.grad(value.sum(), images)[0])
    assert gradients[0].abs().max() == 0
    torch.testing.assert_close(gradients[1], torch.full_like(images, -4 / images.numel()))


def test_without_weight_the_classifier_is_not_asked() -> None:
    classifier = Brightness()
    objective = image_objective(classifier, WANTED, SOURCES, ObjectiveConfig(weight=0.0))
    torch.testing.assert_close(objective(EDITED, slice(0, 5)), (EDITED - SOURCES).abs().mean((1, 2, 3)))
    assert classifier.calls == 0


def test_lpips_is_the_distance_that_is_given() -> None:
    config = ObjectiveConfig(weight=0.0, similarity="lpips")

    def distance(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x - y).square().amax((1, 2, 3))

    found = image_objective(Brightness(), WANTED, SOURCES, config, distance)(EDITED, slice(0, 5))
    assert torch.equal(found, distance(SOURCES, EDITED))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"wanted": [0, 1, 3, 1, 0]}, r"wanted\[2\] is 3, but the classifier has the classes 0 \(dark\), 1 \(bright\)"),
        ({"wanted": [0, -1, 2, 1, 0]}, r"wanted\[1\] is -1"),
        ({"wanted": [0, "bright", 2, 1, 0]}, r"wanted\[1\] is 'bright'; give the class's number: classifier.index"),
        ({"wanted": [0.5] * 5}, r"wanted\[0\] is 0.5"),
        ({"wanted": [0, 1]}, "5 sources and 2 wanted classes"),
        ({"sources": SOURCES[:3]}, "3 sources and 5 wanted classes"),
        ({"sources": SOURCES[0]}, r"images have shape \(3, 16, 16\)"),
        ({"sources": SOURCES[:0], "wanted": []}, "batch of images is empty"),
        ({"sources": SOURCES * 255}, "values up to"),
        ({"config": ObjectiveConfig(similarity="lpips")}, "'lpips' needs a network"),
        ({"sources": SOURCES[..., :8, :8], "config": ObjectiveConfig(similarity="ssim")}, "smaller than the 11 pixels"),
    ],
)
def test_what_cannot_be_an_objective(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        image_objective(**{"classifier": Brightness(), "wanted": WANTED, "sources": SOURCES, **change})


def test_other_images_than_the_sources_are_refused() -> None:
    objective = image_objective(Brightness(), WANTED, SOURCES)
    with pytest.raises(ConfigurationError, match="2 images are judged as rows 4 to 6 of 5 sources"):
        objective(EDITED[:2], slice(4, 6))
    with pytest.raises(ConfigurationError, match=r"counterfactuals \(2, 3, 8, 8\)"):
        objective(EDITED[:2, :, :8, :8], slice(0, 2))
