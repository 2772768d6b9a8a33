"""Privacy figures against closed forms, references and simulation; planted copies are found, fresh images are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist
from skimage.metrics import structural_similarity
from sklearn.metrics import roc_auc_score

from latentdrift.errors import ConfigurationError, EvaluationError
from latentdrift.evaluate.privacy import (
    Looks,
    NearestConfig,
    copy_figures,
    distance_attack,
    loss_attack,
    measure_figures,
    membership_auc,
    nearer_share,
    nearest,
    nearest_images,
    nearest_neighbours,
)
from latentdrift.evaluate.privacy.copies import local_scale
from latentdrift.evaluate.privacy.findings import verdict
from latentdrift.evaluate.privacy.nearest import shifted_rms

SIDE = 48


def scans(people: range, visits: int = 1) -> Looks:
    """Smooth random images; visits of a person differ a little."""
    pixels, subjects = [], []
    for person in people:
        own = gaussian_filter(np.random.default_rng(person).standard_normal((SIDE, SIDE)), 4)
        for visit in range(visits):
            noise = np.random.default_rng(10_000 + 10 * person + visit).standard_normal((SIDE, SIDE))
            pixels.append(np.clip(128 + 40 * own / own.std() + 3 * noise, 0, 255))
            subjects.append(f"p{person}")
    names = [f"{who}-{i}" for i, who in enumerate(subjects)]
    return Looks(np.array(pixels).round().astype(np.uint8), None, names, subjects)


def levels(*values: int, subjects: tuple[str, ...] = ()) -> Looks:
    """Images of one gray level each: their RMS distance is the difference of levels."""
    return Looks(np.array(values, dtype=np.uint8)[:, None, None].repeat(20, 1).repeat(20, 2), subjects=subjects)


def noisy(pixels: np.ndarray, deviation: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(pixels.shape)
    return np.clip(pixels + deviation * noise, 0, 255).round().astype(np.uint8)


def test_neighbours_are_those_of_all_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "CHUNK", 7)
    monkeypatch.setattr(nearest, "ENTRIES", 100)
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((12, 5)) + 1000, rng.standard_normal((30, 5)) + 1000
    a, b = a.astype(np.float32), b.astype(np.float32)
    b[20] = b[3] = a[4]
    found = nearest_neighbours(a, b, 9)
    distances = cdist(a, b)
    np.testing.assert_allclose(found.distance, np.sort(distances, 1)[:, :9], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(np.take_along_axis(distances, found.index, 1), found.distance, rtol=1e-9, atol=1e-12)
    assert found.index[4, :2].tolist() == [3, 20]
    assert found.distance[4, :2].tolist() == [0.0, 0.0]
    assert nearest_neighbours(a, b[:4], 9).index.shape == (12, 4)


def test_a_shift_is_undone() -> None:
    image = scans(range(1)).pixels
    moved = np.roll(image, (2, -1), (1, 2))
    rms, shift = shifted_rms(image, moved, 3)
    assert rms.tolist() == [0.0]
    assert shift.tolist() == [[2, -1]]
    dimmer = (image.astype(int) - 7).clip(0).astype(np.uint8)
    assert image.min() >= 7
    rms, shift = shifted_rms(image, dimmer, 0)
    assert rms == pytest.approx(7.0)
    assert shift.tolist() == [[0, 0]]


def test_nearest_by_every_measure_is_that_of_independent_functions() -> None:
    training, queries = scans(range(15)), scans(range(20, 24))
    config = NearestConfig(candidates=15, shift=0, finalists=15)
    found = nearest_images(queries, training, config).by
    rms = cdist(queries.flat().astype(float), training.flat().astype(float)) / SIDE
    for name in ("pixel", "shifted"):
        np.testing.assert_allclose(found[name].distance, rms.min(1), rtol=1e-6)
        assert found[name].index.tolist() == rms.argmin(1).tolist()
    options: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    alike = np.array(
        [[structural_similarity(a, b, data_range=255, **options) for b in training.pixels] for a in queries.pixels]
    )
    np.testing.assert_allclose(found["ssim"].distance, 1 - alike.max(1), rtol=1e-6)
    assert found["ssim"].index.tolist() == alike.argmax(1).tolist()
    assert "feature" not in found


def test_features_bring_candidates_of_their_own() -> None:
    # Noise that has moved is far from itself; plain gray is nearer.
    training = Looks(np.random.default_rng(0).integers(0, 256, (12, SIDE, SIDE)).astype(np.uint8))
    training.pixels[0] = 128
    features = np.eye(12, dtype=np.float32)
    moved = np.roll(training.pixels[3:4], (0, 3), (1, 2))
    by_pixels = nearest_images(Looks(moved), training, NearestConfig(candidates=1)).by
    assert by_pixels["shifted"].index.tolist() == [0]
    found = nearest_images(
        Looks(moved, features[3:4] * 0.9), Looks(training.pixels, features), NearestConfig(candidates=1)
    ).by
    assert found["feature"].index.tolist() == found["shifted"].index.tolist() == found["ssim"].index.tolist() == [3]
    assert found["feature"].distance == pytest.approx(0.1)
    assert (found["shifted"].distance[0], found["ssim"].distance[0]) == (0.0, pytest.approx(0.0, abs=1e-12))


def test_share_by_hand() -> None:
    share = nearer_share([0, 1, 2.5, 50], np.arange(1, 101), None, 3.0, resamples=50)
    assert share.threshold == 3.0  # the third smallest of a hundred
    assert share.value == 0.75
    assert share.expected == pytest.approx(3 / 101)
    assert share.interval.low <= 0.75 <= share.interval.high
    # A set against itself is never nearer than its own percentile says.
    itself = nearer_share(np.arange(1, 101), np.arange(1, 101), None, 5.0, resamples=50)
    assert itself.value == 0.04
    assert itself.p_value > 0.5
    # None of three is below the smaller of two where the smallest of all five is one of the two.
    p = nearer_share([0.0, 2.0, 2.0], [1.0, 1.0], ["a", "b"], 50.0, resamples=50)
    assert p.value == pytest.approx(1 / 3)
    assert p.p_value == pytest.approx(1 - 2 / 5)


@pytest.mark.parametrize("images", [1, 4])
def test_false_alarms_are_as_rare_as_the_p_value_says(images: int) -> None:
    """Twelve held-out people with one or four images each, and synthetic images as distant as theirs."""
    alarms = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        person = rng.standard_normal(12).repeat(images)
        own = 0.9 * person + np.sqrt(1 - 0.81) * rng.standard_normal(12 * images) if images > 1 else person
        share = nearer_share(rng.standard_normal(60), own, np.arange(12).repeat(images).tolist(), 5.0, resamples=10)
        alarms += share.p_value < 0.05
    assert alarms <= 16  # of 200 at 5 %, this is exceeded in 2 of 100 cases
    assert images > 1 or alarms >= 2


def test_scale_is_the_mean_distance_to_neighbours_of_others() -> None:
    training = levels(0, 2, 10, 30, 60, subjects=("a", "a", "b", "c", "d"))
    rows = np.array([0, 2])
    assert local_scale(training, rows, "pixel", 2).tolist() == pytest.approx([(10 + 30) / 2, (8 + 10) / 2])
    assert local_scale(training, rows, "pixel", 50).tolist() == pytest.approx([100 / 3, (8 + 10 + 20 + 50) / 4])
    with pytest.raises(EvaluationError, match="one subject"):
        local_scale(levels(0, 1, subjects=("a", "a")), rows[:1], "pixel")


def test_ratio_by_hand() -> None:
    training = levels(0, 40, 80, 160)
    found = nearest_images(levels(5, 50), training, NearestConfig(shift=1))
    held_out = nearest_images(levels(100), training, NearestConfig(shift=1))
    (figures,) = copy_figures(found, held_out, training, neighbours=1)
    assert figures.ratios.tolist() == pytest.approx([5 / 40, 10 / 40])
    assert figures.held_out_ratios.tolist() == pytest.approx([20 / 40])
    assert figures.copies.tolist() == [0, 1]
    assert (figures.subjects, figures.false_alarms, figures.beyond_chance) == (2, 0, 1)


def test_planted_copies_are_found_and_fresh_images_are_not() -> None:
    training, held_out, fresh = scans(range(40), 2), scans(range(100, 130)), scans(range(200, 240))
    chosen = training.pixels[[0, 10, 20]]
    planted = np.concatenate([chosen, np.roll(chosen, (2, 3), (1, 2)), noisy(chosen, 8), fresh.pixels])
    found, baseline = nearest_images(Looks(planted), training), nearest_images(held_out, training)
    (copies,) = copy_figures(found, baseline, training)
    assert sorted(copies.copies.tolist()) == list(range(9))
    assert found.by["shifted"].index[:9].tolist() == [0, 10, 20] * 3
    assert copies.ratios[:6].tolist() == [0.0] * 6
    assert copies.subjects == 3
    assert copies.false_alarms == 0
    assert copies.beyond_chance == 9
    figures = {one.measure: one for one in measure_figures(found, baseline, held_out.people(), resamples=100)}
    assert figures["shifted"].shares[0].value >= 9 / 49
    assert figures["ssim"].shares[0].value >= 9 / 49
    assert figures["shifted"].shares[0].p_value < 0.01
    # A shift lifts a copy's plain distance, and that alone.
    assert found.by["pixel"].distance[3:6].min() > 10
    assert found.by["shifted"].distance[3:6].max() == found.by["ssim"].distance[3:6].max().round(9) == 0
    alone = nearest_images(fresh, training)
    (none,) = copy_figures(alone, baseline, training)
    assert none.copies.size == 0
    clean = measure_figures(alone, baseline, held_out.people(), resamples=100)
    assert all(share.p_value > 0.01 for one in clean for share in one.shares)
    assert verdict(clean, [none], [])[0].startswith("no sign of memory")
    assert verdict(list(figures.values()), [copies], [])[0].startswith("memory of training images: 9 copies by pixels")
    json.dumps([one.to_dict() for one in (*clean, none, copies)])


def test_simulated_people_are_strangers_and_copies_of_them_are_not(tmp_path: Path) -> None:
    from latentdrift.data.simulate import simulate_cohort
    from latentdrift.evaluate.privacy import read_looks

    cohort = simulate_cohort(tmp_path / "chests", 60, size=SIDE, kind="chest", truth=False)
    looks = read_looks([r.image for r in cohort], SIDE, subjects=[r.subject for r in cohort])
    training, held_out, fresh = (looks.part(np.arange(a, b)) for a, b in ((0, 30), (30, 45), (45, 60)))
    baseline, alone = nearest_images(held_out, training), nearest_images(fresh, training)
    (copies,) = copy_figures(alone, baseline, training)
    assert (copies.beyond_chance, copies.false_alarms) == (0, 0)
    shares = [s for one in measure_figures(alone, baseline, held_out.people(), resamples=50) for s in one.shares]
    assert min(s.p_value for s in shares) > 0.01
    estimate = distance_attack(training, held_out, fresh).auc
    assert estimate.interval.low < 0.5 < estimate.interval.high
    copied = Looks(noisy(training.pixels, 4))
    (copies,) = copy_figures(nearest_images(copied, training), baseline, training)
    assert (len(copies.copies), copies.subjects) == (30, 30)
    assert distance_attack(training, held_out, copied).auc.value == 1.0


def test_membership_is_the_area_of_sklearn() -> None:
    rng = np.random.default_rng(0)
    inside, outside = rng.integers(0, 9, 40) + 1, rng.integers(0, 9, 25)
    estimate = membership_auc(inside, outside)
    truth = np.r_[np.ones(40), np.zeros(25)]
    assert estimate.value == pytest.approx(roc_auc_score(truth, np.r_[inside, outside]))
    assert estimate.n == 65
    wide = membership_auc(inside, outside, list(np.arange(40) // 8), [f"h{i // 5}" for i in range(25)])
    assert wide.value == estimate.value
    assert wide.n == 10


def test_who_was_not_in_the_training_is_not_told_apart() -> None:
    everybody = scans(range(60), 2)
    first, second = everybody.part(np.arange(0, 60)), everybody.part(np.arange(60, 120))
    estimate = distance_attack(first, second, scans(range(300, 340))).auc
    assert abs(estimate.value - 0.5) < 0.15
    assert estimate.interval.low < 0.5 < estimate.interval.high
    attack = distance_attack(first, second, Looks(noisy(first.pixels, 10)))
    assert attack.auc.value > 0.99
    assert attack.to_dict()["subjects"] == 60


def test_losses_are_averaged_on_one_scale() -> None:
    rng = np.random.default_rng(1)
    inside, outside = rng.standard_normal((200, 2)), rng.standard_normal((200, 2))
    inside[:, 0] -= 3  # the first timestep remembers
    scaled = [part * [1, 1000] + [0, 50] for part in (inside, outside)]
    attack, same = loss_attack(*scaled, [50, 500]), loss_attack(inside, outside, [50, 500])
    assert attack.auc.value == pytest.approx(same.auc.value)
    assert attack.parts["timestep 50"] == pytest.approx(
        roc_auc_score(np.r_[np.ones(200), np.zeros(200)], -np.r_[inside[:, 0], outside[:, 0]])
    )
    assert abs(attack.parts["timestep 500"] - 0.5) < 0.1


@pytest.mark.parametrize("kind", ["toy_model", "toy_velocity_model", "toy_run"])
def test_losses_are_those_of_the_training(kind: str, request: pytest.FixtureRequest) -> None:
    from latentdrift.drift import drift_of
    from latentdrift.evaluate.privacy.losses import LossConfig, denoising_losses
    from latentdrift.finetune.batch import Batch
    from latentdrift.finetune.denoiser import Denoiser
    from latentdrift.finetune.objective import denoising_loss
    from latentdrift.finetune.schedules import noise_schedule
    from latentdrift.models import encode_prompts, load_pipeline

    pipeline = load_pipeline(request.getfixturevalue(kind), device="cpu")
    assert (drift_of(pipeline) is not None) == (kind == "toy_run")
    latents = torch.randn((3, 4, 8, 8), generator=torch.Generator().manual_seed(3))
    captions = ["a slice, old", "a slice", "a slice, old"]
    config = LossConfig(levels=(0.1, 0.5), noises=1, batch_size=2, seed=4)
    found = denoising_losses(pipeline, latents, captions, config)
    noise = torch.randn((2, 1, 4, 8, 8), generator=torch.Generator().manual_seed(4))
    conditioning = encode_prompts(pipeline, captions)
    schedule = noise_schedule(pipeline.scheduler, drift_of(pipeline))
    for column, timestep in enumerate((100, 500)):
        for row in range(3):
            batch = Batch(latents[row : row + 1], conditioning[[row]], noise[column], torch.tensor([timestep]))
            with torch.no_grad():
                loss = float(denoising_loss(Denoiser(pipeline), schedule, batch))
            assert found[row, column] == pytest.approx(loss, rel=1e-4)


def test_an_overfitted_model_gives_its_members_away(toy_model: Path) -> None:
    from latentdrift.evaluate.privacy.losses import LossConfig, denoising_losses
    from latentdrift.models import encode_prompts, load_pipeline

    torch.manual_seed(0)
    pipeline = load_pipeline(toy_model, device="cpu", drift=None)
    latents = torch.randn((48, 4, 8, 8))
    members, others = latents[:2], latents[2:]
    config = LossConfig(levels=(0.4, 0.6), noises=2, batch_size=64)
    before = loss_attack(
        *(denoising_losses(pipeline, part, [""] * len(part), config) for part in (latents[:24], latents[24:])),
        [400, 600],
    )
    assert before.auc.interval.low < 0.5 < before.auc.interval.high
    unet, text = pipeline.unet.train(), encode_prompts(pipeline, [""]).hidden
    optimizer = torch.optim.Adam(unet.parameters(), lr=3e-3)
    for _ in range(100):
        clean, noise, at = members.repeat(4, 1, 1, 1), torch.randn((8, 4, 8, 8)), torch.randint(300, 700, (8,))
        noised = pipeline.scheduler.add_noise(clean, noise, at)
        loss = (unet(noised, at, text.expand(8, -1, -1)).sample - noise).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    unet.eval()
    losses = [denoising_losses(pipeline, part, [""] * len(part), config) for part in (members, others)]
    attack = loss_attack(*losses, [400, 600])
    assert attack.auc.value > 0.97
    assert attack.to_dict()["members"] == 2


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Looks(np.zeros((2, 3))), r"shape \(2, 3\)"),
        (lambda: Looks(levels(1, 2).pixels, np.full((2, 3), np.nan, np.float32)), "the first is image 0"),
        (lambda: Looks(levels(1, 2).pixels, subjects=["a"]), "1 subjects for 2 images"),
        (lambda: nearest_neighbours(np.zeros((2, 3)), np.zeros((2, 4)), 1), "cannot be compared"),
        (lambda: nearest_images(levels(1), scans(range(2))), "at one size"),
        (lambda: nearest_images(levels(1), levels(1, 2), NearestConfig(shift=6)), "too small for a shift of 6"),
        (lambda: nearest_images(Looks(levels(1).pixels, np.ones((1, 2), np.float32)), levels(1)), "Only one"),
        (lambda: NearestConfig(candidates=0), "candidates is 0"),
        (lambda: nearer_share([1.0], [1.0, 2.0], ["a", "a"]), "of one subject"),
        (lambda: nearer_share([np.nan], [1.0, 2.0]), "synthetic distances"),
        (lambda: nearer_share([1.0], [1.0, 2.0], None, 0.0), "percentile is 0.0"),
        (lambda: membership_auc([], [1.0]), "scores of the members"),
        (lambda: distance_attack(levels(1), levels(2), levels(3), "feature"), "no features"),
        (lambda: loss_attack(np.ones((2, 3)), np.ones((2, 3)), [1]), "for 1 timesteps"),
    ],
)
def test_what_cannot_be_is_refused(call: Any, says: str) -> None:
    with pytest.raises(EvaluationError, match=says):
        call()


def test_a_model_that_edits_is_refused(toy_model: Path) -> None:
    from latentdrift.evaluate.privacy.losses import LossConfig, denoising_losses
    from latentdrift.models import load_pipeline

    pipeline = load_pipeline(toy_model, device="cpu")
    with pytest.raises(EvaluationError, match="2 images and 1 captions"):
        denoising_losses(pipeline, torch.zeros(2, 4, 8, 8), ["a"])
    with pytest.raises(EvaluationError, match="shares between 0 and 1"):
        LossConfig(levels=(100,))
    pipeline.unet.register_to_config(in_channels=8)
    with pytest.raises(ConfigurationError, match="by instruction"):
        denoising_losses(pipeline, torch.zeros(1, 4, 8, 8), ["a"])


def test_a_few_people_told_apart_are_no_proof() -> None:
    perfect = membership_auc([0.9, 0.8, 0.7], [0.1, 0.2])
    assert perfect.value == 1.0
    assert perfect.interval.low < 0.5
    alarms = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        alarms += membership_auc(rng.normal(size=30), rng.normal(size=6)).interval.low > 0.5
    assert alarms <= 12
    with pytest.raises(EvaluationError, match="The held-out images are of one subject"):
        membership_auc([1.0, 2.0], [1.0, 2.0], None, ["a", "a"])
