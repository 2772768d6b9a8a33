"""Pipelines to folders, whole or not at all."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from latentdrift.errors import ModelError
from latentdrift.models.adapter_files import SCHEDULER
from latentdrift.models.card import ModelCard, write_model_card
from latentdrift.models.quiet import quiet_libraries

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline


def save_pipeline(
    pipeline: DiffusionPipeline,
    folder: Path,
    card: ModelCard | None = None,
    *,
    adapter: Path | None = None,
    whole: bool = True,
) -> Path:
    """Save a pipeline, its drift and its card as one diffusers folder, whole or not at all; return the folder.

    A plain `DiffusionPipeline.from_pretrained(folder)` loads it without the drift.

    Args:
        pipeline: what to save.
        folder: where to.
        card: facts that go beside it.
        adapter: a folder whose files go there too: what was trained, apart from its base, in diffusers' own formats.
        whole: save the pipeline itself; without, only the adapter, scheduler, drift and card, which `load_pipeline`
            puts on the card's base again.

    Raises:
        ModelError: the disk is full or not writable; what `folder` held before is untouched.
    """
    from latentdrift.drift import drift_of, remove, save_drift

    partial, former = folder.with_name(folder.name + ".partial"), folder.with_name(folder.name + ".former")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        if whole:
            with quiet_libraries():
                pipeline.save_pretrained(partial)
        else:
            # A training may have changed what the network predicts and where sampling starts: the base does not know.
            remove(pipeline.scheduler).save_pretrained(partial / SCHEDULER)
        if adapter is not None:
            for file in adapter.iterdir():
                shutil.copyfile(file, partial / file.name)
        # safetensors makes files for the owner's eyes only; a model's folder is meant to be shared.
        mode = partial.stat().st_mode & 0o666
        for weights in partial.rglob("*.safetensors"):
            weights.chmod(mode)
        drift = drift_of(pipeline.scheduler)
        if drift is not None:
            save_drift(partial, drift)
        if card is not None:
            write_model_card(partial, card)
        if folder.exists():
            shutil.rmtree(former, ignore_errors=True)
            folder.rename(former)
        partial.rename(folder)
    except Exception as error:
        # safetensors reports a full disk as an error of its own, not as OSError.
        raise ModelError(f"{folder} cannot be written: {error}. Free space or choose another place.") from error
    finally:
        if former.exists() and not folder.exists():
            former.rename(folder)
        for leftover in (partial, former):
            shutil.rmtree(leftover, ignore_errors=True)
    return folder


def pipeline_fingerprint(module: torch.nn.Module) -> str:
    """Return 16 hexadecimal digits over a module's weights and shapes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().float().numpy().tobytes())
    return digest.hexdigest()[:16]
