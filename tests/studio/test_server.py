"""However the studio ends, its uploads go and what it started stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from latentdrift.cli.studio import StudioOptions, chosen_password
from latentdrift.errors import ConfigurationError
from latentdrift.studio.server import ServerConfig, bound_socket

SCRIPT = """
import os, signal, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)
# Whoever runs the tests may have been started by nohup.
signal.signal(signal.SIGHUP, signal.SIG_IGN if "nohup" in sys.argv else signal.SIG_DFL)
from latentdrift.studio import server
os.environ["PYTHONPATH"] = sys.argv[1]  # what is started finds the stand-in for the command line

async def page(scope, receive, send):
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})

def build(studio, config):
    (studio.folder / "uploads").mkdir()
    (studio.folder / "uploads" / "scan.png").touch()
    started = studio.processes.start(["wait"])
    while "working" not in started.tail():
        time.sleep(0.05)
    print(started.handle.pid, studio.folder, flush=True)
    if "building" in sys.argv:
        time.sleep(60)
    return page

server.build_app, server.warm = build, lambda studio: None

def ready(address):
    print(address, flush=True)
    if "starting" in sys.argv:  # the address is told, and the server does not run yet
        os.kill(os.getpid(), signal.SIGTERM)

server.serve(server.ServerConfig(workspace=Path("."), port=0), ready)
"""


@contextmanager
def studio(tmp_path: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], int, Path]]:
    """Run a studio whose page is a stand-in; yield it, a process that it started, and the folder of its uploads."""
    stand_in = tmp_path / "latentdrift"
    stand_in.mkdir()
    (stand_in / "__init__.py").touch()
    (stand_in / "__main__.py").write_text("import time\nprint('working', flush=True)\ntime.sleep(120)\n")
    (tmp_path / "work").mkdir()
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    source = str(Path(__file__).parents[2] / "src")
    one = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path), *words],
        cwd=tmp_path / "work",
        env={**os.environ, "PYTHONPATH": source, "PYTHONSAFEPATH": "1", "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert one.stdout is not None
    try:
        pid, _, folder = one.stdout.readline().strip().partition(" ")
        if "building" not in words:
            assert one.stdout.readline().startswith("http://127.0.0.1:")
        assert (Path(folder) / "uploads" / "scan.png").exists()
        yield one, int(pid), Path(folder)
    finally:
        one.kill()
        one.communicate()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("when", "number", "times"),
    [
        ("building", signal.SIGTERM, 2),
        ("building", signal.SIGHUP, 1),
        ("starting", signal.SIGTERM, 0),
        ("serving", signal.SIGTERM, 1),
        ("serving", signal.SIGHUP, 2),
    ],
)
def test_signals_that_end_it_leave_nothing(tmp_path: Path, number: signal.Signals, when: str, times: int) -> None:
    """A terminal that is closed, a lost connection and a process manager end it as Ctrl-C does."""
    with studio(tmp_path, when) as (one, pid, folder):
        for _ in range(times):  # the shell and the kernel may both send it
            one.send_signal(number)
        assert one.wait(60) == 128 + number
        assert one.stderr is not None
        assert "Traceback" not in one.stderr.read()
        assert not folder.exists()
        assert not alive(pid)


def test_nohup_keeps_it(tmp_path: Path) -> None:
    with studio(tmp_path, "nohup") as (one, _, folder):
        one.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            one.wait(2)
        one.send_signal(signal.SIGTERM)
        assert one.wait(60) == 128 + signal.SIGTERM
        assert not folder.exists()


@pytest.mark.parametrize("host", ["a..b", "x" * 70, "nowhere.invalid"])
def test_hosts_that_are_none_are_named(host: str) -> None:
    with pytest.raises(ConfigurationError, match="--host"):
        bound_socket(ServerConfig(host=host, port=0))


def test_passwords_are_read_from_text(tmp_path: Path) -> None:
    file = tmp_path / "password"
    options = StudioOptions(password_file=file)
    file.write_text("pässword\nmore\n", encoding="utf-8")
    assert chosen_password(options) == "pässword"
    file.write_bytes("pässword".encode("latin-1"))
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        chosen_password(options)
    file.write_text("\n")
    with pytest.raises(ConfigurationError, match="is empty"):
        chosen_password(options)
    file.unlink()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        chosen_password(options)
