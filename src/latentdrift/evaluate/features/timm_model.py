"""Any network of PyTorch Image Models by its name, such as timm:resnet18 or timm:vit_small_patch14_dinov2."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.errors import ModelError, UnknownNameError
from latentdrift.evaluate.features.base import FamilyExtractor, extractor_family, fill_layers, offline, read_layers

if TYPE_CHECKING:
    import torch


@extractor_family("timm")
class TimmModel(FamilyExtractor):
    """The vector that a network of timm gives to its last layer, which is left out.

    Whole images are resized to the size the network was made for, without the margin that photographs are cropped by,
    and scaled as its weights expect. Weights from timm's cache, from where timm fetches them, or from a file.

    Raises:
        UnknownNameError: timm has no such network.
        ModelError: the weights are not to be had.
    """

    example = "resnet18"

    @classmethod
    def available(cls) -> bool:
        """Say whether the published weights are in the cache of Hugging Face or of torch hub."""
        import timm
        import torch
        from huggingface_hub import try_to_load_from_cache

        config = timm.get_pretrained_cfg(cls.variant) if timm.is_model(cls.variant) else None
        if config is None:
            return False
        if config.hf_hub_id:
            names = (config.hf_hub_filename,) if config.hf_hub_filename else ("model.safetensors", "pytorch_model.bin")
            if any(isinstance(try_to_load_from_cache(config.hf_hub_id, name), str) for name in names):
                return True
        file = Path(str(config.url)).name if config.url else ""
        return bool(file) and (Path(torch.hub.get_dir()) / "checkpoints" / file).is_file()

    def _load(self, weights: Path | None) -> torch.nn.Module:
        import timm

        if not timm.is_model(self.variant):
            raise UnknownNameError("network of timm", self.variant, timm.list_models())
        network: Any
        if weights is not None:
            layers = read_layers(weights, self.name)
            network = fill_layers(timm.create_model(self.variant, num_classes=0), layers, weights, self.name)
        else:
            remedy = "Give its weights file, or use the extractor efficientnet-lite0, which is installed."
            if offline() and not self.available():
                raise ModelError(
                    f"The weights of {self.name} are not at hand, and HF_HUB_OFFLINE forbids to fetch. {remedy}"
                )
            try:
                network = timm.create_model(self.variant, pretrained=True, num_classes=0)
            except Exception as error:  # of the hub, the network, the disk, or timm where none were published
                reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
                raise ModelError(f"The weights of {self.name} cannot be had ({reason}). {remedy}") from error
        self._wanted: dict[str, Any] = timm.data.resolve_model_data_config(network)
        return network

    def _features(self, images: torch.Tensor) -> torch.Tensor:
        import torch
        import torch.nn.functional as F

        channels, *size = self._wanted["input_size"]
        mode = "bilinear" if self._wanted["interpolation"] == "bilinear" else "bicubic"
        pixels = F.interpolate(images.float(), size=tuple(size), mode=mode, antialias=True, align_corners=False)
        pixels = pixels.clamp(0, 255) / 255
        if channels == 1:
            pixels = pixels.mean(1, keepdim=True)
        mean, std = (
            torch.tensor(self._wanted[name], device=images.device)[None, :, None, None] for name in ("mean", "std")
        )
        found: torch.Tensor = self.network((pixels - mean) / std)
        return found
