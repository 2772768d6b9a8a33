"""The settings of edits and ladders, and the buttons that begin and end them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from latentdrift.studio.edits import EditSettings
from latentdrift.studio.page import Lists, Studio
from latentdrift.studio.shelf import NONE, OWN

NOBODY = "none"

EXPLAINED = (
    '<p class="quiet">Guidance 1 is just what is wanted, more is beyond it. δ lies on top of the model\'s drift; 0 is '
    "the model as it was trained. Strength below 1 keeps more of the image. Steps are those each way.</p>"
)


@dataclass(frozen=True)
class SettingsPanel:
    """The components."""

    fields: Mapping[str, Any]
    make: Any
    cancel: Any
    pin: Any

    @property
    def seed(self) -> Any:
        """The seed's field."""
        return self.fields["seed"]

    def inputs(self) -> set[Any]:
        """Return what settings are read from."""
        return set(self.fields.values())

    def lists(self, studio: Studio) -> Lists:
        """Return the fields of classifiers and what reads their choices."""
        return dict.fromkeys((self.fields["judge"], self.fields["guide"]), lambda: classifiers(studio))

    def text(self, values: Mapping[Any, Any], name: str) -> str:
        """Return a field of text; empty for nobody."""
        found = str(values[self.fields[name]] or "")
        return "" if found == NOBODY else found

    def read(self, values: Mapping[Any, Any]) -> EditSettings:
        """Return the settings that the fields show."""
        told = {name: values[field] for name, field in self.fields.items() if name not in ("judge", "guide")}
        return EditSettings(
            editor=str(told["editor"]),
            steps=int(told["steps"]),
            guidance=float(told["guidance"]),
            strength=float(told["strength"]),
            delta=float(told["delta"]),
            drift=str(told["drift"] or OWN),
            seed=int(told["seed"] or 0),
        )


def classifiers(studio: Studio) -> list[str]:
    """Return nobody, and the classifiers of the workspace."""
    return [NOBODY, *studio.workspace.classifiers()]


def settings_panel(studio: Studio) -> SettingsPanel:
    """Lay the panel out."""
    import gradio as gr

    from latentdrift.edit.editor import editor

    usual, fields = EditSettings(), {}
    with gr.Row():
        fields["guidance"] = gr.Slider(0, 10, value=usual.guidance, step=0.25, label="Guidance", elem_id="guidance")
        fields["delta"] = gr.Slider(-0.5, 0.5, value=0, step=0.01, label="δ", elem_id="delta")
        fields["strength"] = gr.Slider(0.1, 1, value=usual.strength, step=0.05, label="Strength", elem_id="strength")
        fields["steps"] = gr.Slider(2, 100, value=usual.steps, step=1, label="Steps", elem_id="steps")
    gr.HTML(EXPLAINED)
    with gr.Accordion("Editor, drift, judge", open=False, elem_id="more"), gr.Row():
        fields["editor"] = gr.Dropdown(["auto", *editor.names()], value="auto", label="Editor", elem_id="editor")
        fields["drift"] = gr.Dropdown(
            [OWN, NONE], value=OWN, label="Drift, or numbers", allow_custom_value=True, elem_id="drift"
        )
        known = classifiers(studio)
        fields["judge"] = gr.Dropdown(known, value=NOBODY, label="Judge", elem_id="judge")
        fields["guide"] = gr.Dropdown(known, value=NOBODY, label="Guide (classifier_guided)", elem_id="guide")
        fields["seed"] = gr.Number(usual.seed, precision=0, minimum=0, label="Seed", elem_id="seed")
    with gr.Row():
        make = gr.Button("Make counterfactual", variant="primary", elem_id="make")
        cancel = gr.Button("Cancel", elem_id="cancel")
        pin = gr.Button("Pin for comparison", elem_id="pin")
    return SettingsPanel(fields, make, cancel, pin)
