"""The studio behind a password, in chromium: a model is trained from a form, followed, chosen and judged."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from latentdrift.models.classifier import Classifier, ClassScheme, build_network, save_classifier
from latentdrift.studio.server import ServerConfig
from tests.conftest import SIZE, STAGES
from tests.studio.browsing import Tab, browser, needs_chromium, served

__all__ = ["browser"]

pytestmark = needs_chromium


@pytest.fixture
def work(toy_model: Path, toy_cohort: Path, tmp_path: Path) -> Path:
    """A workspace with a base model, a cohort and a judge."""
    folder = tmp_path / "work"
    for name, source in (("toy", toy_model), ("slices", toy_cohort)):
        shutil.copytree(source, folder / name)
    network = build_network("small", 2, channels=1, size=SIZE)
    judge = Classifier(network, ClassScheme("stage", STAGES), role="judge", size=SIZE, gray=True)
    save_classifier(judge, folder / "judge", {"network": "small"})
    return folder


@pytest.fixture
def tab(browser: Any, work: Path) -> Iterator[Tab]:
    config = ServerConfig(workspace=work, port=0, device="cpu", password="correct horse", max_upload_mb=1)
    with served(config) as address:
        one = Tab(browser, address)
        yield one
        one.close()


def log_in(page: Any, password: str) -> None:
    page.get_by_label("username").fill("anybody")
    page.get_by_label("password").fill(password)
    page.get_by_role("button", name="Login").click()


@pytest.mark.slow
def test_a_model_is_trained_followed_chosen_and_judged(tab: Tab, work: Path, picture: Path, tmp_path: Path) -> None:
    page = tab.page
    log_in(page, "battery staple")
    page.get_by_text("Incorrect", exact=False).first.wait_for()
    assert page.locator("#make").count() == 0
    log_in(page, "correct horse")
    tab.ready()

    page.get_by_role("tab", name="Train").click()
    tab.choose("#train-data", "slices")
    tab.choose("#train-base", "toy")
    page.locator("#train-template textarea").fill("a slice, {stage}")
    for name, value in (("steps", 2), ("batch-size", 4)):
        page.locator(f"#train-{name} input").fill(str(value))
    page.locator("#train-out textarea").fill("../outside")
    page.click("#start-train")
    assert "outside the studio's workspace" in tab.status("outside", "#train-status")
    page.locator("#train-out textarea").fill("runs/new")
    page.click("#start-train")
    assert "latentdrift finetune --data ./slices --out ./runs/new" in tab.status("Started", "#train-status")

    page.get_by_role("tab", name="Runs").click()
    state = "document.querySelector('#process-state textarea, #process-state input').value"
    page.wait_for_function(f"['running', ''].includes({state}) == false")
    assert page.evaluate(state) == "finished", page.locator("#log textarea").input_value()
    assert "runs/new" in page.locator("#log textarea").input_value()
    page.click("#refresh-runs")
    tab.status("runs/new", "#runs-table")
    tab.choose("#run", "runs/new")
    page.frame_locator("#run-page iframe").get_by_text("a slice, {stage}").first.wait_for()

    page.get_by_role("tab", name="Counterfactual").click()
    tab.choose("#model", "runs/new")
    page.locator("#more button").first.click()
    tab.choose("#judge", "judge")
    too_large = tmp_path / "large.png"
    too_large.write_bytes(bytes(2 * 2**20))
    page.locator("#scan input[type=file]").set_input_files(str(too_large))
    page.get_by_text("exceed the maximum", exact=False).first.wait_for()
    tab.upload(picture, "Opened")
    assert "MildDemented" in tab.edit()
    table = page.inner_text("#judged")
    assert "NonDemented" in table
    assert "MildDemented" in table
    assert (work / "runs" / "new" / "page.html").is_file()
