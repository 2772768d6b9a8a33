"""The left side: which scan, which slice, which model, and what the image shows and should show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from latentdrift.studio.page import KEPT_S, ONE_AT_A_TIME, Studio, closed, guarded
from latentdrift.studio.pictures import tensor_shown
from latentdrift.studio.session import AS_IT_IS, Session
from latentdrift.studio.shelf import USUAL, attributes_of, choices
from latentdrift.studio.style import good

FIELDS = 8
"""Attributes that fit the page."""

HEALTHY = ("NonDemented", "CN", "normal", "No Finding", "healthy")
"""Values that a source begins with where the model knows them."""


@dataclass(frozen=True)
class ScanPanel:
    """The components that other parts of the page read."""

    session: Any
    model: Any
    plane: Any
    index: Any
    status: Any
    sources: tuple[Any, ...]
    targets: tuple[Any, ...]
    captions: tuple[Any, Any]
    opening: tuple[Any, ...]
    """Events of opening a scan, whether that succeeds or not; results of the one before do not belong beside it."""

    def inputs(self) -> set[Any]:
        """Return what a wish is made of."""
        return {self.session, self.model, *self.sources, *self.targets, *self.captions}

    def fields(self, studio: Studio, values: Mapping[Any, Any]) -> tuple[dict[str, str], dict[str, str], list[str]]:
        """Return source, target and captions as the session takes them."""
        names = list(attributes_of(studio.shelf.card(values[self.model])))[:FIELDS]
        source = {name: values[field] for name, field in zip(names, self.sources, strict=False)}
        target = {name: values[field] for name, field in zip(names, self.targets, strict=False)}
        return source, target, [values[field] for field in self.captions]


def scan_panel(studio: Studio, status: Any) -> ScanPanel:
    """Lay the panel out and wire it; errors go into `status`."""
    import gradio as gr

    session = gr.State(None, time_to_live=KEPT_S, delete_callback=closed)  # of a closed tab it waits an hour
    upload = gr.File(
        label="Scan: PNG, JPEG, DICOM, NIfTI",
        file_count="multiple",
        height=120,
        elem_id="scan",
    )
    template = gr.Button("No scan at hand? Use the MNI152 template", size="sm", elem_id="template")
    seen = gr.Image(
        label="What the model sees",
        interactive=False,
        height=230,
        format="png",
        elem_id="seen",
        buttons=["fullscreen"],
        alt_text="The opened image, at the model's resolution",
    )
    notes = gr.HTML(elem_id="notes")
    with gr.Group(visible=False) as slices:
        plane = gr.Radio(["axial", "coronal", "sagittal"], value="axial", label="Slices", elem_id="plane")
        index = gr.Slider(0, 1, value=0, step=1, label="Slice", elem_id="slice")
        frame = gr.Number(0, precision=0, minimum=0, label="Volume or frame, from 0", elem_id="frame")
    model = gr.Dropdown(studio.shelf.names(), value=USUAL, label="Model", elem_id="model")
    said = fields_of(studio, USUAL)
    gr.HTML('<p class="quiet">What the image shows, and what it should show:</p>')
    sources, targets = [], []
    for number in range(FIELDS):
        told = said[number]
        with gr.Row():
            sources.append(gr.Dropdown(allow_custom_value=True, elem_id=f"source-{number}", min_width=120, **told[0]))
            targets.append(gr.Dropdown(allow_custom_value=True, elem_id=f"target-{number}", min_width=120, **told[1]))
    before = gr.Textbox(label="Caption of the image", visible=False, elem_id="caption-before")
    after = gr.Textbox(label="Caption wanted", visible=False, elem_id="caption-after")
    unseen: dict[Any, Any] = {seen: None, notes: ""}
    empty = {**unseen, slices: gr.update(visible=False), frame: 0}  # a frame that cannot be seen could not be mended

    def show(own: Session, values: Mapping[Any, Any], fresh: bool) -> dict[Any, Any]:
        """Return what the page shows of an opened scan."""
        scan, chosen = own.scan, values[plane]
        if scan is None:
            return {**empty, session: own}
        volume = scan.is_volume
        view = own.look(values[model], chosen, None if fresh or not volume else int(values[index]))
        told = "; ".join(escape(note) for note in view.notes) or "as it is"
        last = scan.slices(chosen) - 1
        return {
            session: own,
            seen: tensor_shown(view.image),
            notes: f'<p class="quiet">{scan.kind}: {told}.</p>',
            slices: gr.update(visible=volume),
            index: gr.update(maximum=max(1, last), value=view.place.get("index", 0)),
            status: good("Opened. Choose what it should show."),
        }

    def opened(values: Mapping[Any, Any]) -> dict[Any, Any]:
        own = values[session] or studio.session()
        own.scan = own.view = own.edit = None
        paths = [Path(name) for name in values[upload] or []]
        if not paths:
            return {**show(own, values, True), status: ""}
        try:
            own.open(paths, int(values[frame] or 0))
            return show(own, values, True)
        except Exception:
            own.scan = own.view = None  # also where it opened and this model cannot show it: the page shows nothing
            raise

    def sample(values: Mapping[Any, Any]) -> dict[Any, Any]:
        from latentdrift.studio.sample import template_file

        own = values[session] or studio.session()
        own.scan = own.view = own.edit = None
        own.open([template_file(own.fresh_folder("template"))])
        return show(own, values, True)

    def moved(values: Mapping[Any, Any]) -> dict[Any, Any]:
        return show(values[session] or studio.session(), values, False)

    def turned(values: Mapping[Any, Any]) -> dict[Any, Any]:
        return show(values[session] or studio.session(), values, True)

    def chosen_model(values: Mapping[Any, Any]) -> dict[Any, Any]:
        said = fields_of(studio, values[model])
        known = bool(attributes_of(studio.shelf.card(values[model])))
        found: dict[Any, Any] = {}
        for number in range(FIELDS):
            found |= {sources[number]: gr.update(**said[number][0]), targets[number]: gr.update(**said[number][1])}
        found |= {one: gr.update(visible=not known) for one in (before, after)}
        own = values[session]
        return found | (show(own, values, False) if own is not None and own.scan is not None else {})

    shown = [session, seen, notes, slices, index, frame, status]
    read = {session, upload, model, plane, index, frame}
    hidden: dict[str, Any] = {"api_visibility": "private", **ONE_AT_A_TIME}
    opening = (
        upload.change(guarded(status, opened, empty), read, shown, **hidden),
        frame.submit(guarded(status, opened, unseen), read, shown, **hidden),
        template.click(guarded(status, sample, empty), read, shown, **hidden),
    )
    index.release(guarded(status, moved), read, shown, show_progress="hidden", **hidden)
    plane.input(guarded(status, turned), read, shown, **hidden)
    model.input(guarded(status, chosen_model), read, [*shown, *sources, *targets, before, after], **hidden)
    asked = (tuple(sources), tuple(targets), (before, after))
    return ScanPanel(session, model, plane, index, status, *asked, opening)


def fields_of(studio: Studio, model: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the properties of each pair of fields: an attribute of the model, or hidden."""
    found: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for name, values in list(attributes_of(studio.shelf.card(model)).items())[:FIELDS]:
        words = choices(values)
        begun = next((value for value in HEALTHY if value in words), words[0] if words else None)
        found.append(
            (
                {"label": f"{name}: now", "choices": words, "value": begun, "visible": True},
                {"label": f"{name}: wanted", "choices": [AS_IT_IS, *words], "value": AS_IT_IS, "visible": True},
            )
        )
    empty: dict[str, Any] = {"label": "unused", "choices": [], "value": None, "visible": False}
    return [*found, *[(empty, empty)] * (FIELDS - len(found))]
