"""`latentdrift counterfactual`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from latentdrift.cli.models import ModelOptions
from latentdrift.cli.options import parse_options
from latentdrift.cli.show import print_result, progress

DESCRIPTION = """Show what real images would look like under other attributes.

Each image is inverted to noise under its own attributes and denoised under the wanted ones, both under the model's
drift. For each, the folder holds the counterfactual, the signed difference (green added, red removed), and the error of
the round trip, in result.json; overview.png shows them side by side."""


@dataclass(frozen=True, kw_only=True)
class CounterfactualOptions(ModelOptions):
    """Show what real images would look like under other attributes."""

    image: tuple[Path, ...]
    """Image files, or folders of them."""
    source: tuple[str, ...]
    """What the images show, such as stage=NonDemented."""
    target: tuple[str, ...]
    """What they should show, such as stage=MildDemented; attributes not named stay as they are."""
    out: Path
    """Folder to make."""
    steps: int = 50
    """DDIM steps each way."""
    guidance: float = 3.0
    """How far beyond the wanted attributes, away from the image's own; 1 is just there."""
    strength: float = 1.0
    """Part of the way to the noise, above 0 and at most 1; less keeps more of the image."""


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand."""
    options = parse_options(CounterfactualOptions, arguments, "counterfactual", DESCRIPTION)
    import torch

    from latentdrift.cli.folders import write_json, write_table
    from latentdrift.cli.models import open_model
    from latentdrift.cli.wishes import parse_attributes, require_card
    from latentdrift.counterfactual import make_counterfactuals
    from latentdrift.data import ImageTransform, PromptTemplate, write_png
    from latentdrift.report import counterfactual_figure, signed_difference

    files = image_files(options.image)
    pipeline, warnings = open_model(options.model, options.device, options.drift)
    card = require_card(pipeline.latentdrift_card, options.model, "a model made by `latentdrift finetune`")
    source = parse_attributes(options.source, card, "--source")
    target = source | parse_attributes(options.target, card, "--target")
    template = PromptTemplate(card.template)
    before, after = template.caption(source), template.caption(target)
    transform = ImageTransform(size=card.size)
    images = torch.stack([transform.read(file) for file in files])
    with progress(options.quiet) as tell:
        done = 0

        def finished(count: int) -> None:
            nonlocal done
            done += count
            tell("counterfactuals", done, len(files))

        result = make_counterfactuals(
            pipeline,
            images,
            [before] * len(files),
            [after] * len(files),
            steps=options.steps,
            guidance=options.guidance,
            strength=options.strength,
            batch_size=options.batch_size,
            progress=finished,
        )
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    names = unique_stems(files)
    thresholds = ((result.reconstruction - result.source).abs().mean(1) / 2).numpy()
    for index, (file, name) in enumerate(zip(files, names, strict=True)):
        facts = {"source": before, "target": after, "model": options.model, "drift": options.drift}
        write_png(options.out / f"{name}.png", result.counterfactual[index], gray=card.gray, text=facts, synthetic=True)
        write_png(options.out / f"{name}-source.png", result.source[index], gray=card.gray)
        map_ = signed_difference(result.source[index], result.counterfactual[index], threshold=thresholds[index])
        write_png(options.out / f"{name}-difference.png", map_, text=facts, synthetic=True)
        rows.append(
            {
                "file_name": f"{name}.png",
                "source_file": str(file),
                **target,
                "prompt": after,
                "changed_l1": float((result.counterfactual - result.source)[index].abs().mean() * 127.5),
                "effect_l1": float(result.effect[index].abs().mean() * 127.5),
                "round_trip_l1": float(result.round_trip_l1[index]),
                "round_trip_psnr": float(result.round_trip_psnr[index]),
            }
        )
    write_table(options.out / "metadata.csv", rows)
    shown = min(8, len(files))
    overview = counterfactual_figure(
        options.out / "overview.png",
        list(result.source[:shown]),
        list(result.counterfactual[:shown]),
        row_labels=names[:shown],
        title=f"{before} → {after}",
        threshold=list(thresholds[:shown]),
    )
    captions = {"source": before, "target": after}
    record = {"settings": dataclasses.asdict(options), "captions": captions, "images": rows, "warnings": warnings}
    write_json(options.out / "result.json", record)
    psnr, levels = float(result.round_trip_psnr.mean()), float(result.round_trip_l1.mean())
    print_result(
        {
            "folder": options.out,
            "overview": overview,
            "round trip": f"{psnr:.1f} dB, {levels:.2f} levels of 255",
            "effect": f"{float(result.effect.abs().mean() * 127.5):.2f} levels of 255 changed on average",
            "warnings": warnings,
        },
        options.json,
    )
    return 0


def image_files(paths: Sequence[Path]) -> list[Path]:
    """Return the files, those of folders included.

    Raises:
        DataError: a path that does not exist, or a folder without images.
    """
    from latentdrift.data.tables import IMAGE_SUFFIXES
    from latentdrift.errors import DataError

    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
            if not found:
                raise DataError(f"There is no image in {path}.")
            files += found
        elif path.exists():
            files.append(path)
        else:
            raise DataError(f"The image {path} does not exist. Check the path.")
    return files


def unique_stems(files: Sequence[Path]) -> list[str]:
    """Return one name a file, numbered where two files share theirs."""
    names: list[str] = []
    for file in files:
        name, number = file.stem, 2
        while name in names:
            name, number = f"{file.stem}-{number}", number + 1
        names.append(name)
    return names
