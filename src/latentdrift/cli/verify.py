"""`latentdrift verify`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from latentdrift.cli.options import parse_options
from latentdrift.cli.show import print_result, progress
from latentdrift.errors import ConfigurationError

if TYPE_CHECKING:
    from latentdrift.data.provenance.verify import Checked

DESCRIPTION = """Read what files say of themselves: whether they are marked as synthetic, by which model they were made,
and whether the hashes of the manifest beside them agree.

Exit status 1 if something does not agree: a file that has changed since it was made, has lost its mark, is missing, or
says something else than its manifest. A file without a mark may be synthetic all the same: marks can be removed."""

SHOWN = 40
"""Lines printed of files."""


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """Read what files say of themselves."""

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Files (PNG, TIFF, GIF, DICOM, NIfTI, residuals) or folders of them."""
    model: str | None = None
    """Every synthetic file must have been made by this model: embedded name, run folder or diffusers folder."""
    source: tuple[Path, ...] = ()
    """Every edited image must have been made from one of these files, or one in these folders."""
    trust: Path | None = None
    """PEM file of root certificates that are trusted. A signature holds without, but anybody can make a certificate."""
    require: bool = False
    """Also fail for files that are not marked as synthetic."""
    json: bool = False
    """Print the result as JSON."""
    quiet: bool = False
    """Show no progress."""


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand."""
    options = parse_options(VerifyOptions, arguments, "verify", DESCRIPTION)
    from latentdrift.data.provenance.signing import read_pem, read_signature
    from latentdrift.data.provenance.verify import verify

    if not options.paths:
        raise ConfigurationError("Give the files or folders to look at: latentdrift verify FILE_OR_FOLDER.")
    anchors = None if options.trust is None else read_pem(options.trust, "root certificate").decode()
    digest = None if options.model is None else digest_of(options.model)
    sources = source_hashes(options.source) if options.source else None
    rows: list[dict[str, Any]] = []
    with progress(options.quiet) as tell:
        found: list[Checked] = []
        for done, path in enumerate(options.paths):
            tell("files and folders", done, len(options.paths))
            found += verify(path, model_sha256=digest, sources=sources)
        tell("files and folders", len(options.paths), len(options.paths))
        signatures = []
        for done, one in enumerate(found):
            signatures.append(read_signature(one.file, anchors))
            tell("signatures", done + 1, len(found))
    for one, signature in zip(found, signatures, strict=True):
        problems = list(one.problems)
        if signature is not None and not signature.valid:
            problems.append(f"its signature does not hold: {signature.problem}")
        if options.require and not one.synthetic:
            problems.append("is not marked as synthetic")
        words = None if signature is None else signature.words
        rows.append({**described(one), "signature": words, "problems": problems})
    wrong = [row for row in rows if row["problems"]]
    marked = [row for row in rows if row["synthetic"]]
    models = list(dict.fromkeys((row["model"] or "not stated", row["model_sha256"] or "-") for row in marked))
    if options.json:
        print_result({"files": rows, "agree": not wrong}, True)
        return 1 if wrong else 0
    lines = [f"{row['file']}: {said(row)}" for row in rows]
    if len(lines) > SHOWN:
        lines = [*(f"{row['file']}: {said(row)}" for row in wrong[:SHOWN])]
    signed = [row for row in rows if row["signature"]]
    print_result(
        {
            "looked at": f"{len(rows)} files, {len(marked)} marked as synthetic"
            + (f", {len(rows) - len(marked)} without a mark" if len(marked) < len(rows) else "")
            + (f", {len(signed)} signed" if signed else ""),
            "made by": [f"{name}, SHA-256 {sha}" for name, sha in models],
            "files": lines,
            "does not agree": [f"{row['file']} {problem}" for row in wrong for problem in row["problems"]],
            "verdict": f"{len(wrong)} files do not agree" if wrong else "nothing disagrees",
        },
        False,
    )
    return 1 if wrong else 0


def digest_of(model: str) -> str:
    """Return the hash of a model's weights.

    Raises:
        ModelError: no such model on this machine.
    """
    from latentdrift.errors import ModelError
    from latentdrift.models.identity import weights_sha256

    found = weights_sha256(model)
    if found is None:
        raise ModelError(f"There is no model {model!r} on this machine. Give a folder, a run or an embedded name.")
    return found


def source_hashes(paths: Sequence[Path]) -> set[str]:
    """Return the SHA-256 of files, and of all files in folders.

    Raises:
        DataError: a path that does not exist.
    """
    from latentdrift.data.files import sha256_of

    files: list[Path] = []
    for path in paths:
        files += sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    return {sha256_of(file) for file in files}


def described(one: Checked) -> dict[str, Any]:
    """Return what was found of a file as plain values."""
    facts = {} if one.marks is None else dict(one.marks.facts)
    return {
        "file": str(one.file),
        "synthetic": one.synthetic,
        "place": None if one.marks is None or not one.marks.synthetic else one.marks.place,
        "in_manifest": one.entry is not None,
        "model": one.model_name,
        "model_sha256": one.model_sha256,
        "facts": facts,
    }


def said(row: dict[str, Any]) -> str:
    """Return what a file says of itself in words."""
    if not row["synthetic"]:
        return "no mark of a synthetic image"
    words = [f"synthetic ({row['place'] or 'by its manifest alone'})"]
    words += [f"{name} {row['facts'][name]}" for name in ("seed", "prompt") if name in row["facts"]]
    words += ["in the manifest"] if row["in_manifest"] else []
    words += [row["signature"]] if row["signature"] else []
    return "; ".join(words) + ("; DOES NOT AGREE" if row["problems"] else "")
