"""The tabs Train, Search and Evaluate: each is a form that starts a command of the command line in the workspace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from latentdrift.studio import commands
from latentdrift.studio.page import Lists, Studio, guarded
from latentdrift.studio.shelf import USUAL
from latentdrift.studio.style import good

FREE: dict[str, Any] = {"allow_custom_value": True}

BEGIN = {"train": "Start training", "search": "Start the search", "evaluate": "Start the evaluation"}
"""What the buttons say, by the forms' names."""


def start_tabs(studio: Studio) -> Lists:
    """Lay the three tabs out and wire them; return the fields whose choices are what the workspace holds."""
    import gradio as gr

    from latentdrift.finetune import finetune_method

    workspace, models, lists = studio.workspace, studio.shelf.names, Lists()

    def classifiers() -> list[str]:
        return ["", *workspace.classifiers()]

    def runs() -> list[str]:
        return ["", *workspace.models()]

    def field(read: Callable[[], list[str]], label: str, value: str | None = "", info: str | None = None) -> Any:
        made = gr.Dropdown(read(), value=value, label=label, info=info, render=False, **FREE)
        lists[made] = read
        return made

    def folder(label: str) -> Any:
        known = workspace.cohorts()
        return field(workspace.cohorts, label, known[0] if known else None, "a folder of the workspace")

    with gr.Tab("Train", id="train"):
        _form(
            studio,
            "train",
            "Fine-tune a model on a folder of images with metadata.csv, or one folder a class.",
            commands.finetune_words,
            {
                "data": folder("Data"),
                "out": gr.Textbox("runs/mine", label="Run folder to make, or to go on with", render=False),
                "base": field(models, "Base model", "tiny"),
                "method": gr.Dropdown(finetune_method.names(), value="basic", label="Method", render=False),
                "drift": gr.Dropdown(list(commands.DRIFTS), value="auto", label="Drift", render=False, **FREE),
                "rule": gr.Dropdown(list(commands.RULES), value="start", label="Rule", render=False),
                "template": gr.Textbox(label="Captions, such as an MRI of a {stage} brain", render=False),
                "balance": gr.Textbox(label="Attribute to draw equally often", render=False),
                "steps": gr.Number(500, precision=0, minimum=1, label="Steps", render=False),
                "batch_size": gr.Number(16, precision=0, minimum=1, label="Batch size", render=False),
                "seed": gr.Number(0, precision=0, minimum=0, label="Seed", render=False),
            },
        )
    with gr.Tab("Search", id="search"):
        _form(
            studio,
            "search",
            "Search the δ under which edits of images are best. It takes a guide; a judge says what it is worth.",
            commands.search_words,
            {
                "model": field(models, "Model", USUAL),
                "images": folder("Images"),
                "out": gr.Textbox("runs/search", label="Folder to make, or of a search to go on with", render=False),
                "source": gr.Textbox(label="What they show, NAME=VALUE, if no table says so", render=False),
                "target": gr.Textbox(label="Wanted, NAME=VALUE", render=False),
                "guide": field(classifiers, "Guide"),
                "judge": field(classifiers, "Judge"),
                "method": gr.Dropdown(list(commands.METHODS), value="brent", label="Method", render=False),
                "evaluations": gr.Number(16, precision=0, minimum=1, label="Evaluations", render=False),
                "steps": gr.Number(20, precision=0, minimum=1, label="Steps each way", render=False),
            },
        )
    with gr.Tab("Evaluate", id="evaluate"):
        _form(
            studio,
            "evaluate",
            "Compare a folder of synthetic images with real ones: distances with intervals, in a page under Runs.",
            commands.evaluate_words,
            {
                "real": folder("Real images"),
                "synthetic": folder("Synthetic images"),
                "out": gr.Textbox("runs/evaluation", label="Folder to make", render=False),
                "run": field(runs, "Run whose split counts"),
                "part": gr.Dropdown(list(commands.PARTS), value="test", label="Part of its split", render=False),
                "pairs": gr.Checkbox(False, label="Compare edits with their sources", render=False),
            },
        )
    return lists


def _form(studio: Studio, name: str, told: str, words_of: Callable[..., list[str]], fields: Mapping[str, Any]) -> None:
    """Lay a form out, with a button that starts the command that it describes."""
    import gradio as gr

    gr.HTML(f'<p class="quiet">{escape(told)}</p>')
    parts = list(fields.items())
    for begin in range(0, len(parts), 3):
        with gr.Row():
            for key, field in parts[begin : begin + 3]:
                field.elem_id = f"{name}-{key.replace('_', '-')}"
                field.render()
    start = gr.Button(BEGIN[name], variant="primary", elem_id=f"start-{name}")
    status = gr.HTML(elem_id=f"{name}-status")

    def started(values: Mapping[Any, Any]) -> dict[Any, Any]:
        given = {key: values[field] for key, field in fields.items()}
        given = {key: "" if value is None else value for key, value in given.items()}
        process = studio.processes.start(words_of(studio.workspace, **given))
        line = escape(" ".join(process.words))
        return {
            status: good(f"Started as {escape(process.name)}: <code>latentdrift {line}</code>. Follow it under Runs.")
        }

    start.click(guarded(status, started), set(fields.values()), [status], api_visibility="private")
