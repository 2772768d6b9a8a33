"""What the figures share: the run they are drawn from, its prompts, and the JSON file beside the picture."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.errors import ConfigurationError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from latentdrift.data import Cohort


@dataclass(frozen=True, kw_only=True)
class FigureOptions:
    """What every figure takes."""

    out: Path
    """PNG file to write; the numbers go into a JSON file of the same name beside it."""
    overwrite: bool = False
    """Replace a figure of that name."""
    batch_size: int = 16
    """Images at once."""
    device: str | None = None
    """cpu, cuda, mps; a GPU by default where there is one."""
    json: bool = False
    """Print the result as JSON."""
    quiet: bool = False
    """Show no progress."""


@dataclass(frozen=True, kw_only=True)
class RunOptions(FigureOptions):
    """What figures of one model take."""

    run: str
    """Run folder of `latentdrift finetune`, or any model: embedded name, diffusers folder or hub id."""
    drift: str = "saved"
    """saved: the drift the model was trained with; none; a number; one number a channel with commas; a model folder."""


def check_out(options: FigureOptions) -> None:
    """Raise ConfigurationError for a name that is no PNG file's, or one that is taken."""
    if options.out.suffix.lower() != ".png":
        raise ConfigurationError(f"--out is {options.out}; figures are PNG files: {options.out.name}.png.")
    taken = [path for path in (options.out, options.out.with_suffix(".json")) if path.exists()]
    if taken and not options.overwrite:
        raise ConfigurationError(f"{taken[0]} exists. Give another --out, or --overwrite to replace it.")


def finish(
    kind: str, arguments: Sequence[str], options: FigureOptions, numbers: Mapping[str, Any], warnings: Sequence[str]
) -> Path:
    """Mark the picture as synthetic, write the JSON file beside it, and return that."""
    from latentdrift.cli.folders import write_json
    from latentdrift.data.provenance.marks import package_versions
    from latentdrift.report.strip import mark

    command = f"latentdrift figure {kind} {shlex.join(arguments)}"
    mark(options.out, {"command": command})
    record = {
        "figure": options.out.name,
        "command": command,
        **numbers,
        "settings": dataclasses.asdict(options),
        "versions": package_versions(),
        "warnings": list(warnings),
    }
    return write_json(options.out.with_suffix(".json"), record)


def split_part(cohort: Cohort, run: str, part: str) -> tuple[Cohort, str]:
    """Return a part of a cohort as the run split it, and which images these are in words; all where it is no run."""
    from latentdrift.cli.evaluate import part_of

    if (Path(run) / "split.csv").exists():
        return part_of(cohort, Path(run), part), f"{part} part of the run's split"
    return cohort, "all images: there is no split.csv, so the model may have seen them"


def prompts_of(
    pipeline: DiffusionPipeline, model: str, attributes: Sequence[str], given: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Return prompts, one a class, and their names: those given, or all classes that agree with the attributes.

    Raises:
        ConfigurationError: both are given, or a model that does not know its attributes and no prompt.
        UnknownNameError: an attribute or a value that the model does not know.
    """
    from latentdrift.cli.wishes import all_combinations, parse_attributes, require_card
    from latentdrift.data import PromptTemplate

    if given and attributes:
        raise ConfigurationError("Give --prompt or --attributes, not both.")
    if given:
        return list(given), list(given)
    card = require_card(pipeline.latentdrift_card, model, "--prompt")
    template = PromptTemplate.restore(card.template)
    wishes = all_combinations(card, parse_attributes(attributes, card, "--attributes"), template.required_names)
    return [template.caption(wish) for wish in wishes], [", ".join(map(str, wish.values())) for wish in wishes]


def wrapped(text: str, width: int = 18) -> str:
    """Return a label in lines of so many letters."""
    import textwrap

    return "\n".join(textwrap.wrap(text, width)) or text
