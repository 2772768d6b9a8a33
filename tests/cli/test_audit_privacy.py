from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from latentdrift.cli.__main__ import main

SIDE = 48


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["audit", "privacy", *(str(argument) for argument in arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def scan(person: int, noise: int = 0) -> np.ndarray:
    own = gaussian_filter(np.random.default_rng(person).standard_normal((SIDE, SIDE)), 4)
    pixels = 128 + 40 * own / own.std() + 3 * np.random.default_rng(1000 + noise).standard_normal((SIDE, SIDE))
    return np.clip(pixels, 0, 255).round().astype(np.uint8)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A cohort of 60 people, 36 in the training; a folder of 20 strangers, and one where four of them are copies."""
    root = tmp_path_factory.mktemp("privacy")
    data, fresh, copied = root / "data", root / "fresh", root / "copied"
    for folder in (data, fresh, copied, root / "run"):
        folder.mkdir()
    table, split = ["file_name,subject"], ["file_name,part"]
    for person in range(60):
        Image.fromarray(scan(person)).save(data / f"{person:03d}.png")
        table.append(f"{person:03d}.png,p{person}")
        split.append(f"{person:03d}.png,{'train' if person < 36 else 'test' if person < 48 else 'validation'}")
    (data / "metadata.csv").write_text("\n".join(table) + "\n")
    (root / "run" / "split.csv").write_text("\n".join(split) + "\n")
    (root / "other.csv").write_text("\n".join(split).replace("train", "test") + "\n")
    for i in range(20):
        stranger = Image.fromarray(scan(500 + i))
        stranger.save(fresh / f"{i:03d}.png")
        stranger.save(copied / f"{i:03d}.png")
    Image.fromarray(scan(5)).save(copied / "000.png")
    Image.fromarray(np.roll(scan(6), (2, 2), (0, 1))).save(copied / "001.png")
    Image.fromarray(scan(7, noise=7)).save(copied / "002.png")
    Image.fromarray(scan(8)).save(copied / "003.png")
    return {"data": data, "fresh": fresh, "copied": copied, "run": root / "run", "other": root / "other.csv"}


def flags(places: dict[str, Path], which: str) -> tuple[object, ...]:
    return ("--synthetic", places[which], "--data", places["data"], "--split", places["run"] / "split.csv", "--quiet")


def test_copies_are_named(places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    status, text, _ = run(capsys, *flags(places, "copied"), "--extractor", "none", "--out", out, "--pairs", 5)
    assert status == 0
    assert "memory of training images: 4 copies by pixels after a shift" in text
    assert "4 of 20 synthetic images" in text
    assert "of 4 subjects; 0 of 24 held-out images pass for copies" in text
    result = json.loads((out / "privacy.json").read_text())
    assert result["images"] == {"synthetic": 20, "training": 36, "held_out": 24}
    assert result["size"] == SIDE
    assert result["copies"][0]["smallest_ratio"] == 0.0
    assert [one["measure"] for one in result["nearest"]] == ["pixel", "shifted", "ssim"]
    assert any("24 held-out images: their percentile 1" in warning for warning in result["warnings"])
    with (out / "images.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["file_name"], row["shifted_subject"]) for row in rows if row["copy"] == "True"] == [
        ("000.png", "p5"),
        ("001.png", "p6"),
        ("002.png", "p7"),
        ("003.png", "p8"),
    ]
    assert rows[0]["pixel_nearest"] == "005.png"
    assert float(rows[0]["pixel_distance"]) == 0.0
    with (out / "figures.csv").open() as file:
        figures = {row["figure"]: row for row in csv.DictReader(file)}
    assert float(figures["share of copies, pixels after a shift"]["value"]) == pytest.approx(0.2)
    assert float(figures["share of copies, pixels after a shift"]["by chance"]) == 0.0
    page = (out / "page.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "its terms hold for the page" in page
    assert f"--out {out}" in page
    with Image.open(out / "pairs-shifted-synthetic.png") as sheet:
        assert sheet.height > 5 * 150
    assert sorted(path.name for path in out.iterdir()) == [
        *("figures.csv", "images.csv", "page.html", "pairs-shifted-held-out.png", "pairs-shifted-synthetic.png"),
        "privacy.json",
    ]


def test_strangers_are_not(places: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    status, text, _ = run(capsys, *flags(places, "fresh"), "--extractor", "efficientnet-lite0", "--json")
    assert status == 0
    found = json.loads(text)
    assert found["verdict"].startswith("no sign of memory")
    assert [(one["measure"], one["beyond_chance"]) for one in found["copies"]] == [("shifted", 0), ("feature", 0)]
    assert [one["attack"].split()[0] for one in found["membership"]] == ["pixel", "feature"]
    assert all(one["low"] < 0.5 < one["high"] for one in found["membership"])
    assert found["files"] == []


def test_features_find_copies_too(places: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    status, text, _ = run(capsys, *flags(places, "copied"), "--extractor", "efficientnet-lite0", "--json")
    assert status == 0
    found = {one["measure"]: one for one in json.loads(text)["copies"]}
    assert found["shifted"]["copies"] == 4
    assert 2 <= found["feature"]["copies"] <= 4
    assert found["feature"]["smallest_ratio"] < 1e-5
    assert found["feature"]["held_out_copies"] == 0


def test_the_model_is_asked_at_its_own_split(
    toy_run: Path, toy_cohort: Path, places: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    status, text, _ = run(
        capsys,
        *("--synthetic", places["fresh"], "--data", toy_cohort, "--model", toy_run, "--extractor", "none"),
        *("--size", 32, "--noises", 1, "--most", 10, "--device", "cpu", "--json", "--quiet"),
    )
    assert status == 0
    found = json.loads(text)
    loss = found["membership"][-1]
    assert loss["attack"] == "denoising loss of the model"
    assert list(loss["parts"]) == ["timestep 50", "timestep 100", "timestep 200", "timestep 300", "timestep 500"]
    assert (loss["members"], loss["held_out"]) == (10, found["images"]["held_out"])
    assert not any("is not the split" in warning for warning in found["warnings"])


def test_people_of_the_training_are_no_strangers(
    places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = (places["data"] / "metadata.csv").read_text().replace(",p47", ",p3")
    folder = tmp_path / "data"
    folder.mkdir()
    for path in places["data"].glob("*.png"):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "metadata.csv").write_text(table)
    given = ("--synthetic", places["fresh"], "--extractor", "none", "--split", places["run"], "--json", "--quiet")
    status, text, _ = run(capsys, *given, "--data", folder)
    assert status == 0
    found = json.loads(text)
    assert found["images"]["held_out"] == 23
    assert any(warning.startswith("1 held-out images left out") for warning in found["warnings"])
    (folder / "metadata.csv").unlink()
    lines = [line.split(",")[0] for line in table.splitlines()]
    (folder / "metadata.csv").write_text(
        "\n".join(f"{line},{i % 7}" for i, line in enumerate(lines)).replace(",0", ",x", 1)
    )
    (folder / "050.png").write_bytes((folder / "004.png").read_bytes())
    status, text, _ = run(capsys, *given, "--data", folder)
    warnings = " ".join(json.loads(text)["warnings"])
    assert "Not all subjects are known" in warnings
    assert "1 held-out image(s) are the same as a training image" in warnings


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["--split"], "Give --split RUN/split.csv"),
        (["--split", "nowhere/split.csv"], "cannot be read as a split"),
        (["--split", "OTHER"], "0 training image(s)"),
        (["--synthetic", "nowhere"], "There is no folder nowhere"),
        (["--extractor", "inceptoin"], "Did you mean 'inception'"),
        (["--size", "12"], "too small for a shift"),
        (["--pairs", "0"], "--pairs is 0"),
        (["--factor", "2"], "factor=2.0"),
    ],
)
def test_what_is_wrong_is_said(
    change: list[str], says: str, places: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    given: dict[object, object] = {
        **{"--synthetic": places["fresh"], "--data": places["data"], "--split": places["run"] / "split.csv"},
        **{"--extractor": "none"},
    }
    if len(change) == 1:
        del given[change[0]]
    else:
        given[change[0]] = places["other"] if change[1] == "OTHER" else change[1]
    status, _, err = run(capsys, *(word for pair in given.items() for word in pair), "--quiet")
    assert status == 2
    assert err.startswith("latentdrift audit: ")
    assert says in err
