"""The code and the commands of docs/provenance.md."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from latentdrift.cli.__main__ import COMMANDS
from latentdrift.models.identity import weights_sha256

TEXT = (Path(__file__).parents[1] / "docs" / "provenance.md").read_text(encoding="utf-8")


def test_the_python_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert (tmp_path / "images" / "manifest.json").is_file()


def test_the_hash_of_a_model_is_what_the_shell_prints(toy_run: Path, tmp_path: Path) -> None:
    if shutil.which("sha256sum") is None:
        pytest.skip("there is no sha256sum here")
    (line,) = re.findall(r"^cd model && (find .*)$", TEXT, re.M)
    shell = subprocess.run(["bash", "-c", line], cwd=toy_run / "model", capture_output=True, text=True, check=True)
    assert shell.stdout.split()[0] == weights_sha256(toy_run)
    changed = Path(shutil.copytree(toy_run / "model", tmp_path / "changed"))
    file = next(changed.rglob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    assert weights_sha256(changed) != weights_sha256(toy_run)


def test_its_commands_are_known() -> None:
    names = set(re.findall(r"^latentdrift ([\w-]+)", TEXT, re.M))
    assert names == {"generate", "verify", "sign"}
    assert names <= COMMANDS.keys()
