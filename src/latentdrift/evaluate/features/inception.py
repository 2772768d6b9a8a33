"""The Inception network of the published FID and KID, through torch-fidelity."""

from __future__ import annotations

import hashlib
import os
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from latentdrift.errors import ModelError
from latentdrift.evaluate.features.base import FeatureExtractor, feature_extractor

if TYPE_CHECKING:
    import torch

FILE = "weights-inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}"
TIMEOUT = 15.0
"""Seconds without an answer after which the download is given up."""


@feature_extractor("inception")
class Inception(FeatureExtractor):
    """Pooled features (d = 2048) of the TensorFlow Inception of 2015, the standard of Heusel et al. 2017.

    The weights are looked for in torch hub's cache and downloaded there once, unless HF_HUB_OFFLINE is set.
    """

    name = "inception"
    dim = 2048
    checksum: ClassVar[str] = "6726825d"
    """How the SHA-256 of the weights file starts; torch hub's convention."""

    @classmethod
    def path(cls) -> Path:
        """Return where torch hub keeps the weights."""
        import torch

        return Path(torch.hub.get_dir()) / "checkpoints" / FILE

    @classmethod
    def available(cls) -> bool:
        """Say whether the weights are in torch hub's cache and whole."""
        path = cls.path()
        return path.is_file() and _checksum(path).startswith(cls.checksum)

    def _load(self, weights: Path | None) -> torch.nn.Module:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        path = weights or self.path()
        if not path.is_file():
            if weights is not None:
                raise ModelError(f"There is no file {path}. Give torch-fidelity's {FILE}, from {URL}.")
            _download(path, self.checksum)
        found = _checksum(path)
        # Other weights give other figures, and torch-fidelity unpickles whatever the file holds.
        if not found.startswith(self.checksum):
            raise ModelError(
                f"{path} is damaged or another file (its SHA-256 starts with {found[:8]}, not {self.checksum}). Delete "
                f"it and fetch it again from {URL}."
            )
        return FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(path))

    def _features(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images)[0]


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(path: Path, checksum: str) -> None:
    """Fetch the weights to `path`, all or nothing."""
    remedy = f"Fetch {URL} on a connected machine and save it as {path}, or use the extractor efficientnet-lite0."
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}:
        raise ModelError(f"The Inception weights {FILE} are not at hand, and HF_HUB_OFFLINE forbids to fetch. {remedy}")
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    digest = hashlib.sha256()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(URL, timeout=TIMEOUT) as answer, part.open("wb") as file:
            while block := answer.read(1 << 20):
                digest.update(block)
                file.write(block)
        if not digest.hexdigest().startswith(checksum):
            raise ModelError(f"The download of {FILE} arrived damaged. {remedy}")
        part.replace(path)
    except OSError as error:
        raise ModelError(f"The Inception weights {FILE} could not be fetched ({error}). {remedy}") from error
    finally:
        with suppress(OSError):
            part.unlink()
