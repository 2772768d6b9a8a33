"""The page: tabs, and what they share. Layout only; what happens is in the modules without gradio."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentdrift.errors import LatentDriftError
from latentdrift.studio.processes import Processes
from latentdrift.studio.session import Session
from latentdrift.studio.shelf import Shelf
from latentdrift.studio.style import NOTICE, TITLE, bad
from latentdrift.studio.workspace import Workspace

Lists = dict[Any, Callable[[], list[str]]]
"""Fields whose choices the workspace decides, and what reads them."""

QUEUE = 32
"""Edits that may wait; more are told to come back."""

KEPT_S = 12 * 3600
"""Seconds after which uploads, and what a tab made that nobody used since, are deleted."""

ONE_AT_A_TIME: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
"""Edits use all cores; two at once would both be slower."""


@dataclass(frozen=True)
class Studio:
    """What all tabs of one running studio share."""

    workspace: Workspace
    shelf: Shelf
    processes: Processes
    folder: Path
    """For uploads and exports; deleted at the end."""

    def session(self) -> Session:
        """Return a new tab's session, with a place of its own for files."""
        import secrets

        return Session(self.shelf, self.folder / "sessions" / secrets.token_urlsafe(12))


def build_page(studio: Studio) -> Any:
    """Return the page, a `gradio.Blocks`."""
    import gradio as gr

    from latentdrift.studio.page_edit import edit_tab
    from latentdrift.studio.page_runs import runs_tab
    from latentdrift.studio.page_start import start_tabs

    with gr.Blocks(title="latentdrift studio", analytics_enabled=False, delete_cache=(3600, KEPT_S)) as page:
        gr.HTML(TITLE)
        gr.HTML(NOTICE)
        with gr.Tabs(elem_id="pages") as tabs:
            with gr.Tab("Counterfactual", id="edit"):
                lists = edit_tab(studio, page)
            lists |= start_tabs(studio)
            with gr.Tab("Runs", id="runs") as runs:
                runs_tab(studio, runs)

        def listed() -> dict[Any, Any]:
            found = {read: read() for read in set(lists.values())}  # each looks through the workspace: once is enough
            return {field: gr.update(choices=found[read]) for field, read in lists.items()}

        hidden: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
        page.load(listed, None, list(lists), **hidden)
        tabs.select(listed, None, list(lists), **hidden)
    return page.queue(max_size=QUEUE, default_concurrency_limit=8, api_open=False)


def asked_by(button: Any, session: Any, work: Callable[..., Any], read: set[Any], shown: list[Any]) -> None:
    """Make a button ask for an edit or a ladder, which waits its turn.

    That it was asked for is noted at once, outside the queue: Cancel counts from there, not from its turn on.
    """

    def asked(own: Session | None) -> None:
        if own is not None:
            own.ask()

    hidden: dict[str, Any] = {"api_visibility": "private"}
    pressed = button.click(asked, [session], None, queue=False, show_progress="hidden", **hidden)
    pressed.then(work, read, shown, trigger_mode="once", **hidden, **ONE_AT_A_TIME)


def closed(own: Session | None) -> None:
    """Close the session of a tab that was left; None for a tab without one.

    It must not raise: the page's library would never look for tabs that were left again.
    """
    import logging

    try:
        if own is not None:
            own.close()
    except Exception:
        logging.getLogger(__name__).exception("A tab's files could not be deleted.")


def guarded(
    status: Any, work: Callable[..., dict[Any, Any]], failed: Mapping[Any, Any] | None = None
) -> Callable[..., dict[Any, Any]]:
    """Return a handler that puts errors of ours into the page's status, in words, and nothing else.

    Args:
        status: the component.
        work: takes the components' values by component, and maybe progress; returns new values by component.
        failed: values by component that stand for nothing, where after an error what is shown would be wrong.
    """
    import functools
    import logging

    rest = {} if failed is None else dict(failed)

    @functools.wraps(work)
    def handler(*values: Any) -> dict[Any, Any]:
        try:
            return work(*values)
        except LatentDriftError as error:
            return {**rest, status: bad(str(error))}
        except MemoryError:
            return {**rest, status: bad("Memory ran out. Use a smaller image or model, or close other programs.")}
        except Exception as error:
            logging.getLogger(__name__).exception("A request failed.")
            return {
                **rest,
                status: bad(f"That failed unexpectedly ({type(error).__name__}). The studio's terminal says more."),
            }

    return handler
