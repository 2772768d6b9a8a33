"""The objective against closed forms, autograd's own check, and the SSIM of the evaluation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from latentdrift.counterfactual.objective import ObjectiveConfig, counterfactual_objective, label_loss
from latentdrift.errors import ConfigurationError, UnknownNameError
from latentdrift.evaluate import ssim


def images(batch: int = 2, size: int = 16, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    source = torch.rand(batch, 3, size, size, generator=draw, dtype=torch.float64) * 1.6 - 0.8
    return source, (source + torch.randn(source.shape, generator=draw, dtype=torch.float64) * 0.1).clamp(-1, 1)


LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 3.0, 1.0]], dtype=torch.float64)
WANTED = torch.tensor([1, 1])


def test_parts_by_hand() -> None:
    """Constant changes of 0.5 and 0.25: l1 and l2 are they and their squares; the total is their weighted sum."""
    source = torch.zeros(2, 3, 16, 16)
    edited = source + torch.tensor([0.5, -0.25])[:, None, None, None]
    config = ObjectiveConfig(weight=2.0, similarity={"l1": 1.0, "l2": 3.0})
    found = counterfactual_objective(source, edited, LOGITS.float(), WANTED, config)
    assert found.parts["l1"].tolist() == pytest.approx([0.5, 0.25])
    assert found.parts["l2"].tolist() == pytest.approx([0.25, 0.0625])
    assert found.similarity.tolist() == pytest.approx([0.5 + 0.75, 0.25 + 0.1875])
    label = [math.log(math.exp(2) + 1 + math.exp(-1)), math.log(math.exp(0.5) + math.exp(3) + math.exp(1)) - 3]
    assert found.label is not None
    assert found.label.tolist() == pytest.approx(label)
    assert found.total.tolist() == pytest.approx([2 * label[0] + 1.25, 2 * label[1] + 0.4375])
    assert float(found.mean) == pytest.approx(sum(found.total.tolist()) / 2)
    assert found.flipped is not None
    assert found.flipped.tolist() == [False, True]
    scores = found.scores()
    assert scores["missed"] == 0.5
    assert scores["objective"] == pytest.approx(2 * scores["label"] + scores["l1"] + 3 * scores["l2"])


def test_hinge_is_the_lead_over_the_best_other_class() -> None:
    config = ObjectiveConfig(label_loss="hinge")
    assert label_loss(LOGITS, WANTED, config).tolist() == pytest.approx([3.0, 0.0])
    assert label_loss(LOGITS, WANTED, ObjectiveConfig(label_loss="hinge", margin=2.5)).tolist() == [4.5, 0.5]
    # Two classes: torch's own, which halves it, on the same logits.
    pair = torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    classes = torch.arange(8) % 2
    own = torch.nn.functional.multi_margin_loss(pair, classes, reduction="none") * 2
    torch.testing.assert_close(label_loss(pair, classes, config), own)


def test_ssim_is_the_evaluations() -> None:
    source, edited = images(size=24)
    found = counterfactual_objective(source, edited, None, None, ObjectiveConfig(weight=0, similarity="ssim"))
    assert 1 - found.total.numpy() == pytest.approx(ssim(source, edited))
    same = counterfactual_objective(source, source, None, None, ObjectiveConfig(weight=0, similarity="ssim"))
    assert np.abs(same.total.numpy()).max() < 1e-12


def test_without_weight_similarity_is_all() -> None:
    source, edited = images()
    logits = (LOGITS * math.nan).requires_grad_()
    edited.requires_grad_()
    found = counterfactual_objective(source, edited, logits, WANTED, ObjectiveConfig(weight=0.0))
    torch.testing.assert_close(found.total, (source - edited).abs().mean((1, 2, 3)))
    alone = counterfactual_objective(source, edited, None, None, ObjectiveConfig(weight=0.0))
    assert torch.equal(found.total, alone.total)
    assert set(alone.scores()) == {"objective", "similarity", "l1"}
    assert torch.autograd.grad(found.mean, [edited, logits], allow_unused=True)[1] is None


@pytest.mark.parametrize("loss", ["cross-entropy", "hinge"])
@pytest.mark.parametrize("similarity", ["l1", "l2", "ssim", {"l1": 1.0, "ssim": 0.5}])
def test_gradients(loss: str, similarity: str | dict[str, float]) -> None:
    """Through a linear classifier too; the hinge and l1 are far from their corners here."""
    source, edited = images(size=11)
    weights = torch.randn(3 * 121, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.05
    config = ObjectiveConfig(weight=0.7, label_loss=loss, similarity=similarity)  # type: ignore[arg-type]

    def total(x: torch.Tensor) -> torch.Tensor:
        return counterfactual_objective(source, x, x.flatten(1) @ weights, torch.tensor([2, 0]), config).total

    assert torch.autograd.gradcheck(total, (edited.requires_grad_(),), fast_mode=True)


def test_gradients_in_closed_form() -> None:
    source, edited = images()
    edited.requires_grad_()
    logits = LOGITS.clone().requires_grad_()
    found = counterfactual_objective(source, edited, logits, WANTED, ObjectiveConfig(weight=3.0, similarity="l2"))
    by_image, by_logits = torch.autograd.grad(found.mean, [edited, logits])
    torch.testing.assert_close(by_image, 2 * (edited - source).detach() / source[0].numel() / 2)
    softmax = LOGITS.softmax(1) - torch.nn.functional.one_hot(WANTED, 3)
    torch.testing.assert_close(by_logits, 3 * softmax / 2)


def test_lpips_is_whoever_is_given() -> None:
    source, edited = images()
    config = ObjectiveConfig(weight=0, similarity={"lpips": 2.0, "l1": 1.0})

    def peak(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x - y).abs().amax((1, 2, 3), keepdim=True)

    found = counterfactual_objective(source, edited, None, None, config, perceptual=peak)
    change = (source - edited).abs()
    torch.testing.assert_close(found.total, 2 * change.amax((1, 2, 3)) + change.mean((1, 2, 3)))
    with pytest.raises(ConfigurationError, match="needs a network"):
        counterfactual_objective(source, edited, None, None, config)
    with pytest.raises(ConfigurationError, match="one distance an image"):
        counterfactual_objective(source, edited, None, None, config, perceptual=lambda x, y: (x - y).abs().mean())


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"weight": -1.0}, ConfigurationError, "weight is -1"),
        ({"weight": math.nan}, ConfigurationError, "weight is nan"),
        ({"label_loss": "cross_entropy"}, UnknownNameError, "cross-entropy"),
        ({"similarity": "ssimm"}, UnknownNameError, "'ssim'"),
        ({"similarity": {"l1": -1.0}}, ConfigurationError, "weight of l1"),
        ({"similarity": {"l1": 0.0}}, ConfigurationError, "No part"),
        ({"similarity": {}}, ConfigurationError, "No part"),
    ],
)
def test_settings_that_cannot_be(settings: dict, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        ObjectiveConfig(**settings)


@pytest.mark.parametrize(
    ("shape", "logits", "wanted", "says"),
    [
        ((2, 3, 16, 15), LOGITS, WANTED, "must be"),
        ((2, 3, 16, 16), LOGITS[:, :1], WANTED, "at least two classes"),
        ((2, 3, 16, 16), LOGITS, torch.tensor([1, 3]), "Class 3 is wanted.*0 to 2"),
        ((2, 3, 16, 16), LOGITS, torch.tensor([1.0, 0.0]), "whole numbers"),
        ((2, 3, 16, 16), LOGITS[:1], WANTED[:1], "1 rows of logits for 2 images"),
        ((2, 3, 16, 16), None, WANTED, "λ is 1"),
    ],
)
def test_inputs_that_do_not_fit(shape: tuple, logits: torch.Tensor, wanted: torch.Tensor, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        counterfactual_objective(torch.zeros(2, 3, 16, 16), torch.zeros(shape), logits, wanted)


def test_small_images_have_no_ssim() -> None:
    small = torch.zeros(1, 3, 10, 16)
    with pytest.raises(ConfigurationError, match="11 pixels"):
        counterfactual_objective(small, small, None, None, ObjectiveConfig(weight=0, similarity="ssim"))
