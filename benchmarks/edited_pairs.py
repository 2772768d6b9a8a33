"""Pairs for InstructPix2Pix where a cohort has no visits: real images, and what a model makes of them otherwise."""

from __future__ import annotations

import csv
from pathlib import Path

import torch

from latentdrift import Cohort, PromptTemplate, load_pipeline, make_counterfactuals
from latentdrift.data import ImageTransform, write_png


def write_pairs(
    cohort: Cohort, model: str, attribute: str, out: Path, steps: int = 25, guidance: float = 3.0
) -> Cohort:
    """Write each image's counterfactual under the next class, with a table that names its source; return the cohort.

    The folder is one for `edit_pairs` (kind "table"). One that is complete is used as it is.
    """
    table = out / "metadata.csv"
    if not table.exists():
        pipeline = load_pipeline(model)
        card = pipeline.latentdrift_card
        transform, prompts = ImageTransform(size=card.size), PromptTemplate.restore(card.template)
        values = sorted({str(value) for value in cohort.values(attribute)} & set(map(str, card.attributes[attribute])))
        records = [record for record in cohort if str(record.attributes[attribute]) in values]
        following = dict(zip(values, [*values[1:], values[0]], strict=True))
        targets = [{attribute: following[str(record.attributes[attribute])]} for record in records]
        out.mkdir(parents=True, exist_ok=True)
        rows = []
        for start in range(0, len(records), 32):
            part = range(start, min(start + 32, len(records)))
            result = make_counterfactuals(
                pipeline,
                torch.stack([transform.read(records[index].image) for index in part]),
                [prompts.caption({attribute: records[index].attributes[attribute]}) for index in part],
                [prompts.caption(targets[index]) for index in part],
                steps=steps,
                guidance=guidance,
            )
            # With the details that the round trip lost put back: an editor should learn the change, not the blur.
            for index, image in zip(part, result.composed(), strict=True):
                name = f"{index:05d}.png"
                write_png(out / name, image, gray=True, synthetic=True)
                source = str(records[index].image.resolve())
                rows.append((name, source, records[index].subject or "", *targets[index].values()))
            print(f"pairs: {part.stop} of {len(records)}", flush=True)
        partial = out / "metadata.partial"
        with partial.open("w", newline="") as file:
            csv.writer(file).writerows([("file_name", "source_file", "subject", attribute), *rows])
        partial.replace(table)
    return Cohort.open(out, label=attribute)
