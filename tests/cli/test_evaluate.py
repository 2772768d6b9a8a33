from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentdrift.cli.__main__ import main
from latentdrift.errors import EvaluationError
from latentdrift.evaluate.features import FeatureExtractor

SIDE = 32


class Pooled(FeatureExtractor):
    """Means of a 3 x 3 grid, and a count of the images seen."""

    name = "pooled"
    dim = 27

    @classmethod
    def available(cls) -> bool:
        return True

    def _load(self, weights: Path | None) -> torch.nn.Module:
        self.seen = 0
        return torch.nn.AdaptiveAvgPool2d(3)

    def _features(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += len(images)
        return self.network(images.float() / 255).flatten(1)


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Pooled:
    monkeypatch.setenv("LATENTDRIFT_CACHE", str(tmp_path / "kept"))
    pooled = Pooled()
    monkeypatch.setattr("latentdrift.evaluate.sets.load_extractor", lambda *a, **k: pooled)
    return pooled


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["evaluate", *(str(argument) for argument in arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def picture(seed: int, level: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, level, (4, 4))
    return np.kron(coarse, np.ones((SIDE // 4, SIDE // 4))).astype(np.uint8)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """24 real images of 24 people with sex and age, 24 synthetic ones of which one is a copy, and 12 edits."""
    root = tmp_path_factory.mktemp("evaluate")
    found = {name: root / name for name in ("real", "made", "edits")}
    for folder in found.values():
        folder.mkdir()
    tables = {name: ["file_name,sex,age"] for name in ("real", "made")}
    tables["real"][0] += ",subject"
    tables["edits"] = ["file_name,source_file"]
    for i in range(24):
        facts = f"{i:03}.png,{'FM'[i % 2]},{50 if i < 12 else 70}"
        Image.fromarray(picture(i, 200)).save(found["real"] / f"{i:03}.png")
        Image.fromarray(picture(100 + i if i else 5, 220)).save(found["made"] / f"{i:03}.png")
        tables["real"].append(f"{facts},p{i}")
        tables["made"].append(facts)
    Image.fromarray(picture(5, 200)).save(found["made"] / "000.png")
    for i in range(12):
        edited = (picture(i, 200) * 0.8).astype(np.uint8)
        Image.fromarray(edited).save(found["edits"] / f"e{i}.png")
        Image.fromarray(picture(i, 200)).save(found["edits"] / f"e{i}-source.png")
        tables["edits"].append(f"e{i}.png,{found['real'] / f'{i:03}.png'}")
    for name, lines in tables.items():
        (found[name] / "metadata.csv").write_text("\n".join(lines) + "\n")
    return found


def test_the_folder(
    places: dict[str, Path], network: Pooled, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    call = ("--real", places["real"], "--synthetic", places["made"], "--out", out, "--quiet")
    status, text, err = run(capsys, *call)
    assert status == 0, err
    assert network.seen == 47  # the copy is known by then
    assert "Fréchet distance (pooled), infinite n" in text
    assert "sex: F minus M, kernel distance x 1000 (pooled)" in text
    assert "1 synthetic image(s) are exact copies of real ones: 000.png = 005.png" in text
    assert {path.name for path in out.iterdir()} == {
        "evaluation.json", "evaluation.csv", "page.html", "evaluation-samples.png", "evaluation-closest.png",
    }  # fmt: skip
    result = json.loads((out / "evaluation.json").read_text())
    assert result["closest"][0] == {"synthetic": "000.png", "real": "005.png", "distance": 0.0}
    assert set(result["groups"]) == {"sex", "age"}
    assert result["groups"]["sex"]["images"] == {"F": {"real": 12, "synthetic": 12}, "M": {"real": 12, "synthetic": 12}}
    with (out / "evaluation.csv").open() as file:
        rows = {(row["group"], row["figure"]): row for row in csv.DictReader(file)}
    assert float(rows["all images", "precision"]["value"]) == pytest.approx(result["precision"]["value"])
    assert float(rows["all images", "Fréchet distance (pooled)"]["high"]) == pytest.approx(result["fid_interval"][1])
    page = (out / "page.html").read_text()
    assert page.count("<img") == 2
    assert f"{result['fid']:.2f}" in page
    assert "sex: F minus M" in page
    assert "age: 40 to 60" in page
    assert "must not be used for diagnosis" in page
    assert "exact copies of real ones" in page
    assert "latentdrift evaluate --real" in page

    # The same again: no image goes through the network, and the result is the same file.
    before = (out / "evaluation.json").read_bytes()
    status, text, _ = run(capsys, *call)
    assert status == 0
    assert network.seen == 47
    assert "48 of 48 images" in text
    assert (out / "evaluation.json").read_bytes() == before
    assert run(capsys, *call, "--cache", "none")[0] == 0
    assert network.seen == 95


def test_pairs_of_a_counterfactual_folder(
    places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    call = (
        "--real",
        places["real"],
        "--synthetic",
        places["edits"],
        "--pairs",
        "--out",
        out,
        "--cache",
        tmp_path / "c",
    )
    status, text, err = run(capsys, *call, "--groups", "none", "--quiet")
    assert status == 0, err
    assert "SSIM" in text
    assert "LPIPS" in text
    found = json.loads((out / "evaluation.json").read_text())["pairs"]
    assert found["pairs"] == 12
    errors = [((picture(i, 200) * 0.8).astype(np.uint8) - picture(i, 200).astype(float)) for i in range(12)]
    psnr = np.mean([10 * np.log10(255**2 / (error**2).mean()) for error in errors])
    assert found["figures"]["PSNR"]["value"] == pytest.approx(psnr, rel=1e-6)
    page = (out / "page.html").read_text()
    assert page.count("<img") == 3
    assert "PSNR" in page
    assert (out / "evaluation-pairs.png").is_file()
    assert not (tmp_path / "kept").exists()
    # Without pairs the picture of the old result goes; what is not ours stays.
    (out / "mine.png").write_bytes(b"mine")
    assert run(capsys, *[word for word in call if word != "--pairs"], "--quiet", "--figures", "basic")[0] == 0
    assert {path.name for path in out.glob("*.png")} == {"mine.png", "evaluation-samples.png"}
    assert "pairs" not in json.loads((out / "evaluation.json").read_text())


def test_a_json_file_as_before(places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "result.json"
    call = ("--real", places["real"], "--synthetic", places["made"], "--quiet")
    status, text, err = run(capsys, *call, "--figures", "basic", "--groups", "none", "--out", out, "--json")
    assert status == 0, err
    result = json.loads(out.read_text())
    assert json.loads(text) == result
    assert list(out.parent.iterdir()) == [out]
    assert "precision" not in result
    assert "groups" not in result


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--out", "{made}/000.png"), "is a file; give --out a folder"),
        (("--groups", "height"), "no attribute 'height'"),
        (("--groups", "auto", "sex"), "or none alone"),
        (("--cache", "{made}/000.png"), "for the cache of features"),
        (("--age-bins", "60", "40"), "must ascend"),
        (("--where", "sex=X"), "no value of 'sex' 'X'"),
        (("--synthetic", "{edits}", "--groups", "sex"), "no attribute 'sex'"),
        (("--real", "{edits}", "--pairs"), "0 of 24 images"),
    ],
)
def test_what_cannot_be(
    places: dict[str, Path], more: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = {"--real": "{real}", "--synthetic": "{made}"}
    words = [word.format(**places) for word in more]
    call = [*(x for f, v in flags.items() if f not in more for x in (f, v.format(**places))), *words]
    status, _, err = run(capsys, *call, "--quiet")
    assert status == 2
    assert says in err, err
    assert "Traceback" not in err


def test_a_failure_leaves_the_old_folder(
    places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    call = ("--real", places["real"], "--synthetic", places["made"], "--out", out, "--quiet", "--figures", "basic")
    assert run(capsys, *call)[0] == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("latentdrift.report.evaluation_page.write_page", full)
    status, _, err = run(capsys, *call, "--seed", 3)
    assert status == 2
    assert "No space left" in err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_pairs_that_cannot_be_measured_lose_no_figure_of_the_sets(
    places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise EvaluationError("All edits are of one subject.")

    monkeypatch.setattr("latentdrift.evaluate.set_pairs.paired_figures", fail)
    out = tmp_path / "out"
    call = ("--real", places["real"], "--synthetic", places["edits"], "--pairs", "--out", out, "--cache", "none")
    status, _, err = run(capsys, *call, "--groups", "none", "--quiet", "--figures", "basic")
    assert status == 0, err
    found = json.loads((out / "evaluation.json").read_text())
    assert found["fid"] > 0
    assert "There are no figures of pairs. All edits are of one subject." in found["warnings"]
