"""The tab Ladder: one image along values."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from latentdrift.studio.ladders import AXES, DELTA, proposed_values
from latentdrift.studio.page import Studio, asked_by, guarded
from latentdrift.studio.page_scan import ScanPanel
from latentdrift.studio.page_settings import SettingsPanel
from latentdrift.studio.pictures import tensor_shown
from latentdrift.studio.shelf import USUAL, attributes_of
from latentdrift.studio.style import CONTAIN, good


def told_of(frames: int, axis: str) -> str:
    """Return what came of a ladder as a sentence (HTML). An attribute may be called anything by its cohort."""
    return f"A ladder of {frames} frames along {escape(axis)}, all from one inversion."


def ladder_tab(studio: Studio, panel: ScanPanel, settings: SettingsPanel, status: Any) -> tuple[Any, ...]:
    """Lay the tab out and wire it; return what a ladder fills."""
    import gradio as gr

    known = attributes_of(studio.shelf.card(USUAL))
    axes = [*known, *AXES]
    with gr.Row():
        axis = gr.Dropdown(axes, value=axes[0], label="Along", elem_id="axis")
        first = proposed_values(axes[0], known)
        values = gr.Textbox(first, label="Values, with commas between", scale=2, elem_id="values")
        make = gr.Button("Make ladder", variant="primary", elem_id="make-ladder")
    frames = gr.Gallery(label="Frames (synthetic)", columns=5, height=300, elem_id="frames", **CONTAIN)
    strip = gr.Image(
        label="Frames and what changed",
        show_label=False,
        buttons=["download", "fullscreen"],
        interactive=False,
        format="png",
        elem_id="strip",
        alt_text="The ladder's frames, and below each what was added and removed",
    )
    files = gr.File(label="Files: strip.png, ladder.gif", interactive=False, elem_id="ladder-files")

    def climbed(given: Mapping[Any, Any], progress: Any = gr.Progress()) -> dict[Any, Any]:  # noqa: B008
        own = given[panel.session] or studio.session()

        def tell(done: int, total: int) -> None:
            progress((done, total), desc="Ladder", unit="steps")

        with own.turn():
            wish = own.wish(given[panel.model], *panel.fields(studio, given))
            told, guide = settings.read(given), settings.text(given, "guide")
            found, written = own.climb(given[panel.model], wish, told, given[axis], given[values], guide, tell)
        pictures = [
            (tensor_shown(frame), f"{given[axis]} {label}")
            for frame, label in zip(found.result.frames[0], found.labels, strict=True)
        ]
        return {
            panel.session: own,
            frames: pictures,
            strip: str(written[0]),
            files: [str(path) for path in written],
            status: good(told_of(len(pictures), str(given[axis]))),
        }

    def proposed(given: Mapping[Any, Any]) -> dict[Any, Any]:
        found = attributes_of(studio.shelf.card(given[panel.model]))
        return {values: proposed_values(given[axis], found)}

    def other_model(given: Mapping[Any, Any]) -> dict[Any, Any]:
        found = attributes_of(studio.shelf.card(given[panel.model]))
        names = [*found, *AXES]
        return {axis: gr.update(choices=names, value=names[0]), values: proposed_values(names[0] or DELTA, found)}

    hidden: dict[str, Any] = {"api_visibility": "private"}
    read = panel.inputs() | settings.inputs() | {axis, values}
    asked_by(make, panel.session, guarded(status, climbed), read, [panel.session, frames, strip, files, status])
    axis.input(guarded(status, proposed), {panel.model, axis}, [values, status], **hidden)
    panel.model.input(guarded(status, other_model), {panel.model}, [axis, values, status], **hidden)
    return frames, strip, files
