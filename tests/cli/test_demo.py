"""The demo's whole path, at the smallest sizes: every step runs, the page tells what was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from latentdrift.cli import demo_steps
from latentdrift.cli.__main__ import main

WORDS = ["--subjects", "18", "--steps", "1", "--samples", "4", "--edits", "2", "--quiet", "--json"]


def test_the_demo_ends_in_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SAMPLING_STEPS", "TEMPLATE_STEPS"):
        monkeypatch.setattr(demo_steps, name, 4)
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), *WORDS]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert Path(printed["page"]) == out / "index.html"
    names = {"drift.png", "latents.png", "losses.png", "counterfactuals.png", "template.png"}
    assert {Path(picture).name for picture in printed["pictures"]} == names
    page = (out / "index.html").read_text()
    text = re.sub(r"<[^>]+>", " ", page)
    for said in ("What the drift did", "Counterfactuals beside the truth", "A real average brain", "does not show"):
        assert said in text
    agreement = re.search(r"agree by\s+(-?\d\.\d\d)", text)
    assert agreement is not None
    assert -1 <= float(agreement[1]) <= 1
    assert page.count("data:image/png;base64,") >= len(names)
    assert not re.search(r"""(?:src|href)=["']https?:""", page)
    made = {path.parent.name for path in (out / "samples").rglob("*.png")}
    assert made == {"no-drift", "start-automatic", "forward-automatic"}
    assert len(list((out / "edits").glob("*-AD.png"))) == 2
    assert len(list((out / "template").glob("mni152-*.png"))) == 2
    # What made each image is written beside it, and is found unchanged.
    folders = [*(out / "samples").iterdir(), out / "edits", out / "template"]
    assert main(["verify", *map(str, folders), "--json"]) == 0
    checked = json.loads(capsys.readouterr().out)["files"]
    assert sum(row["synthetic"] for row in checked) == 3 * 4 + 2 + 2
    assert all(row["model_sha256"] for row in checked if row["synthetic"])

    # Again: nothing is simulated or trained anew.
    stamps = {path: path.stat().st_mtime_ns for path in (out / "cohort").rglob("*.png")}
    models = {path: path.stat().st_mtime_ns for path in out.glob("*/model/unet/*.safetensors")}
    assert len(models) == 3
    demo_steps.simulate(out / "cohort", 18, 0, lambda *_: None)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_a_cohort_of_an_older_simulator_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "cohort"
    demo_steps.simulate(folder, 2, 0, lambda *_: None)
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    sidecar = folder / "simulation.json"
    version = demo_steps.simulation_version(folder)
    sidecar.write_text(sidecar.read_text().replace(f'"version": {version}', '"version": 0'))
    assert demo_steps.simulation_version(folder) == 0
    demo_steps.simulate(folder, 2, 0, lambda *_: None)
    assert demo_steps.simulation_version(folder) == version
    assert all(path.stat().st_mtime_ns > then for path, then in stamps.items())
    assert demo_steps.simulation_version(tmp_path) is None
