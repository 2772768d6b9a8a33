"""`latentdrift info`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from latentdrift.cli.options import parse_options
from latentdrift.cli.show import print_result

DESCRIPTION = """What is installed, which models and methods there are, and with --model what a model was trained on."""


@dataclass(frozen=True, kw_only=True)
class InfoOptions:
    """What is installed, and what a model was trained on."""

    model: str | None = None
    """A model to describe: embedded name, run folder or diffusers folder."""
    json: bool = False
    """Print the result as JSON."""
    quiet: bool = False
    """Show no progress. There is none: the flag is here because all commands have it."""


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand."""
    options = parse_options(InfoOptions, arguments, "info", DESCRIPTION)
    print_result(describe_model(options.model) if options.model else describe_installation(), options.json)
    return 0


def describe_installation() -> dict[str, object]:
    """Return versions, device, and every name that can be given on the command line."""
    import psutil

    from latentdrift.data.provenance.marks import package_versions
    from latentdrift.edit.editor import editor
    from latentdrift.evaluate import extractor_names, resolve_extractor
    from latentdrift.finetune import finetune_method
    from latentdrift.generate import SAMPLERS
    from latentdrift.models import EMBEDDED
    from latentdrift.models.loading import default_device

    memory = psutil.virtual_memory()
    return {
        **package_versions(),
        "device": str(default_device()),
        "memory": f"{memory.total / 2**30:.1f} GiB, {memory.available / 2**30:.1f} free",
        "models": ", ".join(EMBEDDED) + ", or a folder or hub id of Stable Diffusion",
        "methods": ", ".join(finetune_method.names()),
        "editors": ", ".join(editor.names()),
        "drift rules": "start, forward, paper, matched",
        "samplers": ", ".join(SAMPLERS),
        "feature extractors": ", ".join(extractor_names()) + f" (default here: {resolve_extractor('default')})",
    }


def describe_model(name: str) -> dict[str, object]:
    """Return what a model's card, drift and configuration say.

    Raises:
        ModelError: no such model, or not on this machine.
    """
    from latentdrift.drift import load_drift
    from latentdrift.errors import ModelError
    from latentdrift.models import read_model_card
    from latentdrift.models.loading import check_architecture, model_folder, saved_adapter

    adapter = saved_adapter(name)
    folder = adapter or model_folder(name)
    if folder is None:
        raise ModelError(f"There is no model {name!r} on this machine. `info` does not ask the hub; give a folder.")
    card, drift = read_model_card(folder), load_drift(folder)
    facts: dict[str, object] = {
        "folder": folder,
        "pipeline": "adapter, to be put on its base" if adapter else check_architecture(folder),
        "drift": "none" if drift is None else str(drift),
    }
    if card is not None:
        facts |= {
            "base": card.base,
            "method": f"{card.method}, {card.steps} steps",
            "image size": f"{card.size} pixels, {'gray' if card.gray else 'colour'}",
            "template": card.template,
            **{f"attribute {key}": ", ".join(map(str, values)) for key, values in card.attributes.items()},
            **{f"data {key}": value for key, value in card.data.items()},
            **card.notes,
        }
    return facts
