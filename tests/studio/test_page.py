"""The page's wiring, without a browser: what its events do, and what its library is told to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from latentdrift.studio.exports import PICTURE
from latentdrift.studio.page import Studio, build_page
from latentdrift.studio.session import Session
from tests.studio.test_session import edit


@pytest.fixture(scope="module")
def page(toy_studio: Studio) -> Any:
    return build_page(toy_studio)


def component(page: Any, name: str) -> Any:
    """Return a component by its id in the page, or the tab's session."""
    if name == "session":
        return next(one for one in page.blocks.values() if type(one).__name__ == "State")
    return next(one for one in page.blocks.values() if getattr(one, "elem_id", None) == name)


def fired(page: Any, name: str, event: str) -> Any:
    """Return the one handler of a component's event."""
    (found,) = [one for one in page.fns.values() if (component(page, name)._id, event) in one.targets]
    return found


def test_what_a_closed_tab_made_is_deleted(page: Any, session: Session, picture: Path) -> None:
    """By the library's own clean-up, an hour after the tab was closed."""
    from gradio.state_holder import StateHolder

    session.open([picture])
    session.look("run")
    edit(session)
    written = session.export([PICTURE])
    holder = StateHolder()
    holder.set_blocks(page)
    tab, other = holder["tab"], holder["other"]
    state = component(page, "session")
    tab[state._id], other[state._id] = session, None
    holder.delete_all_expired_state()
    assert all(path.exists() for path in written)
    for one in (tab, other):
        one.is_closed, one.STATE_TTL_WHEN_CLOSED = True, -1
    holder.delete_all_expired_state()
    assert not session.folder.exists()
    assert session.closed
    assert session.stop.is_set()


@pytest.mark.parametrize("button", ["make", "make-ladder"])
def test_cancel_counts_from_when_a_button_is_pressed(page: Any, session: Session, button: str) -> None:
    """Not from when the queue lets the edit through: by then it would be forgotten."""
    pressed = fired(page, button, "click")
    assert not pressed.queue
    (work,) = [one for one in page.fns.values() if one.trigger_after == pressed._id]
    assert work.queue
    assert work.trigger_mode == "once"
    pressed.fn(None)
    pressed.fn(session)
    cancel = fired(page, "cancel", "click")
    assert not cancel.queue
    cancel.fn(session)
    values = {one: getattr(one, "value", None) for one in work.inputs}
    said = work.fn({**values, component(page, "session"): session})
    assert "Cancelled. Nothing was changed" in said[component(page, "status")]
    assert not session.asked


def test_an_emptied_number_of_a_form_is_named(page: Any, toy_studio: Studio) -> None:
    start = fired(page, "start-train", "click")
    values = {one: one.value for one in start.inputs} | {component(page, "train-steps"): None}
    values[component(page, "train-data")] = "run"
    said = start.fn(values)[component(page, "train-status")]
    assert "steps is empty; give a whole number of 1 or more" in said
    assert not toy_studio.processes.started


@pytest.mark.parametrize("content", [None, b"no picture"])
@pytest.mark.parametrize(("name", "event"), [("scan", "change"), ("frame", "submit")])
def test_nothing_of_the_former_scan_stays(
    page: Any, session: Session, picture: Path, tmp_path: Path, content: bytes | None, name: str, event: str
) -> None:
    """Neither beside a scan that was opened, nor after one that could not be."""
    session.open([picture])
    session.look("run")
    edit(session)
    new = tmp_path / "new.png"
    new.write_bytes(picture.read_bytes() if content is None else content)
    opened = fired(page, name, event)
    values = {one: getattr(one, "value", None) for one in opened.inputs}
    scan = {component(page, "session"): session, component(page, "scan"): [str(new)], component(page, "model"): "run"}
    said = opened.fn({**values, **scan})
    assert (session.scan is None) is (content is not None)
    assert session.edit is None
    seen, notes = (said[component(page, one)] for one in ("seen", "notes"))
    # A frame that there is not can be mended: its field stays. After an upload that failed nothing of the volume does.
    assert (component(page, "frame") in said) is (content is not None and event == "change")
    assert ("new.png" in said[component(page, "status")], seen is None, notes == "") == (content is not None,) * 3
    (after,) = [one for one in page.fns.values() if one.trigger_after == opened._id]
    found = after.fn()
    assert set(found) == set(after.outputs)
    for one in ("edit-source", "edit-image", "edit-map", "before-after", "files", "frames", "strip", "ladder-files"):
        assert found[component(page, one)] is None
    assert "No judge" in found[component(page, "judged")]
    assert found[component(page, "formats")]["choices"] == [PICTURE]


def test_a_template_that_cannot_be_opened_leaves_nothing_either(
    page: Any, session: Session, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from latentdrift.errors import DataError

    def fail(folder: Path) -> Path:
        raise DataError("It cannot be written.")

    monkeypatch.setattr("latentdrift.studio.sample.template_file", fail)
    session.open([picture])
    session.look("run")
    opened = fired(page, "template", "click")
    values = {one: getattr(one, "value", None) for one in opened.inputs} | {component(page, "session"): session}
    assert opened.fn(values)[component(page, "seen")] is None
    assert session.view is None
