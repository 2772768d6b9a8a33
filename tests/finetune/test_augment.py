from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.transforms.v2.functional import affine

from latentdrift.data import Cohort, ImageTransform
from latentdrift.data.records import Record
from latentdrift.errors import ConfigurationError
from latentdrift.finetune.augment import VERSION, Augmentation, check_flip, draw_key

STILL: dict[str, Any] = {"degrees": 0.0, "shift": 0.0, "zoom": 0.0, "gamma": 0.0}
MANY = 200


def blob(height: int = 64, width: int = 64, at: tuple[float, float] = (0.0, -18.0), level: float = 2.0) -> torch.Tensor:
    """A soft bright spot on black, gray, `at` (x, y) pixels from the centre."""
    y = torch.arange(height)[:, None] - (height - 1) / 2 - at[1]
    x = torch.arange(width)[None] - (width - 1) / 2 - at[0]
    return (level * torch.exp(-(x**2 + y**2) / (2 * 3.0**2)) - 1).expand(3, -1, -1)


def centres(views: torch.Tensor) -> torch.Tensor:
    """Where the spot is in each view, (V, 2), x and y pixels from the centre."""
    light = views[:, 0] + 1
    height, width = light.shape[1:]
    y, x = torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2
    total = light.sum((1, 2))
    return torch.stack([(light.sum(1) @ x) / total, (light.sum(2) @ y) / total], 1)


def test_the_image_comes_first_and_alone_by_default(toy_cohort: Path) -> None:
    image = ImageTransform(size=32).read(Cohort.open(toy_cohort)[3].image)
    assert torch.equal(Augmentation().views(image, "a"), image[None])
    assert torch.equal(Augmentation(flip=True).views(image, "a"), torch.stack([image, image.flip(-1)]))
    views = Augmentation(count=3, flip=True).views(image, "a")
    assert views.shape == (len(Augmentation(count=3, flip=True)), 3, 32, 32) == (8, 3, 32, 32)
    assert torch.equal(views[:4], Augmentation(count=3).views(image, "a"))
    assert torch.equal(views[0], image)
    assert torch.equal(views[4:], views[:4].flip(-1))
    assert views.dtype == torch.float32
    assert views.is_contiguous()


def test_views_follow_from_the_key_and_their_number(toy_cohort: Path) -> None:
    image = ImageTransform(size=32).read(Cohort.open(toy_cohort)[3].image)
    views = Augmentation(count=3).views(image, "s01")
    assert torch.equal(views, Augmentation(count=3).views(image, "s01"))
    assert torch.allclose(views[:3], Augmentation(count=2).views(image, "s01"), atol=1e-5)
    assert (views - Augmentation(count=3).views(image, "s02")).abs().amax((1, 2, 3))[1:].min() > 0.1
    assert min((views[a] - views[b]).abs().max() for a in range(4) for b in range(a)) > 0.1


@pytest.mark.parametrize("size", [(64, 64), (48, 80), (80, 48)])
def test_a_turn_keeps_distances_and_uses_the_whole_range(size: tuple[int, int]) -> None:
    views = Augmentation(MANY, **{**STILL, "degrees": 6.0}).views(blob(*size, at=(0.0, -15.0)), "a")[1:]
    where = centres(views)
    assert torch.allclose(where.norm(dim=1), torch.tensor(15.0), atol=0.1)
    angles = torch.rad2deg(torch.atan2(where[:, 0], -where[:, 1]))
    assert angles.abs().max() <= 6.1
    assert angles.min() < -5
    assert angles.max() > 5


def test_a_shift_is_a_part_of_the_side() -> None:
    where = centres(Augmentation(MANY, **{**STILL, "shift": 0.1}).views(blob(40, 80, at=(0.0, 0.0)), "a")[1:])
    for axis, side in enumerate((80, 40)):
        assert where[:, axis].abs().max() <= 0.1 * side + 0.05
        assert where[:, axis].min() < -0.08 * side
        assert where[:, axis].max() > 0.08 * side


def test_a_zoom_enlarges_as_often_as_it_shrinks() -> None:
    ratio = centres(Augmentation(MANY, **{**STILL, "zoom": 0.2}).views(blob(at=(0.0, -15.0)), "a")[1:])[:, 1] / -15
    assert 1 / 1.2 - 0.01 <= ratio.min() < 0.87
    assert 1.15 < ratio.max() <= 1.2 + 0.01
    assert 0.35 < (ratio > 1).float().mean() < 0.65


def test_a_power_leaves_black_white_and_the_order_of_grays() -> None:
    ramp = torch.linspace(-1, 1, 64).expand(3, 64, 64)
    views = Augmentation(MANY, **{**STILL, "gamma": 0.2}).views(ramp, "a")[1:, 0, 30]
    assert (views[:, 0] == -1).all()
    assert torch.allclose(views[:, -1], torch.tensor(1.0), atol=1e-5)
    assert (views.diff(dim=1) > 0).all()
    powers = ((views[:, 20] + 1) / 2).log() / ((ramp[0, 0, 20] + 1) / 2).log()
    assert 1 / 1.2 - 1e-3 <= powers.min() < 0.87
    assert 1.15 < powers.max() <= 1.2 + 1e-3


@pytest.mark.parametrize("size", [31, 50])
def test_gray_stays_gray_to_the_bit_and_colours_are_kept_apart(size: int) -> None:
    augmentation = Augmentation(count=20, flip=True)
    # Sizes that are no multiple of a processor's vectors: there the rounding of a power differs between channels.
    image = (torch.rand(1, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1).expand(3, -1, -1)
    views = augmentation.views(image, "a")
    assert torch.equal(views[:, 0], views[:, 1])
    assert torch.equal(views[:, 0], views[:, 2])
    colour = torch.stack([image[0], -image[0], image[0].flip(0)])
    apart = augmentation.views(colour, "a")
    assert torch.allclose(apart[:, 0], views[:, 0], atol=1e-5)
    assert torch.allclose(apart[:, 2], augmentation.views(colour[2:].expand(3, -1, -1), "a")[:, 0], atol=1e-5)
    assert (apart[:, 0] - apart[:, 1]).abs().max() > 1


def test_what_comes_in_is_the_images_own_background(toy_cohort: Path) -> None:
    image = ImageTransform(size=32).read(Cohort.open(toy_cohort)[3].image)
    strong = Augmentation(50, degrees=20, shift=0.08, zoom=0.05, gamma=0.1)
    assert (strong.views(image, "a")[:, :, [0, 0, -1, -1], [0, -1, 0, -1]] == -1).all()
    # A background that is not black comes in without a seam, one a channel, and a bright mark at the rim is not it.
    level = torch.tensor([0.2, -0.4, 0.7])[:, None, None].expand(3, 40, 40).clone()
    marked = level.clone()
    marked[:, 0, 18:21] = 1
    still = Augmentation(50, degrees=20, shift=0.2, zoom=0.1, gamma=0)
    assert torch.allclose(still.views(level, "a"), level.expand(51, -1, -1, -1), atol=1e-5)
    corners = still.views(marked, "a")[:, :, [0, -1, -1], [0, 0, -1]]
    assert torch.allclose(corners, level[:, 0, 0][None, :, None].expand_as(corners), atol=1e-5)


def test_values_stay_in_range_and_fine_texture_is_kept() -> None:
    torch.manual_seed(0)
    noise = torch.zeros(3, 64, 64)
    noise[:] = torch.nn.functional.avg_pool2d(torch.rand(1, 65, 65), 2, 1) * 2 - 1
    augmentation = Augmentation(30, gamma=0)
    views = augmentation.views(noise, "a")
    assert views.min() >= -1
    assert views.max() <= 1
    inner = views[:, 0, 12:-12, 12:-12]
    kept = inner.diff(dim=-1)[1:].pow(2).mean() / inner[0].diff(dim=-1).pow(2).mean()
    blurred = affine(noise, 3.0, [1.4, 0.7], 1.02, [0.0, 0.0], interpolation=2)[0, 12:-12, 12:-12]  # bilinear
    assert kept > 0.85
    assert kept > 1.2 * blurred.diff(dim=-1).pow(2).mean() / inner[0].diff(dim=-1).pow(2).mean()


def test_two_visits_of_a_subject_move_alike() -> None:
    visits = [Record(Path(f"{n}.png"), subject="s01", key=f"a/{n}.png") for n in (1, 2)]
    alone = Record(Path("3.png"), key="a/3.png")
    assert [draw_key(record) for record in (*visits, alone)] == ["s01", "s01", "a/3.png"]
    before, after = (
        Augmentation(count=8, gamma=0.0).views(blob(level=level), draw_key(visit))
        for level, visit in zip((1.6, 0.8), visits, strict=True)
    )
    assert torch.allclose(before + 1, 2 * (after + 1), atol=1e-4)
    assert math.dist(*centres(before)[:2].tolist()) > 0.1


def test_the_fingerprint_tells_all_that_changes_a_view() -> None:
    settings: list[dict[str, Any]] = [{}, {"flip": True}, {"count": 2}, {"count": 3}, {"count": 2, "flip": True}]
    settings += [{"count": 2, name: 0.01} for name in STILL]
    assert len({Augmentation(**own).fingerprint() for own in settings}) == len(settings)
    assert Augmentation(degrees=1.0, gamma=0.5).fingerprint() == Augmentation().fingerprint() == "flip=False"
    assert f"version={VERSION}" in Augmentation(count=2).fingerprint()
    assert Augmentation(count=2, degrees=4).fingerprint() == Augmentation(count=2).fingerprint()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": -1}, "count is -1"),
        ({"count": 1.5}, "count is 1.5"),
        ({"degrees": 90.0}, "degrees is 90.0; it must be from 0 to 45"),
        ({"shift": -0.1}, "shift is -0.1"),
        ({"zoom": float("nan")}, "zoom is nan"),
        ({"gamma": float("inf")}, "gamma is inf"),
        ({"count": 2, **STILL}, "2 augmented views .* would be copies. Raise one"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Augmentation(**settings)


@pytest.mark.parametrize(
    ("caption", "word"),
    [
        ("an MRI, atrophy of the LEFT hippocampus", "LEFT"),
        ("a brain, right-sided stroke", "right"),
        ("finding_left_lobe", "left"),
        ("arteria carotis interna dextra", "dextra"),
        ("sinister", "sinister"),
        ("a radiograph of a normal chest", "radiogra"),
        ("a medical image, Pneumothorax", "thorax"),
        ("a picture taken by X-ray", "X-ray"),
        ("chest", "chest"),
        ("two lungs", "lungs"),
        ("an enlarged heart", "heart"),
        ("a medical image, Cardiomegaly", "Cardiome"),
    ],
)
def test_a_mirror_image_that_would_make_a_caption_untrue_is_refused(caption: str, word: str) -> None:
    captions = ["a brain", caption, "a brain"]
    check_flip(captions, flip=False)
    with pytest.raises(ConfigurationError) as caught:
        check_flip(captions, flip=True)
    assert repr(caption) in str(caught.value)
    assert repr(word) in str(caught.value)
    assert "Leave --flip out" in str(caught.value)


def test_captions_without_sides_or_chests_may_be_mirrored() -> None:
    check_flip(
        ["an MRI of a mildly demented brain, age 71", "a bright plunge, chestnut, dextrose, upright", ""], flip=True
    )
