"""What a feature extractor is, and the registries of them and of their families."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from latentdrift.errors import ConfigurationError, EvaluationError, ModelError
from latentdrift.registry import Registry

if TYPE_CHECKING:
    import torch

Progress = Callable[[int, int], None]
"""Called with (images done, images in all) after every batch."""


class FeatureExtractor(ABC):
    """A fixed network that turns images into feature vectors.

    A subclass loads its network in `_load` and computes in `_features`. Instances are called with images (B, 3, H, W)
    and return (B, d) float32.

    Args:
        weights: file with the network's weights; None looks where the network's library keeps them.
        device: torch device to compute on.

    Raises:
        ModelError: the weights are not to be had.
    """

    name: ClassVar[str]
    """The registered name, or family and variant; every result carries it."""
    dim: int
    """Dimensions of a feature vector."""

    def __init__(self, *, weights: str | Path | None = None, device: str = "cpu") -> None:
        self.device = device
        self.network = self._load(None if weights is None else Path(weights)).to(device).eval().requires_grad_(False)

    @classmethod
    @abstractmethod
    def available(cls) -> bool:
        """Say whether the weights are on this machine."""

    @abstractmethod
    def _load(self, weights: Path | None) -> torch.nn.Module:
        """Return the network with its weights."""

    @abstractmethod
    def _features(self, images: torch.Tensor) -> torch.Tensor:
        """Return features (B, d) of uint8 images (B, 3, H, W) on the extractor's device."""

    def __call__(
        self, images: Any, *, batch_size: int = 32, progress: Progress | None = None
    ) -> npt.NDArray[np.float32]:
        """Return features (B, d).

        Args:
            images: tensor or array (B, 3, H, W), uint8 or float in [-1, 1]. Floats are rounded to 8 bits first, so
                that an image in memory and the same image in a PNG file have the same features.
            batch_size: images computed at once.
            progress: called with (images done, images in all).

        Raises:
            EvaluationError: see `to_bytes`.
        """
        import torch

        data = to_bytes(images)
        found = np.empty((len(data), self.dim), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(data), batch_size):
                batch = data[start : start + batch_size].to(self.device)
                found[start : start + len(batch)] = self._features(batch).float().cpu().numpy()
                if progress:
                    progress(start + len(batch), len(data))
        return found


def to_bytes(images: Any) -> torch.Tensor:
    """Return images as a uint8 tensor (B, 3, H, W) in 0..255; a single channel becomes three equal ones.

    Args:
        images: tensor or array (B, 3, H, W) or (B, 1, H, W), uint8 in 0..255 or float in [-1, 1].

    Raises:
        EvaluationError: another shape or type, NaN, or values outside the range.
    """
    import torch

    data = torch.as_tensor(images)
    if data.ndim != 4 or data.shape[1] not in (1, 3):
        raise EvaluationError(f"Images have shape {tuple(data.shape)}; give (B, 3, H, W) or (B, 1, H, W).")
    if data.is_floating_point():
        bad = (~torch.isfinite(data)).flatten(1).any(dim=1).nonzero().flatten().tolist()
        if bad:
            raise EvaluationError(
                f"{len(bad)} image(s) have NaN or infinite pixels, the first is image {bad[0]}. Leave them out or "
                "generate them again, in float32."
            )
        low, high = (float(data.min()), float(data.max())) if data.numel() else (0.0, 0.0)
        if low < -1.001 or high > 1.001:
            raise EvaluationError(
                f"Pixels lie in [{low:.4g}, {high:.4g}]; float images are expected in [-1, 1], uint8 images in 0..255."
            )
        data = ((data.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
    elif data.dtype != torch.uint8:
        raise EvaluationError(f"Images are of type {data.dtype}; give uint8 in 0..255 or float in [-1, 1].")
    return data.expand(-1, 3, -1, -1)


class FamilyExtractor(FeatureExtractor):
    """One of a family's many networks, asked for as FAMILY:VARIANT, such as timm:resnet18.

    A subclass stands for the whole family, under the decorator `extractor_family`; `of` makes the class of a variant.
    `dim` is known once the network is loaded.

    Raises:
        ModelError: the network gives maps, or anything else than a vector an image.
    """

    variant: ClassVar[str] = ""
    """What stands behind the colon."""
    preferred: ClassVar[str] = ""
    """The variant that the family's name alone stands for; "" where one has to be named."""
    example: ClassVar[str]
    """A variant, for messages."""

    def __init__(self, *, weights: str | Path | None = None, device: str = "cpu") -> None:
        import torch

        super().__init__(weights=weights, device=device)
        with torch.inference_mode():
            found = self._features(torch.zeros(1, 3, 64, 64, dtype=torch.uint8, device=device))
        if found.ndim != 2:
            raise ModelError(f"{self.name} gives {tuple(found.shape[1:])} an image, no vector. Choose another network.")
        self.dim = int(found.shape[1])

    @classmethod
    def of(cls, family: str, variant: str) -> type[FamilyExtractor]:
        """Return the extractor class of a variant.

        Raises:
            ConfigurationError: none was named, and the family has no preferred one.
        """
        chosen = variant or cls.preferred
        if not chosen:
            raise ConfigurationError(f"{family} has many networks: name one, such as {family}:{cls.example}.")
        return type(cls.__name__, (cls,), {"name": f"{family}:{chosen}", "variant": chosen, "__doc__": cls.__doc__})


def read_layers(path: Path, name: str) -> dict[str, torch.Tensor]:
    """Return the weights of a file by layer: .safetensors, or a dictionary of tensors that torch saved.

    Args:
        path: the file; a dictionary inside it under "state_dict" or "model" is taken where there is one.
        name: of the extractor, for messages.

    Raises:
        ModelError: no such file, or one that holds something else; nothing in it is executed.
    """
    import torch

    if not path.is_file():
        raise ModelError(f"There is no file {path} with the weights of {name}. Check the path.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each format has errors of its own
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ModelError(
            f"{path} cannot be read as weights of {name} ({reason}). Give a .safetensors file, or what torch.save "
            "makes of a network's state_dict(); whole pickled networks are not opened."
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise ModelError(f"{path} holds no weights by layer. Give what torch.save makes of a network's state_dict().")
    return {key.removeprefix("module."): value for key, value in found.items()}


def fill_layers(network: torch.nn.Module, layers: dict[str, torch.Tensor], path: Path, name: str) -> torch.nn.Module:
    """Return the network with the layers of a file; those that it has not, such as a last layer, are left out.

    Raises:
        ModelError: a layer is missing in the file, or has another shape.
    """
    own = network.state_dict()
    # Files from before 2018 do not count batches, and nothing here does.
    needed = [key for key in own if not key.endswith("num_batches_tracked")]
    wrong = [key for key in needed if key not in layers or layers[key].shape != own[key].shape]
    if wrong:
        raise ModelError(
            f"{path} does not hold the layers of {name}: {len(wrong)} of {len(needed)} are missing or of another "
            f"shape, the first is {wrong[0]}. Give this network's weights file."
        )
    network.load_state_dict({**own, **{key: layers[key] for key in own if key in layers}})
    return network


def offline() -> bool:
    """Say whether HF_HUB_OFFLINE forbids to fetch anything."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}


feature_extractor: Registry[type[FeatureExtractor]] = Registry("feature_extractor", "latentdrift.evaluate.features")

extractor_family: Registry[type[FamilyExtractor]] = Registry("extractor_family", "latentdrift.evaluate.features")
