"""The tab Runs: what was started here with its log, and what the workspace holds with its pictures and pages."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from latentdrift.studio.page import Studio, guarded
from latentdrift.studio.run_list import list_runs, page_frame, runs_table
from latentdrift.studio.style import CONTAIN, good

HEADS = ["folder", "kind", "drift", "status"]
FOLLOWED_S = 2.0
"""Seconds between two looks at a log."""


def runs_tab(studio: Studio, tab: Any) -> None:
    """Lay the tab out and wire it."""
    import gradio as gr

    gr.HTML('<p class="quiet">Started here; all of it stops when the studio does, and can be gone on with.</p>')
    with gr.Row():
        process = gr.Dropdown([], label="Started here", elem_id="process", scale=2)
        state = gr.Textbox(label="Status", interactive=False, elem_id="process-state")
        stop = gr.Button("Stop", variant="stop", elem_id="stop-process")
    log = gr.Textbox(
        label="Log", lines=12, max_lines=12, interactive=False, elem_id="log", elem_classes="log", autoscroll=True
    )
    status = gr.HTML(elem_id="runs-status")
    with gr.Row():
        refresh = gr.Button("Look again", elem_id="refresh-runs")
        chosen = gr.Dropdown([], label="Show the run", elem_id="run", scale=2)
    table = gr.Dataframe(
        headers=HEADS, interactive=False, label="Runs in the workspace", elem_id="runs-table", wrap=True
    )
    pictures = gr.Gallery(label="Pictures", columns=4, height=400, elem_id="run-pictures", **CONTAIN)
    page = gr.HTML(elem_id="run-page")
    timer = gr.Timer(FOLLOWED_S)

    def looked(values: Mapping[Any, Any]) -> dict[Any, Any]:
        runs = list_runs(studio.workspace)
        names = list(studio.processes.started)
        kept = values[process] if values[process] in names else (names[-1] if names else None)
        return {
            table: runs_table(runs),
            chosen: gr.update(choices=[run.name for run in runs]),
            process: gr.update(choices=names, value=kept),
            status: good(f"{len(runs)} run{'s' * (len(runs) != 1)} in {escape(studio.workspace.root.name)}.")
            if runs
            else good("There are no runs in the workspace yet."),
        }

    def followed(values: Mapping[Any, Any]) -> dict[Any, Any]:
        found = studio.processes.get(values[process])
        if found is None:
            return {state: "", log: ""}
        return {state: found.state, log: found.tail()}

    def stopped(values: Mapping[Any, Any]) -> dict[Any, Any]:
        found = studio.processes.stop(values[process] or "")
        return {state: found.state, log: found.tail(), status: good(f"{escape(found.name)} is {found.state}.")}

    def shown(values: Mapping[Any, Any]) -> dict[Any, Any]:
        from latentdrift.data.images import read_array
        from latentdrift.studio.pictures import shown as as_shown

        run = next((one for one in list_runs(studio.workspace) if one.name == values[chosen]), None)
        if run is None:
            return {pictures: None, page: ""}
        found = [(as_shown(read_array(path)), path.relative_to(run.folder).as_posix()) for path in run.pictures()]
        return {pictures: found, page: page_frame(run), status: good(f"{escape(run.name)}: {run.kind}, {run.status}.")}

    hidden: dict[str, Any] = {"api_visibility": "private"}
    lists = [table, chosen, process, status]
    tab.select(guarded(status, looked), {process}, lists, show_progress="hidden", **hidden)
    refresh.click(guarded(status, looked), {process}, lists, **hidden)
    follow = guarded(status, followed)
    timer.tick(follow, {process}, [state, log, status], show_progress="hidden", queue=False, **hidden)
    process.change(follow, {process}, [state, log, status], show_progress="hidden", **hidden)
    stop.click(guarded(status, stopped), {process}, [state, log, status], **hidden)
    chosen.input(guarded(status, shown), {chosen}, [pictures, page, status], **hidden)
