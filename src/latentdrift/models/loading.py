"""Load and save pipelines: embedded names, diffusers folders, run folders of `finetune`, hub ids."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.errors import ConfigurationError, ModelError
from latentdrift.models.adapter_files import SCHEDULER, adapter_folder
from latentdrift.models.adapters import load_adapter
from latentdrift.models.card import CARD_FILE, read_model_card
from latentdrift.models.quiet import quiet_libraries

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline, SchedulerMixin

    from latentdrift.drift import LatentDrift

WEIGHTS = Path(__file__).parent / "weights"
EMBEDDED = ("tiny", "tiny-brain")
"""Models that come with the package. `tiny-brain` holds only its own U-Net and shares the rest of `tiny`."""

WITHOUT_CHECKER = {"safety_checker": None, "requires_safety_checker": False}
"""Medical images are none of the safety checker's business; it would blacken some."""

SUPPORTED: dict[str, dict[str, Any]] = {
    "StableDiffusionPipeline": WITHOUT_CHECKER,
    "StableDiffusionXLPipeline": {},
    "StableDiffusionInstructPix2PixPipeline": WITHOUT_CHECKER,
    "StableDiffusionXLInstructPix2PixPipeline": {},
}
"""Pipelines that this package drives, and what each is loaded with."""


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
    if adapter_folder(path) is not None:
        raise ModelError(
            f"{path} holds an adapter alone, and no latentdrift.json that says what it belongs on. Load its base and "
            "put it on with latentdrift.models.load_adapter(pipeline, folder)."
        )
    raise ModelError(
        f"{path} holds no model: there is no model_index.json in it, nor in its folder 'model'. Give a folder written "
        "by save_pretrained, a run folder of `latentdrift finetune` that has finished, or one of: "
        + ", ".join(EMBEDDED)
    )


def saved_adapter(name_or_path: str | Path) -> Path | None:
    """Return the folder of a model that was saved as an adapter with a card, without its base; None for all else.

    Raises:
        ModelError: the card is damaged.
    """
    path = Path(name_or_path).expanduser()
    if str(name_or_path) in EMBEDDED or any((place / "model_index.json").exists() for place in (path, path / "model")):
        return None
    folder = adapter_folder(path)
    return folder if folder is not None and read_model_card(folder) is not None else None


def load_pipeline(
    name_or_path: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    drift: LatentDrift | str | None = "saved",
) -> DiffusionPipeline:
    """Return a Stable Diffusion pipeline under its drift.

    Args:
        name_or_path: "tiny", "tiny-brain", a diffusers folder, a run folder, or an id on the Hugging Face hub. Of a
            run that was saved as an adapter the base is loaded, and the adapter put onto it.
        device: where to put it; by default CUDA or MPS where there is one.
        dtype: float32 by default on the CPU, float16 elsewhere.
        drift: "saved" applies the drift the model was trained with, if any; None loads it without; a `LatentDrift`
            is applied in place of the saved one, and a warning tells when the two differ.

    Returns:
        The pipeline; its model card, if any, is `pipeline.latentdrift_card`.

    Raises:
        ModelError: not found, damaged, or of an architecture this package does not drive; an adapter whose base is
            gone or which does not fit it.
        ConfigurationError: a device that this machine has not.
        DriftError: a saved drift that is damaged.
    """
    import torch

    from latentdrift.drift import DriftMismatchWarning, check_drift, remove

    if isinstance(drift, str) and drift != "saved":
        raise ConfigurationError(f"drift is {drift!r}; give 'saved', None or a LatentDrift.")
    device = usable_device(device)
    dtype = dtype or (torch.float32 if device.type == "cpu" else torch.float16)
    adapter = saved_adapter(name_or_path)
    if adapter is not None:
        pipeline, trained = load_on_base(adapter, device, dtype)
    else:
        pipeline, trained = load_whole(name_or_path, device, dtype)
    chosen = trained if isinstance(drift, str) else drift
    message = check_drift(trained, chosen)
    if message is not None:
        warnings.warn(message, DriftMismatchWarning, stacklevel=2)
    return remove(pipeline) if chosen is None else chosen.attach(pipeline)


def load_whole(
    name_or_path: str | Path, device: torch.device, dtype: torch.dtype
) -> tuple[DiffusionPipeline, LatentDrift | None]:
    """Return a pipeline from its own weights, and the drift that was saved with it."""
    from diffusers import DiffusionPipeline, UNet2DConditionModel

    from latentdrift.drift import drift_of, load_drift, with_drift

    folder = model_folder(name_or_path)
    source: str | Path = folder if folder is not None else str(name_or_path)
    extra = dict(WITHOUT_CHECKER)
    if folder is not None:
        extra = dict(SUPPORTED[check_architecture(folder)])
        card, trained = read_model_card(folder), load_drift(folder)
    try:
        with quiet_libraries():
            if folder is not None and folder == WEIGHTS / "tiny-brain":
                extra["unet"] = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=dtype)
                source = WEIGHTS / "tiny"
            pipeline = DiffusionPipeline.from_pretrained(source, torch_dtype=dtype, **extra)
    except Exception as error:
        raise ModelError(explain_failure(name_or_path, folder, error)) from error
    if type(pipeline).__name__ not in SUPPORTED:
        raise ModelError(unsupported(name_or_path, type(pipeline).__name__))
    if folder is None:
        # A model of the hub brings its drift, if any, in the scheduler's configuration.
        card, trained = None, drift_of(with_drift(pipeline))
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(device)
    pipeline.latentdrift_card = card
    return pipeline, trained


def load_on_base(
    folder: Path, device: torch.device, dtype: torch.dtype
) -> tuple[DiffusionPipeline, LatentDrift | None]:
    """Return an adapter on the base that its card names, and the drift it was trained with; the base's is left out.

    The scheduler is the adapter's too, where it was saved with one: older folders have none.
    """
    from latentdrift.drift import DriftMismatchWarning, load_drift

    card, trained = read_model_card(folder), load_drift(folder)
    assert card is not None, "saved_adapter asked for a card"
    if saved_adapter(card.base) == folder:
        raise ModelError(f"{folder / CARD_FILE} names the adapter itself as its base. Correct its 'base'.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DriftMismatchWarning)
            pipeline = load_pipeline(card.base, device=device, dtype=dtype, drift=None)
    except ModelError as error:
        raise ModelError(
            f"{folder} is an adapter, and its base cannot be loaded. {error} If the base has moved, correct 'base' in "
            f"{folder / CARD_FILE}, or load it from where it is and use latentdrift.models.load_adapter."
        ) from error
    load_adapter(pipeline, folder)
    pipeline.scheduler = saved_scheduler(folder) or pipeline.scheduler
    pipeline.latentdrift_card = card
    return pipeline, trained


def saved_scheduler(folder: Path) -> SchedulerMixin | None:
    """Return the scheduler that was saved beside an adapter, None where there is none.

    Raises:
        ModelError: its configuration is damaged, or of no scheduler that the installed diffusers has.
    """
    import diffusers

    path = folder / SCHEDULER / "scheduler_config.json"
    if not path.exists():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind = getattr(diffusers, config["_class_name"])
        if not issubclass(kind, diffusers.SchedulerMixin):
            raise TypeError(f"{kind.__name__} is no scheduler")
        with quiet_libraries():
            made: SchedulerMixin = kind.from_config(config)
    except Exception as error:  # a scheduler's constructor raises anything on settings that cannot be
        raise ModelError(
            f"{path} is damaged ({error!r}). Save the adapter again, or remove {path.parent} to sample with the base's."
        ) from error
    return made


def check_from_noise(pipeline: DiffusionPipeline) -> None:
    """Raise ConfigurationError unless the pipeline makes images from noise and a prompt alone."""
    channels, latent = pipeline.unet.config.in_channels, pipeline.vae.config.latent_channels
    if channels != latent:
        raise ConfigurationError(
            f"This model edits images by instruction: its U-Net takes {channels} channels, the {latent} of the latent "
            "and those of a source image. Use edit_by_instruction, or a model that was not trained so."
        )


def default_device() -> torch.device:
    """Return CUDA or MPS where there is one, else the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def usable_device(wish: str | torch.device | None) -> torch.device:
    """Return the wanted device, or the default one.

    Raises:
        ConfigurationError: no such device, or not on this machine.
    """
    import torch

    try:
        device = default_device() if wish is None else torch.device(wish)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigurationError(
            f"The device {str(wish)!r} cannot be used here: {str(error).splitlines()[0]}. Give cpu, or leave it out."
        ) from error
    return device


def check_architecture(folder: Path) -> str:
    """Return the class of a folder's pipeline, before anything large is read.

    Raises:
        ModelError: model_index.json is missing or damaged, or names a pipeline this package does not drive.
    """
    path = folder / "model_index.json"
    if not path.is_file() and folder.parent == WEIGHTS:
        raise ModelError(f"The embedded model {folder.name!r} did not come with this installation. Install it again.")
    try:
        name = str(json.loads(path.read_text())["_class_name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is damaged ({error!r}). Download or save the model again.") from error
    if name not in SUPPORTED:
        raise ModelError(unsupported(folder, name))
    return name


def unsupported(name: str | Path, class_name: str) -> str:
    return (
        f"{name} is a {class_name}; fine-tuning and editing here work on {', '.join(SUPPORTED)}. "
        "LatentDrift(...).attach(pipeline) drifts any diffusers pipeline for plain sampling."
    )


def explain_failure(name: str | Path, folder: Path | None, error: Exception) -> str:
    if folder is not None:
        return f"{folder} cannot be loaded: {error}. If a file in it is missing or cut short, save the model again."
    return (
        f"There is no model {str(name)!r}: it is no folder here, none of {', '.join(EMBEDDED)}, and it cannot be had "
        f"from the hub ({type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else 'no details'}). "
        "Check the spelling and the network, or download it and give its folder."
    )


__all__ = [
    "EMBEDDED",
    "WEIGHTS",
    "check_architecture",
    "check_from_noise",
    "default_device",
    "load_pipeline",
    "model_folder",
    "saved_adapter",
]
