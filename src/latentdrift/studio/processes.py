"""Training, search and evaluation as processes of the command line, with a log each; they are followed and stopped."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from latentdrift.errors import ConfigurationError, DataError
from latentdrift.studio.workspace import Workspace

LOGS = "studio-logs"
"""Folder in the workspace."""

SHOWN = 12_000
"""Bytes of a log's end that are shown."""

PATIENCE = 10.0
"""Seconds between asking a process to stop and making it."""

_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass
class Process:
    """One started command."""

    name: str
    words: tuple[str, ...]
    log: Path
    handle: subprocess.Popen[bytes]
    began: float = field(default_factory=time.time)
    stopped: bool = False

    @property
    def state(self) -> str:
        """running, finished, stopped, or failed with its exit status."""
        code = self.handle.poll()
        if code is None:
            return "stopping" if self.stopped else "running"
        if self.stopped:
            return "stopped"
        return "finished" if code == 0 else f"failed ({code})"

    def tail(self) -> str:
        """Return the end of the log, without the codes that colour a terminal."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - SHOWN))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return ""
        return _COLOURS.sub("", text).replace("\r", "\n")


class Processes:
    """What was started here; all of it ends with the studio."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.started: dict[str, Process] = {}
        self._lock = threading.Lock()

    def start(self, words: Sequence[str]) -> Process:
        """Start `latentdrift WORDS` in the workspace.

        Raises:
            ConfigurationError: the same command is running.
            DataError: the log cannot be written.
        """
        command = tuple(words)
        with self._lock:
            for one in self.started.values():
                if one.words == command and one.handle.poll() is None:
                    raise ConfigurationError(f"{one.name} is running already; follow it under Runs.")
            name = f"{command[0]} {len(self.started) + 1}"
            log = self.workspace.root / LOGS / f"{time.strftime('%Y%m%d-%H%M%S')}-{name.replace(' ', '-')}.log"
            try:
                log.parent.mkdir(exist_ok=True)
                with log.open("wb") as out:
                    out.write(f"$ latentdrift {' '.join(command)}\n".encode())
                    out.flush()
                    handle = subprocess.Popen(
                        [sys.executable, "-m", "latentdrift", *command],
                        cwd=self.workspace.root,
                        stdin=subprocess.DEVNULL,
                        stdout=out,
                        stderr=subprocess.STDOUT,
                        env={**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"},
                        start_new_session=True,  # stopped as a whole, workers included
                    )
            except OSError as error:
                raise DataError(f"The run cannot be started: {error}. Is the workspace writable?") from error
            self.started[name] = Process(name, command, log, handle)
            return self.started[name]

    def get(self, name: str | None) -> Process | None:
        """Return a started process by its name."""
        return self.started.get(name or "")

    def stop(self, name: str, patience: float = PATIENCE) -> Process:
        """Ask a process to stop as Ctrl-C does, so that it saves what it has; after a while make it.

        Raises:
            ConfigurationError: nothing of that name was started.
        """
        found = self.get(name)
        if found is None:
            raise ConfigurationError("Nothing of that name was started here. Choose a run from the list.")
        if found.handle.poll() is None:
            found.stopped = True
            _signal(found.handle, signal.SIGINT)
            threading.Thread(target=_make_stop, args=(found.handle, patience), daemon=True).start()
        return found

    def stop_all(self) -> None:
        """Stop everything and wait for it."""
        running = [one for one in self.started.values() if one.handle.poll() is None]
        for one in running:
            one.stopped = True
            _signal(one.handle, signal.SIGINT)
        for one in running:
            _make_stop(one.handle, PATIENCE)


def _make_stop(handle: subprocess.Popen[bytes], patience: float) -> None:
    try:
        handle.wait(patience)
    except subprocess.TimeoutExpired:
        _signal(handle, signal.SIGTERM)
        try:
            handle.wait(patience)
        except subprocess.TimeoutExpired:
            _signal(handle, signal.SIGKILL)
            handle.wait()


def _signal(handle: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to a process and its children, which are a session of their own."""
    with suppress(ProcessLookupError):
        os.killpg(handle.pid, number)
