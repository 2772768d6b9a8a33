"""A reader in Debian's chromium: answers by keyboard, goes away, comes back, changes an answer, and finishes."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from latentdrift.studio.reader_study.answers import Answers
from latentdrift.studio.reader_study.build import Built
from latentdrift.studio.reader_study.server import make_app
from tests.studio.browsing import browser, needs_chromium, serving

__all__ = ["browser"]

pytestmark = needs_chromium


@pytest.fixture
def served(built: Built, tmp_path: Path) -> Iterator[tuple[str, Answers]]:
    """A server in a thread: its address, and the answers it keeps."""
    answers = Answers(tmp_path / "answers.sqlite")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with serving(make_app(built.study, answers), listener) as address:
            yield f"{address}/", answers


def open_page(browser: Any, address: str, **more: Any) -> tuple[Any, list[str]]:
    """Return a page of a new visitor, and what the browser asked for or complained of."""
    page = browser.new_context(**more).new_page()
    page.set_default_timeout(60_000)
    seen: list[str] = []
    page.on("request", lambda request: seen.append(request.url))
    page.on("console", lambda message: seen.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: seen.append(f"error: {error}"))
    page.goto(address)
    return page, seen


def log_in(page: Any, code: str) -> None:
    page.locator("input:focus").wait_for()  # the field has the focus as soon as the page is laid out
    page.keyboard.type(code)
    page.keyboard.press("Enter")
    page.wait_for_url("**/image/*")


def answer(page: Any, keys: str) -> None:
    """Press number keys, then go on to the next page."""
    before = page.url
    for key in keys:
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    page.wait_for_function("before => location.href !== before", arg=before)
    page.wait_for_load_state()


def test_a_reader_answers_all_by_keyboard(browser: Any, served: tuple[str, Answers], built: Built) -> None:
    address, answers = served
    reader = built.study.readers[0]
    page, seen = open_page(browser, address)
    log_in(page, reader.code)
    assert page.evaluate("document.activeElement.name") == "rating"
    for _ in range(3):
        time.sleep(0.15)
        answer(page, "513")
    assert page.url.endswith("/image/4")
    page.context.close()

    page, more = open_page(browser, address)  # later, elsewhere
    log_in(page, reader.code)
    assert page.url.endswith("/image/4")
    assert page.get_by_label("Images answered").get_attribute("value") == "3"
    page.keyboard.press("2")
    page.keyboard.press("Backspace")  # a slip
    page.keyboard.press("6")
    page.keyboard.press("c")
    page.keyboard.type("1 of 9: odd")  # numbers in a comment are text
    page.keyboard.press("Escape")
    answer(page, "24")
    page.keyboard.press("b")  # back to change the fourth
    page.wait_for_url("**/image/4")
    assert page.get_by_role("radio", name="surely synthetic").is_checked()
    page.get_by_role("radio", name="rather real").check()
    page.get_by_role("button", name="Keep the change").click()
    page.wait_for_url("**/image/5")
    for number in range(5, 10):
        assert page.url.endswith(f"/image/{number}")
        answer(page, "125")
    assert "All 9 images have your answer" in page.content()

    kept = answers.of(reader.name)
    assert [kept[place].image for place in range(9)] == list(reader.order)
    first, second = built.study.classes
    assert [(one.rating, one.diagnosis, one.quality) for one in kept.values()] == [
        *[(5, first, 3)] * 3,
        (3, second, 4),
        *[(1, second, 5)] * 5,
    ]
    assert kept[3].comment == "1 of 9: odd"
    assert kept[3].revision == 2
    assert 0.15 <= kept[0].seconds < 60
    asked = [url for url in seen + more if not url.startswith((address, "data:"))]
    assert asked == []  # nothing from elsewhere, no complaint


def test_labels_colours_and_keys_switched_off(browser: Any, served: tuple[str, Answers], built: Built) -> None:
    address, _ = served
    backgrounds = {}
    for scheme in ("light", "dark"):
        page, _ = open_page(browser, address, color_scheme=scheme)
        backgrounds[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert backgrounds["light"] != backgrounds["dark"]
    page.get_by_label("Your code").fill(built.study.readers[1].code)
    page.get_by_role("button", name="Begin, or go on").click()
    page.wait_for_url("**/image/1")
    tree = page.locator("main").aria_snapshot()
    names = ('heading "Image 1 of 9"', 'group "Real or synthetic?"', 'radio "surely real"', 'img "Image 1 of 9')
    for part in names:
        assert part in tree
    page.get_by_role("checkbox", name="Keys").uncheck()
    page.get_by_role("heading").click()
    page.keyboard.press("5")
    assert page.locator("input[type=radio]:checked").count() == 0
    page.reload()
    assert not page.get_by_role("checkbox", name="Keys").is_checked()  # remembered


def test_it_works_without_scripts(browser: Any, served: tuple[str, Answers], built: Built) -> None:
    address, answers = served
    page, _ = open_page(browser, address, java_script_enabled=False)
    log_in(page, built.study.readers[1].code)
    for name in ("surely synthetic", "MildDemented", "good"):
        page.get_by_role("radio", name=name, exact=True).check()
    page.get_by_role("button", name="Next image").click()
    page.wait_for_url("**/image/2")
    assert [one.rating for one in answers.all()] == [6]
