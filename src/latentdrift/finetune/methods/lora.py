"""Low-rank adaptation (arXiv 2106.09685) by PEFT: small matrices beside the attention's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.errors import ConfigurationError
from latentdrift.finetune.denoiser import Denoiser, freeze
from latentdrift.finetune.method import FinetuneMethod, check_snr_gamma, finetune_method

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from latentdrift.data import Cohort
    from latentdrift.finetune.sets import SetMaker, TrainingSet

TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")


@dataclass(frozen=True)
class LoRAConfig:
    """Settings of low-rank adaptation."""

    rank: int = 8
    """Rank of the matrices."""
    alpha: float = 0.0
    """Their product is scaled by alpha / rank; the rank itself by default, so that nothing is scaled."""
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")
    """Ends of the names of the U-Net's layers that are adapted; add conv1 and conv2 for its convolutions."""
    dropout: float = 0.0
    """Probability of dropping an input of the matrices."""
    train_text_encoder: bool = False
    """Adapt the text encoder's attention too."""
    snr_gamma: float = 0.0
    """Min-SNR loss weighting (arXiv 2303.09556); 0 weighs all timesteps alike."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigurationError(f"rank is {self.rank}; low-rank matrices have at least rank 1 (4 to 64 is usual).")
        if not 0 <= self.alpha < float("inf"):
            raise ConfigurationError(f"alpha is {self.alpha}; it must be above 0, or 0 for the rank.")
        if not 0 <= self.dropout < 1:
            raise ConfigurationError(f"dropout is {self.dropout}; it must be at least 0 and below 1.")
        if not self.targets:
            raise ConfigurationError("targets is empty; name layers to adapt, such as to_k to_v.")
        check_snr_gamma(self.snr_gamma)


@finetune_method("lora")
class LoRA(FinetuneMethod):
    """Train low-rank matrices beside the U-Net's attention, and if asked for the text encoder's."""

    config_class = LoRAConfig
    config: LoRAConfig
    learning_rate = 2e-3
    has_adapter = True

    def prepare(self, pipeline: DiffusionPipeline) -> Denoiser:
        """Freeze everything and add the matrices.

        Raises:
            ConfigurationError: the U-Net has no layer that a target names.
        """
        from peft import inject_adapter_in_model

        freeze(pipeline)
        names = [name for name, _ in pipeline.unet.named_modules()]
        for target in self.config.targets:
            if not any(name == target or name.endswith("." + target) for name in names):
                raise ConfigurationError(
                    f"No layer of this U-Net is called {target!r}. Usual targets: to_q to_k to_v to_out.0 conv1 conv2."
                )
        pipeline.unet.add_adapter(self.adapter_config(list(self.config.targets)))
        for encoder in self.encoders(pipeline).values():
            # transformers' own add_adapter refuses every PEFT that is older than the newest.
            inject_adapter_in_model(self.adapter_config(list(TEXT_TARGETS)), encoder)
            encoder.train()
        pipeline.unet.train()
        return Denoiser(pipeline, text=self.config.train_text_encoder)

    def adapter_config(self, targets: list[str]) -> Any:
        """Return PEFT's settings."""
        from peft import LoraConfig

        return LoraConfig(
            r=self.config.rank,
            lora_alpha=self.config.alpha or self.config.rank,
            lora_dropout=self.config.dropout,
            init_lora_weights="gaussian",
            target_modules=targets,
        )

    def encoders(self, pipeline: DiffusionPipeline) -> dict[str, Any]:
        """Return the text encoders that are adapted, by their names in the pipeline."""
        if not self.config.train_text_encoder:
            return {}
        names = ("text_encoder", "text_encoder_2")
        return {name: getattr(pipeline, name) for name in names if getattr(pipeline, name, None) is not None}

    def training_set(self, cohort: Cohort, make: SetMaker) -> TrainingSet:
        """Return the cohort's images, with token ids where the text encoder is adapted."""
        return make.images(cohort, tokens=self.config.train_text_encoder)

    def write_adapter(self, pipeline: DiffusionPipeline, module: Denoiser, folder: Path) -> None:
        """Write `pytorch_lora_weights.safetensors`, which `load_lora_weights` reads."""
        from diffusers.training_utils import _collate_lora_metadata
        from diffusers.utils import convert_state_dict_to_diffusers
        from peft.utils import get_peft_model_state_dict

        parts = {"unet": pipeline.unet, **self.encoders(pipeline)}
        layers = {
            f"{name}_lora_layers": convert_state_dict_to_diffusers(get_peft_model_state_dict(part))
            for name, part in parts.items()
        }
        pipeline.save_lora_weights(folder, **layers, **_collate_lora_metadata(parts))

    def finish(self, pipeline: DiffusionPipeline, module: Denoiser) -> None:
        """Add the matrices to the weights they stand beside."""
        module.eval()
        pipeline.fuse_lora(components=["unet", *self.encoders(pipeline)])
        pipeline.unload_lora_weights()
