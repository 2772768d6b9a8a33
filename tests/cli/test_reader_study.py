"""A whole study by its commands: built, answered by simulated readers, analysed."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from latentdrift.cli.__main__ import main
from latentdrift.studio.reader_study.answers import Answer, Answers
from latentdrift.studio.reader_study.study import read_key, read_study
from tests.doc_blocks import blocks, commands

IMAGES = 40


def write_noise(folder: Path, seed: int) -> Path:
    folder.mkdir()
    draw = np.random.default_rng(seed)
    rows = [["file_name", "stage"]]
    for index in range(30):
        Image.fromarray(draw.integers(0, 255, (16, 16), dtype=np.uint8)).save(folder / f"{index}.png")
        rows.append([f"{index}.png", ("CN", "AD")[index % 2]])
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = main(["reader-study", *(str(word) for word in words)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def told(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    """Return what a command says with --json, which must be all that stands on its output."""
    status, out, err = run(capsys, *words, "--json", "--quiet")
    assert (status, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.fixture
def study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    real, made = write_noise(tmp_path / "real", 0), write_noise(tmp_path / "made", 1)
    facts = told(
        capsys, "build", "--real", real, "--synthetic", made, "--out", tmp_path / "study",
        "--count", IMAGES, "--readers", 3, "--repeats", 5, "--attribute", "stage",
    )  # fmt: skip
    assert facts["key"] == str(tmp_path / "study-key.csv")
    assert facts["images"] == "20 real, 20 synthetic, of 16 pixels"
    return tmp_path / "study"


def answer_all(folder: Path, skill: float, upto: int | None = None) -> None:
    """Answer as readers who see N(skill, 1) in synthetic images and N(0, 1) in real ones."""
    study = read_study(folder)
    key = read_key(folder.with_name("study-key.csv"), study)
    answers = Answers(folder / "answers.sqlite")
    draw = np.random.default_rng(4)
    for reader in study.readers:
        for place, name in enumerate(reader.order[:upto]):
            made = bool(key[name].arm)
            rating = 1 + int(np.digitize(skill * made + draw.normal(), skill / 2 + np.array([-1, -0.5, 0, 0.5, 1.0])))
            shown = key[name].shown if draw.random() < 0.8 else "CN"
            given = Answer(reader.name, place, name, rating, shown, 5 - made - int(draw.random() < 0.3), "", 3.0)
            assert answers.save(given)


def test_readers_with_skill(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer_all(study, 1.5)
    facts = told(capsys, "analyse", "--study", study, "--out", tmp_path / "results", "--resamples", 200)
    area = facts["together"]["AUC"]
    assert area["low"] < 0.855 < area["high"]  # the area of d' = 1.5
    assert "better than by guessing" in facts["verdict"]
    assert facts["together"]["quality, synthetic − real"]["high"] < 0
    assert len(facts["readers"]) == 3
    assert facts["notes"] == []
    assert json.loads((tmp_path / "results" / "results.json").read_text())["together"] == facts["together"]
    with (tmp_path / "results" / "answers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * (IMAGES + 5)
    assert {row["kind"] for row in rows} == {"real", "synthetic"}
    with (tmp_path / "results" / "figures.csv").open() as file:
        figures = {(row["reader"], row["figure"]): row for row in csv.DictReader(file)}
    assert float(figures["all", "AUC"]["value"]) == area["value"]
    page = (tmp_path / "results" / "page.html").read_text()
    assert facts["verdict"].split(" (")[0] in page
    assert all(words in page for words in ("Fleiss", "reader 3", "themselves", "data:image/png", "SHA-256 of the key"))
    assert "http" not in page.replace("http-equiv", "")


def test_readers_who_guess_and_have_not_finished(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer_all(study, 0.0, upto=30)
    status, out, _ = run(capsys, "analyse", "--study", study, "--out", tmp_path / "results", "--resamples", 200)
    assert status == 0
    assert "It was not shown" in out
    assert "reader 2 has answered 30 of 45." in out
    area = json.loads((tmp_path / "results" / "results.json").read_text())["together"]["AUC"]
    assert area["low"] < 0.5 < area["high"]


def test_what_cannot_be_is_refused(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*words: object) -> str:
        status, _, err = run(capsys, *words)
        assert status == 2
        return err

    build = ["build", "--real", tmp_path / "real", "--synthetic", tmp_path / "made"]
    assert "exists" in refused(*build, "--out", study)
    out = tmp_path / "other"
    assert "Keep it elsewhere" in refused(*build, "--out", out, "--key", out / "key.csv")
    assert "--count 1 is too small" in refused(*build, "--out", out, "--count", 1)
    assert not out.exists()
    assert not out.with_name("other-key.csv").exists()
    assert "no answers" in refused("analyse", "--study", study, "--out", out)
    Answers(study / "answers.sqlite")
    assert "no answer yet" in refused("analyse", "--study", study, "--out", out)
    assert "cannot be read" in refused("analyse", "--study", study, "--out", out, "--key", tmp_path / "none.csv")
    assert "'serve'" in refused("server")
    assert not out.exists()


def test_the_commands_of_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they stand there, but for the port and the number of images; answers come from simulated readers."""
    from latentdrift.studio.reader_study import server

    page = next(block for block in blocks() if block.page == "docs/reader-study.md")
    build, serve, analyse = (words[2:] for words in commands(page))
    monkeypatch.chdir(tmp_path)
    write_noise(tmp_path / "FOLDER", 0)
    write_noise(tmp_path / "IMAGES", 1)
    build[build.index("--count") + 1] = "40"
    assert run(capsys, *build)[0] == 0
    served: list[str] = []
    monkeypatch.setattr(
        server, "run_server", lambda study, answers, host, port, ready, public_name: served.append(f"{host}:{port}")
    )
    assert run(capsys, *serve)[0] == 0
    assert served == ["127.0.0.1:8347"]
    answer_all(tmp_path / "study", 1.0)
    assert run(capsys, *analyse)[0] == 0
    names = {path.name for path in (tmp_path / "study-results").iterdir()}
    assert names == {"page.html", "results.json", "figures.csv", "answers.csv", "roc.png"}


def test_serve_says_where_and_ends_well(study: Path) -> None:
    source = str(Path(__file__).parents[2] / "src")
    command = [
        sys.executable,
        "-m",
        "latentdrift",
        "reader-study",
        "serve",
        "--study",
        str(study),
        "--port",
        "0",
        "--json",
    ]
    server = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": source}
    )
    try:
        assert server.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            line = server.stdout.readline()
            assert line, server.stderr.read() if server.stderr else ""
            text += line
        facts = json.loads(text)
        assert facts["address"].startswith("http://127.0.0.1:")
        assert facts["warnings"] == []
        assert facts["readers"][0].endswith("0 of 45 answered")
        with urllib.request.urlopen(facts["address"], timeout=60) as page:
            assert "Your code" in page.read().decode()
    finally:
        server.send_signal(signal.SIGINT)
        _, err = server.communicate(timeout=60)
    assert (server.returncode, err) == (0, "")
