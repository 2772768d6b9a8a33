from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from latentdrift.data import Cohort, ImageTransform
from latentdrift.errors import DataError, TrainingError
from latentdrift.finetune import LatentCache
from latentdrift.finetune.augment import Augmentation
from latentdrift.models import pipeline_fingerprint
from tests.conftest import build_vae

TRANSFORM = ImageTransform(size=32)


class CountingEncoder:
    """An autoencoder that counts the images it is given, and how many at once."""

    def __init__(self, vae: Any) -> None:
        self.vae, self.images, self.most = vae, 0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.vae, name)

    def encode(self, images: torch.Tensor) -> Any:
        self.images += len(images)
        self.most = max(self.most, len(images))
        return self.vae.encode(images)


@pytest.fixture
def vae() -> CountingEncoder:
    torch.manual_seed(0)
    return CountingEncoder(build_vae())


@pytest.fixture
def folder(toy_cohort: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_cohort, tmp_path / "slices"))


def build(folder: Path, vae: Any, **settings: Any) -> LatentCache:
    settings = {"transform": TRANSFORM, **settings}
    cohort = Cohort.open(folder)[:10]
    return LatentCache.build(cohort, vae=vae, folder=folder.parent / "cache", batch_size=4, **settings)


def posterior(vae: Any, folder: Path, index: int) -> Any:
    image = TRANSFORM.read(Cohort.open(folder)[index].image)
    with torch.no_grad():
        return vae.vae.encode(image[None]).latent_dist


def test_latents_are_drawn_from_the_samples_own_posterior(folder: Path, vae: CountingEncoder) -> None:
    cache = build(folder, vae)
    assert len(cache) == 10
    assert cache.shape == (4, 8, 8)
    own = posterior(vae, folder, 7)
    drawn = cache.draw(torch.full((4000,), 7), torch.Generator().manual_seed(0)) / 0.9
    assert (drawn[0] != drawn[1]).any()
    z = (drawn.mean(0) - own.mean[0]) / own.std[0] * 4000**0.5
    assert z.abs().max() < 5
    assert torch.allclose(drawn.std(0), own.std[0], rtol=0.1)


def test_rows_belong_to_samples_and_draws_to_the_generator(folder: Path, vae: CountingEncoder) -> None:
    cache = build(folder, vae)
    means = torch.cat(list(cache.means(batch_size=3)))
    for index in (0, 4, 9):
        assert torch.allclose(means[index], posterior(vae, folder, index).mean[0] * 0.9, atol=1e-4)
    first, again, other = (cache.draw(torch.tensor([3, 1]), torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    noise = torch.Generator().manual_seed(0)
    torch.randint(1, (2,), generator=noise)
    expected = means[[3, 1]] + 0.9 * torch.stack([posterior(vae, folder, i).std[0] for i in (3, 1)]) * torch.randn(
        2, 4, 8, 8, generator=noise
    )
    assert torch.allclose(first, expected, atol=1e-4)


def test_a_shift_is_taken_off_before_scaling(folder: Path, vae: CountingEncoder) -> None:
    plain = build(folder, vae)
    shifted = LatentCache(plain.path, 0.5, 0.25)
    pairs = zip(plain.means(), shifted.means(), strict=True)
    assert all(torch.allclose((a / 0.9 - 0.25) * 0.5, b, atol=1e-6) for a, b in pairs)


def test_the_second_build_encodes_nothing(folder: Path, vae: CountingEncoder) -> None:
    told: list[tuple[int, int]] = []
    first = build(folder, vae, progress=lambda *done: told.append(done))
    assert vae.images == 10
    assert told == [(4, 10), (8, 10), (10, 10)]
    again = build(folder, vae, progress=lambda *done: told.append(done))
    assert vae.images == 10
    assert told[3:] == [(10, 10)]
    assert again.path == first.path
    assert [path.name for path in first.path.parent.iterdir()] == [first.path.name]


def test_another_content_is_another_cache(folder: Path, vae: CountingEncoder) -> None:
    paths = {build(folder, vae).path}
    image = Cohort.open(folder)[2].image
    pixels = np.asarray(Image.open(image)).copy()
    pixels[16, 16] ^= 255
    Image.fromarray(pixels).save(image)
    paths.add(build(folder, vae).path)
    paths.add(build(folder, vae, transform=ImageTransform(size=32, fit="crop")).path)
    paths.add(build(folder, vae, augmentation=Augmentation(flip=True)).path)
    paths.add(build(folder, vae, augmentation=Augmentation(count=1)).path)
    paths.add(build(folder, vae, augmentation=Augmentation(count=1, degrees=3.0)).path)
    with torch.no_grad():
        vae.vae.encoder.conv_in.weight[0, 0, 0, 0] += 1e-3
    paths.add(build(folder, vae).path)
    assert len(paths) == 7
    assert vae.images == 10 * 10


def test_mirror_images_are_drawn_as_often(folder: Path, vae: CountingEncoder) -> None:
    cache = build(folder, vae, augmentation=Augmentation(flip=True))
    image = TRANSFORM.read(Cohort.open(folder)[5].image)
    with torch.no_grad():
        views = [vae.vae.encode(view[None]).latent_dist.mean[0] * 0.9 for view in (image, image.flip(-1))]
    drawn = cache.draw(torch.full((400,), 5), torch.Generator().manual_seed(0))
    closer = [(latent - views[0]).norm() < (latent - views[1]).norm() for latent in drawn]
    assert (views[0] - views[1]).norm() > 0.1
    assert 120 < sum(map(bool, closer)) < 280


@pytest.mark.parametrize("error", [KeyboardInterrupt, DataError("a damaged image"), OSError(28, "No space left")])
def test_an_interrupted_build_leaves_nothing(
    folder: Path, vae: CountingEncoder, monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    encode = vae.encode

    def fail(images: torch.Tensor) -> Any:
        if vae.images >= 8:
            raise error
        return encode(images)

    monkeypatch.setattr(vae, "encode", fail)
    expected = TrainingError if isinstance(error, OSError) else error if isinstance(error, type) else type(error)
    with pytest.raises(expected):
        build(folder, vae)
    assert list((folder.parent / "cache").iterdir()) == []
    monkeypatch.undo()
    assert len(build(folder, vae)) == 10


def test_a_full_disk_is_explained(folder: Path, vae: CountingEncoder, tmp_path: Path) -> None:
    (folder.parent / "cache").write_text("a file where the folder should be")
    with pytest.raises(TrainingError, match=r"cannot be kept in .*cache: .* choose another --cache"):
        build(folder, vae)


def test_a_cache_cut_short_is_made_anew(folder: Path, vae: CountingEncoder) -> None:
    path = build(folder, vae).path
    path.write_bytes(path.read_bytes()[:-100])
    assert len(build(folder, vae)) == 10
    assert vae.images == 20


def test_the_file_is_mapped_and_not_read(folder: Path, vae: CountingEncoder) -> None:
    cache = build(folder, vae)
    assert isinstance(cache._rows, np.memmap)
    assert cache._rows.dtype == np.float32
    assert cache.path.stat().st_size == 10 * 2 * 4 * 8 * 8 * 4 + 128
    assert np.load(cache.path).shape == (10, 1, 2, 4, 8, 8)


@pytest.mark.parametrize("flip", [False, True])
def test_without_drawn_views_the_files_name_is_that_of_older_caches(
    folder: Path, vae: CountingEncoder, flip: bool
) -> None:
    key = hashlib.sha256()
    for part in (vae.vae.encoder, vae.vae.quant_conv):
        key.update(pipeline_fingerprint(part).encode())
    key.update(f"{TRANSFORM.fingerprint()} flip={flip}".encode())
    for record in Cohort.open(folder)[:10]:
        key.update(record.content_hash().encode())
    named = build(folder, vae, augmentation=Augmentation(flip=flip)).path.name
    assert named == f"latents-{key.hexdigest()[:24]}.npy"


def test_every_view_is_encoded_as_the_subject_draws_it(folder: Path, vae: CountingEncoder) -> None:
    told: list[tuple[int, int]] = []
    augmentation = Augmentation(count=2)
    cohort = Cohort.open(folder)[:10]
    cache = LatentCache.build(
        cohort,
        TRANSFORM,
        vae,
        folder.parent / "cache",
        augmentation=augmentation,
        batch_size=13,
        progress=lambda *done: told.append(done),
    )
    assert np.load(cache.path).shape == (10, 3, 2, 4, 8, 8)
    assert told == [(4, 10), (8, 10), (10, 10)]
    assert vae.images == 30
    assert vae.most == 4
    for index, record in enumerate(cohort):
        assert record.subject is not None
        views = augmentation.views(TRANSFORM.read(record.image), record.subject)
        with torch.no_grad():
            found = vae.vae.encode(views).latent_dist
        assert np.allclose(cache._rows[index], torch.stack([found.mean, found.std], 1), atol=1e-4)
    means = torch.cat(list(cache.means(batch_size=4)))
    assert torch.equal(means, torch.from_numpy(np.array(cache._rows[:, :, 0])).flatten(0, 1) * 0.9)


def test_more_views_than_a_batch_holds_are_encoded_all_the_same(folder: Path, vae: CountingEncoder) -> None:
    told: list[tuple[int, int]] = []
    cache = build(folder, vae, augmentation=Augmentation(count=5), progress=lambda *done: told.append(done))
    assert np.load(cache.path).shape[:2] == (10, 6)
    assert told == [(done, 10) for done in range(1, 11)]


def test_a_pair_is_drawn_from_one_view(folder: Path, vae: CountingEncoder) -> None:
    plain = build(folder, vae, augmentation=Augmentation(count=2, flip=True))
    cache = LatentCache(plain.path, 0.5, 0.25)
    sources, targets = torch.randint(10, (2, 200), generator=torch.Generator().manual_seed(1))
    latents, modes = cache.draw_pairs(sources, targets, torch.Generator().manual_seed(0))
    assert latents.shape == modes.shape == (200, 4, 8, 8)
    rows = torch.from_numpy(np.array(cache._rows))
    distance = (rows[sources, :, 0] - modes[:, None]).abs().amax((2, 3, 4))
    views = distance.argmin(1)
    assert (distance.min(1).values == 0).all()
    assert torch.bincount(views, minlength=6).min() > 10
    own = rows[targets, views]
    z = (latents / 0.5 + 0.25 - own[:, 0]) / own[:, 1]
    assert abs(float(z.mean())) < 0.05
    assert abs(float(z.std()) - 1) < 0.05
    again = cache.draw(targets, torch.Generator().manual_seed(0))
    assert torch.equal(latents, again)
    other, _ = cache.draw_pairs(sources, targets, torch.Generator().manual_seed(2))
    assert not torch.equal(latents, other)


def test_modes_are_the_images_own_means_unscaled(folder: Path, vae: CountingEncoder) -> None:
    plain = build(folder, vae, augmentation=Augmentation(count=2))
    cache = LatentCache(plain.path, 0.5, 0.25)
    modes = cache.modes(torch.tensor([7, 2, 7]))
    assert modes.shape == (3, 4, 8, 8)
    for mode, index in zip(modes, (7, 2, 7), strict=True):
        assert torch.allclose(mode, posterior(vae, folder, index).mode()[0], atol=1e-4)
    modes += 1
    assert torch.equal(cache.modes(torch.tensor([7])) + 1, modes[:1])
