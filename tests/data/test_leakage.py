from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.fftpack import dct
from scipy.ndimage import gaussian_filter, shift

from latentdrift.data import Cohort, Record
from latentdrift.data import leakage as module
from latentdrift.data.fingerprint import (
    Fingerprints,
    hash_text,
    pairs_above,
    pairs_within,
    perceptual_hash,
    take_fingerprints,
    thumbnail,
    unit_rows,
)
from latentdrift.data.leakage import Criterion, find_leakage, near_duplicate_groups
from latentdrift.errors import ConfigurationError, DataError

SIZE = 96


def pattern(seed: int, width: float = 5.0) -> np.ndarray:
    """A smooth random image, (96, 96) in [0, 1]."""
    image = gaussian_filter(np.random.default_rng(seed).standard_normal((SIZE, SIZE)), width)
    return (image - image.min()) / np.ptp(image)


def save(path: Path, image: np.ndarray, **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(path, **how)
    return path


def cohort(folder: Path, name: str, images: dict[str, Path], subjects: dict[str, str] | None = None) -> Cohort:
    records = [Record(path, (subjects or {}).get(key), key=key) for key, path in images.items()]
    return Cohort(records, folder, name)


@pytest.fixture
def planted(tmp_path: Path) -> dict[str, Cohort]:
    """Twelve images on either side; of four of the first there is another version in the second."""
    first = {f"a{i}.png": save(tmp_path / f"a{i}.png", pattern(i)) for i in range(12)}
    second = {f"b{i}.png": save(tmp_path / f"b{i}.png", pattern(100 + i)) for i in range(8)}
    second["copy.png"] = tmp_path / "copy.png"
    shutil.copy(first["a0.png"], second["copy.png"])
    second["jpeg.jpg"] = save(tmp_path / "jpeg.jpg", pattern(1), quality=60)
    noisy = np.clip(pattern(2) * 0.9 + 0.02 + 0.02 * np.random.default_rng(9).standard_normal((SIZE, SIZE)), 0, 1)
    second["noisy.png"] = save(tmp_path / "noisy.png", noisy)
    small = np.asarray(Image.fromarray(np.rint(pattern(3) * 255).astype(np.uint8)).resize((70, 70))) / 255
    second["small.png"] = save(tmp_path / "small.png", small)
    return {"train": cohort(tmp_path, "train", first), "test": cohort(tmp_path, "test", second)}


EXPECTED = {("a0.png", "copy.png"), ("a1.png", "jpeg.jpg"), ("a2.png", "noisy.png"), ("a3.png", "small.png")}


@pytest.mark.parametrize("radius", [10, 4, None])
def test_versions_of_an_image_are_found_and_no_others(planted: dict[str, Cohort], radius: int | None) -> None:
    report = find_leakage(planted, Criterion(radius))
    (overlap,) = report.overlaps
    assert {(pair.first.key, pair.second.key) for pair in overlap.pairs} == EXPECTED
    assert (overlap.near, overlap.identical, overlap.touched, overlap.images) == (4, 1, (4, 4), (12, 12))
    best = overlap.pairs[0]
    assert (best.first.key, best.second.key, best.identical, best.distance) == ("a0.png", "copy.png", True, 0)
    assert best.correlation == pytest.approx(1, abs=1e-5)
    assert not report.clean
    assert report.verdict() == "leakage: 0 subjects and 4 pairs of near-duplicates are in two parts."
    assert "4 of 12 images of test (33.3%) have a near-duplicate in train (4 pairs)" in overlap.sentence()
    assert "not ruled out" in overlap.sentence()


def test_correlation_is_that_of_the_thumbnails(planted: dict[str, Cohort]) -> None:
    for pair in find_leakage(planted).overlaps[0].pairs:
        looks = []
        for record in (pair.first, pair.second):
            with Image.open(record.image) as file:
                looks.append(np.asarray(file.convert("F").resize((64, 64), Image.Resampling.BOX)).ravel())
        assert pair.correlation == pytest.approx(np.corrcoef(*looks)[0, 1], abs=1e-4)


def test_the_criterion_decides(planted: dict[str, Cohort]) -> None:
    found = find_leakage(planted, Criterion(0, 0.9999)).overlaps[0]
    assert {(pair.first.key, pair.second.key) for pair in found.pairs} == {("a0.png", "copy.png")}
    loose = find_leakage(planted, Criterion(64, -1)).overlaps[0]
    assert loose.near == 144
    assert find_leakage(planted, Criterion(64, -1), listed=7).overlaps[0].pairs == loose.pairs[:7]
    assert {(pair.first.key, pair.second.key) for pair in loose.pairs[:4]} == EXPECTED
    assert "differ in at most 64" in find_leakage(planted, Criterion(64, -1)).method


def test_subjects_in_both_are_found(tmp_path: Path) -> None:
    one = {f"a{i}.png": save(tmp_path / f"a{i}.png", pattern(i)) for i in range(4)}
    two = {f"b{i}.png": save(tmp_path / f"b{i}.png", pattern(50 + i)) for i in range(4)}
    first = cohort(tmp_path, "x", one, {"a0.png": "s1", "a1.png": "s1", "a2.png": "s2", "a3.png": "s3"})
    second = cohort(tmp_path, "y", two, {"b0.png": "s1", "b1.png": "s3", "b2.png": "s4"})
    report = find_leakage({"train": first, "test": second})
    (overlap,) = report.overlaps
    assert overlap.subjects == ("s1", "s3")
    assert overlap.subject_images == (3, 2)
    assert overlap.subjects_unknown == (0, 1)
    assert not report.clean
    assert "2 subjects are in both (s1, s3)" in overlap.sentence()


def test_clean_parts(tmp_path: Path) -> None:
    images = [save(tmp_path / f"{i}.png", pattern(i)) for i in range(9)]
    parts = {
        name: cohort(tmp_path, name, {p.name: p for p in images[k::3]}, {p.name: p.name for p in images})
        for k, name in enumerate(("train", "validation", "test"))
    }
    report = find_leakage(parts)
    assert report.clean
    assert report.verdict() == "clean: no subject and no near-duplicate is in two parts."
    assert [(o.first, o.second) for o in report.overlaps] == [
        ("train", "validation"),
        ("train", "test"),
        ("validation", "test"),
    ]
    assert report.rows() == []
    unknown = {name: cohort(tmp_path, name, {r.key: r.image for r in part}) for name, part in parts.items()}
    assert "subjects are not known" in find_leakage(unknown).verdict()


def test_blank_images_match_only_as_files(tmp_path: Path) -> None:
    gray = np.full((SIZE, SIZE), 0.5)
    first = {"blank.png": save(tmp_path / "blank.png", gray), "a.png": save(tmp_path / "a.png", pattern(0))}
    second = {"darker.png": save(tmp_path / "darker.png", gray / 2), "same.png": save(tmp_path / "same.png", gray)}
    report = find_leakage(
        {"train": cohort(tmp_path, "x", first), "test": cohort(tmp_path, "y", second)}, Criterion(64, -1)
    )
    assert report.blank == {"train": ("blank.png",), "test": ("darker.png", "same.png")}
    (pair,) = report.overlaps[0].pairs
    assert (pair.first.key, pair.second.key, pair.identical) == ("blank.png", "same.png", True)


def test_damaged_images_are_named(tmp_path: Path, planted: dict[str, Cohort]) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    with pytest.raises(DataError, match="bad.png cannot be read"):
        find_leakage({**planted, "more": cohort(tmp_path, "z", {"bad.png": bad})})
    bad.unlink()
    with pytest.raises(DataError, match="bad.png cannot be read: No such file"):
        find_leakage({**planted, "more": cohort(tmp_path, "z", {"bad.png": bad})})


def test_features_replace_the_looks(planted: dict[str, Cohort]) -> None:
    calls = []

    def embed(records: Any) -> np.ndarray:
        calls.append(len(records))
        hues = {"b3.png": 5, "a7.png": 5, "b4.png": 6}
        return np.stack([np.eye(40)[hues.get(r.key, 10 + i)] + 0.5 for i, r in enumerate(records)])

    overlap = find_leakage(planted, Criterion(similarity=0.999), embed=embed).overlaps[0]
    found = {(pair.first.key, pair.second.key) for pair in overlap.pairs}
    assert ("a7.png", "b3.png") in found
    assert ("a0.png", "copy.png") in found  # identical files count whatever the features say
    assert ("a1.png", "jpeg.jpg") not in found
    assert calls == [24]
    assert all(pair.similarity is not None for pair in overlap.pairs)
    with pytest.raises(DataError, match=r"24 images have features of the shape \(3, 2\)"):
        find_leakage(planted, embed=lambda records: np.ones((3, 2)))
    with pytest.raises(DataError, match=r"first those of a2\.png"):
        find_leakage(planted, embed=lambda records: np.where(np.arange(24)[:, None] == 2, np.nan, 1.0))


def test_centred_cosines_tell_apart_what_is_alike_in_the_main() -> None:
    rng = np.random.default_rng(0)
    features = 10 + rng.standard_normal((50, 16))
    rows = unit_rows(features, [str(i) for i in range(50)])
    centred = features - features.mean(0)
    expected = centred @ centred.T / np.outer(*[np.linalg.norm(centred, axis=1)] * 2)
    np.testing.assert_allclose(rows @ rows.T, expected, atol=1e-5)


def test_groups_are_chains_of_neighbours(tmp_path: Path) -> None:
    images = {}
    for subject in range(4):
        whole = pattern(subject, 6)
        for step in range(5):  # slices that move away from the first: neighbours are alike, the ends are not
            moved = shift(whole, (2.0 * step, 0), mode="nearest")
            name = f"{step}-{subject}.png"
            images[name] = save(tmp_path / name, moved)
    whole_cohort = cohort(tmp_path, "slices", images)
    prints = take_fingerprints(list(whole_cohort))
    ends = [prints.thumbnails[i] @ prints.thumbnails[len(images) - 5 + i] for i in range(1)]
    assert max(ends) < 0.9
    numbers = near_duplicate_groups(whole_cohort, Criterion(None, 0.93))
    by_subject: dict[str, set[int]] = {}
    for record, number in zip(whole_cohort, numbers, strict=True):
        by_subject.setdefault(record.key[2:], set()).add(number)
    assert all(len(found) == 1 for found in by_subject.values())
    assert len(set(numbers)) == 4


def test_hash_is_that_of_an_independent_transform() -> None:
    image = pattern(3).astype(np.float32)[:64, :64]
    small = image.reshape(32, 2, 32, 2).mean(axis=(1, 3))
    low = dct(dct(small, axis=0, norm="ortho"), axis=1, norm="ortho")[:8, :8].ravel()
    expected = np.where(low > np.median(low[1:]), 1, -1)
    found = perceptual_hash(image[None])[0]
    np.testing.assert_array_equal(found, expected)
    assert hash_text(found) == f"{int(''.join('1' if bit > 0 else '0' for bit in expected), 2):016x}"


def test_hash_stays_under_what_does_not_change_the_picture() -> None:
    looks = np.stack([pattern(seed) for seed in range(40)]).astype(np.float32)
    small = np.stack([thumbnail(look) for look in looks])
    hashes = perceptual_hash(small)
    # Brightness and contrast move no sign against the median, and the mean's own one hardly.
    changed = perceptual_hash(small * 0.5 + 0.3)
    assert ((64 - (hashes * changed).sum(axis=1)) / 2).max() <= 1
    apart = (64 - hashes @ hashes.T)[~np.eye(40, dtype=bool)] / 2
    assert apart.min() > 10
    assert 28 < apart.mean() < 36


@pytest.mark.parametrize("radius", [0, 3, 10, 64])
def test_the_search_is_complete(radius: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latentdrift.data.fingerprint.TILE", 64)
    rng = np.random.default_rng(radius)
    first = rng.integers(0, 2, (150, 64))
    second = np.where(
        rng.random((170, 64)) < 0.08, 1 - first[rng.integers(0, 150, 170)], first[rng.integers(0, 150, 170)]
    )
    second[:100] = first[rng.integers(0, 150, 100)] ^ (rng.random((100, 64)) < 0.05)
    expected = {
        (i, j)
        for i in range(150)
        for j in range(170)
        if bin(as_integer(first[i]) ^ as_integer(second[j])).count("1") <= radius
    }
    signs = [np.where(bits > 0, 1, -1).astype(np.float32) for bits in (first, second)]
    found = [
        (int(i), int(j)) for rows, columns in pairs_within(*signs, radius) for i, j in zip(rows, columns, strict=True)
    ]
    assert len(found) == len(set(found))
    assert set(found) == expected


def as_integer(bits: np.ndarray) -> int:
    return int("".join(map(str, bits)), 2)


def test_ten_thousand_by_ten_thousand_takes_seconds() -> None:
    rng = np.random.default_rng(0)
    # Worst for buckets of equal bits: half of the bits are the same in all.
    first, second = (np.where(rng.random((10_000, 64)) < 0.5, 1, -1).astype(np.float32) for _ in range(2))
    first[:, :32] = second[:, :32] = 1
    second[:500] = first[:500]
    start = time.process_time()
    count = sum(len(rows) for rows, _ in pairs_within(first, second, 2))
    assert time.process_time() - start < 10
    assert count >= 500


def test_too_many_pairs_are_refused_before_memory_runs_out(
    planted: dict[str, Cohort], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_PAIRS", 100)
    with pytest.raises(DataError, match="More than 100 pairs.*higher correlation"):
        find_leakage(planted, Criterion(64, -1))
    find_leakage(planted)


def test_settings_that_cannot_be(planted: dict[str, Cohort]) -> None:
    for wrong in (
        {"radius": -1},
        {"radius": 65},
        {"correlation": 1.5},
        {"similarity": -2},
        {"radius": None, "correlation": 0},
    ):
        with pytest.raises(ConfigurationError):
            Criterion(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="two parts at least"):
        find_leakage({"train": planted["train"]})


def test_colour_and_sixteen_bits_look_as_gray_and_eight(tmp_path: Path) -> None:
    image = np.rint(pattern(5) * 255).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "gray.png")
    Image.fromarray(np.stack([image] * 3, axis=2)).save(tmp_path / "colour.png")
    Image.fromarray(image.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    prints = take_fingerprints([Record(tmp_path / f"{name}.png") for name in ("gray", "colour", "deep")])
    assert isinstance(prints, Fingerprints)
    assert len(set(prints.digests)) == 3
    np.testing.assert_array_equal(prints.hashes, prints.hashes[:1].repeat(3, axis=0))
    ((rows, columns),) = pairs_above(prints.thumbnails, prints.thumbnails, 0.9999)
    assert len(rows) == len(columns) == 9
