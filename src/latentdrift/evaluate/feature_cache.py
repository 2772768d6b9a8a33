"""Features on disk, by the content of images: what a network has computed once it need not compute again.

A file holds the features of one pass and, for each, a digest of the pixels that went in. Names, dates and the order of
images do not matter; another network, other weights or another size are kept apart.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from latentdrift.data.files import write_bytes
from latentdrift.errors import DataError, EvaluationError

if TYPE_CHECKING:
    import torch

    from latentdrift.evaluate.features import FeatureExtractor

Features = npt.NDArray[np.float32]
FORMAT = "1"
"""Raised where the same network and image would give other features."""
LARGEST = 2_000_000_000
"""Bytes above which the files that were not used for longest are deleted: about 190,000 images of 2,048 features."""
VARIABLE = "LATENTDRIFT_CACHE"
SUFFIX = ".safetensors"


def default_cache_folder() -> Path:
    """Return $LATENTDRIFT_CACHE/features, else latentdrift/features in $XDG_CACHE_HOME or ~/.cache."""
    own = os.environ.get(VARIABLE)
    if own:
        return Path(own) / "features"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "latentdrift" / "features"


class FeatureCache:
    """A folder of features.

    Args:
        folder: where they are kept; None takes `default_cache_folder`. It is made when something is written.
        largest: bytes above which the files that were not used for longest are deleted.

    Raises:
        EvaluationError: `folder` is a file.
    """

    def __init__(self, folder: str | Path | None = None, *, largest: int = LARGEST) -> None:
        self.folder = default_cache_folder() if folder is None else Path(folder)
        self.largest = largest
        if self.folder.exists() and not self.folder.is_dir():
            raise EvaluationError(f"{self.folder} is a file; give a folder for the cache of features, or none.")

    def shelf(self, network: FeatureExtractor, size: tuple[int, int]) -> Shelf:
        """Return what is kept of one network at one image size (width, height) in pixels."""
        name = re.sub(r"[^A-Za-z0-9.-]+", "-", network.name)[-60:]
        place = self.folder / f"{name}-{network_fingerprint(network)}-{size[0]}x{size[1]}"
        shelf = Shelf(network, place)
        shelf.open()
        return shelf

    def prune(self, keep: Path | None = None) -> None:
        """Delete files until the folder is small enough, those not used for longest first, but not `keep`."""
        found = []
        for path in self.folder.glob(f"*/*{SUFFIX}"):
            with suppress(OSError):
                state = path.stat()
                found.append((state.st_mtime, state.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.largest:
                return
            if path != keep:
                with suppress(OSError):
                    path.unlink()
                total -= size


@dataclass
class Shelf:
    """The features of one network at one size."""

    network: FeatureExtractor
    folder: Path
    messages: list[str] = field(default_factory=list)
    """What went wrong with files, and what was done; nothing of it stops an evaluation."""
    found: int = 0
    """Images whose features were not computed."""
    _places: dict[bytes, tuple[Path, int]] = field(default_factory=dict)
    _loaded: dict[Path, Features | None] = field(default_factory=dict)
    _new: dict[bytes, Features] = field(default_factory=dict)

    def open(self) -> None:
        """Read which images are there; features are read when they are asked for."""
        from safetensors import safe_open

        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            try:
                with safe_open(path, framework="numpy") as file:
                    rows = file.get_tensor("digests")
                if rows.dtype != np.uint8 or rows.ndim != 2:
                    raise ValueError("no digests")
            except FileNotFoundError:
                continue  # another process has deleted it
            except Exception as error:  # the library has errors of its own
                self._drop(path, error)
                continue
            for place, row in enumerate(rows):
                self._places.setdefault(row.tobytes(), (path, place))

    def features(self, batch: torch.Tensor, digests: Sequence[bytes], batch_size: int) -> Features:
        """Return the features (B, d) of a uint8 batch (B, 3, H, W), computed only where they are not known.

        Args:
            batch: the images.
            digests: of their pixels, B.
            batch_size: images computed at once.
        """
        rows = [self._row(digest) for digest in digests]
        missing: dict[bytes, int] = {}
        for place, (digest, row) in enumerate(zip(digests, rows, strict=True)):
            if row is None:
                missing.setdefault(digest, place)
        if missing:
            self._new.update(
                zip(missing, self.network(batch[list(missing.values())], batch_size=batch_size), strict=True)
            )
        self.found += len(digests) - len(missing)
        return np.stack([self._new[d] if row is None else row for d, row in zip(digests, rows, strict=True)])

    def write(self, cache: FeatureCache) -> None:
        """Write what was computed as one file, whole or not at all."""
        from safetensors.numpy import save

        kept = {digest: row for digest, row in self._new.items() if np.isfinite(row).all()}
        if not kept:
            return
        digests = np.frombuffer(b"".join(kept), dtype=np.uint8).reshape(len(kept), -1)
        rows = np.stack(list(kept.values()))
        path = self.folder / f"{hashlib.blake2b(digests.tobytes(), digest_size=12).hexdigest()}{SUFFIX}"
        # One entry: the library writes several in random order, and equal content would be other bytes.
        facts = {"checksum": _checksum(digests, rows)}
        try:
            write_bytes(path, save({"digests": np.ascontiguousarray(digests), "features": rows}, metadata=facts))
        except DataError as error:
            self.messages.append(f"The features could not be kept for next time. {error}")
            return
        cache.prune(path)

    def _row(self, digest: bytes) -> Features | None:
        """Return the features (d,) of an image, or None where they are not known."""
        if digest in self._new:
            return self._new[digest]
        place = self._places.get(digest)
        if place is None:
            return None
        path, row = place
        if path not in self._loaded:
            self._loaded[path] = self._load(path)
        rows = self._loaded[path]
        return None if rows is None else rows[row]

    def _load(self, path: Path) -> Features | None:
        from safetensors import safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                digests, rows, facts = file.get_tensor("digests"), file.get_tensor("features"), file.metadata() or {}
            if rows.shape != (len(digests), self.network.dim) or facts.get("checksum") != _checksum(digests, rows):
                raise ValueError("its checksum does not fit")
        except FileNotFoundError:
            return None
        except Exception as error:  # as above
            self._drop(path, error)
            return None
        with suppress(OSError):
            os.utime(path)
        return np.asarray(rows, dtype=np.float32)

    def _drop(self, path: Path, error: Exception) -> None:
        self.messages.append(
            f"The kept features {path} are damaged ({str(error)[:120]}). They were deleted and computed anew."
        )
        with suppress(OSError):
            path.unlink()


def network_fingerprint(network: FeatureExtractor) -> str:
    """Return 16 hexadecimal digits that change with a network's name, layers, weights, and kind of device."""
    digest = hashlib.blake2b(digest_size=8)
    layers = re.sub(r" at 0x[0-9a-f]+", "", repr(network.network))
    kind = str(network.device).partition(":")[0]
    digest.update(f"{FORMAT} {network.name} {type(network).__qualname__} {network.dim} {kind} {layers}".encode())
    tensors: dict[str, Any] = network.network.state_dict()
    for name, tensor in sorted(tensors.items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(values.shape)} {values.dtype} ".encode())
        digest.update(values.float().numpy().tobytes())
    return digest.hexdigest()


def _checksum(digests: npt.NDArray[np.uint8], rows: Features) -> str:
    content = hashlib.blake2b(digests.tobytes(), digest_size=16)
    content.update(np.ascontiguousarray(rows).tobytes())
    return content.hexdigest()
