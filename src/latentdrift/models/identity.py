r"""Which model it was: a SHA-256 over the files of its weights, that anybody can compute again.

For a folder that `save_pretrained` wrote it is what this prints:

    cd FOLDER && find . -name '*.safetensors' -o -name '*.bin' | LC_ALL=C sort | xargs -d '\n' sha256sum | sha256sum
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.data.files import sha256_of
from latentdrift.errors import ModelError
from latentdrift.models.card import read_model_card
from latentdrift.models.loading import WEIGHTS, model_folder, saved_adapter

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

SUFFIXES = (".safetensors", ".bin")


def weight_files(name_or_path: str | Path) -> dict[str, Path]:
    """Return the files of a model's weights by their path in its folder; empty for what is not on this machine.

    The embedded `tiny-brain` takes from `tiny` what it has not itself, and an adapter what it is put on.
    """
    adapter = saved_adapter(name_or_path)
    if adapter is not None:
        card = read_model_card(adapter)
        assert card is not None, "saved_adapter asked for a card"
        return weight_files(card.base) | in_folder(adapter)
    folder = model_folder(name_or_path) or hub_folder(str(name_or_path))
    if folder is None:
        return {}
    own = in_folder(folder)
    return in_folder(WEIGHTS / "tiny") | own if folder == WEIGHTS / "tiny-brain" else own


def weights_sha256(name_or_path: str | Path) -> str | None:
    """Return the SHA-256 (hex) over the files of a model's weights; None for what is not on this machine.

    Raises:
        ModelError: the path holds no model.
        DataError: a file of it cannot be read.
    """
    files = weight_files(name_or_path)
    if not files:
        return None
    lines = []
    for name in sorted(files, key=lambda name: f"./{name}".encode()):
        status = files[name].stat()
        lines.append(f"{digest(files[name], status.st_size, status.st_mtime_ns)}  ./{name}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def model_facts(pipeline: DiffusionPipeline, name: str | Path) -> dict[str, Any]:
    """Return what a manifest says of a model: name, sha256, and from its card base, method and data."""
    try:
        digest = weights_sha256(name)
    except ModelError:  # a pipeline that was never saved under this name
        digest = None
    facts: dict[str, Any] = {"name": str(name), "sha256": digest}
    card = getattr(pipeline, "latentdrift_card", None)
    if card is not None:
        facts |= {"base": card.base, "method": card.method, "data": dict(card.data)}
    return facts


def drift_facts(pipeline: DiffusionPipeline, wish: str = "saved") -> dict[str, Any]:
    """Return what a manifest says of the drift that acts in a pipeline: as wished, in words, and in full."""
    from latentdrift.drift import drift_of

    drift = drift_of(pipeline)
    return {"wish": wish, "used": "none"} if drift is None else {"wish": wish, "used": str(drift), **drift.to_dict()}


def in_folder(folder: Path) -> dict[str, Path]:
    """Return the weights of a folder by their path in it."""
    files = [path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file()]
    return {path.relative_to(folder).as_posix(): path for path in files}


def hub_folder(name: str) -> Path | None:
    """Return where a model of the hub lies on this machine; nothing is fetched."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except Exception:  # every way in which a name can be no model here
        return None


@lru_cache(maxsize=256)
def digest(path: Path, size: int, changed: int) -> str:
    """Return the SHA-256 of a file, remembered for as long as its size and time of change stay the same."""
    return sha256_of(path)
