"""`latentdrift sign`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from latentdrift.cli.options import parse_options
from latentdrift.cli.show import print_result, progress
from latentdrift.errors import ConfigurationError

DESCRIPTION = """Sign synthetic images by C2PA (content credentials).

Whoever gets them can then tell with `latentdrift verify`, or any program that reads content credentials, that they are
synthetic, what made them, who says so, and that they have not changed since. PNG, TIFF and GIF files can hold a
signature; of DICOM and NIfTI files manifest.json keeps the SHA-256. Needs the extra c2pa, and no network."""


@dataclass(frozen=True, kw_only=True)
class SignOptions:
    """Sign synthetic images."""

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders that generate, counterfactual, ladder and the like made; or single files."""
    certificate: Path
    """PEM file: the signer's certificate, then those up to the root. C2PA asks for the key usage of digital signatures
    and an extended key usage such as e-mail protection."""
    key: Path
    """PEM file of the private key, not encrypted."""
    json: bool = False
    """Print the result as JSON."""
    quiet: bool = False
    """Show no progress."""


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand."""
    options = parse_options(SignOptions, arguments, "sign", DESCRIPTION)
    from latentdrift.data.provenance.signing import sign_files, sign_folder

    if not options.paths:
        raise ConfigurationError("Give the folders or files to sign: latentdrift sign FOLDER --certificate … --key ….")
    signed: list[Path] = []
    before: list[Path] = []
    without: list[Path] = []
    with progress(options.quiet) as tell:
        for done, path in enumerate(options.paths):
            tell("files and folders", done, len(options.paths))
            if path.is_dir():
                found = sign_folder(path, options.certificate, options.key)
                for kept, new in zip((signed, before, without), found, strict=True):
                    kept += new
        signed += sign_files([path for path in options.paths if not path.is_dir()], options.certificate, options.key)
        tell("files and folders", len(options.paths), len(options.paths))
    print_result(
        {
            "signed": [str(path) for path in signed] if options.json else f"{len(signed)} files",
            "signed before": [str(path) for path in before],
            "cannot hold a signature": [str(path) for path in without],
        },
        options.json,
    )
    return 0
