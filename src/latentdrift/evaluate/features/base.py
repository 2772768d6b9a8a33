"""What a feature extractor is, and the registry of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from latentdrift.errors import EvaluationError
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
    """The registered name; every result carries it."""
    dim: ClassVar[int]
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


feature_extractor: Registry[type[FeatureExtractor]] = Registry("feature_extractor", "latentdrift.evaluate.features")
