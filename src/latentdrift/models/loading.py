"""Load and save pipelines: embedded names, diffusers folders, run folders of `finetune`, hub ids."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.errors import ModelError
from latentdrift.models.card import CARD_FILE, ModelCard, read_model_card, write_model_card

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

    from latentdrift.drift import LatentDrift

WEIGHTS = Path(__file__).parent / "weights"
EMBEDDED = ("tiny", "tiny-brain")
"""Models that come with the package. `tiny-brain` holds only its own U-Net and shares the rest of `tiny`."""

SUPPORTED = {"StableDiffusionPipeline", "StableDiffusionXLPipeline"}


def model_folder(name_or_path: str | Path) -> Path | None:
    """Return the folder of an embedded model, a diffusers folder or a run folder; None for what may be a hub id.

    Raises:
        ModelError: the path exists and holds no model.
    """
    if str(name_or_path) in EMBEDDED:
        return WEIGHTS / str(name_or_path)
    path = Path(name_or_path).expanduser()
    if not path.exists():
        return None
    for folder in (path, path / "model"):
        if (folder / "model_index.json").exists():
            return folder
    raise ModelError(
        f"{path} holds no model: there is no model_index.json in it, nor in its folder 'model'. Give a folder written "
        "by save_pretrained, a run folder of `latentdrift finetune` that has finished, or one of: " + ", ".join(EMBEDDED)
    )


def load_pipeline(
    name_or_path: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    drift: LatentDrift | None | str = "saved",
) -> DiffusionPipeline:
    """Return a Stable Diffusion pipeline under its drift.

    Args:
        name_or_path: "tiny", "tiny-brain", a diffusers folder, a run folder, or an id on the Hugging Face hub.
        device: where to put it; by default CUDA or MPS where there is one.
        dtype: float32 by default on the CPU, float16 elsewhere.
        drift: "saved" applies the drift the model was trained with, if any; None loads it without; a `LatentDrift`
            is applied in place of the saved one, and a warning tells when the two differ.

    Returns:
        The pipeline; its model card, if any, is `pipeline.latentdrift_card`.

    Raises:
        ModelError: not found, damaged, or of an architecture this package does not drive.
    """
    import warnings

    import torch
    from diffusers import DiffusionPipeline, UNet2DConditionModel
    from diffusers.utils import logging as diffusers_logging

    from latentdrift.drift import DriftMismatchWarning, check_drift, load_drift

    device = torch.device(device) if device is not None else default_device()
    dtype = dtype or (torch.float32 if device.type == "cpu" else torch.float16)
    folder = model_folder(name_or_path)
    extra: dict[str, Any] = {}
    source: str | Path = folder if folder is not None else str(name_or_path)
    if folder is not None:
        check_architecture(folder)
        if folder == WEIGHTS / "tiny-brain":
            extra["unet"] = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=dtype)
            source = WEIGHTS / "tiny"
    verbosity = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    try:
        pipeline = DiffusionPipeline.from_pretrained(
            source, torch_dtype=dtype, safety_checker=None, requires_safety_checker=False, **extra
        )
    except TypeError:
        pipeline = DiffusionPipeline.from_pretrained(source, torch_dtype=dtype, **extra)
    except Exception as error:
        raise ModelError(explain_failure(name_or_path, folder, error)) from error
    finally:
        diffusers_logging.set_verbosity(verbosity)
    if type(pipeline).__name__ not in SUPPORTED:
        raise ModelError(unsupported(name_or_path, type(pipeline).__name__))
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(device)
    pipeline.latentdrift_card = read_model_card(folder) if folder is not None else None
    trained = load_drift(folder) if folder is not None else None
    if drift == "saved":
        chosen = trained
    else:
        chosen = drift  # type: ignore[assignment]
        message = check_drift(trained, chosen)
        if message is not None:
            warnings.warn(message, DriftMismatchWarning, stacklevel=2)
    if chosen is not None:
        chosen.attach(pipeline)
    return pipeline


def default_device() -> torch.device:
    """Return CUDA or MPS where there is one, else the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def check_architecture(folder: Path) -> None:
    """Raise ModelError unless `folder` holds a pipeline this package drives, before anything large is read."""
    try:
        name = json.loads((folder / "model_index.json").read_text())["_class_name"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder / 'model_index.json'} is damaged ({error!r}). Download or save the model again.") from error
    if name not in SUPPORTED:
        raise ModelError(unsupported(folder, name))


def unsupported(name: str | Path, class_name: str) -> str:
    return (
        f"{name} is a {class_name}; fine-tuning and editing here work on {' and '.join(sorted(SUPPORTED))}. "
        "LatentDrift(...).attach(pipeline) drifts any diffusers pipeline for plain sampling."
    )


def explain_failure(name: str | Path, folder: Path | None, error: Exception) -> str:
    if folder is not None:
        return f"{folder} cannot be loaded: {error}. If a file in it is missing or cut short, save the model again."
    return (
        f"There is no model {str(name)!r}: it is no folder here, none of {', '.join(EMBEDDED)}, and it cannot be had from "
        f"the hub ({type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else 'no details'}). "
        "Check the spelling and the network, or download it and give its folder."
    )


def save_pipeline(pipeline: DiffusionPipeline, folder: Path, card: ModelCard | None = None) -> Path:
    """Save a pipeline, its drift and its card as one diffusers folder, whole or not at all; return the folder.

    A plain `DiffusionPipeline.from_pretrained(folder)` loads it without the drift.

    Raises:
        ModelError: the disk is full or not writable; what `folder` held before is untouched.
    """
    from latentdrift.drift import drift_of, save_drift

    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        pipeline.save_pretrained(partial)
        drift = drift_of(pipeline.scheduler)
        if drift is not None:
            save_drift(partial, drift)
        if card is not None:
            write_model_card(partial, card)
        if folder.exists():
            former = folder.with_name(folder.name + ".former")
            shutil.rmtree(former, ignore_errors=True)
            folder.rename(former)
            partial.rename(folder)
            shutil.rmtree(former)
        else:
            partial.rename(folder)
    except Exception as error:
        # safetensors reports a full disk as an error of its own, not as OSError.
        shutil.rmtree(partial, ignore_errors=True)
        raise ModelError(f"{folder} cannot be written: {error}. Free space or choose another place.") from error
    return folder


def pipeline_fingerprint(module: torch.nn.Module) -> str:
    """Return 16 hexadecimal digits over a module's weights and shapes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(-1).float().numpy().tobytes())
    return digest.hexdigest()[:16]


__all__ = ["CARD_FILE", "EMBEDDED", "WEIGHTS", "default_device", "load_pipeline", "model_folder", "save_pipeline"]
