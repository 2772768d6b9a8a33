"""The tab Counterfactual: edit, ladder, comparison and export of the opened scan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from latentdrift.studio.edits import EditSettings
from latentdrift.studio.exports import PICTURE, formats_of
from latentdrift.studio.page import Lists, Studio, asked_by, guarded
from latentdrift.studio.page_compare import compare_tab
from latentdrift.studio.page_ladder import ladder_tab
from latentdrift.studio.page_scan import scan_panel
from latentdrift.studio.page_settings import settings_panel
from latentdrift.studio.pictures import before_after, judged_table, map_shown, summary, tensor_shown
from latentdrift.studio.style import good

MODEL_VIEW, SCAN_VIEW = "what the model made", "the change, put into the scan"


def edit_tab(studio: Studio, page: Any) -> Lists:
    """Lay the tab out and wire it; return the fields whose choices are what the workspace holds."""
    import gradio as gr

    status = gr.HTML(elem_id="status", render=False)
    with gr.Row(elem_classes="sides"):
        with gr.Column(scale=2, min_width=340):
            panel = scan_panel(studio, status)
        with gr.Column(scale=5, min_width=340):
            settings = settings_panel(studio)
            status.render()
            with gr.Tabs(elem_id="views"):
                with gr.Tab("Edit", id="edit-view"):
                    parts = edit_parts()
                with gr.Tab("Ladder", id="ladder-view"):
                    frames = ladder_tab(studio, panel, settings, status)
                with gr.Tab("Compare", id="compare-view"):
                    refresh = compare_tab(panel, status)

    def made(values: Mapping[Any, Any], progress: Any = gr.Progress()) -> dict[Any, Any]:  # noqa: B008
        own = values[panel.session] or studio.session()

        def tell(done: int, total: int) -> None:
            progress((done, total), desc="Counterfactual", unit="steps")

        with own.turn():
            wish = own.wish(values[panel.model], *panel.fields(studio, values))
            told = settings.read(values)
            judge, guide = (settings.text(values, name) for name in ("judge", "guide"))
            progress((0, told.steps * 3), desc="Opening the model", unit="steps")
            found = own.make(values[panel.model], wish, told, judge, guide, tell)
        at_scan = values[parts["view"]] == SCAN_VIEW
        return {
            panel.session: own,
            parts["source"]: tensor_shown(found.result.source[0]),
            parts["image"]: tensor_shown(found.result.image[0]),
            parts["map"]: map_shown(found),
            parts["slider"]: before_after(found, at_scan),
            parts["judged"]: judged_table(found.judged),
            parts["formats"]: gr.update(choices=formats_of(found), value=[PICTURE]),
            parts["files"]: None,
            status: good(summary(found)),
        }

    def cancelled(own: Any) -> str:
        if own is not None:
            own.cancel()
        return good("Cancelling: what is made ends at its next step, what waits when its turn comes.")

    def viewed(values: Mapping[Any, Any]) -> dict[Any, Any]:
        own = values[panel.session]
        if own is None or own.edit is None:
            return {parts["slider"]: None}
        return {parts["slider"]: before_after(own.edit, values[parts["view"]] == SCAN_VIEW)}

    def exported(values: Mapping[Any, Any]) -> dict[Any, Any]:
        own = values[panel.session] or studio.session()
        files = own.export(values[parts["formats"]], mark=values[parts["mark"]], keep_identifiers=values[parts["keep"]])
        names = ", ".join(path.name for path in files)
        return {parts["files"]: [str(path) for path in files], status: good(f"Written: {names}. Download them below.")}

    def emptied() -> dict[Any, Any]:
        nothing = {**dict.fromkeys(RESULTS), "judged": judged_table(None)}
        nothing["formats"] = gr.update(choices=[PICTURE], value=[PICTURE])
        return {**{parts[name]: value for name, value in nothing.items()}, **dict.fromkeys(frames)}

    hidden: dict[str, Any] = {"api_visibility": "private"}
    for event in panel.opening:
        # After it, not at once: an edit that was before it in the queue still shows what it made.
        event.then(emptied, None, [*(parts[name] for name in RESULTS), *frames], queue=False, **hidden)
    outputs = [panel.session, status, *(parts[name] for name in RESULTS)]
    read = panel.inputs() | settings.inputs() | {parts["view"]}
    asked_by(settings.make, panel.session, guarded(status, made), read, outputs)
    settings.cancel.click(cancelled, [panel.session], [status], queue=False, **hidden)
    parts["view"].input(
        guarded(status, viewed),
        {panel.session, parts["view"]},
        [parts["slider"], status],
        show_progress="hidden",
        **hidden,
    )
    parts["divider"].input(
        lambda at: gr.update(slider_position=at),
        [parts["divider"]],
        [parts["slider"]],
        show_progress="hidden",
        **hidden,
    )
    read = {panel.session, parts["formats"], parts["mark"], parts["keep"]}
    parts["export"].click(guarded(status, exported), read, [parts["files"], status], **hidden)
    refresh(settings.pin)
    page.load(lambda: EditSettings().seed, None, [settings.seed], **hidden)
    return {panel.model: studio.shelf.names, **settings.lists(studio)}


LEGEND = (
    '<p class="quiet">Difference: green is added, red removed, where it is more than the round trip changes by itself. '
    "Read it with the round trip in mind: what the model cannot rebuild, it cannot edit.</p>"
)

RESULTS = ("source", "image", "map", "slider", "judged", "formats", "files")
"""Components that an edit fills."""


def edit_parts() -> dict[str, Any]:
    """Lay out what an edit fills, and the export; return the components by name."""
    import gradio as gr

    parts: dict[str, Any] = {}
    with gr.Row():
        for name, label, told in (
            ("source", "Source", "The source, as the model sees it"),
            ("image", "Counterfactual (synthetic)", "The synthetic counterfactual"),
            ("map", "Difference", "What the edit added, in green, and removed, in red"),
        ):
            parts[name] = gr.Image(
                label=label,
                interactive=False,
                format="png",
                height=300,
                min_width=200,
                elem_id=f"edit-{name}",
                buttons=["download", "fullscreen"],
                alt_text=told,
            )
    gr.HTML(LEGEND)
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            parts["slider"] = gr.ImageSlider(
                label="Before and after", format="png", interactive=False, max_height=520, elem_id="before-after"
            )
            parts["divider"] = gr.Slider(0, 100, value=50, step=5, label="Divider, % from the left", elem_id="divider")
            parts["view"] = gr.Radio([MODEL_VIEW, SCAN_VIEW], value=MODEL_VIEW, label="Shown", elem_id="shown")
        with gr.Column(scale=1, min_width=300):
            parts["judged"] = gr.HTML(judged_table(None), elem_id="judged")
            with gr.Group():
                parts["formats"] = gr.CheckboxGroup(
                    [PICTURE], value=[PICTURE], label="Export (manifest.json is always added)", elem_id="formats"
                )
                parts["mark"] = gr.Checkbox(False, label="Write SYNTHETIC into DICOM pixels", elem_id="mark")
                parts["keep"] = gr.Checkbox(False, label="Keep who the patient is", elem_id="keep")
                parts["export"] = gr.Button("Export", elem_id="export")
            parts["files"] = gr.File(label="Exported files", interactive=False, height=120, elem_id="files")
    return parts
