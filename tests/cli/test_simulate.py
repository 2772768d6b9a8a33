from __future__ import annotations

import json
from pathlib import Path

import pytest

from latentdrift.cli.__main__ import main
from latentdrift.data import Cohort


def test_chests_with_their_truth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "chests"
    assert main(["simulate", "--kind", "chest", "--subjects", "4", "--size", "64", "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["images"] == 4
    cohort = Cohort.open(out)
    assert cohort.class_attribute() == "finding"
    assert set(cohort.values("finding")) == {"NoFinding", "Cardiomegaly", "Effusion", "Pneumonia"}
    assert len(list((out / "truth").glob("*.png"))) == 4 * 3


def test_brains_at_two_visits_without_truth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "brains"
    words = ["simulate", "--subjects", "3", "--visits", "2", "--years-between", "2", "--size", "64", "--no-truth"]
    assert main([*words, "--strength", "1", "--out", str(out), "--quiet"]) == 0
    cohort = Cohort.open(out)
    assert len(cohort) == 6
    assert len({(record.subject, record.session) for record in cohort}) == 6
    assert not (out / "truth").exists()
    capsys.readouterr()
    assert main([*words, "--out", str(out), "--quiet"]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert main(["simulate", "--kind", "chest", "--visits", "2", "--out", str(tmp_path / "no"), "--quiet"]) == 2
    assert not (tmp_path / "no").exists()
