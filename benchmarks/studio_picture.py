"""Make docs/pictures/studio.png: the studio in chromium, with the MNI152 template edited by the embedded model.

    python benchmarks/studio_picture.py --out docs/pictures/studio.png

needs Debian's chromium and playwright. No patient's image is in it.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

CHROMIUM = "/usr/bin/chromium"
WIDTH, HEIGHT = 1300, 1060
PATIENCE = 300_000
"""Milliseconds that a step may take."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/studio.png"))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--target", default="MildDemented")
    options = parser.parse_args()
    import uvicorn

    from latentdrift.studio.server import ServerConfig, bound_socket, build_app, open_studio

    with tempfile.TemporaryDirectory() as folder:
        config = ServerConfig(workspace=Path(folder), port=0, device="cpu")
        with open_studio(config) as studio, bound_socket(config) as listening:
            server = uvicorn.Server(uvicorn.Config(build_app(studio, config), log_level="error"))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
            thread.start()
            while not server.started:
                time.sleep(0.1)
            picture = photograph(f"http://127.0.0.1:{listening.getsockname()[1]}", options.steps, options.target)
            server.should_exit = True
            thread.join(20)
    write_small(picture, options.out)
    print(f"{options.out}: {options.out.stat().st_size / 1000:.0f} kB")


def photograph(address: str, steps: int, target: str) -> bytes:
    """Edit the template in the page and return a picture of it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page: Any = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light").new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        page.click("#template")
        page.wait_for_selector("#seen img")
        field = page.locator("#steps input[type=number]")
        field.fill(str(steps))
        field.blur()
        page.locator("#target-0 input").click()
        page.get_by_role("option", name=target, exact=True).click()
        page.click("#make")
        page.wait_for_function("document.querySelector('#status').innerText.includes('levels of 255')")
        page.wait_for_function("document.querySelector('#edit-map img')?.naturalWidth > 0")
        page.wait_for_timeout(2000)
        found: bytes = page.screenshot()
        browser.close()
    return found


def write_small(picture: bytes, out: Path) -> None:
    """Write a picture with 128 colours, which a page of this kind can do with."""
    from PIL import Image

    from latentdrift.data.files import write_bytes

    with Image.open(io.BytesIO(picture)) as file:
        small = file.convert("RGB").quantize(128, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    small.save(buffer, format="PNG", optimize=True)
    write_bytes(out, buffer.getvalue())


if __name__ == "__main__":
    main()
