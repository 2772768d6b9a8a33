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
    pressed = [one for one in page.fns.values() if (component(page, button)._id, "click") in one.targets]
    assert [one.queue for one in pressed] == [False]
    (work,) = [one for one in page.fns.values() if one.trigger_after == pressed[0]._id]
    assert work.queue
    assert work.trigger_mode == "once"
    pressed[0].fn(None)
    pressed[0].fn(session)
    (cancel,) = [one for one in page.fns.values() if (component(page, "cancel")._id, "click") in one.targets]
    assert not cancel.queue
    cancel.fn(session)
    values = {one: getattr(one, "value", None) for one in work.inputs}
    said = work.fn({**values, component(page, "session"): session})
    assert "Cancelled. Nothing was changed" in said[component(page, "status")]
    assert not session.asked


def test_an_emptied_number_of_a_form_is_named(page: Any, toy_studio: Studio) -> None:
    (start,) = [one for one in page.fns.values() if (component(page, "start-train")._id, "click") in one.targets]
    values = {one: one.value for one in start.inputs} | {component(page, "train-steps"): None}
    values[component(page, "train-data")] = "run"
    said = start.fn(values)[component(page, "train-status")]
    assert "steps is empty; give a whole number of 1 or more" in said
    assert not toy_studio.processes.started
