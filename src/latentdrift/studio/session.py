"""What one browser tab has open: a scan, a model, the last edit, and what is pinned. No page in here."""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from latentdrift.errors import ConfigurationError, LatentDriftError, UnknownNameError
from latentdrift.studio.edits import Attributes, Cancelled, Edit, EditSettings, Memory, Tell, Wish, make_edit
from latentdrift.studio.exports import write_export
from latentdrift.studio.ladders import Ladder, make_ladder, parse_values
from latentdrift.studio.scans import OpenScan, View, open_scan, view_of
from latentdrift.studio.shelf import Shelf, attributes_of, value_of

if TYPE_CHECKING:
    from latentdrift.models.classifier import Classifier

PINS = 8
AS_IT_IS = "as it is"
"""The wanted value of an attribute that is to stay."""


@dataclass(eq=False)
class Session:
    """One tab's work. Files go to its own folder, and are gone with the tab."""

    shelf: Shelf
    folder: Path
    """Made with the first file."""
    asked: bool = False
    """Something was asked for that has not ended: it waits its turn, or is being made."""
    closed: bool = False
    scan: OpenScan | None = None
    view: View | None = None
    edit: Edit | None = None
    pins: list[Edit] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    memory: Memory = field(default_factory=Memory)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def open(self, files: Sequence[Path], frame: int = 0) -> OpenScan:
        """Open an upload; what was open before is closed first, so that a bad file leaves nothing of another.

        Raises:
            DataError: see `open_scan`; paths are told as file names.
        """
        self.scan = self.view = self.edit = None
        try:
            self.scan = open_scan(files, frame)
        except LatentDriftError as error:
            raise retold(error, files) from error
        return self.scan

    def look(self, model: str, plane: str = "axial", index: int | None = None) -> View:
        """Return the opened scan as a model sees it; the slice its cohort was prepared at where none is named.

        Raises:
            LatentDriftError: nothing is open, or the slice cannot be shown.
        """
        if self.scan is None:
            raise ConfigurationError("No scan is open. Drop a PNG, JPEG, DICOM or NIfTI file, or use the template.")
        card = self.shelf.card(model)
        size = self.shelf.model(model).size if card is None else card.size
        slice_ = self.scan.usual_slice(plane, card) if index is None else index
        try:
            self.view = view_of(self.scan, size, card, plane, slice_)
        except LatentDriftError as error:
            raise retold(error, self.scan.files) from error
        return self.view

    def wish(self, model: str, source: Mapping[str, str], target: Mapping[str, str], captions: Sequence[str]) -> Wish:
        """Return what the fields of the page ask for.

        Args:
            model: by name.
            source: attribute to value as text; empty where not known.
            target: the same, `AS_IT_IS` where it is to stay.
            captions: before and after, for a model without attributes.

        Raises:
            ConfigurationError: a value that the model does not know, or nothing that is wanted.
        """
        known = attributes_of(self.shelf.card(model))
        if not known:
            return Wish(source_caption=captions[0] or "", target_caption=captions[1] or "")

        def values(fields: Mapping[str, str]) -> Attributes:
            told = {name: str(text).strip() for name, text in fields.items() if name in known and text}
            return {
                name: value_of(name, text, known[name]) for name, text in told.items() if text not in ("", AS_IT_IS)
            }

        return Wish(values(source), values(target))

    def make(
        self, model: str, wish: Wish, settings: EditSettings, judge: str = "", guide: str = "", tell: Tell | None = None
    ) -> Edit:
        """Make the edit of what is open, and keep it.

        Raises:
            Cancelled: `cancel` was called meanwhile.
            LatentDriftError: what cannot be, in words.
        """
        view = self._current()
        if self.shelf.card(model) is not None and all(wish.source.get(n) == v for n, v in wish.target.items()):
            raise ConfigurationError("Nothing is wanted that the image does not show already. Choose another value.")
        found = make_edit(
            self.shelf.model(model),
            view,
            wish,
            settings,
            judge=self._classifier(judge, "judge"),
            guide=self._classifier(guide, "guide"),
            memory=self.memory,
            stop=self.stop,
            tell=tell,
        )
        self.edit = found
        return found

    def climb(
        self,
        model: str,
        wish: Wish,
        settings: EditSettings,
        axis: str,
        values: str,
        guide: str = "",
        tell: Tell | None = None,
    ) -> tuple[Ladder, list[Path]]:
        """Make a ladder of what is open; return it and its files.

        Raises:
            Cancelled: `cancel` was called meanwhile.
            LatentDriftError: what cannot be, in words.
        """
        view, known = self._current(), attributes_of(self.shelf.card(model))
        numbers = parse_values(axis, values, known.get(axis, ()))
        found = make_ladder(
            self.shelf.model(model),
            view,
            wish,
            settings,
            axis,
            numbers,
            guide=self._classifier(guide, "guide"),
            stop=self.stop,
            tell=tell,
        )
        return found, found.write(self.fresh_folder("ladder"))

    def ask(self) -> None:
        """Note that something is asked for, before it waits its turn: what was cancelled earlier does not concern it.

        While something older has not ended, a cancel stays: it may be of that.
        """
        if not self.asked and not self.closed:
            self.stop.clear()
        self.asked = True

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Do within the block what was asked for.

        Raises:
            Cancelled: `cancel` was called while it waited.
        """
        try:
            if self.stop.is_set():
                raise Cancelled("Cancelled. Nothing was changed.")
            yield
        finally:
            self.asked = False

    def cancel(self) -> None:
        """End what is being made at its next step, and what waits when its turn comes."""
        self.stop.set()

    def pin(self) -> list[Edit]:
        """Put the last edit beside the pinned ones.

        Raises:
            ConfigurationError: there is none, it is pinned already, or there are enough.
        """
        if self.edit is None:
            raise ConfigurationError("There is no counterfactual to pin. Make one first.")
        if any(one is self.edit for one in self.pins):
            raise ConfigurationError("This counterfactual is pinned already.")
        if len(self.pins) == PINS:
            raise ConfigurationError(f"{PINS} counterfactuals are pinned; take some off first.")
        self.pins.append(self.edit)
        return self.pins

    def export(self, formats: Sequence[str], *, mark: bool = False, keep_identifiers: bool = False) -> list[Path]:
        """Write the last edit; return the files, the manifest last.

        Raises:
            LatentDriftError: there is no edit, or it cannot be written so.
        """
        if self.edit is None:
            raise ConfigurationError("There is no counterfactual to export. Make one first.")
        folder = self.fresh_folder("export")
        try:
            return write_export(self.edit, folder, formats, mark=mark, keep_identifiers=keep_identifiers)
        except LatentDriftError as error:
            source = self.edit.view.source
            raise retold(error, () if source is None else source.files) from error

    def close(self) -> None:
        """End what is being made, and delete all files; none are written any more."""
        self.closed = True
        self.cancel()
        self.scan = self.view = self.edit = None
        self.pins.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def fresh_folder(self, what: str) -> Path:
        """Return a new folder of the session's own.

        Raises:
            ConfigurationError: the session is closed.
        """
        if self.closed:  # a ladder that was begun before and ends now would bring the folder back, for good
            raise ConfigurationError("This tab was left for too long, and its files are deleted. Load the page again.")
        folder = self.folder / f"{what}-{next(self._numbers):02d}"
        folder.mkdir(parents=True, mode=0o700)
        return folder

    def _current(self) -> View:
        if self.view is None:
            raise ConfigurationError("No scan is open. Drop a PNG, JPEG, DICOM or NIfTI file, or use the template.")
        return self.view

    def _classifier(self, name: str, role: str) -> Classifier | None:
        return self.shelf.classifier(name, role) if name and name != "none" else None


def retold(error: LatentDriftError, files: Sequence[Path]) -> LatentDriftError:
    """Return an error whose message names files without where the studio keeps them."""
    message = str(error)
    for file in files:
        message = message.replace(str(file), file.name).replace(str(file.parent), "the upload")
    kind = ConfigurationError if isinstance(error, UnknownNameError) else type(error)
    return kind(message)
