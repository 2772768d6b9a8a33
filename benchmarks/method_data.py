"""The images of a comparison, simulated before any clock starts, as each side wants them.

Each writer fills `folder/ours` and `folder/reference`, the latter with the images that ours trains on and no others,
and returns the facts that the command lines and the ceilings need:

- `training_images`, `training_files`: images trained on, by their keys in our cohort
- `encoded_images`: what ours encodes, once each, its validation set and mirror images included
- `encodings`: how many images the reference encodes for each it trains on
- `rows`: rows of a batch for each image of the batch size, 2 with prior preservation
- `captions`: distinct captions, the empty one too
- `captions_a_step`: how many distinct ones a step has on average where the text encoder is in the training, else None
"""

from __future__ import annotations

import ast
import csv
import shutil
from pathlib import Path
from typing import Any

from benchmarks.whole_process import ProcessError, Setting
from latentdrift.data import Cohort, PromptTemplate
from latentdrift.data.edits import edit_pairs
from latentdrift.data.simulate import simulate_cohort
from latentdrift.data.splits import DEFAULT_FRACTIONS

TEMPLATE = "a brain MRI slice, {diagnosis}"
CONCEPT_TEMPLATE = "an MRI slice of a {concept} brain"
CLASS_PROMPT = "an MRI slice of a brain"
WORDINGS = "imagenet_templates_small"
"""What textual_inversion.py calls its own list of captions, of which it draws one for each image and step."""


def split(cohort: Cohort) -> dict[str, Cohort]:
    """Return the parts that `finetune` makes with the same seed."""
    return cohort.split(DEFAULT_FRACTIONS, seed=0)


def write_table(path: Path, rows: list[tuple[str, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def facts_of(parts: dict[str, Cohort], setting: Setting) -> dict[str, Any]:
    """Return the facts of a plain set of captioned images."""
    train = parts["train"]
    return {
        "images": setting.images,
        "image_size": setting.image_size,
        "training_images": len(train),
        "training_files": [record.key for record in train],
        "encoded_images": len(train) + len(parts["validation"]),
        "encodings": 1,
        "rows": 1,
        "captions": 2,
        "captions_a_step": None,
    }


def write_captioned(folder: Path, setting: Setting, script: Path) -> dict[str, Any]:
    """Write images with captions: basic, lora."""
    simulated = simulate_cohort(folder / "ours", subjects=setting.images, size=setting.image_size, truth=False)
    prompts, parts = PromptTemplate(TEMPLATE), split(simulated)
    (folder / "reference").mkdir()
    rows = [("file_name", "text")]
    for index, record in enumerate(parts["train"]):
        name = f"{index:06d}{record.image.suffix}"
        shutil.copyfile(record.image, folder / "reference" / name)
        rows.append((name, prompts.caption(record)))
    write_table(folder / "reference" / "metadata.csv", rows)
    return facts_of(parts, setting) | {"captions": len({caption for _, caption in rows[1:]}) + 1}


def write_concept(folder: Path, setting: Setting, value: str) -> dict[str, Cohort]:
    """Write images of one concept and return their parts: to the scripts, a folder of images is one concept."""
    simulated = simulate_cohort(folder / "ours", subjects=setting.images, size=setting.image_size, truth=False)
    rows = [(record.key, str(record.subject), value) for record in simulated]
    write_table(folder / "ours" / "metadata.csv", [("file_name", "subject", "concept"), *rows])
    parts = split(Cohort.open(folder / "ours"))
    (folder / "reference").mkdir()
    for record in parts["train"]:
        shutil.copyfile(record.image, folder / "reference" / record.image.name)
    return parts


def write_wordings(folder: Path, setting: Setting, script: Path) -> dict[str, Any]:
    """Write images of one concept, and for ours a file with the script's own captions: textual inversion."""
    parts = write_concept(folder, setting, "brain")
    texts = script_list(script, WORDINGS)
    (folder / "wordings.txt").write_text("\n".join(text.format("{concept}") for text in texts) + "\n")
    facts = facts_of(parts, setting)
    return facts | {
        # The script mirrors half of its images, which cannot be turned off.
        "encoded_images": 2 * facts["encoded_images"],
        "captions": len(texts) + 1,
        "captions_a_step": len(texts) * (1 - (1 - 1 / len(texts)) ** setting.batch_size),
    }


def script_list(script: Path, name: str) -> list[str]:
    """Return a list of texts that a script defines; it is read there because it is the script's, not ours.

    Raises:
        ProcessError: the script has none of this name.
    """
    for node in ast.parse(script.read_text()).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return list(ast.literal_eval(node.value))
    raise ProcessError(f"{script} has no list {name}. Take the script of the installed diffusers' version.")


def write_prior(folder: Path, setting: Setting, *, value: str, class_images: int, text: bool) -> dict[str, Any]:
    """Write images of one concept, and ready-made images of its class: DreamBooth, Custom Diffusion.

    Args:
        folder: where.
        setting: how many, and how large.
        value: the concept's word.
        class_images: how many images of the class: the script's own default.
        text: whether the text encoder is in the training.
    """
    parts = write_concept(folder, setting, value)
    class_images = setting.class_images or class_images
    # Other subjects than the concept's: the draw depends on the seed.
    simulate_cohort(folder / "others", subjects=class_images, size=setting.image_size, truth=False, seed=1)
    shutil.move(folder / "others" / "images", folder / "class")
    facts = facts_of(parts, setting)
    return facts | {
        "class_images": class_images,
        "encoded_images": facts["encoded_images"] + class_images,
        "rows": 2,
        "captions": 3,
        "captions_a_step": 2 if text else None,
    }


def write_pairs(folder: Path, setting: Setting, script: Path) -> dict[str, Any]:
    """Write simulated images with their true counterfactuals, and the pairs of them: InstructPix2Pix."""
    simulated = simulate_cohort(folder / "ours", subjects=setting.images, size=setting.image_size, truth=True)
    parts = split(simulated)
    pairs = {name: edit_pairs(parts[name], kind="truth") for name in ("train", "validation")}
    (folder / "reference").mkdir()
    rows = [("input_image_file_name", "edit_prompt", "edited_image_file_name")]
    for pair in pairs["train"]:
        for record in (pair.source, pair.target):
            shutil.copyfile(record.image, folder / "reference" / record.image.name)
        rows.append((pair.source.image.name, pair.instruction, pair.target.image.name))
    write_table(folder / "reference" / "metadata.csv", rows)
    used = {record.key for found in pairs.values() for pair in found for record in (pair.source, pair.target)}
    return facts_of(parts, setting) | {
        "pairs": len(pairs["train"]),
        "encoded_images": len(used),
        "encodings": 2,
        "captions": len({pair.instruction for pair in pairs["train"]}) + 1,
    }
