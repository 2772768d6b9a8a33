from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from latentdrift.errors import EvaluationError
from latentdrift.evaluate import evaluate_sets
from latentdrift.evaluate.feature_cache import FeatureCache, default_cache_folder, network_fingerprint
from latentdrift.evaluate.features import FeatureExtractor


class Counting(FeatureExtractor):
    """A linear network of 4 x 4 means that counts the images it sees."""

    name = "counting:of/means"
    dim = 8

    @classmethod
    def available(cls) -> bool:
        return True

    def _load(self, weights: Path | None) -> torch.nn.Module:
        self.seen = 0
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, 8))

    def _features(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += len(images)
        return self.network(images.float() / 255)


def images(count: int, seed: int, size: int = 16) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), generator=draw, dtype=torch.uint8)


@pytest.fixture
def network() -> Counting:
    return Counting()


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_second_call_needs_no_network(network: Counting, tmp_path: Path) -> None:
    real, first, second = images(12, 1), images(11, 2), images(11, 3)
    plain = evaluate_sets(real, first, network, resamples=0)
    network.seen = 0
    assert evaluate_sets(real, first, network, resamples=0, cache=tmp_path) == plain
    assert network.seen == 23
    assert len(files(tmp_path)) == 2
    again = evaluate_sets(real, first, network, resamples=0, cache=tmp_path)
    assert again == plain
    assert again.from_cache == 23
    assert network.seen == 23
    # Other synthetic images: the real ones are not computed again, in whatever order.
    other = evaluate_sets(real.flip(0), second, network, resamples=0, cache=FeatureCache(tmp_path))
    assert network.seen == 34
    assert other.from_cache == 12
    assert other.fid == pytest.approx(evaluate_sets(real, second, network, resamples=0).fid)


def test_only_new_images_are_computed_and_equal_ones_once(network: Counting, tmp_path: Path) -> None:
    real = images(12, 1)
    evaluate_sets(real[:8], images(8, 2), network, resamples=0, cache=tmp_path)
    network.seen = 0
    more = torch.cat([real, real[9:10]])
    found = evaluate_sets(more, images(8, 2), network, resamples=0, cache=tmp_path)
    assert network.seen == 4
    assert found.fid == pytest.approx(evaluate_sets(more, images(8, 2), network, resamples=0).fid)


def test_another_network_or_size_is_another_matter(network: Counting, tmp_path: Path) -> None:
    real, made = images(6, 1), images(6, 2)
    evaluate_sets(real, made, network, resamples=0, cache=tmp_path)
    before = network_fingerprint(network)
    assert network_fingerprint(Counting()) == before
    with torch.no_grad():
        network.network[2].bias += 1e-3  # type: ignore[index, operator]
    assert network_fingerprint(network) != before
    network.seen = 0
    assert evaluate_sets(real, made, network, resamples=0, cache=tmp_path).from_cache == 0
    assert network.seen == 12
    # The same bytes in another shape are another image.
    evaluate_sets(real.reshape(6, 3, 8, 32), made.reshape(6, 3, 8, 32), network, resamples=0, cache=tmp_path)
    assert network.seen == 24
    assert len({path.parent for path in files(tmp_path)}) == 3


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "nonsense"])
def test_damaged_files_are_computed_anew(network: Counting, tmp_path: Path, damage: str) -> None:
    real, made = images(6, 1), images(6, 2)
    plain = evaluate_sets(real, made, network, resamples=0, cache=tmp_path)
    path = files(tmp_path)[0]
    content = path.read_bytes()
    flipped = content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]
    harmed = {"cut": content[:-40], "flipped": flipped, "empty": b"", "nonsense": b"no features" * 20}
    path.write_bytes(harmed[damage])
    network.seen = 0
    found = evaluate_sets(real, made, network, resamples=0, cache=tmp_path)
    assert network.seen == 6
    assert found.fid == plain.fid
    told = [text for text in found.warnings if "damaged" in text]
    assert len(told) == 1
    assert str(path) in told[0]
    assert path.read_bytes() == content
    assert evaluate_sets(real, made, network, resamples=0, cache=tmp_path) == plain


def test_a_place_that_cannot_be_written_costs_no_result(network: Counting, tmp_path: Path) -> None:
    real, made = images(6, 1), images(6, 2)
    place = FeatureCache(tmp_path).shelf(network, (16, 16)).folder
    place.write_text("in the way")
    found = evaluate_sets(real, made, network, resamples=0, cache=tmp_path)
    assert found.fid == evaluate_sets(real, made, network, resamples=0).fid
    assert any("could not be kept" in text for text in found.warnings)
    with pytest.raises(EvaluationError, match="is a file; give a folder"):
        FeatureCache(place)


def test_nan_features_are_not_kept(network: Counting, tmp_path: Path) -> None:
    with torch.no_grad():
        network.network[2].bias[0] = torch.nan  # type: ignore[index]
    with pytest.raises(EvaluationError, match="NaN or infinite"):
        evaluate_sets(images(4, 1), images(4, 2), network, resamples=0, cache=tmp_path)
    assert files(tmp_path) == []


def test_files_not_used_for_longest_make_room(network: Counting, tmp_path: Path) -> None:
    evaluate_sets(images(6, 1), images(6, 2), network, resamples=0, cache=tmp_path)
    old, new = files(tmp_path)
    os.utime(old, (1, 1))
    size = old.stat().st_size
    evaluate_sets(images(6, 1).flip(0)[:5], images(6, 3), network, resamples=0, cache=FeatureCache(tmp_path))
    assert len(files(tmp_path)) == 3
    os.utime(old, (1, 1))
    FeatureCache(tmp_path, largest=2 * size).prune()
    left = files(tmp_path)
    assert old not in left
    assert sum(path.stat().st_size for path in left) <= 2 * size
    FeatureCache(tmp_path, largest=0).prune(keep=new)
    assert files(tmp_path) == [new]


def test_where_features_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LATENTDRIFT_CACHE", str(tmp_path / "own"))
    assert default_cache_folder() == tmp_path / "own" / "features"
    monkeypatch.delenv("LATENTDRIFT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache_folder() == tmp_path / "xdg" / "latentdrift" / "features"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert FeatureCache().folder == tmp_path / ".cache" / "latentdrift" / "features"
    assert not FeatureCache().folder.exists()


def test_features_are_those_of_the_network(network: Counting, tmp_path: Path) -> None:
    from latentdrift.evaluate.images import digests

    cache, batch = FeatureCache(tmp_path), images(5, 1)
    for _ in range(2):
        shelf = cache.shelf(network, (16, 16))
        assert np.allclose(shelf.features(batch, digests(batch), 2), Counting()(batch), atol=1e-6)
        shelf.write(cache)
    assert shelf.found == 5
