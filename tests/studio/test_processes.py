"""Commands as processes: started in the workspace, followed by their log, stopped."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from latentdrift.errors import ConfigurationError
from latentdrift.studio import processes as module
from latentdrift.studio.processes import Processes
from latentdrift.studio.workspace import Workspace


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Let children be interrupted, as the server does, also where the tests themselves were started to ignore it."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.fixture
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Processes:
    """Processes of a stand-in for the command line: `python -m latentdrift WORDS` is slow to import here."""
    folder = tmp_path / "latentdrift"
    folder.mkdir()
    (folder / "__init__.py").touch()  # before the installed package, which a namespace would not be
    (folder / "__main__.py").write_text(
        "import sys, time, pathlib\n"
        "print('\\x1b[1mworking\\x1b[0m in', pathlib.Path.cwd().name, *sys.argv[1:], flush=True)\n"
        "if 'wait' in sys.argv:\n    try:\n        time.sleep(60)\n    except KeyboardInterrupt:\n"
        "        print('saved', flush=True)\n        sys.exit(130)\n"
        "sys.exit(2 if 'fail' in sys.argv else 0)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "work").mkdir()
    assert sys.executable
    return Processes(Workspace.of(tmp_path / "work"))


def until(condition: object, seconds: float = 60.0) -> bool:
    """Wait until a function says yes."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


def test_a_command_runs_in_the_workspace_and_is_followed(processes: Processes) -> None:
    done = processes.start(["finetune", "--data", "./data"])
    assert done.state in ("running", "finished")
    assert until(lambda: done.state == "finished"), done.tail()
    assert "working in work finetune --data ./data" in done.tail()
    assert done.log.parent == processes.workspace.root / module.LOGS
    failed = processes.start(["fail"])
    assert until(lambda: failed.state == "failed (2)")


def test_a_command_is_stopped_as_by_ctrl_c(processes: Processes) -> None:
    one = processes.start(["wait"])
    assert until(lambda: "working" in one.tail())
    with pytest.raises(ConfigurationError, match="running already"):
        processes.start(["wait"])
    processes.stop(one.name)
    assert until(lambda: one.state == "stopped"), one.tail()
    assert "saved" in one.tail()
    with pytest.raises(ConfigurationError, match="Nothing of that name"):
        processes.stop("other")


def test_all_ends_with_the_studio(processes: Processes) -> None:
    one = processes.start(["wait", "1"])
    assert until(lambda: "working" in one.tail())
    processes.stop_all()
    assert one.handle.poll() is not None
