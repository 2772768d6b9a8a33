"""The page in Debian's chromium: upload, edit, slider, export, errors, and that nobody else is asked."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from latentdrift.studio.server import ServerConfig
from tests.data.export.dicom_checker import check_with_dciodvfy
from tests.studio.browsing import PATIENCE, Tab, browser, needs_chromium, served

__all__ = ["browser"]

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve a studio of an empty workspace beside a secret, on a free port of this machine; yield where."""
    work = tmp_path_factory.mktemp("place") / "work"
    work.mkdir()
    (work / "secret.txt").write_text("secret")
    with served(ServerConfig(workspace=work, port=0, device="cpu")) as found:
        yield found


@pytest.fixture
def tab(browser: Any, address: str) -> Iterator[Tab]:
    one = Tab(browser, address).ready()
    yield one
    one.close()


def test_a_real_dicom_file_is_edited_and_exported(tab: Tab, tmp_path: Path) -> None:
    from pydicom import dcmread
    from pydicom.data import get_testdata_file

    real = Path(str(get_testdata_file("MR_small.dcm", download=False)))
    before_edit = dcmread(real)
    tab.upload(real, "Opened")
    assert "dicom" in tab.page.inner_text("#notes")
    assert "MildDemented" in tab.edit()
    for name in ("edit-source", "edit-image", "edit-map"):
        tab.page.wait_for_function(f"document.querySelector('#{name} img')?.naturalWidth >= 512")
    assert tab.page.locator("#before-after img").count() >= 2
    assert "not for diagnosis" in tab.page.inner_text("#notice")

    def handle() -> float:
        return float(tab.page.locator("#before-after .outer").first.bounding_box()["x"])

    before = handle()
    divider = tab.page.locator("#divider input[type=range]")
    divider.focus()
    for _ in range(4):
        tab.page.keyboard.press("ArrowLeft")
    assert divider.input_value() == "30"
    deadline = time.monotonic() + PATIENCE / 1000
    while handle() >= before and time.monotonic() < deadline:
        tab.page.wait_for_timeout(100)
    assert handle() < before
    files = tab.export("DICOM", tmp_path)
    assert set(files) == {"counterfactual.png", "edited-scan.dcm", "manifest.json"}
    found = dcmread(files["edited-scan.dcm"])
    assert found.SyntheticData == "YES"
    assert str(before_edit.PatientName) not in files["edited-scan.dcm"].read_bytes().decode("latin-1")
    assert found.pixel_array.shape == before_edit.pixel_array.shape
    assert (found.pixel_array != before_edit.pixel_array).any()
    record = json.loads(files["manifest.json"].read_text())
    assert record["model"]["name"] == "tiny-brain"
    assert {one["file"] for one in record["files"]} == {"counterfactual.png", "edited-scan.dcm"}
    check_with_dciodvfy(files["edited-scan.dcm"], tmp_path)


def test_a_picture_is_opened_and_a_bad_file_explained(tab: Tab, picture: Path, tmp_path: Path) -> None:
    tab.upload(picture, "Opened")
    assert "resized from 60 x 60 to 128 x 128" in tab.page.inner_text("#notes")
    tab.page.reload()
    tab.page.wait_for_selector("#make")
    bad = tmp_path / "broken.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    said = tab.upload(bad, "broken.png")
    assert tab.page.locator("#status [role=alert]").count() == 1
    assert "Traceback" not in said
    assert str(tmp_path) not in said
    tab.page.click("#make")
    assert "No scan is open" in tab.status("No scan")


def test_everything_that_takes_input_has_a_name(tab: Tab) -> None:
    nameless = tab.page.evaluate(
        """() => [...document.querySelectorAll('input:not([type=hidden]):not([type=file]), textarea, button, select')]
        .filter(one => one.offsetParent !== null)
        .filter(one => !(one.labels?.length || one.getAttribute('aria-label') || one.getAttribute('aria-labelledby')
            || one.title || one.innerText.trim()))
        .map(one => one.outerHTML.slice(0, 200))"""
    )
    assert nameless == []
    assert tab.page.locator("html").get_attribute("lang") == "en"
    assert tab.page.locator("h1").count() == 1


def test_no_file_outside_is_served(address: str, tmp_path: Path) -> None:
    config = json.loads(urllib.request.urlopen(f"{address}/config").read())
    assert config["analytics_enabled"] is False
    secret = "/etc/passwd"
    for path in (
        f"/gradio_api/file={secret}",
        "/gradio_api/file=/etc/../etc/passwd",
        "/gradio_api/file=secret.txt",
        "/gradio_api/file=../../../../../../etc/passwd",
        "/static/../../../../../../../etc/passwd",
        "/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        f"/gradio_api/file={tmp_path}",
        "/gradio_api/file=https://example.org/",
    ):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(address + path)
        assert caught.value.code in (403, 404, 405), path


def test_other_names_of_this_machine_are_refused(address: str) -> None:
    port = int(address.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port)) as line:
        line.sendall(b"GET / HTTP/1.1\r\nHost: evil.example.org\r\nConnection: close\r\n\r\n")
        assert line.recv(100).startswith(b"HTTP/1.1 421")
