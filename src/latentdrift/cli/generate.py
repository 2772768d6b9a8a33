"""`latentdrift generate`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from latentdrift.cli.models import ModelOptions
from latentdrift.cli.options import parse_options
from latentdrift.cli.show import print_result, progress

DESCRIPTION = """Make images from prompts or attributes.

The folder that comes out holds PNG files marked as synthetic and metadata.csv, so that it can be read as a cohort;
manifest.json says what made them, page.html shows it."""

OWN = {"generate.json": "settings"}
"""What tells a former result, of a run that was interrupted, too."""


@dataclass(frozen=True, kw_only=True)
class GenerateOptions(ModelOptions):
    """Make images from prompts or attributes."""

    out: Path
    """Folder to make, or of a former `generate` to write over."""
    attributes: tuple[str, ...] = ()
    """Wanted attributes, such as stage=MildDemented; those not given take all their values in turn."""
    prompt: tuple[str, ...] = ()
    """Prompts in place of attributes."""
    count: int = 16
    """Number of images, shared out over the prompts in turn."""
    seed: int = 0
    """Seed of the first image; each next image has the next seed."""
    steps: int = 25
    """Denoising steps."""
    guidance: float = 1.5
    """Classifier-free guidance scale; 1 is none."""
    sampler: str | None = None
    """ddim, ddpm, pndm, euler, euler-ancestral, heun, dpm++ or unipc; the model's own by default."""


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand."""
    options = parse_options(GenerateOptions, arguments, "generate", DESCRIPTION)
    from latentdrift.cli.folders import command_line, write_json, write_table
    from latentdrift.cli.models import open_model
    from latentdrift.cli.whole_folder import check_out
    from latentdrift.cli.wishes import Attributes, all_combinations, parse_attributes, require_card
    from latentdrift.data import PromptTemplate, write_png
    from latentdrift.data.provenance.manifest import Origin, SyntheticFile, write_manifest
    from latentdrift.errors import ConfigurationError
    from latentdrift.generate import generate_images, use_sampler
    from latentdrift.models.identity import drift_facts, model_facts
    from latentdrift.report.making_pages import drift_in_use, write_generate_page

    for flag in ("count", "batch_size", "steps"):
        if getattr(options, flag) < 1:
            raise ConfigurationError(f"--{flag.replace('_', '-')} is {getattr(options, flag)}; at least 1 is needed.")
    if options.prompt and options.attributes:
        raise ConfigurationError("Give --prompt or --attributes, not both.")
    check_out(options.out, OWN)
    pipeline, warnings = open_model(options.model, options.device, options.drift)
    if options.sampler is not None:
        use_sampler(pipeline, options.sampler)
    card = pipeline.latentdrift_card
    if options.prompt:
        wishes: list[tuple[str | None, Attributes]] = [(prompt, {}) for prompt in options.prompt]
    else:
        card = require_card(card, options.model, "--prompt")
        template = PromptTemplate.restore(card.template)
        fixed = parse_attributes(options.attributes, card, "--attributes")
        wishes = [(None, wish) for wish in all_combinations(card, fixed, template.required_names)]
    seeds = [options.seed + index for index in range(options.count)]
    chosen = []
    for index, seed in enumerate(seeds):
        prompt, wish = wishes[index % len(wishes)]
        # Of several wordings, each seed gets its own.
        chosen.append((template.caption(wish, key=str(seed)) if prompt is None else prompt, wish))
    command = command_line("generate", arguments)
    settings = {name: getattr(options, name) for name in ("steps", "guidance", "sampler")}
    origin = Origin(
        model_facts(pipeline, options.model), drift_facts(pipeline, options.drift), settings=settings, command=command
    )
    rows, made = [], []
    options.out.mkdir(parents=True, exist_ok=True)
    gray = card is not None and card.gray
    with progress(options.quiet) as tell:
        for start in range(0, options.count, options.batch_size):
            part = slice(start, start + options.batch_size)
            images = generate_images(
                pipeline,
                [prompt for prompt, _ in chosen[part]],
                seeds=seeds[part],
                steps=options.steps,
                guidance=options.guidance,
                batch_size=options.batch_size,
            )
            # First of all files: by it the folder of a run that was interrupted is known as our own.
            if start == 0:
                write_json(
                    options.out / "generate.json", {"settings": dataclasses.asdict(options), "warnings": warnings}
                )
            for image, (prompt, wish), seed in zip(images, chosen[part], seeds[part], strict=True):
                name = f"{seed:06d}.png"
                one = SyntheticFile(name, seed, prompt, wish)
                write_png(options.out / name, image, gray=gray, text=origin.marks() | one.marks(), synthetic=True)
                made.append(one)
                rows.append({"file_name": name, **wish, "prompt": prompt, "seed": seed})
            write_table(options.out / "metadata.csv", rows)
            tell("images", min(start + options.batch_size, options.count), options.count)
    manifest = write_manifest(options.out, origin, made)
    page = write_generate_page(
        options.out,
        rows,
        command=command,
        options=options,
        drift=drift_in_use(pipeline, options.steps),
        facts={"first seed": options.seed, "SHA-256 of the model's weights": origin.model["sha256"]},
        warnings=warnings,
    )
    table = options.out / "metadata.csv"
    files = {"folder": options.out, "table": table, "manifest": manifest, "page": page}
    result = {"images": options.count, **files, "warnings": warnings}
    print_result(result, options.json)
    return 0
