"""A folder of other files is no place for results: commands refuse it before any work, and nothing in it changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from latentdrift.cli.__main__ import main
from latentdrift.cli.whole_folder import AUDITS, check_out, whole_folder
from latentdrift.errors import ConfigurationError, DataError

WISH = ("--source", "stage=NonDemented", "--target", "stage=MildDemented")
RUNGS = ("--source", "stage=NonDemented", "--drift-from", 0, "--drift-to", 0.1, "--count", 2, "--extractor", "none")


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def scans(toy_cohort: Path, tmp_path: Path) -> Path:
    """The user's folder: a scan, a table, and files of the names that commands give theirs."""
    folder = tmp_path / "d"
    folder.mkdir()
    shutil.copy(toy_cohort / "images" / "s01-0.png", folder / "scan.png")
    (folder / "metadata.csv").write_text("file_name,stage\nscan.png,NonDemented\n")
    for name in ("frame-07.png", "page.html", "curve.csv", "answers.csv", "pairs.csv", "refused.csv"):
        (folder / name).write_bytes(b"mine")
    return folder


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model is opened, no image compared: what is refused is refused at once."""

    def work(*_: object, **__: object) -> None:
        raise AssertionError("work was begun")

    works = (
        "cli.models.open_model",
        "data.leakage.find_leakage",
        "data.prepare.prepare_cohort",
        "cli.evaluate.evaluate",
    )
    for name in works:
        monkeypatch.setattr(f"latentdrift.{name}", work)


@pytest.mark.parametrize(
    "command",
    [
        ("counterfactual", "--image", "OUT/scan.png", *WISH),
        ("counterfactual", "--image", "DATA", "--take", 2, "--target", "stage=MildDemented"),
        ("ladder", "--image", "DATA/images/s01-0.png", *RUNGS),
        ("generate", "--count", 1),
        ("search", "--image", "DATA", "--target", "stage=MildDemented"),
        ("prepare", "imagefolder", "--root", "DATA"),
        ("audit", "leakage", "--data", "DATA"),
        ("evaluate", "--real", "DATA", "--synthetic", "DATA"),
        ("audit", "privacy", "--synthetic", "DATA", "--data", "DATA"),
        ("utility", "--real", "DATA", "--synthetic", "DATA", "--test", "DATA", "--attribute", "stage"),
        ("reader-study", "analyse", "--study", "DATA"),
        ("demo",),
    ],
)
def test_a_folder_of_other_files_is_refused_at_once(
    command: tuple[object, ...], scans: Path, toy_cohort: Path, no_work: None, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(scans)
    words = [str(word).replace("OUT", str(scans)).replace("DATA", str(toy_cohort)) for word in command]
    status, _, error = run(capsys, *words, "--out", scans, "--quiet")
    assert status == 2
    assert f"--out {scans} holds " in error
    assert "Choose another folder" in error
    assert contents(scans) == before


@pytest.mark.parametrize("command", ["counterfactual", "ladder"])
def test_a_former_result_is_replaced_but_not_a_source_in_it(
    command: str, toy_run: Path, toy_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, image = tmp_path / "out", toy_cohort / "images" / "s01-0.png"
    more = WISH if command == "counterfactual" else RUNGS
    start = (command, "--model", toy_run, "--out", out, "--steps", 2, "--quiet", *more)
    for _ in range(2):
        status, _, error = run(capsys, *start, "--image", image)
        assert status == 0, error
    before = contents(out)
    source = next(path for path in sorted(out.glob("*source.png")))
    for given in (source, out):
        status, _, error = run(capsys, *start, "--image", given)
        assert status == 2
        assert "which is read" in error
        assert contents(out) == before
    # What the other command left is not ours, though its result has the same name.
    other = ("generate",) if command == "ladder" else ("ladder", "--image", image, *RUNGS)
    assert run(capsys, *other, "--model", toy_run, "--out", out, "--quiet")[0] == 2
    assert contents(out) == before


def test_images_that_a_cohorts_table_names_elsewhere_are_sources(
    toy_run: Path, toy_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, cohort = tmp_path / "out", tmp_path / "cohort"
    out.mkdir()
    cohort.mkdir()
    shutil.copy(toy_cohort / "images" / "s01-0.png", out / "scan.png")
    (out / "result.json").write_text('{"captions": {}}')
    (cohort / "metadata.csv").write_text(f"file_name,stage\n{out / 'scan.png'},NonDemented\n")
    before = contents(out)
    words = ("counterfactual", "--model", toy_run, "--image", cohort, "--target", "stage=MildDemented", "--quiet")
    status, _, error = run(capsys, *words, "--steps", 2, "--out", out)
    assert status == 2
    assert contents(out) == before, error


def test_generate_goes_on_in_a_folder_where_it_was_interrupted(
    toy_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "images"
    words = ("generate", "--model", toy_run, "--count", 2, "--batch-size", 1, "--steps", 1, "--quiet", "--out", out)
    from latentdrift.cli import folders

    write_table = folders.write_table

    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(folders, "write_table", interrupted)
    assert run(capsys, *words)[0] == 130
    assert {path.name for path in out.iterdir()} == {"generate.json", "000000.png"}
    monkeypatch.setattr(folders, "write_table", write_table)
    for _ in range(2):
        status, _, error = run(capsys, *words)
        assert status == 0, error
    assert len((out / "metadata.csv").read_text().splitlines()) == 3


def test_what_a_former_result_is_told_by(tmp_path: Path) -> None:
    out, own = tmp_path / "out", {"result.json": "frames"}
    check_out(out, own)
    out.mkdir()
    (out / ".DS_Store").write_text("")
    check_out(out, own)
    for text in ("", "[]", "{}", '{"captions": 1}'):
        (out / "result.json").write_text(text)
        with pytest.raises(ConfigurationError, match=r"holds result\.json, but no former result"):
            check_out(out, own)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match=r"holds notes\.txt and 1 more"):
        check_out(out, own)
    check_out(out, own, beside=[out / "notes.txt", out / "result.json"])
    (out / "result.json").write_text(json.dumps({"frames": []}))
    check_out(out, own, [tmp_path / "elsewhere.png"])
    with pytest.raises(DataError, match="is a file"):
        check_out(out / "notes.txt", own)


def test_a_whole_folder_is_no_other_ones(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("privacy.json", "evaluation.json"):
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        (out / "pairs-1.png").write_text("mine")
        with pytest.raises(ConfigurationError, match=r"holds pairs-1\.png"), whole_folder(out, name, "pairs-*.png"):
            raise AssertionError("work was begun")
        (out / name).write_text("{}")
        with whole_folder(out, name, "pairs-*.png") as folder:
            (folder / name).write_text("{}")
        assert contents(out) == {name: b"{}"}
    # Both audits may share a folder.
    (out / "evaluation.json").rename(out / "leakage.json")
    with whole_folder(out, "privacy.json", own=AUDITS) as folder:
        (folder / "privacy.json").write_text("{}")


def test_a_demo_deletes_no_cohort_that_it_did_not_make(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from latentdrift.cli.demo_steps import simulate

    cohort = scans.rename(tmp_path / "cohort")
    before = contents(tmp_path)
    assert run(capsys, "demo", "--out", tmp_path, "--subjects", 3, "--quiet")[0] == 2
    with pytest.raises(DataError, match="no demo made"):
        simulate(cohort, 3, 0, lambda *_: None)
    # One of `latentdrift simulate` with its truth is no demo's either.
    (cohort / "simulation.json").write_text('{"version": 0}')
    (cohort / "truth").mkdir()
    with pytest.raises(DataError, match="no demo made"):
        simulate(cohort, 3, 0, lambda *_: None)
    (cohort / "simulation.json").unlink()
    assert contents(tmp_path) == before


def test_a_search_may_keep_its_storage_in_its_folder(tmp_path: Path) -> None:
    from latentdrift.cli.search import OWN, storage_files

    (tmp_path / "study.db").write_text("")
    (tmp_path / "study.db-journal").write_text("")
    for storage in (f"{tmp_path}/study.db", f"sqlite:///{tmp_path}/study.db"):
        check_out(tmp_path, OWN, beside=storage_files(storage))
    with pytest.raises(ConfigurationError, match=r"holds study\.db and 1 more"):
        check_out(tmp_path, OWN, beside=storage_files(None))


def test_a_preparation_that_was_stopped_at_its_first_scan_goes_on(
    toy_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    words = ("prepare", "imagefolder", "--root", toy_cohort, "--out", out, "--workers", 1, "--limit", 2, "--quiet")
    from latentdrift.data.prepare.ledger import Ledger

    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "add", interrupted)
        assert run(capsys, *words)[0] == 130
    assert list(out.rglob("*.png"))
    for _ in range(2):
        status, _, error = run(capsys, *words)
        assert status == 0, error
