"""Custom Diffusion (arXiv 2212.04488): keys and values of the cross-attention, with tokens of several concepts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from latentdrift.finetune.batch import Batch
from latentdrift.finetune.concepts import (
    Concept,
    ConceptConfig,
    ConceptEmbedding,
    add_concepts,
    check_concepts,
    merge_concepts,
    with_placeholders,
    write_concepts,
)
from latentdrift.finetune.denoiser import Denoiser, freeze
from latentdrift.finetune.method import FinetuneMethod, finetune_method
from latentdrift.finetune.objective import denoising_loss
from latentdrift.finetune.prior import PriorConfig, class_prompt, with_prior
from latentdrift.models.adapter_files import PROCESSORS

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from latentdrift.data import Cohort, PromptTemplate
    from latentdrift.finetune.sets import SetMaker, TrainingSet

FILE = f"{PROCESSORS}.safetensors"
"""`UNet2DConditionModel.load_attn_procs` reads it."""


@dataclass(frozen=True)
class CustomDiffusionConfig(PriorConfig, ConceptConfig):
    """Settings of Custom Diffusion."""

    modifier_tokens: bool = True
    """Learn new tokens for the values of `concepts`; without, captions stay as they are."""
    train_q_out: bool = False
    """Train queries and outputs of the cross-attention too."""

    def __post_init__(self) -> None:
        PriorConfig.__post_init__(self)
        ConceptConfig.__post_init__(self)


@finetune_method("custom_diffusion")
class CustomDiffusion(FinetuneMethod):
    """Train the cross-attention's keys and values, and the concepts' tokens."""

    config_class = CustomDiffusionConfig
    config: CustomDiffusionConfig
    learning_rate = 1e-3
    # The same text goes through the trained keys: an empty caption in training would move the base's own images.
    drop_captions = 0.0
    has_adapter = True
    concepts: tuple[Concept, ...] = ()

    def __init__(self, config: CustomDiffusionConfig) -> None:
        super().__init__(config)
        self.embeddings: list[ConceptEmbedding] = []
        self.learns_words = config.modifier_tokens
        self.plain: PromptTemplate | None = None

    def wording(self, prompts: PromptTemplate, cohort: Cohort) -> PromptTemplate:
        """Return the template with placeholders for the concepts."""
        self.plain = prompts
        if not self.config.modifier_tokens:
            return prompts
        self.attribute = self.config.attribute(cohort)
        self.concepts = self.config.find(cohort)
        return with_placeholders(prompts, self.attribute, self.concepts)

    def adapt(self, pipeline: DiffusionPipeline) -> DiffusionPipeline:
        """Return the pipeline with the concepts' tokens."""
        pipeline = super().adapt(pipeline)
        if self.concepts:
            self.embeddings = add_concepts(pipeline, self.concepts)
        return pipeline

    def prepare(self, pipeline: DiffusionPipeline) -> Denoiser:
        """Give the U-Net attention processors with weights of their own, and freeze everything else."""
        freeze(pipeline)
        own_processors(pipeline.unet, self.config.train_q_out)
        for embedding in self.embeddings:
            embedding.rows.requires_grad_(True)
        return Denoiser(pipeline, text=bool(self.concepts))

    def training_set(self, cohort: Cohort, make: SetMaker) -> TrainingSet:
        """Return the cohort's images with the regularisation set beside them."""
        if self.concepts:
            check_concepts(self.concepts, self.attribute, cohort, "the training part")
        tokens = bool(self.concepts)
        own = make.images(cohort, tokens=tokens)
        fallback = class_prompt(self.plain or make.prompts)
        return with_prior(own, self.config, make, tokens=tokens, fallback=fallback)

    def validation_set(self, cohort: Cohort, make: SetMaker) -> TrainingSet | None:
        """Return another part's images, without the regularisation set."""
        return make.images(cohort, tokens=bool(self.concepts))

    def loss(self, module: torch.nn.Module, scheduler: Any, batch: Batch) -> torch.Tensor:
        """Return the mean loss of the images plus `prior_weight` times that of the regularisation set."""
        return denoising_loss(module, scheduler, batch, prior_weight=self.config.prior_weight)

    def write_adapter(self, pipeline: DiffusionPipeline, module: Denoiser, folder: Path) -> None:
        """Write the attention processors and the tokens, each in the format of diffusers."""
        from safetensors.torch import save_file

        tensors: dict[str, torch.Tensor] = {}
        for name, processor in pipeline.unet.attn_processors.items():
            state = processor.state_dict() if isinstance(processor, torch.nn.Module) else {}
            tensors |= {f"{name}.{key}": value.detach().cpu().contiguous() for key, value in state.items()}
            if not state:
                # diffusers takes what has length zero for a processor without weights; it needs one for each layer.
                tensors[name] = torch.zeros(0)
        save_file(tensors, folder / FILE, metadata={"format": "pt"})
        if self.concepts:
            write_concepts(self.embeddings, self.concepts, folder)

    def finish(self, pipeline: DiffusionPipeline, module: Denoiser) -> None:
        """Put the trained weights into the attention layers themselves, and the rows into the text encoder's matrix."""
        module.eval()
        merge_processors(pipeline.unet)
        merge_concepts(pipeline, self.embeddings)


def cross_attentions(unet: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield name and layer of every attention to the text."""
    for name, layer in unet.named_modules():
        if name.endswith("attn2"):
            yield name, layer


def own_processors(unet: Any, train_q_out: bool) -> None:
    """Give every attention layer a Custom Diffusion processor of diffusers; those to the text begin as the layer is."""
    from diffusers.models.attention_processor import CustomDiffusionAttnProcessor2_0

    layers = dict(cross_attentions(unet))
    processors: dict[str, torch.nn.Module] = {}
    for name in unet.attn_processors:
        layer = layers.get(name.removesuffix(".processor"))
        if layer is None:
            processors[name] = CustomDiffusionAttnProcessor2_0(train_kv=False, train_q_out=False)
            continue
        made = CustomDiffusionAttnProcessor2_0(
            train_kv=True,
            train_q_out=train_q_out,
            hidden_size=layer.to_k.weight.shape[0],
            cross_attention_dim=layer.to_k.weight.shape[1],
        )
        state = {"to_k_custom_diffusion.weight": layer.to_k.weight, "to_v_custom_diffusion.weight": layer.to_v.weight}
        if train_q_out:
            state["to_q_custom_diffusion.weight"] = layer.to_q.weight
            state["to_out_custom_diffusion.0.weight"] = layer.to_out[0].weight
            state["to_out_custom_diffusion.0.bias"] = layer.to_out[0].bias
        made.load_state_dict(state)
        processors[name] = made.to(layer.to_k.weight.device, layer.to_k.weight.dtype)
    unet.set_attn_processor(processors)


@torch.no_grad()
def merge_processors(unet: Any) -> None:
    """Put the processors' weights into their layers, and the usual processors back."""
    for _, layer in cross_attentions(unet):
        own = layer.processor
        layer.to_k.weight.copy_(own.to_k_custom_diffusion.weight)
        layer.to_v.weight.copy_(own.to_v_custom_diffusion.weight)
        if own.train_q_out:
            layer.to_q.weight.copy_(own.to_q_custom_diffusion.weight)
            layer.to_out[0].weight.copy_(own.to_out_custom_diffusion[0].weight)
            layer.to_out[0].bias.copy_(own.to_out_custom_diffusion[0].bias)
    # diffusers' own way back refuses processors that hold weights.
    from diffusers.models.attention_processor import AttnProcessor2_0

    unet.set_attn_processor(AttnProcessor2_0())
