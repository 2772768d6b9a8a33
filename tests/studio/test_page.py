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
