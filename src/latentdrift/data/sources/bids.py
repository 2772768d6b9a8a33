"""BIDS folders (Brain Imaging Data Structure 1.x; Gorgolewski et al. 2016, Sci. Data 3:160044)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentdrift.data.records import Value
from latentdrift.data.scan import Refusal, Scan
from latentdrift.data.source import DataSource, Listing, data_source
from latentdrift.data.sources._attributes import attribute, is_code
from latentdrift.data.sources._files import Folder
from latentdrift.data.sources._tables import MISSING, read_table
from latentdrift.errors import ConfigurationError, DataError

ENTITY = re.compile(r"([A-Za-z]+)-([A-Za-z0-9+]+)")
IMAGE = re.compile(r"(?P<stem>.+)_(?P<suffix>[A-Za-z0-9]+)\.nii(\.gz)?")
MAX_JSON = 2**24


@dataclass(frozen=True)
class BidsConfig:
    """Which images of a BIDS folder."""

    suffix: str = "T1w"
    """The last part of the file name: T1w, T2w, FLAIR, bold, …"""
    datatype: str = "anat"
    """The folder the images are in: anat, func, pet, …"""
    entities: tuple[str, ...] = ()
    """Only images with all of these in their name, such as acq-mprage or run-1; desc- alone asks that there be none."""
    sessions: tuple[str, ...] = ()
    """Only these sessions, without ses-; all by default."""
    derivatives: str | None = None
    """Take the images of this pipeline, in derivatives/NAME, in place of the raw ones."""

    def __post_init__(self) -> None:
        for entity in self.entities:
            if not ENTITY.fullmatch(entity) and not re.fullmatch(r"[A-Za-z]+-", entity):
                raise ConfigurationError(f"{entity!r} is no BIDS entity. Write it as in the file name: run-1.")
        for name, value in (("derivatives", self.derivatives), ("datatype", self.datatype)):
            if value is not None and (not value or "/" in value or "\\" in value or value in (".", "..")):
                raise ConfigurationError(f"{name} is {value!r}; give the name of a folder.")


@data_source("bids")
class BidsSource(DataSource):
    """Images of a BIDS folder, with what participants.tsv and the sessions.tsv files say of each visit."""

    config_class = BidsConfig
    title = "BIDS"
    needs = (
        "dataset_description.json; sub-ID/[ses-ID/]anat/sub-ID_[ses-ID_]…_T1w.nii.gz; and, for attributes, "
        "participants.tsv (participant_id, age, sex, …) with participants.json, and sub-ID/sub-ID_sessions.tsv "
        "(session_id, …)"
    )
    modality = "MR"

    def list_scans(self, root: Path) -> Listing:
        """Return the images; see `DataSource.list_scans`."""
        config: BidsConfig = self.config
        folder = Folder(root)
        _check_description(root / "dataset_description.json")
        images = root
        if config.derivatives is not None:
            images = root / "derivatives" / config.derivatives
            if not images.is_dir():
                have = sorted(path.name for path in (root / "derivatives").glob("*") if path.is_dir())
                raise DataError(f"{images} is not a folder. Pipelines in it: {', '.join(have) or 'none'}.")
        people = _People(root)
        scans: list[Scan] = []
        refused: list[Refusal] = []
        seen: set[str] = set()
        for path in _images(images, config.datatype):
            found = self._scan(folder, path, people)
            if isinstance(found, Refusal):
                refused.append(found)
            elif found is not None:
                seen.add(str(found.subject))
                scans.append(found)
        refused = [*people.refused, *refused]
        if not scans and not refused:
            raise DataError(
                f"{images} holds no sub-*/[ses-*/]{config.datatype}/*_{config.suffix}.nii.gz"
                f"{' with ' + ', '.join(config.entities) if config.entities else ''}. Is it the BIDS folder itself?"
            )
        if not config.sessions:
            named = {refusal.name.split("/")[0].removeprefix("sub-") for refusal in refused}
            for subject, where in people.subjects.items():
                if subject not in seen and subject not in named:
                    refused.append(Refusal(where, f"sub-{subject} has no {config.suffix} image that was asked for."))
        return Listing(tuple(scans), tuple(refused))

    def _scan(self, folder: Folder, path: Path, people: _People) -> Scan | Refusal | None:
        """Return the scan of a file, why it cannot be used, or None where it was not asked for."""
        config: BidsConfig = self.config
        key = path.relative_to(folder.root).as_posix()
        match = IMAGE.fullmatch(path.name)
        if match is None or match["suffix"] != config.suffix:
            return None
        parts = match["stem"].split("_")
        entities = dict(part.split("-", 1) for part in parts if ENTITY.fullmatch(part))
        wanted = dict(entity.split("-", 1) for entity in config.entities)
        if any(entities.get(name, "") != value for name, value in wanted.items()):
            return None
        session = entities.get("ses")
        if config.sessions and session not in {name.removeprefix("ses-") for name in config.sessions}:
            return None
        folders = [name for name in key.split("/")[:-1] if name.startswith(("sub-", "ses-"))]
        said = [f"{name}-{entities[name]}" for name in ("sub", "ses") if name in entities]
        if len(entities) != len(parts) or folders != said:
            return Refusal(key, "its name is not that of its folders (BIDS: sub-ID_[ses-ID_]…). Rename it.")
        if path.is_symlink() and not path.exists():
            why = "it is a link to content that is not here. Get it first: datalad get, or git annex get."
            return Refusal(key, why)
        try:
            folder.file(key)
        except DataError as error:
            return Refusal(key, str(error))
        subject = entities["sub"]
        if subject in people.contradicted:
            return Refusal(key, f"participants.tsv describes sub-{subject} twice, differently. Keep one line.")
        return Scan(key, (path,), subject, session, people.attributes(subject, session))


class _People:
    """What participants.tsv, participants.json and the sessions.tsv files say."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.refused: list[Refusal] = []
        self.subjects: dict[str, str] = {}
        self.contradicted: set[str] = set()
        self._rows: dict[tuple[str, str | None], dict[str, Value]] = {}
        self._sessions: dict[str, dict[str, dict[str, Value]]] = {}
        table = root / "participants.tsv"
        if not table.is_file():
            self.refused.append(Refusal("participants.tsv", "there is none: the images have no attributes."))
            return
        self._meanings = _read_json(root / "participants.json")
        lines = read_table(table)
        self.refused += lines.refused
        lines.index("participant_id")
        for line, cells in lines.rows:
            row, where = dict(zip(lines.columns, cells, strict=True)), lines.where(line)
            subject = row["participant_id"].removeprefix("sub-")
            session = row.get("session_id", "").removeprefix("ses-")
            if not re.fullmatch(r"[A-Za-z0-9+]+", subject):
                self.refused.append(Refusal(where, f"{subject!r:.80} is no participant_id. Write sub-ID."))
                continue
            found = self._described(where, row, self._meanings, ("participant_id", "session_id"))
            visit = (subject, None if session in MISSING else session)
            if self._rows.setdefault(visit, found) != found:
                self.contradicted.add(subject)
            self.subjects.setdefault(subject, where)

    def attributes(self, subject: str, session: str | None) -> dict[str, Value]:
        """Return what is known at a visit; what is said of the visit comes before what is said of the person."""
        found = dict(self._rows.get((subject, None), {}))
        if session is not None:
            found |= self._rows.get((subject, session), {})
            found |= self._visits(subject).get(session, {})
        return found

    def _visits(self, subject: str) -> dict[str, dict[str, Value]]:
        if subject not in self._sessions:
            visits: dict[str, dict[str, Value]] = {}
            table = self.root / f"sub-{subject}" / f"sub-{subject}_sessions.tsv"
            if table.is_file():
                try:
                    lines = read_table(table)
                    self.refused += lines.refused
                    lines.index("session_id")
                    meanings = _read_json(table.with_suffix(".json")) or _read_json(self.root / "sessions.json")
                    for line, cells in lines.rows:
                        row = dict(zip(lines.columns, cells, strict=True))
                        session = row["session_id"].removeprefix("ses-")
                        # Dates are identifiers; the age at the visit is what is wanted of them.
                        leave = ("session_id", "acq_time")
                        visits[session] = self._described(lines.where(line), row, meanings, leave)
                except DataError as error:
                    self.refused.append(Refusal(table.relative_to(self.root).as_posix(), str(error)))
            self._sessions[subject] = visits
        return self._sessions[subject]

    def _described(
        self, where: str, cells: Mapping[str, str], meanings: Mapping[str, Any], leave: tuple[str, ...]
    ) -> dict[str, Value]:
        """Return a line's attributes: codes that are numbers as the words that the .json gives them."""
        found: dict[str, Value] = {}
        for name, cell in cells.items():
            if not name or name in leave:
                continue
            meaning = meanings.get(name)
            meaning = meaning if isinstance(meaning, dict) else {}
            levels, units = meaning.get("Levels"), meaning.get("Units")
            level = levels.get(cell) if isinstance(levels, dict) else None
            if isinstance(level, dict):
                level = level.get("Description")
            if isinstance(level, str) and level.strip() and is_code(cell):
                cell = level
            try:
                value = attribute(name, cell, units if isinstance(units, str) else "years")
            except DataError as error:
                self.refused.append(Refusal(where, f"{error}; it is left out."))
                continue
            if value is not None:
                found[name.lower() if name.lower() in ("age", "sex") else name] = value
        return found


def _images(root: Path, datatype: str) -> Iterator[Path]:
    for subject in sorted(root.glob("sub-*")):
        folders = [subject / datatype, *(visit / datatype for visit in sorted(subject.glob("ses-*")))]
        for folder in folders:
            if folder.is_dir():
                yield from sorted(path for path in folder.iterdir() if path.name.startswith("sub-"))


def _check_description(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"{path}: there is no such file. A BIDS folder has a dataset_description.json at its top.")
    found = _read_json(path)
    for name in ("Name", "BIDSVersion"):
        if not isinstance(found.get(name), str):
            raise DataError(f"{path} has no {name!r}, which BIDS asks for. Add it.")


def _read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; empty where there is no such file.

    Raises:
        DataError: the file is damaged.
    """
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > MAX_JSON:
            raise DataError(f"{path} is larger than {MAX_JSON >> 20} MiB. Is it the right file?")
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}. Repair it.") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} is not a JSON object. Repair it.")
    return found
