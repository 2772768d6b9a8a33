"""The tab Compare: pinned edits side by side, two of them under one slider."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from latentdrift.errors import ConfigurationError
from latentdrift.studio.page import guarded
from latentdrift.studio.page_scan import ScanPanel
from latentdrift.studio.pictures import pins_table, tensor_shown
from latentdrift.studio.session import Session
from latentdrift.studio.style import CONTAIN, good


def compare_tab(panel: ScanPanel, status: Any) -> Callable[[Any], None]:
    """Lay the tab out; return what wires the button that pins."""
    import gradio as gr

    table = gr.HTML(pins_table([]), elem_id="pins")
    gallery = gr.Gallery(label="Pinned (synthetic)", columns=4, height=300, elem_id="pinned", **CONTAIN)
    with gr.Row():
        left = gr.Dropdown([], label="Left", elem_id="left")
        right = gr.Dropdown([], label="Right", elem_id="right")
        clear = gr.Button("Take all off", elem_id="clear-pins")
    both = gr.ImageSlider(label="Left and right", format="png", interactive=False, max_height=520, elem_id="compare")

    def shown(own: Session) -> dict[Any, Any]:
        names = [f"{number}. {edit.label()}" for number, edit in enumerate(own.pins, 1)]
        pictures = [(tensor_shown(edit.result.image[0]), name) for edit, name in zip(own.pins, names, strict=True)]
        return {
            table: pins_table(own.pins),
            gallery: pictures,
            left: gr.update(choices=names, value=names[0] if names else None),
            right: gr.update(choices=names, value=names[-1] if names else None),
            both: pair(own, names[0], names[-1]) if names else None,
        }

    def pair(own: Session, one: str, other: str) -> tuple[Any, Any]:
        numbers = [int(name.partition(".")[0]) - 1 for name in (one, other)]
        first, second = (own.pins[number].result.image[0] for number in numbers)
        return tensor_shown(first), tensor_shown(second)

    def pinned(values: Mapping[Any, Any]) -> dict[Any, Any]:
        own = values[panel.session]
        if own is None:
            raise ConfigurationError("There is no counterfactual to pin. Make one first.")
        own.pin()
        return {**shown(own), status: good(f"Pinned; {len(own.pins)} under Compare.")}

    def cleared(values: Mapping[Any, Any]) -> dict[Any, Any]:
        own = values[panel.session]
        if own is None:
            return {table: pins_table([])}
        own.pins.clear()
        return {**shown(own), status: good("Nothing is pinned.")}

    def chosen(values: Mapping[Any, Any]) -> dict[Any, Any]:
        own = values[panel.session]
        if own is None or not own.pins or not values[left] or not values[right]:
            return {both: None}
        return {both: pair(own, values[left], values[right])}

    hidden: dict[str, Any] = {"api_visibility": "private"}
    outputs = [table, gallery, left, right, both, status]
    clear.click(guarded(status, cleared), {panel.session}, outputs, **hidden)
    for side in (left, right):
        side.input(guarded(status, chosen), {panel.session, left, right}, [both, status], **hidden)

    def wire(button: Any) -> None:
        button.click(guarded(status, pinned), {panel.session}, outputs, **hidden)

    return wire
