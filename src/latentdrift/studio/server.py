"""The studio as a server: on this machine alone unless told otherwise, with its own folder that goes when it ends."""

from __future__ import annotations

import hmac
import ipaddress
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentdrift.errors import ConfigurationError, LatentDriftError
from latentdrift.studio.guard import LOOPBACK, Guard, checked_name
from latentdrift.studio.page import Studio, build_page
from latentdrift.studio.processes import Processes
from latentdrift.studio.shelf import USUAL, Shelf
from latentdrift.studio.style import CSS, theme
from latentdrift.studio.workspace import Workspace

ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals of process managers, and of terminals that are closed or whose connection is lost; Windows lacks one."""


@dataclass(frozen=True)
class ServerConfig:
    """Where and for whom."""

    workspace: Path = Path(".")
    host: str = "127.0.0.1"
    port: int = 7860
    password: str | None = None
    max_upload_mb: int = 500
    device: str | None = None
    public_name: str | None = None
    """Host name under which a proxy in front is opened."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigurationError(f"The port is {self.port}; give one from 1 to 65535, or 0 for any that is free.")
        if self.max_upload_mb < 1:
            raise ConfigurationError(f"max_upload is {self.max_upload_mb} MB; give 1 or more.")
        if self.password is not None and not self.password:
            raise ConfigurationError("The password is empty. Give one of at least one letter, or none at all.")
        if self.public_name is not None:
            checked_name(self.public_name)

    @property
    def is_local(self) -> bool:
        """Whether it answers this machine alone."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


@contextmanager
def open_studio(config: ServerConfig) -> Iterator[Studio]:
    """Yield a studio with a folder for uploads that is nobody else's, and end what it started when the block ends."""
    workspace = Workspace.of(config.workspace)
    folder = Path(tempfile.mkdtemp(prefix="latentdrift-studio-"))  # mode 0700
    processes = Processes(workspace)
    try:
        yield Studio(workspace, Shelf(workspace, config.device), processes, folder)
    finally:
        processes.stop_all()
        shutil.rmtree(folder, ignore_errors=True)


def build_app(studio: Studio, config: ServerConfig) -> Any:
    """Return the ASGI application: the page behind its guard."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(studio.folder / "uploads")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import fastapi
    import gradio as gr

    app = gr.mount_gradio_app(
        fastapi.FastAPI(openapi_url=None, docs_url=None, redoc_url=None),
        build_page(studio),
        path="/",
        server_name=config.host,
        server_port=config.port,
        footer_links=[],
        run_history=False,
        auth=None if config.password is None else checker(config.password),
        auth_message=None if config.password is None else "Any user name, and the studio's password.",
        allowed_paths=[str(studio.folder / "sessions")],
        blocked_paths=[str(studio.workspace.root)] if apart(studio) else [],
        show_error=False,
        max_file_size=config.max_upload_mb * 2**20,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme(),
        css=CSS,
    )
    public = None if config.public_name is None else checked_name(config.public_name)
    return Guard(app, LOOPBACK if config.is_local else None, public)


def apart(studio: Studio) -> bool:
    """Tell whether the studio's own folder is outside its workspace, which may then be closed as a whole."""
    return not studio.folder.resolve().is_relative_to(studio.workspace.root)


def checker(password: str) -> Any:
    """Return what compares a password in constant time, whatever the name."""

    def check(_: str, given: str) -> bool:
        return hmac.compare_digest(given.encode(), password.encode())

    return check


def bound_socket(config: ServerConfig) -> socket.socket:
    """Return a socket that listens at the wanted place.

    Raises:
        ConfigurationError: the port is taken, or the host is none of this machine's or no name at all.
    """
    try:
        family = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0][0]
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((config.host, config.port))
    except UnicodeError as error:  # of the encoding of names, such as for a..b
        raise ConfigurationError(f"The host {config.host!r} is no name or address. Give another --host.") from error
    except OSError as error:
        raise ConfigurationError(
            f"Cannot listen at {config.host}:{config.port}: {error.strerror or error}. Give another --port or --host."
        ) from error
    return found


def serve(config: ServerConfig, ready: Any = print) -> None:
    """Serve until interrupted; `ready` is called with the address once it can be opened.

    Raises:
        ConfigurationError: the place cannot be listened at, or the workspace is no folder.
    """
    import uvicorn

    with exiting_when_ended() as gently, open_studio(config) as studio, bound_socket(config) as listening:
        app = build_app(studio, config)
        # No access log: the addresses of sessions would be in it.
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2))
        threading.Thread(target=warm, args=(studio,), daemon=True).start()
        host = f"[{config.host}]" if ":" in config.host else config.host
        gently.append(server)
        ready(f"http://{host}:{listening.getsockname()[1]}")
        server.run(sockets=[listening])


@contextmanager
def exiting_when_ended() -> Iterator[list[Any]]:
    """Make the signals of process managers and of closed terminals an exit, so that what is open is cleaned up.

    By default they end a process at once: uploads would stay, and what was started would go on. A signal that is
    ignored already, as by nohup, stays so. A uvicorn server put into the list yielded is asked to end first, whether or
    not it runs yet; it raises the signal again when it is done.
    """
    former = {number: signal.getsignal(number) for number in ENDING}
    heard = [number for number in ENDING if former[number] is not signal.SIG_IGN]
    servers: list[Any] = []

    def leave(number: int, frame: Any) -> None:
        if servers and not servers[0].should_exit:
            servers[0].handle_exit(number, frame)
            return
        for one in heard:  # a closed terminal may send several: the second must not break the clean-up off
            signal.signal(one, signal.SIG_IGN)
        sys.exit(128 + number)

    for number in heard:
        signal.signal(number, leave)
    try:
        yield servers
    finally:
        for number in heard:
            signal.signal(number, former[number])


def warm(studio: Studio) -> None:
    """Load the usual model before the first edit asks for it."""
    try:
        studio.shelf.model(USUAL)
    except LatentDriftError:
        return  # the first edit will say it on the page
