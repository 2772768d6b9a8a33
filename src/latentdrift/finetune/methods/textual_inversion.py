"""Textual Inversion (arXiv 2208.01618): only the embeddings of new tokens are trained, one concept a value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from latentdrift.data import Cohort, PromptTemplate
    from latentdrift.finetune.sets import SetMaker, TrainingSet


@dataclass(frozen=True)
class TextualInversionConfig(ConceptConfig):
    """Settings of Textual Inversion."""


@finetune_method("textual_inversion")
class TextualInversion(FinetuneMethod):
    """Train the rows of the concepts' tokens; every weight of the base stays."""

    config_class = TextualInversionConfig
    config: TextualInversionConfig
    learning_rate = 1e-2
    # An empty caption holds no token that could learn from it.
    drop_captions = 0.0
    has_adapter = True
    learns_words = True
    concepts: tuple[Concept, ...] = ()
    embeddings: list[ConceptEmbedding]

    def wording(self, prompts: PromptTemplate, cohort: Cohort) -> PromptTemplate:
        """Return the template with placeholders for the concepts."""
        self.attribute = self.config.attribute(cohort)
        self.concepts = self.config.find(cohort)
        return with_placeholders(prompts, self.attribute, self.concepts)

    def adapt(self, pipeline: DiffusionPipeline) -> DiffusionPipeline:
        """Return the pipeline with the concepts' tokens."""
        self.embeddings = add_concepts(super().adapt(pipeline), self.concepts)
        return pipeline

    def prepare(self, pipeline: DiffusionPipeline) -> Denoiser:
        """Freeze everything but the new rows."""
        freeze(pipeline)
        for embedding in self.embeddings:
            embedding.rows.requires_grad_(True)
        return Denoiser(pipeline, text=True)

    def training_set(self, cohort: Cohort, make: SetMaker) -> TrainingSet:
        """Return a set with token ids in place of text states."""
        check_concepts(self.concepts, self.attribute, cohort, "the training part")
        return make.images(cohort, tokens=True)

    def validation_set(self, cohort: Cohort, make: SetMaker) -> TrainingSet | None:
        """Return the same of another part, which may lack a concept."""
        return make.images(cohort, tokens=True)

    def write_adapter(self, pipeline: DiffusionPipeline, module: Denoiser, folder: Path) -> None:
        """Write `learned_embeds.safetensors`, of Stable Diffusion XL also `learned_embeds_2.safetensors`."""
        write_concepts(self.embeddings, self.concepts, folder)

    def finish(self, pipeline: DiffusionPipeline, module: Denoiser) -> None:
        """Put the rows into the text encoder's own matrix."""
        module.eval()
        merge_concepts(pipeline, self.embeddings)
