"""`latentdrift finetune`."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from latentdrift.cli.options import parse_options, peek_option
from latentdrift.cli.show import print_result, progress
from latentdrift.finetune.config import TrainingConfig

DESCRIPTION = """Fine-tune a base model on a folder of images, with or without drift.

The folder holds metadata.csv (or .jsonl) with a column file_name, or one folder a class. The run folder that comes out
holds the model, which plain diffusers loads too. The same command goes on where a stopped run was."""


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions:
    """Fine-tune a base model on a folder of images."""

    data: Path
    """Folder of images: metadata.csv or .jsonl with file_name and attributes, or class folders."""
    out: Path
    """Run folder to make, or to go on with."""
    base: str = "tiny"
    """"tiny", "tiny-brain", a diffusers folder, a run folder, or a hub id such as CompVis/stable-diffusion-v1-4."""
    method: str = "basic"
    """basic, textual_inversion, dreambooth, custom_diffusion, lora or instruct_pix2pix; --help after it shows its own
    settings."""
    drift: str = "auto"
    """none; auto (moment matching; also auto-map, auto-vector, auto-scalar); learned with the weights (also
    learned-scalar); a number; one number a latent channel with commas; a model folder whose drift is to be used. In its
    place for comparison: offset-noise, or offset-noise:0.05; zero-terminal-snr."""
    rule: Literal["start", "forward", "paper", "matched"] = "start"
    """Where the drift acts."""
    template: str | None = None
    """Captions: a template such as "an MRI of a {stage} brain"; simple or diverse, with +patient for age and sex (21
    wordings a class); or a YAML, TOML or TXT file of templates. Made from the attributes by default."""
    label: str | None = None
    """What to call the class of class folders; with a table, the column that is the class."""
    columns: tuple[str, ...] = ()
    """Attributes to use; by default those of --template, or all."""
    missing: Literal["refuse", "drop", "keep"] = "refuse"
    """What to do with images that lack an attribute: refuse the folder, drop them, or keep them without."""
    device: str | None = None
    """cpu, cuda, mps; a GPU by default where there is one."""
    cache: Path | None = None
    """Folder for cached latents; .latents beside the run folder by default. Treat them as the images they come from."""
    json: bool = False
    """Print the result as JSON."""
    quiet: bool = False
    """Show no progress."""
    training: TrainingConfig = field(default_factory=TrainingConfig)


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand."""
    from latentdrift.finetune.method import finetune_method

    method = finetune_method.get(peek_option(arguments, "method", FinetuneOptions.method))
    settings = method.config_class
    options_class = dataclasses.make_dataclass(
        "FinetuneOptions",
        [("settings", settings, field(default_factory=settings))],
        bases=(FinetuneOptions,),
        frozen=True,
        kw_only=True,
    )
    options: Any = parse_options(options_class, arguments, "finetune", DESCRIPTION)
    from latentdrift.cli.folders import command_line
    from latentdrift.data import Cohort
    from latentdrift.finetune import finetune_model
    from latentdrift.finetune.contrast import LowContrastWarning
    from latentdrift.models.card import CARD_FILE
    from latentdrift.report.finetune_page import write_finetune_page
    from latentdrift.report.run_page import PAGE_FILE

    page = options.out / PAGE_FILE
    # The page of a run that finished before was written under the command that made it.
    kept = page.is_file() and (options.out / "model" / CARD_FILE).is_file()
    with progress(options.quiet) as tell, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", LowContrastWarning)
        columns, tolerant = (None, True) if method.every_attribute else needed_columns(options)
        missing = "keep" if tolerant and options.missing == "refuse" else options.missing
        cohort = Cohort.open(options.data, label=options.label, columns=columns, missing=missing)
        model = finetune_model(
            cohort,
            options.out,
            base=options.base,
            method=options.method,
            drift=options.drift,
            rule=options.rule,
            template=options.template,
            config=options.training,
            method_config=options.settings,
            cache=options.cache,
            device=options.device,
            stage=tell,
        )
    from latentdrift.drift import load_drift

    drift = load_drift(model)
    told = [str(w.message) for w in caught if issubclass(w.category, LowContrastWarning)]
    if not kept:
        settled = dataclasses.replace(options, training=method(options.settings).settle(options.training))
        write_finetune_page(options.out, command=command_line("finetune", arguments), options=settled, warnings=told)
    print_result(
        {
            "model": model,
            "page": page,
            "drift": "none" if drift is None else str(drift),
            "samples": sorted((options.out / "samples").glob("*.png"))[-1:],
            "losses": options.out / "losses.csv",
            "split": options.out / "split.csv",
            "warnings": told,
        },
        options.json,
    )
    return 0


def needed_columns(options: FinetuneOptions) -> tuple[list[str] | None, bool]:
    """Return the attributes that training will use, or None for all, and whether images may lack some of them.

    Values missing elsewhere do not matter. Sets of templates and files take what the cohort has; parts in brackets are
    left out of a caption where the value is missing, and a missing value that a caption needs is an error by itself.
    """
    from latentdrift.data import PromptTemplate

    names = list(options.columns)
    tolerant = False
    if options.template is not None:
        if "{" not in options.template:
            return (names or None), True
        template = PromptTemplate(options.template)
        names += template.attribute_names
        tolerant = set(template.required_names) != set(template.attribute_names)
    if not names:
        return None, tolerant
    return list(dict.fromkeys([*names, *([options.training.balance] if options.training.balance else [])])), tolerant
