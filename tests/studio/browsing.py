"""A studio that is served on this machine, Debian's chromium, and a tab in it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from latentdrift.studio.server import ServerConfig

CHROMIUM = Path("/usr/bin/chromium")
PATIENCE = 240_000
"""Milliseconds; a machine that is busy with training is slow."""

needs_chromium = pytest.mark.skipif(not CHROMIUM.exists(), reason="chromium is not installed: apt install chromium")


@contextmanager
def serving(app: Any, listening: socket.socket) -> Iterator[str]:
    """Answer for an application in a thread; yield its address."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.05)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)


@contextmanager
def served(config: ServerConfig) -> Iterator[str]:
    """Serve a studio; yield its address, and check at the end that its own folder is gone."""
    from latentdrift.studio.server import bound_socket, build_app, open_studio

    with pytest.MonkeyPatch.context() as patch, open_studio(config) as studio, bound_socket(config) as listening:
        for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR", "HF_HUB_DISABLE_TELEMETRY"):
            patch.setenv(name, "")
        with serving(build_app(studio, config), listening) as address:
            yield address
    assert not studio.folder.exists()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window; closed with its module, for there can be one loop of playwright at a time."""
    sync = pytest.importorskip("playwright.sync_api")
    with sync.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Tab:
    """One tab, and every address that it asked."""

    def __init__(self, browser: Any, address: str) -> None:
        self.page = browser.new_context(viewport={"width": 1300, "height": 900}).new_page()
        self.page.set_default_timeout(PATIENCE)
        self.asked: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.address = address
        self.page.goto(address)

    def close(self) -> None:
        """Close it, and check that it asked nobody else."""
        self.page.context.close()
        assert [url for url in self.asked if not url.startswith((self.address, "data:", "blob:"))] == []

    def ready(self) -> Tab:
        """Wait until the page is laid out."""
        self.page.wait_for_selector("#make")
        return self

    def choose(self, field: str, option: str) -> None:
        """Take an option of a dropdown."""
        self.page.locator(f"{field} input").click()
        self.page.get_by_role("option", name=option, exact=True).click()

    def status(self, part: str, place: str = "#status") -> str:
        """Wait until the status, or an error in it, says something, and return it."""
        script = "([place, part]) => document.querySelector(place).innerText.includes(part)"
        self.page.wait_for_function(script, arg=[place, part])
        return str(self.page.inner_text(place))

    def upload(self, path: Path, says: str) -> str:
        self.page.locator("#scan input[type=file]").set_input_files(str(path))
        return self.status(says)

    def edit(self, steps: int = 2) -> str:
        field = self.page.locator("#steps input[type=number]")
        field.fill(str(steps))
        field.blur()
        self.choose("#target-0", "MildDemented")
        self.page.click("#make")
        return self.status("levels of 255")

    def export(self, kind: str, folder: Path) -> dict[str, Path]:
        """Export in one more format and download every file."""
        self.page.get_by_label(kind, exact=True).check()
        self.page.click("#export")
        self.status("Written")
        links = self.page.locator("#files a[download]")
        links.first.wait_for()
        found = {}
        for number in range(links.count()):
            with self.page.expect_download() as waiting:
                links.nth(number).click()
            path = folder / waiting.value.suggested_filename
            waiting.value.save_as(path)
            found[path.name] = path
        return found
