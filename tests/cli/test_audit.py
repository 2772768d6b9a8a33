from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from latentdrift.cli.__main__ import main


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["audit", *(str(argument) for argument in arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty images of twenty people, three almost alike of each, without saying who is who."""
    folder = tmp_path_factory.mktemp("slices")
    lines = ["file_name,stage"]
    for person in range(20):
        image = gaussian_filter(np.random.default_rng(person).standard_normal((48, 48)), 4)
        for visit in range(3):
            noise = np.random.default_rng(1000 + person * 3 + visit).standard_normal((48, 48))
            pixels = 128 + 40 * image / image.std() + 2 * noise
            name = f"{visit * 20 + person:03d}.png"
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / name)
            lines.append(f"{name},{'CN' if person % 2 else 'AD'}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def with_subjects(source: Path, folder: Path, keep: slice = slice(None)) -> Path:
    folder.mkdir()
    lines = ["file_name,subject"]
    for path in sorted(source.glob("*.png"))[keep]:
        (folder / path.name).write_bytes(path.read_bytes())
        lines.append(f"{path.name},p{int(path.stem) % 20}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_random_split_leaks_and_says_so(slices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    status, text, _ = run(
        capsys,
        *("leakage", "--data", slices, "--split", "random", "--fractions", 0.8, 0.2),
        *("--out", out, "--sheet", "--groups"),
    )
    assert status == 0
    assert "verdict" in text
    assert "leakage: 0 subjects and" in text
    result = json.loads((out / "leakage.json").read_text())
    (overlap,) = result["overlaps"]
    # Of every two images of a person on either side, that is one pair.
    with (out / "pairs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == overlap["near_duplicate_pairs"] > 0
    assert all(int(row["first"][:3]) % 20 == int(row["second"][:3]) % 20 for row in rows)
    assert overlap["images"] == [48, 12]
    assert result["settings"]["seed"] == 0
    with Image.open(out / "pairs.png") as sheet:
        assert sheet.format == "PNG"
    with (out / "groups.csv").open() as file:
        groups = {row["file_name"]: row["group"] for row in csv.DictReader(file)}
    assert len(groups) == 60
    assert len({(groups[f"{i:03d}.png"], i % 20) for i in range(60)}) == len(set(groups.values())) == 20


def test_split_by_subject_is_clean(slices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = with_subjects(slices, tmp_path / "known")
    status, text, _ = run(capsys, "leakage", "--data", folder, "--out", tmp_path / "out", "--json", "--quiet")
    assert status == 0
    found = json.loads(text)
    assert found["clean"] is True
    assert found["verdict"] == "clean: no subject and no near-duplicate is in two parts."
    assert found["split"].startswith("by subject: 20 subjects")
    assert (tmp_path / "out" / "pairs.csv").read_text().startswith("first_part,second_part,first,second,distance")


def test_two_folders(slices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = with_subjects(slices, tmp_path / "a", slice(0, 30))
    b = with_subjects(slices, tmp_path / "b", slice(30, 60))
    status, text, _ = run(capsys, "leakage", "--train", a, "--test", b, "--features", "thumbnail")
    assert status == 0
    # 20 people have images 0-19, 20-39, 40-59: everyone is on both sides.
    assert "20 subjects are in both" in text
    assert "30 of 30 images of test (100.0%)" in text


def test_parts_of_a_run(slices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["file_name,part", *(f"{i:03d}.png,{'train' if i < 40 else 'test'}" for i in range(60))]
    (tmp_path / "split.csv").write_text("\n".join(lines) + "\n")
    status, text, _ = run(capsys, "leakage", "--data", slices, "--run", tmp_path, "--json")
    assert status == 0
    (overlap,) = json.loads(text)["overlaps"]
    assert overlap["images"] == [40, 20]
    assert overlap["near_duplicate_pairs"] == 40
    assert overlap["images_with_near_duplicate"] == [40, 20]


def test_features_of_a_network(slices: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, text, _ = run(
        capsys,
        *("leakage", "--data", slices, "--split", "random", "--features", "efficientnet-lite0", "--similarity", 0.9),
    )
    assert status == 0
    assert "cosine of features, centred, of at least 0.9" in text
    assert "have a near-duplicate in train" in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["leakage"], "Give --data, or --train and --test"),
        (["leakage", "--train", "."], "Give --data, or --train and --test"),
        (["leakage", "--data", ".", "--test", "."], "not both"),
        (["leakage", "--data", ".", "--sheet"], "give a folder with --out"),
        (["leakage", "--train", ".", "--test", ".", "--groups", "--out", "x"], "give --data"),
        (["leakage", "--data", "SLICES", "--split", "fair"], "'fair'"),
        (["leakage", "--data", "SLICES", "--features", "has"], "Did you mean 'hash'"),
        (["leakage", "--data", "SLICES", "--fractions", "1"], "two (train, test) or three"),
        (["leakage", "--data", "SLICES", "--split", "random", "--fractions", "0.5", "0.6"], "add up to 1"),
        (["leakage", "--data", "SLICES", "--run", "nowhere"], "is no run folder"),
        (["leakage", "--data", "SLICES", "--radius", "99"], "between 0 and 64"),
        (["leekage"], "Did you mean 'leakage'"),
    ],
)
def test_what_is_wrong_is_said(
    arguments: list[str], says: str, slices: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = run(capsys, *[str(slices) if word == "SLICES" else word for word in arguments])
    assert status == 2
    assert err.startswith("latentdrift audit: ")
    assert says in err


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--help")
    assert status == 0
    assert "leakage" in out
    status, out, err = run(capsys)
    assert status == 2
    assert "usage: latentdrift audit KIND" in err
    status, out, _ = run(capsys, "leakage", "--help")
    assert status == 0
    assert "--correlation" in out
