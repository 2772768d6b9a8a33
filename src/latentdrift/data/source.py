"""What a data source is: a folder laid out as its distributor does → the scans in it.

Adding one is one file in `sources`: a frozen configuration dataclass and a class under `@data_source("name")`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from latentdrift.data.scan import Refusal, Scan
from latentdrift.registry import Registry


@dataclass(frozen=True)
class Listing:
    """What a source found: the scans in a fixed order, and what cannot be used and why."""

    scans: tuple[Scan, ...]
    refused: tuple[Refusal, ...] = ()


class DataSource(ABC):
    """Base of all sources.

    Attributes:
        config_class: a frozen dataclass whose fields become flags of `latentdrift prepare NAME`.
        title: the data set's name as its distributor writes it.
        needs: the exact files and folders a user must have below the root, for the help and the documentation.
        label: the attribute that is the class.
        modality: DICOM's code of what picture files of this source show, which do not say it themselves.
    """

    config_class: ClassVar[type[Any]]
    title: ClassVar[str]
    needs: ClassVar[str]
    label: ClassVar[str | None] = None
    modality: ClassVar[str] = "OT"

    def __init__(self, config: Any = None) -> None:
        self.config = self.config_class() if config is None else config

    @abstractmethod
    def list_scans(self, root: Path) -> Listing:
        """Return the scans below `root`. Tables are read, images are not; what is missing or doubtful is refused.

        Raises:
            DataError: the layout is another one; the message names the file that should be there.
        """

    def label_of(self, scans: Sequence[Scan]) -> str | None:
        """Return the attribute that is the class, if these scans have it."""
        return self.label if any(self.label in scan.attributes for scan in scans) else None


data_source: Registry[type[DataSource]] = Registry("source", "latentdrift.data.sources")
"""Decorator and table of the data sources."""
