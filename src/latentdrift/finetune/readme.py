"""The card of a fine-tuned model for people: README.md in the form of the Hugging Face hub, beside the weights.

`latentdrift.json` is the card for programs. Diffusers ignores both.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentdrift.drift import LatentDrift
    from latentdrift.models import ModelCard

README = "README.md"
SAMPLES = "samples.png"
FEW = 0.1
"""A group of a smaller share of the training images is named in the notes on bias."""

NOT_ON_THE_HUB = "# Names without an owner are local: put the hub's in their place, or remove them, before an upload.\n"

USE = """## Intended use

Research: synthetic images for studies of methods, for teaching, and for questions such as what a model associates with
a class. Every image that latentdrift writes with it is marked as synthetic.

**Out of scope: diagnosis, prognosis, treatment, triage or any other clinical decision**, images passed off as
acquired, and any attempt to find out who is in the training data.

## Limits

- An image shows what the model has learned to associate with a caption. It is nobody's future, and no evidence of one.
- The model knows what its data set shows, from its scanners, sites and people, and nothing else.
- {steps} steps of training may have left images of the training set in the weights: before the weights or images are
  passed on, look for copies with `latentdrift audit privacy`.
- How good the images are is not said here: measure it with `latentdrift evaluate` on held-out images."""

SHOWN = f"""## Samples

A row a caption, the same noise in each row.

![Synthetic images]({SAMPLES})"""

TERMS = """## Terms

The licence of the weights follows from that of the base and from the terms under which the training data were given.
Neither is known to the program that wrote this card: put them here, and in the head of this file, before you pass the
model on. Data sets of patients often forbid it."""

LOAD_PLAIN = """With plain diffusers, without the drift:

```python
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained(".")  # this folder
```

"""
LOAD_OURS = """With its drift:

```python
from latentdrift import generate_images, load_pipeline

pipe = load_pipeline(".")  # this folder
images = generate_images(pipe, [{caption}], seeds=[0])  # (1, 3, {size}, {size}) in [-1, 1]
```"""
LOAD_EDITS = """With latentdrift:

```python
from latentdrift import load_pipeline

pipe = load_pipeline(".")  # this folder; latentdrift.edit_by_instruction(pipe, image, instruction) edits
```"""


def write_readme(
    folder: Path,
    card: ModelCard,
    drift: LatentDrift | None,
    facts: Mapping[str, Any],
    parts: Mapping[str, Mapping[str, Any]],
    *,
    losses: Sequence[float],
    validations: Sequence[tuple[int, float]] = (),
    captions: Sequence[str] = (),
    sheet: Path | None = None,
) -> Path:
    """Write README.md into a model's folder, and the sample sheet beside it; return its path.

    Args:
        folder: where to.
        card: the card for programs.
        drift: saved with the model.
        facts: what run.json holds.
        parts: counts by part, see `latentdrift.finetune.counts`.
        losses: of each step.
        validations: steps and validation losses.
        captions: some captions that the model knows.
        sheet: the last sample sheet, if there is one.
    """
    if sheet is not None and sheet.is_file():
        shutil.copyfile(sheet, folder / SAMPLES)
    else:
        sheet = None
    edits = card.method == "instruct_pix2pix"
    blocks = [
        head(card, edits),
        f"# {title(card)}",
        summary(card, drift),
        loading(card, captions, edits, whole=facts["training"]["save"] == "pipeline"),
        training_data(card, parts),
        *bias_notes(parts),
        training_facts(facts, drift, losses, validations),
        *([] if sheet is None else [SHOWN]),
        USE.format(steps=card.steps),
        TERMS,
    ]
    path = folder / README
    path.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    return path


def head(card: ModelCard, edits: bool) -> str:
    """Return the YAML that the hub reads."""
    import yaml

    tags = ["medical-imaging", "synthetic-data", "latent-drifting", "diffusion", card.method.replace("_", "-")]
    facts: dict[str, Any] = {
        "license": "other",
        "license_name": "see-terms",
        "library_name": "diffusers",
        "pipeline_tag": "image-to-image" if edits else "text-to-image",
        "base_model": hub_name(card.base),
        "datasets": [hub_name(str(card.data.get("name", "data")))],
        "tags": tags + (["lora"] if card.method == "lora" else []),
        "inference": False,
    }
    return f"---\n{NOT_ON_THE_HUB}{yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)}---"


def hub_name(name: str) -> str:
    """Return a hub's id as it is; of a path its last part, with letters that an id may have."""
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not Path(name).exists():
        return name
    return re.sub(r"[^\w.-]+", "-", Path(name).name).strip("-.") or "local"


def title(card: ModelCard) -> str:
    """Return the heading."""
    return f"{hub_name(card.base).split('/')[-1]} fine-tuned on {card.data.get('name', 'a data set')}"


def summary(card: ModelCard, drift: LatentDrift | None) -> str:
    """Return what the model is, in two sentences."""
    with_drift = "without a drift" if drift is None else f"under latent drifting: {without_name(drift)}"
    colour = "gray" if card.gray else "colour"
    return (
        f"A diffusion model of synthetic medical images ({colour}, {card.size} x {card.size} pixels), made from "
        f"`{hub_name(card.base)}` by the method {card.method} with "
        f"[latentdrift](https://arxiv.org/abs/2412.20651), {with_drift}. **Its images are synthetic and not for "
        "diagnosis.**"
    )


def loading(card: ModelCard, captions: Sequence[str], edits: bool, *, whole: bool) -> str:
    """Return code that loads the model, run in its folder."""
    code = LOAD_EDITS
    if not edits:
        code = LOAD_OURS.format(caption=quoted(captions[0] if captions else ""), size=card.size)
    alone = "These files are an adapter: they need the base they were trained on.\n\n"
    return f"## How to load it\n\n{LOAD_PLAIN if whole else alone}{code}"


def training_data(card: ModelCard, parts: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the counts of images and subjects, by part and attribute."""
    wording = f"Captions: `{card.template}`." if isinstance(card.template, str) else "Captions: a set of templates."
    lines = [
        "## Data",
        "",
        f"{card.data.get('name', 'A data set')}. {wording} Parts share no subject where subjects are known. SHA-256 of "
        f"the data: `{card.data.get('content_hash', 'not known')}`.",
        "",
    ]
    rows = [[name, part["images"], dash(part["subjects"])] for name, part in parts.items()]
    lines += markdown_table(["part", "images", "subjects"], rows)
    for attribute in dict.fromkeys(name for part in parts.values() for name in part["by"]):
        values = dict.fromkeys(value for part in parts.values() for value in part["by"].get(attribute, {}))
        rows = [[value, *(part["by"].get(attribute, {}).get(value, 0) for part in parts.values())] for value in values]
        lines += ["", *markdown_table([f"images by {attribute}", *parts], rows)]
    return "\n".join(lines)


def bias_notes(parts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a section on groups that the model has seen little of, where sex, age or a class are known."""
    from latentdrift.finetune.counts import GROUPS

    train = parts.get("train", {"by": {}, "images": 0})
    notes = []
    for attribute, counted in train["by"].items():
        total = sum(counted.values())
        if total < 1 or len(counted) < 2:
            continue
        shares = ", ".join(f"{value} {count / total:.0%}" for value, count in counted.items())
        rare = [value for value, count in counted.items() if count / total < FEW]
        note = f"- {attribute}: {shares}."
        if rare:
            note += f" Of {', '.join(rare)} the model has seen little: expect worse and less varied images there."
        if attribute.lower() in GROUPS or rare:
            notes.append(note)
    known = {name.lower() for name in train["by"]} & GROUPS
    if not known:
        notes.append("- Sex and age are not in the data's table: nothing can be said of groups by them.")
    told = "\n".join(notes)
    return [
        "## Bias\n\nShares of the training images. What is rare here is rare in the images the model makes, and edits "
        "of it are worth less. Compare groups with `latentdrift evaluate`, which gives figures by sex and age.\n\n"
        + told
    ]


def training_facts(
    facts: Mapping[str, Any],
    drift: LatentDrift | None,
    losses: Sequence[float],
    validations: Sequence[tuple[int, float]],
) -> str:
    """Return settings, losses and versions."""
    training = facts["training"]
    count = max(1, len(losses) // 10)
    rows: list[list[Any]] = [
        ["drift", "none" if drift is None else without_name(drift)],
        ["steps", training["steps"]],
        ["images a step", training["batch_size"] * training["gradient_accumulation"]],
        ["learning rate", f"{training['learning_rate']:g}, {training['lr_schedule']}"],
        ["averaged weights", training["ema_decay"] or "no"],
        ["balanced by", training["balance"] or "nothing"],
        ["seed", training["seed"]],
        *([name.replace("_", " "), value] for name, value in facts["method_settings"].items()),
    ]
    if losses:
        rows.append(["training loss, first and last tenth", f"{mean(losses[:count])} and {mean(losses[-count:])}"])
    if validations:
        rows.append(["validation loss, first and last", f"{validations[0][1]:.4f} and {validations[-1][1]:.4f}"])
    rows.append(["versions", ", ".join(f"{name} {number}" for name, number in facts["versions"].items())])
    return "\n".join(["## Training", "", *markdown_table(["", ""], rows)])


def without_name(drift: LatentDrift) -> str:
    """Return a drift in words, without the word drift."""
    return str(drift).removeprefix("drift ")


def quoted(caption: str) -> str:
    """Return a caption as Python text that cannot end the block of code it stands in."""
    import json

    return json.dumps(caption.replace("`", "'"), ensure_ascii=False)


def mean(values: Sequence[float]) -> str:
    """Return the mean with four decimals."""
    return f"{sum(values) / len(values):.4f}"


def markdown_table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Return the lines of a Markdown table."""
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return [f"| {' | '.join(line)} |" for line in (list(names), ["---"] * len(names), *cells)]


def dash(value: Any) -> str:
    """Return a value, or a dash where there is none."""
    return "–" if value is None else str(value)
