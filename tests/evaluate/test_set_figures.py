"""All figures of two sets together, by group and by pair, against references that share no code with them."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import cdist
from skimage.metrics import structural_similarity

from latentdrift.data import Cohort
from latentdrift.errors import EvaluationError, UnknownNameError
from latentdrift.evaluate import evaluate_sets
from latentdrift.evaluate.features import FeatureExtractor
from latentdrift.evaluate.set_figures import more_figures, most_resamples
from latentdrift.evaluate.set_groups import GroupLabels, figures_by_group, shared_groups
from latentdrift.evaluate.set_pairs import match_pairs, paired_figures


class Pooled(FeatureExtractor):
    name = "pooled"
    dim = 12

    @classmethod
    def available(cls) -> bool:
        return True

    def _load(self, weights: Path | None) -> torch.nn.Module:
        return torch.nn.AdaptiveAvgPool2d(2)

    def _features(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images.float() / 255).flatten(1)


def features(count: int, seed: int, shift: float = 0.0, d: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, size=(count, d))


def images(count: int, seed: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 200, (count, 3, 4, 4), generator=draw).float()
    return torch.nn.functional.interpolate(coarse, size=(32, 32)).to(torch.uint8)


def mmd(a: np.ndarray, b: np.ndarray, kernel: str, scale: float = 1.0) -> float:
    """The unbiased squared MMD by its definition, pair by pair."""

    def k(x: np.ndarray, y: np.ndarray) -> float:
        if kernel == "cubic":
            return float((x @ y / len(x) + 1) ** 3)
        return float(np.exp(-np.sum((x - y) ** 2) / (2 * scale**2)))

    def within(x: np.ndarray) -> float:
        return float(np.mean([k(x[i], x[j]) for i, j in itertools.permutations(range(len(x)), 2)]))

    return within(a) + within(b) - 2 * float(np.mean([[k(x, y) for y in b] for x in a]))


def ball_shares(real: np.ndarray, made: np.ndarray) -> dict[str, float]:
    """Precision, recall, density and coverage by sorting whole rows of distances."""
    across = cdist(real, made)
    near = np.sort(cdist(real, real), axis=1)
    near_made = np.sort(cdist(made, made), axis=1)
    return {
        "precision": float((across <= near[:, [3]]).any(0).mean()),
        "recall": float((across <= near_made[:, 3]).any(1).mean()),
        "density": float((across <= near[:, [5]]).sum() / 5 / len(made)),
        "coverage": float((across <= near[:, [5]]).any(1).mean()),
    }


def test_all_figures_against_references() -> None:
    real, made = features(40, 1), features(36, 2, 0.5)
    names = [f"r{i}" for i in range(40)], [f"s{i}" for i in range(36)]
    found = more_figures(real, made, *names, resamples=20)
    bandwidth = float(np.median(cdist(real, real)[np.triu_indices(40, 1)]))
    assert found.mmd is not None
    assert found.mmd.bandwidth == pytest.approx(bandwidth)
    assert found.mmd.value == pytest.approx(mmd(real, made, "gaussian", bandwidth))
    assert found.manifold is not None
    assert found.manifold._asdict() == pytest.approx(ball_shares(real, made))
    assert found.infinity is not None
    assert found.infinity.value < found.infinity.distances[0] < found.infinity.distances[-1]
    distances = cdist(made, real)
    order = np.argsort(distances.min(1))[:6]
    assert [(p.synthetic, p.real) for p in found.closest] == [(f"s{i}", f"r{distances[i].argmin()}") for i in order]
    assert [p.distance for p in found.closest] == pytest.approx(distances.min(1)[order])
    assert not any("not computed" in note for note in found.notes)
    for name, one in found.to_dict().items():
        if name != "closest":
            assert one["low"] < one["value"] <= one["high"]


def test_sets_too_small_for_a_figure_say_so() -> None:
    names = [str(i) for i in range(9)]
    found = more_figures(features(9, 1), features(9, 2), names, names, resamples=10)
    assert found.infinity is None
    assert found.manifold is not None
    assert found.manifold_intervals is None
    assert any("infinite n was not computed" in note and "too few" in note for note in found.notes)
    assert any("coverage have no intervals" in note for note in found.notes)
    few = more_figures(features(3, 1), features(3, 2), names, names, resamples=0)
    assert few.manifold is None
    assert any("coverage were not computed" in note for note in few.notes)
    same = more_figures(np.ones((4, 2)), np.ones((4, 2)), names, names, resamples=0)
    assert same.mmd is None
    assert any("Gaussian MMD was not computed" in note for note in same.notes)
    assert [pair.distance for pair in same.closest] == [0.0] * 4


def test_few_halves_of_large_sets_but_never_hardly_any() -> None:
    assert [most_resamples(100, n) for n in (50, 500, 1000, 9000)] == [100, 80, 40, 40]
    assert most_resamples(0, 50) == 0
    assert most_resamples(20, 5000) == 20


def labelled(real: np.ndarray, made: np.ndarray) -> GroupLabels:
    sex = [("F", "M")[i % 2] for i in range(len(real) - 1)] + [None]
    made_sex = [("F", "M")[i % 3 == 0] for i in range(len(made) - 5)] + ["X"] * 5
    return GroupLabels("sex", sex, made_sex, [i // 2 for i in range(len(real))])


def test_figures_by_group_against_references() -> None:
    real, made = features(81, 1), features(65, 2)
    labels = labelled(real, made)
    inside = {name: np.array([group == name for group in labels.synthetic]) for name in "FM"}
    made[inside["M"]] += 1.0
    found = figures_by_group(real, made, labels, resamples=60)
    assert found.kernel is not None
    assert found.mmd is not None
    assert found.counts == {"F": (40, 40), "M": (40, 20), "X": (0, 5)}
    bandwidth = float(np.median(cdist(real, real)[np.triu_indices(81, 1)]))
    values = {}
    for name in "FM":
        a = real[np.array([group == name for group in labels.real])]
        values[name] = mmd(a, made[inside[name]], "cubic")
        assert found.kernel.groups[name].value == pytest.approx(values[name])
        assert found.mmd.groups[name].value == pytest.approx(mmd(a, made[inside[name]], "gaussian", bandwidth))
    difference = found.kernel.differences["F", "M"]
    assert difference.value == pytest.approx(values["F"] - values["M"])
    assert difference.interval.high < 0
    assert found.kernel.groups["F"].interval.low < 0.05
    assert found.part_sizes == (40, 20)
    assert found.parts["M"].fid > 3 * found.parts["F"].fid
    assert any(note.endswith("synthetic images: X (0 and 5)") for note in found.notes)
    assert any("1 real and 0 synthetic images are of no known group" in note for note in found.notes)
    groups = {line.group for line in found.lines("FID", "KID")}
    assert groups == {"sex: F", "sex: M", "sex: F minus M"}


def test_no_group_that_is_large_enough_is_no_error() -> None:
    labels = GroupLabels("sex", ["F"] * 6 + ["M"] * 6, ["F"] * 6 + ["M"] * 6, range(12))
    found = figures_by_group(features(12, 1), features(12, 2), labels, resamples=10)
    assert found.parts == {}
    assert found.lines("FID", "KID") == []
    assert len(found.notes) == 1
    assert found.notes[0].endswith("F (6 and 6), M (6 and 6)")
    one = GroupLabels("sex", ["F"] * 20, ["F"] * 20, range(20))
    alone = figures_by_group(features(20, 1), features(20, 2), one, resamples=0)
    assert list(alone.parts) == ["F"]
    assert alone.parts["F"].fid_interval is None
    with pytest.raises(EvaluationError, match="give one an image"):
        figures_by_group(features(4, 1), features(20, 2), one)


def test_rows_records_and_json_say_the_same() -> None:
    real, made = images(40, 1), images(30, 2)
    labels = GroupLabels("sex", ["F", "M"] * 20, ["F", "M"] * 15, range(40))
    result = evaluate_sets(real, made, Pooled(), resamples=20, figures="all", groups=[labels])
    plain = evaluate_sets(real, made, Pooled(), resamples=20)
    assert result.fid == plain.fid
    assert set(result.to_dict()) - set(plain.to_dict()) == {
        "fid_infinity", "precision", "recall", "density", "coverage", "mmd", "closest", "groups",
    }  # fmt: skip
    record = {(row["group"], row["figure"]): row for row in result.records()}
    data = json.loads(result.to_json())
    found = record["all images", "Fréchet distance (pooled), infinite n"]
    assert [found[key] for key in ("value", "low", "high")] == [
        data["fid_infinity"][key] for key in ("value", "low", "high")
    ]
    kernel = "kernel distance x 1000 (pooled)"
    assert record["sex: F", kernel]["value"] == pytest.approx(
        1000 * data["groups"]["sex"]["kernel"]["groups"]["F"]["value"]
    )
    assert record["all images", kernel]["low"] == pytest.approx(1000 * data["kid_interval"][0])
    parts = data["groups"]["sex"]["equal_parts"]
    assert record["sex: M", "coverage"]["value"] == parts["groups"]["M"]["coverage"]["value"]
    assert record["sex: M", "coverage"]["images"] == f"{parts['real']} real, {parts['synthetic']} synthetic"
    rows = [*result.rows(), *result.group_rows()]
    assert len(rows) == len(result.records())
    for row, line in zip(rows, result.records(), strict=True):
        assert row["figure"] == line["figure"]
        digits = len(row["value"].split()[0].partition(".")[2])
        assert row["value"].split()[0] == f"{line['value']:.{digits}f}"
        assert (line["low"] is None) == (row["95% interval"] == "")
    with pytest.raises(UnknownNameError, match="basic"):
        evaluate_sets(real, made, Pooled(), figures="basics")  # type: ignore[arg-type]


def cohort(folder: Path, pixels: torch.Tensor, **columns: list[object]) -> Cohort:
    folder.mkdir(parents=True)
    with (folder / "metadata.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file_name", *columns])
        for i, image in enumerate(pixels):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i:03}.png")
            table.writerow([f"{i:03}.png", *(values[i] for values in columns.values())])
    return Cohort.open(folder, missing="keep")


def test_groups_that_both_sets_have(tmp_path: Path) -> None:
    real = cohort(
        tmp_path / "a", images(4, 1), subject=["p", "p", "q", ""], sex=["F", "F", "M", ""], age=[30, 50, 85, 60]
    )
    made = cohort(tmp_path / "b", images(3, 2), Gender=["M", "F", "F"], stage=["x", "y", "y"])
    labels, notes = shared_groups(real, made)
    assert [one.attribute for one in labels] == ["sex"]
    assert (labels[0].real, labels[0].synthetic) == (["F", "F", "M", None], ["M", "F", "F"])
    assert labels[0].subjects[0] == labels[0].subjects[1] != labels[0].subjects[3]
    assert notes == ["The real images have age, the synthetic ones do not: there are no figures by age."]
    assert shared_groups(real, made, ("none",)) == ([], [])
    ages, _ = shared_groups(real, real, ("age",), (40.0, 60.0))
    assert ages[0].real == ["under 40", "40 to 60", "60 and over", "60 and over"]
    odd = cohort(tmp_path / "c", images(2, 3), sex=["F", "M"], age=["old", "31"])
    assert shared_groups(odd, made)[0] == []
    assert "no figures by sex and age" in shared_groups(odd, made)[1][0]
    with pytest.raises(UnknownNameError, match="stage"):
        shared_groups(real, made, ("stage",))
    with pytest.raises(EvaluationError, match="or auto, or none alone"):
        shared_groups(real, made, ("auto", "stage"))


def test_sources_are_found_by_name_by_file_and_beside(tmp_path: Path) -> None:
    pixels = images(4, 1)
    real = cohort(tmp_path / "real", pixels, subject=["p", "p", "q", "r"])
    paths = [tmp_path / "real" / "002.png", "gone/001.png", tmp_path / "scan.dcm", "gone/no.png"]
    (tmp_path / "scan.dcm").write_bytes(b"a scan that is not in the folder")
    made = cohort(tmp_path / "made", images(4, 2), source_file=[str(path) for path in paths])
    Image.fromarray(pixels[3].permute(1, 2, 0).numpy()).save(tmp_path / "made" / "002-source.png")
    found = match_pairs(real, made)
    assert [(one.synthetic, one.real, one.subject) for one in found] == [
        (0, 2, "q"), (1, 1, "p"), (2, None, ("unknown", str(paths[2]))),
    ]  # fmt: skip
    assert [one.file.name for one in found] == ["002.png", "001.png", "002-source.png"]
    figures = paired_figures(real, made, found, size=32, lpips_network=None, resamples=20)
    assert figures.notes == ("1 of 4 synthetic images have no known source",)
    sources = [pixels[2], pixels[1], pixels[3]]
    wanted = [
        structural_similarity(
            a.numpy(), b.numpy(), channel_axis=0, data_range=255, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False,
        )
        for a, b in zip(images(4, 2), sources, strict=False)
    ]  # fmt: skip
    assert figures.figures.per_image["SSIM"] == pytest.approx(wanted, abs=1e-6)

    same = cohort(tmp_path / "same", images(5, 3))
    assert [(one.synthetic, one.real) for one in match_pairs(real, same)] == [(i, i) for i in range(4)]
    # A folder is not its own source.
    with pytest.raises(EvaluationError, match="0 of 4 images .* need a column 'source_file'"):
        match_pairs(real, real)


def test_pairs_by_group(tmp_path: Path) -> None:
    pixels = images(24, 1)
    sexes = ["F", "M"] * 12
    real = cohort(tmp_path / "real", pixels, sex=sexes)
    changed = pixels.clone()
    changed[0::2] = 255 - changed[0::2]
    changed[1::2] = (changed[1::2].float() * 0.9).to(torch.uint8)
    made = cohort(tmp_path / "made", changed, sex=sexes)
    labels, _ = shared_groups(real, made)
    found = paired_figures(real, made, match_pairs(real, made), labels=labels, lpips_network=None, resamples=20)
    values = found.figures.per_image["PSNR"]
    grouped = found.groups["sex"]["PSNR"]
    assert grouped.groups["F"].value == pytest.approx(values[0::2].mean())
    assert grouped.differences["F", "M"].interval.high < 0
    error = ((changed[0].float() - pixels[0].float()) ** 2).mean()
    assert values[0] == pytest.approx(float(10 * torch.log10(255**2 / error)), rel=1e-5)
    assert len([line for line in found.lines() if line.group == "pairs"]) == len(found.figures.estimates)
    assert {row["group"] for row in found.group_rows(0.95)} == {
        "pairs, sex: F", "pairs, sex: M", "pairs, sex: F minus M",
    }  # fmt: skip


def test_people_with_many_images_do_not_part_groups_that_are_alike() -> None:
    """Both groups and the synthetic images are of one distribution; one group has 30 people with 8 images each."""
    rng = np.random.default_rng(0)
    people = np.repeat(rng.normal(size=(30, 6)), 8, axis=0) + 0.1 * rng.normal(size=(240, 6))
    real = np.concatenate([people, features(240, 1)])
    made = features(480, 2)
    subjects = [f"p{i // 8}" for i in range(240)] + [f"q{i}" for i in range(240)]
    labels = GroupLabels("group", ["A"] * 240 + ["B"] * 240, ["A"] * 240 + ["B"] * 240, subjects)
    found = figures_by_group(real, made, labels, resamples=60)
    for figures in (found.kernel, found.mmd):
        assert figures is not None
        difference = figures.differences["A", "B"]
        assert difference.interval.low < 0 < difference.interval.high
        for name, people_count in (("A", 30), ("B", 240)):
            one = figures.groups[name]
            assert one.interval.low < one.value < one.interval.high
            assert one.n == people_count


def test_thinning_keeps_small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latentdrift.evaluate.set_groups.MOST_IMAGES", 60)
    names = ["rare"] * 12 + ["common"] * 288
    labels = GroupLabels("group", names, names, list(range(300)))
    found = figures_by_group(features(300, 1), features(300, 2), labels, smallest=10, resamples=20)
    assert found.kernel is not None
    assert {name: one.n for name, one in found.kernel.groups.items()} == {"rare": 12, "common": 30}
    assert set(found.parts) == {"rare", "common"}
    assert found.part_sizes == (12, 12)
    assert any("at most 30 images each" in note for note in found.notes)
