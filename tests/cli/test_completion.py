"""The completion scripts, asked by the shells themselves."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from latentdrift.cli.__main__ import COMMANDS, main
from latentdrift.cli.completion import KINDS
from latentdrift.cli.completion_scripts import SCRIPTS, Grammar
from latentdrift.cli.tree import commands, kinds_of

NAMES = ["audit", "evaluate", "finetune", "ladder", "reader-study", "verify"]
"""Commands of every form; all of them take longer to describe."""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("scripts")
    kinds = {name: tuple(known) for name in NAMES if (known := kinds_of(name))}
    grammar = Grammar({name: COMMANDS[name] for name in NAMES}, kinds, tuple(commands(NAMES)))
    for shell, make in SCRIPTS.items():
        (folder / shell).write_text(make(grammar), encoding="utf-8")
    return {shell: folder / shell for shell in SCRIPTS}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which to complete file names."""
    (tmp_path / "scan one.png").touch()
    (tmp_path / "scans").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def complete(script: Path, *words: str) -> list[str]:
    """Return what bash offers for the last word."""
    told = " ".join(map(shlex.quote, ("latentdrift", *words)))
    asked = f"source {shlex.quote(str(script))}; COMP_WORDS=({told}); COMP_CWORD={len(words)}; _latentdrift; "
    asked += "printf '%s\\n' \"${COMPREPLY[@]}\""
    done = subprocess.run(["bash", "--norc", "-c", asked], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["fi"], ["finetune"]),
        (["audit", ""], ["leakage", "privacy", "--help"]),
        (["reader-study", "an"], ["analyse"]),
        (["audit", "leakage", "--spl"], ["--split"]),
        (["audit", "privacy", "--spl"], ["--split"]),
        (["audit", "leakage", "--no-q"], ["--no-quiet"]),
        (["ladder", "--fro"], ["--from"]),
        (["evaluate", "--figures", ""], ["all", "basic"]),
        (["evaluate", "--figures", "=", "b"], ["basic"]),
        (["evaluate", "--figures", "="], ["all", "basic"]),
        (["evaluate", "--json", "--figures", "basic", "--qu"], ["--quiet"]),
        (["finetune", "--rule", "m"], ["matched"]),
        (["finetune", "--method", "cus"], ["custom_diffusion"]),
        (["finetune", "--ran"], ["--rank"]),
        (["finetune", "--seed", ""], []),
        (["evaluate", "--real", "sc"], ["scan one.png", "scans"]),
        (["reader-study", "build", "--synthetic", "scans", "scan "], ["scan one.png"]),
        (["verify", "scan "], ["scan one.png"]),
        (["finetune", "--base", "tiny-"], ["tiny-brain"]),
        (["nothing", ""], []),
    ],
)
@pytest.mark.usefixtures("files")
def test_bash_offers(scripts: dict[str, Path], words: list[str], offered: list[str]) -> None:
    assert sorted(complete(scripts["bash"], *words)) == sorted(offered)


def test_bash_offers_all_commands_and_flags(scripts: dict[str, Path]) -> None:
    assert set(complete(scripts["bash"], "")) == {*NAMES, "--help", "--version"}
    offered = set(complete(scripts["bash"], "evaluate", "--"))
    assert {"--real", "--no-json", "--config", "--help", "--age-bins"} <= offered


def test_bash_answers_fast(scripts: dict[str, Path]) -> None:
    """The script starts no Python: ten answers in a shell that has loaded it take well below a second each."""
    asked = f"source {shlex.quote(str(scripts['bash']))}; COMP_WORDS=(latentdrift finetune --method ''); COMP_CWORD=3; "
    asked += "for i in 1 2 3 4 5 6 7 8 9 10; do _latentdrift; done; times"
    began = time.monotonic()
    done = subprocess.run(["bash", "--norc", "-c", asked], capture_output=True, text=True, check=True)
    minutes, seconds = done.stdout.split()[0].rstrip("s").split("m")
    assert 60 * int(minutes) + float(seconds) < 0.5
    assert time.monotonic() - began < 30


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish")
def test_fish_offers(scripts: dict[str, Path], files: Path) -> None:
    def offered(line: str) -> list[str]:
        asked = f"source {shlex.quote(str(scripts['fish']))}; complete -C {shlex.quote(line)}"
        done = subprocess.run(["fish", "-N", "-c", asked], capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return [row.split("\t")[0] for row in done.stdout.splitlines()]

    assert offered("latentdrift fi") == ["finetune"]
    assert offered("latentdrift audit ") == ["leakage", "privacy"]
    assert offered("latentdrift audit leakage --spl") == ["--split"]
    assert offered("latentdrift evaluate --figures ") == ["all", "basic"]
    assert "scans/" in offered("latentdrift verify sc")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_are_read_by_their_shells(scripts: dict[str, Path], shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    subprocess.run([shell, "-n", str(scripts[shell])], check=True)


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_scripts_name_commands_flags_and_choices(scripts: dict[str, Path], shell: str) -> None:
    text = scripts[shell].read_text()
    assert all(word in text for word in [*NAMES, "leakage", "--method", "textual_inversion", "all basic"])


@pytest.mark.skipif(shutil.which("tcsh") is None, reason="there is no tcsh")
def test_tcsh_takes_the_script(scripts: dict[str, Path]) -> None:
    asked = f"source {shlex.quote(str(scripts['tcsh']))}; complete latentdrift"
    done = subprocess.run(["tcsh", "-f", "-c", asked], capture_output=True, text=True, check=True)
    assert "n/--figures/(all basic)/" in done.stdout


def test_the_command_prints_a_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash", "--quiet"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert all(f"{name}" in shown.out for name in COMMANDS)
    assert main(["completion", "fish", "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["script"].startswith("function __latentdrift_at")


def test_help_and_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "--help"]) == 0
    told = capsys.readouterr().out
    assert all(shell in told for shell in KINDS)
    assert main(["completion"]) == 2
    capsys.readouterr()
    assert main(["completion", "bsh"]) == 2
    assert "'bash'" in capsys.readouterr().err
