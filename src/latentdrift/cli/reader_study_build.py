"""`latentdrift reader-study build`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentdrift.cli.options import parse_options
from latentdrift.cli.show import print_result, progress

DESCRIPTION = """Make a blinded questionnaire from real and synthetic images.

Half of the images are real; every class has as many of each kind. All are encoded anew, of one size and depth, under
random names and without metadata. Each reader has a code and an own order. Which image is which stands in the key
alone, a file beside the folder: keep it from the readers, and from the machine that serves them."""


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Make a blinded questionnaire from real and synthetic images."""

    real: Path
    """Folder of real images: metadata.csv or .jsonl with file_name and attributes, or class folders."""
    synthetic: tuple[Path, ...]
    """Folders of synthetic images, such as `latentdrift generate` makes; each is a set of its own in the analysis."""
    out: Path
    """Folder to make."""
    key: Path | None = None
    """CSV file for the truth; beside --out by default, its name with -key.csv."""
    run: Path | None = None
    """Run folder of `latentdrift finetune` on the real folder: take real images of one part of its split only."""
    part: str = "test"
    """Part of the split: test was never trained on."""
    json: bool = False
    """Print the result as JSON."""
    quiet: bool = False
    """Show no progress."""


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand."""
    # The studio's settings join the other options only here.
    from latentdrift.studio.reader_study.build import BuildConfig, build_study

    options_class = dataclasses.make_dataclass(
        "BuildOptions", [("settings", BuildConfig)], bases=(BuildOptions,), frozen=True, kw_only=True
    )
    options: Any = parse_options(options_class, arguments, "reader-study build", DESCRIPTION)
    from latentdrift.cli.evaluate import part_of
    from latentdrift.cli.whole_folder import whole_folder
    from latentdrift.data import Cohort
    from latentdrift.errors import ConfigurationError
    from latentdrift.studio.reader_study.study import write_key

    key = options.key or options.out.with_name(f"{options.out.name}-key.csv")
    for taken in (options.out, key):
        if taken.exists():
            raise ConfigurationError(f"{taken} exists. A study that was answered is not replaced: give other names.")
    if options.out.resolve() in key.resolve().parents:
        raise ConfigurationError(f"The key {key} would lie in the study's folder. Keep it elsewhere.")
    real = Cohort.open(options.real, missing="keep")
    if options.run is not None:
        real = part_of(real, options.run, options.part)
    arms = {arm_name(path, options.synthetic): Cohort.open(path, missing="keep") for path in options.synthetic}
    with progress(options.quiet) as tell, whole_folder(options.out, last="study.json") as folder:
        built = build_study(folder, real, arms, options.settings, lambda done, total: tell("images", done, total))
        write_key(key, built.truths)
    study = built.study
    made = sum(bool(truth.arm) for truth in built.truths)
    print_result(
        {
            "study": options.out,
            "key": key,
            "images": f"{len(study.images) - made} real, {made} synthetic, of {study.size} pixels",
            "diagnosis": ", ".join(study.classes) or "not asked for",
            "readers": [f"{reader.name}: code {reader.code}, {len(reader.order)} images" for reader in study.readers],
            "notes": list(built.notes),
        },
        options.json,
    )
    return 0


def arm_name(path: Path, paths: Sequence[Path]) -> str:
    """Return what to call a set of synthetic images: its folder's name, or its path where names repeat."""
    name = path.resolve().name
    return name if sum(other.resolve().name == name for other in paths) == 1 else str(path)
