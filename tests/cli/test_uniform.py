"""What all commands have in common: --json, --quiet, progress, and results on standard output alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from latentdrift.cli.__main__ import COMMANDS, main
from latentdrift.cli.show import progress
from latentdrift.cli.tree import Command, commands, kinds_of

SHOWS_NOTHING = {"info", "studio", "serve"}
"""Commands that answer at once, or run until they are stopped; all others show what they are doing."""


@pytest.fixture(scope="module")
def known() -> list[Command]:
    return commands(list(COMMANDS))


def test_every_command_is_described(known: list[Command]) -> None:
    assert {command.words[0] for command in known} == set(COMMANDS)
    assert len({command.words for command in known}) == len(known)
    for name in COMMANDS:
        kinds = {command.words[1] for command in known if command.words[0] == name and len(command.words) == 2}
        assert kinds == set(kinds_of(name))


def test_every_command_has_json_and_quiet(known: list[Command]) -> None:
    for command in known:
        names = {name for flag in command.flags for name in flag.names}
        assert {"--json", "--quiet"} <= names, command.words


def test_help_and_description_tell_the_same(
    known: list[Command], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flags of `--help` are those that are completed; those of other methods and editors come on top."""
    monkeypatch.setenv("COLUMNS", "100")  # wider, boxes would stand side by side
    monkeypatch.setenv("NO_COLOR", "1")
    for command in known:
        assert main([*command.words, "--help"]) == 0
        told = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
        # The lines on flags begin with one in the box of options.
        lines = [line.strip("│ ") for line in told.splitlines() if re.match(r"[│ ]*(-h, )?--\w", line)]
        shown = {name for line in lines for name in re.findall(r"(?<![\w`-])--[a-z][\w-]*", line.split("  ")[0])}
        assert {"--json", "--quiet", "--help"} <= shown, command.words
        described = {name for flag in command.flags for name in flag.names}
        assert shown <= described, (command.words, shown - described)
        if not {"--method", "--editor"} & described:
            assert described - shown <= {"--config", "-h"}, command.words


def test_every_command_shows_progress(known: list[Command]) -> None:
    """By its source: a command opens `progress` and tells it something, itself or by what it calls."""
    folder = Path(__file__).parents[2] / "src" / "latentdrift" / "cli"
    for command in known:
        names = ["_".join(command.words).replace("-", "_"), command.words[0].replace("-", "_")]
        path = next(folder / f"{name}.py" for name in names if (folder / f"{name}.py").exists())
        if command.words[-1] in SHOWS_NOTHING:
            continue
        source = path.read_text(encoding="utf-8")
        assert "with progress(options.quiet" in source, command.words
        assert re.search(r"\btell\b", source), command.words


SMALL = ["simulate", "--subjects", "2", "--size", "32", "--no-truth", "--out"]


@pytest.mark.parametrize("arguments", [["info"], [*SMALL, "OUT"]])
def test_json_is_all_that_stands_on_the_output(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(tmp_path / "cohort") if word == "OUT" else word for word in arguments]
    assert main([*words, "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)
    assert bool(shown.err) == (arguments[0] not in SHOWS_NOTHING)


def test_quiet_says_nothing_on_the_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "cohort"
    assert main([*SMALL, str(out), "--quiet"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "images" in shown.out


def test_errors_are_not_on_the_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "leakage", "--data", str(tmp_path / "none"), "--json"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "none" in shown.err


def test_a_terminal_is_told_the_time_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # how rich is told that it writes to a terminal
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress() as tell:
        for done in range(5):
            tell("images", done, 4)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.search(r"images.*4/4.*0:00:00.*0:00:00", shown.err)  # done, time taken, time left


def test_python_runs_the_package() -> None:
    import os
    import subprocess
    import sys

    import latentdrift

    variables = {**os.environ, "PYTHONPATH": str(Path(latentdrift.__file__).parents[1])}
    command = [sys.executable, "-m", "latentdrift", "--version"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == latentdrift.__version__
