"""An edit as files to take away: pictures, the scan's own format, and a manifest that says where they come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.data.export.edit import OWN_FORMATS, write_edit
from latentdrift.data.formats.reading import format_of
from latentdrift.data.images import write_png
from latentdrift.errors import ConfigurationError, DataError
from latentdrift.studio.edits import Edit

if TYPE_CHECKING:
    from latentdrift.data.provenance.manifest import Origin, SyntheticFile

PICTURE, MAP = "PNG, as the model made it", "PNG, difference map"
OWN = {"PNG, 16 bit, at the scan's resolution": "png16", "DICOM": "dicom", "NIfTI": "nifti", "change alone": "residual"}
"""Formats that the edit goes back into as a change of the scan, by the names that the page shows."""


def formats_of(edit: Edit) -> list[str]:
    """Return the formats that an edit can be written in; JSON is always written beside."""
    found = [PICTURE, MAP]
    source = edit.view.source
    if source is None:
        return found
    own = format_of(source.files[0])
    for label, name in OWN.items():
        if name not in OWN_FORMATS or (name == own and (name != "nifti" or source.cut is not None)):
            found.append(label)
    return found


def write_export(
    edit: Edit, folder: Path, formats: Sequence[str], *, mark: bool = False, keep_identifiers: bool = False
) -> list[Path]:
    """Write an edit in the wanted formats, and manifest.json beside; return the files.

    No name of the uploaded file goes into a name of these: it may be a patient's.

    Args:
        edit: from `make_edit`.
        folder: an empty one.
        formats: of `formats_of`.
        mark: write SYNTHETIC into the pixels of DICOM files.
        keep_identifiers: keep who the patient is in DICOM and NIfTI files.

    Raises:
        ConfigurationError: no format, or one that this scan cannot be written in.
        DataError: the disk is full.
    """
    from latentdrift.data.provenance.manifest import write_manifest

    known = formats_of(edit)
    strange = [name for name in formats if name not in known]
    if strange or not formats:
        raise ConfigurationError(f"This edit can be written as: {', '.join(known)}. Choose at least one of these.")
    origin, made = origin_of(edit), synthetic_file(edit, "counterfactual.png")
    marks = {**origin.marks(), **made.marks()}
    files: list[Path] = []
    if PICTURE in formats:
        files.append(folder / "counterfactual.png")
        write_png(files[-1], edit.result.image[0], gray=edit.view.gray, text=marks, synthetic=True)
    if MAP in formats:
        files.append(folder / "difference.png")
        write_png(files[-1], difference_map(edit), text=marks, synthetic=True)
    own = [OWN[name] for name in formats if name in OWN]
    if own:
        source, change = edit.view.source, edit.change()
        if source is None or change is None:
            raise DataError("This picture has colour, so the edit cannot go back into it. Take the model's PNG.")
        description = {**marks, **{name: origin.settings[name] for name in ("guidance", "steps", "strength", "delta")}}
        stem = folder / "edited-scan"
        files += write_edit(source, change, stem, own, description, mark=mark, keep_identifiers=keep_identifiers)
    entries = [dataclasses.replace(made, file=path.name) for path in files]
    return [*files, write_manifest(folder, origin, entries)]


def difference_map(edit: Edit) -> Any:
    """Return what was added (green) and removed (red), (H, W, 3) uint8, beyond what the round trip changes itself."""
    from latentdrift.report import signed_difference

    return signed_difference(edit.result.source[0], edit.result.image[0], threshold=edit.limits())


def origin_of(edit: Edit) -> Origin:
    """Return what made an edit, for its manifest."""
    from latentdrift.data.provenance.manifest import Origin

    told = dataclasses.asdict(edit.settings)
    settings = {name: told[name] for name in ("steps", "guidance", "strength", "delta")}
    return Origin(
        model=edit.model,
        drift=edit.drift,
        editor={"name": edit.settings.editor, "config": "default"},
        settings={**settings, "made_with": "latentdrift studio"},
    )


def synthetic_file(edit: Edit, name: str) -> SyntheticFile:
    """Return what a manifest says of one file of an edit."""
    from latentdrift.data.provenance.manifest import SyntheticFile

    figures: dict[str, Any] = {name: round(value, 4) for name, value in figures_of(edit).items()}
    return SyntheticFile(
        file=name,
        seed=edit.settings.seed,
        prompt=edit.result.target_captions[0],
        attributes={**edit.wish.source, **edit.wish.target},
        source_sha256=edit.view.sha256,
        source_prompt=edit.result.source_captions[0],
        facts={**figures, **plain(edit.view.place), **({} if edit.judged is None else {"judged": edit.judged})},
    )


def figures_of(edit: Edit) -> dict[str, float]:
    """Return what an edit changed, mean absolute differences in levels of 255: all, by the round trip, by the wish."""
    result = edit.result
    found = {
        "changed_l1": float((result.image - result.source).abs().mean() * 127.5),
        "effect_l1": float(result.effect.abs().mean() * 127.5),
    }
    if result.round_trip_l1 is not None:
        found["round_trip_l1"] = float(result.round_trip_l1[0])
    return found


def plain(place: Mapping[str, Any]) -> dict[str, Any]:
    """Return where a slice is, under names of its own."""
    return {f"slice_{name}": value for name, value in place.items()}
