"""Concepts: the values of an attribute, each with tokens of its own whose embeddings are learned.

Textual Inversion (arXiv 2208.01618) trains nothing else; Custom Diffusion (arXiv 2212.04488) trains them beside the
cross-attention. A caption says the placeholder where it would say the value, so that "an MRI of a {stage} brain"
becomes "an MRI of a <stage-mild-demented> brain". The rows of the new tokens are parameters of their own: the matrix of
the other 49,408 is neither copied, nor in the optimizer, nor restored at every step.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from latentdrift.data import Cohort, PromptTemplate
from latentdrift.data.prompts.grammar import parse, places, unparse
from latentdrift.data.prompts.words import Term, split_value, value_words
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError
from latentdrift.models.adapter_files import SECOND_TOKENS, TOKENS, text_towers

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

MOST_CONCEPTS = 50
FILES = (f"{TOKENS}.safetensors", f"{SECOND_TOKENS}.safetensors")
"""Of the first text encoder, and of the second where there is one; `load_textual_inversion` reads them."""


@dataclass(frozen=True)
class Concept:
    """One value of an attribute, and its tokens.

    Args:
        value: as the table says it.
        placeholder: what captions say.
        tokens: the placeholder itself, then placeholder_1, placeholder_2 …, as diffusers names several vectors.
        initializer: words whose embeddings the vectors begin with.
    """

    value: str
    placeholder: str
    tokens: tuple[str, ...]
    initializer: str


@dataclass(frozen=True)
class ConceptConfig:
    """Settings of concepts."""

    concepts: str = ""
    """Attribute whose values are the concepts; the class attribute by default."""
    vectors: int = 1
    """Embedding vectors a concept."""
    initializer: str = ""
    """Words that every concept begins with, such as "brain"; by default the value's own words."""
    placeholder: str = "<{name}-{value}>"
    """How the tokens are called; {name} and {value} are filled in."""

    def __post_init__(self) -> None:
        if self.vectors < 1:
            raise ConfigurationError(f"vectors is {self.vectors}; a concept has at least 1.")
        if "{value}" not in self.placeholder or re.search(r"\s", self.placeholder):
            raise ConfigurationError(
                f'placeholder is {self.placeholder!r}; it needs {{value}} and no spaces, as "<{{name}}-{{value}}>" has.'
            )

    def attribute(self, cohort: Cohort) -> str:
        """Return the attribute whose values are the concepts.

        Raises:
            UnknownNameError: the cohort has no such attribute.
            ConfigurationError: none was named, and the cohort has no class.
        """
        name = self.concepts or cohort.class_attribute()
        if name is None:
            raise ConfigurationError(
                f"{cohort.name!r} has no attribute that is a class: say with --concepts which one's values are the "
                f"concepts (it has: {', '.join(cohort.attribute_names) or 'none'})."
            )
        if name not in cohort.attribute_names:
            raise UnknownNameError("attribute", name, cohort.attribute_names)
        return name

    def find(self, cohort: Cohort) -> tuple[Concept, ...]:
        """Return a concept for every value of the attribute; of several findings in one cell, each is one.

        Raises:
            ConfigurationError: too many values to be concepts, or two that would have the same placeholder.
            DataError: images without a value.
        """
        name = self.attribute(cohort)
        values = cell_values(cohort, name)
        if len(values) > MOST_CONCEPTS:
            raise ConfigurationError(
                f"{name!r} has {len(values)} values, too many to be concepts (at most {MOST_CONCEPTS}). Name another "
                "attribute with --concepts."
            )
        found: dict[str, Concept] = {}
        for value in sorted(values):
            words = value_words(value)
            slug = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")
            # Tokenizers write in small letters.
            place = self.placeholder.replace("{name}", name).replace("{value}", slug).lower()
            if place in found:
                raise ConfigurationError(
                    f"{found[place].value!r} and {value!r} of {name!r} would both be {place!r}. Rename one of them."
                )
            tokens = (place, *(f"{place}_{index}" for index in range(1, self.vectors)))
            found[place] = Concept(value, place, tokens, self.initializer or words)
        return tuple(found.values())


def cell_values(cohort: Cohort, name: str) -> list[str]:
    """Return every value of an attribute once, as captions spell it: of several findings in one cell, each."""
    parts = (part for value in cohort.values(name) for part in split_value(value))
    return list(dict.fromkeys(part if isinstance(part, str) else f"{part:.6g}" for part in parts))


def check_concepts(concepts: Sequence[Concept], name: str, cohort: Cohort, where: str) -> None:
    """Raise DataError if a concept has no image to be learned from."""
    present = cell_values(cohort, name)
    for concept in concepts:
        if concept.value not in present:
            raise DataError(
                f"No image of {where} has {name} = {concept.value!r}: there is nothing to learn {concept.placeholder} "
                "from. Add images of that class, take it out of the cohort, or train on a larger part."
            )


def with_placeholders(prompts: PromptTemplate, name: str, concepts: Sequence[Concept]) -> PromptTemplate:
    """Return a template that says the placeholders where it said the values.

    Raises:
        ConfigurationError: the template does not say the attribute at all, or in a way that has no place for tokens.
    """
    if name not in prompts.attribute_names or prompts.class_texts:
        raise ConfigurationError(
            f"The template {prompts} does not say {name!r}, so there is no place for its concepts' tokens. Put "
            f"{{{name}}} into --template."
        )
    words: dict[str, Mapping[str, Term]] = {key: own.terms for key, own in prompts.vocabularies.items()}
    words[name] = {concept.value: Term((concept.placeholder,)) for concept in concepts}
    for place in (place for text in prompts.texts for place in places(parse(text)) if place.name == name):
        written = unparse([place])
        alone = PromptTemplate(written, abbreviations=prompts.abbreviations, words=words)
        plain = place.spec in ("", "noun")
        if not plain or any(concept.placeholder not in alone.caption({name: concept.value}) for concept in concepts):
            # An age in words, or a sex: nothing would ever be learned.
            remedy = "Name another attribute with --concepts" + ("." if plain else f", or write {{{name}}} there.")
            raise ConfigurationError(
                f"A template says {name!r} as {written}, which writes its values by a rule and leaves no place for "
                f"concepts' tokens. {remedy}"
            )
    return PromptTemplate(prompts.texts, prompts.seed, abbreviations=prompts.abbreviations, words=words)


class ConceptEmbedding(torch.nn.Module):
    """A token embedding whose last rows are trained, and the others not even looked at by the optimizer.

    Args:
        base: the frozen embedding of V tokens.
        rows: first values of the new rows, (n, width); token V + i is row i.
    """

    def __init__(self, base: torch.nn.Embedding, rows: torch.Tensor) -> None:
        super().__init__()
        self.base = base
        self.rows = torch.nn.Parameter(rows.clone())

    @property
    def weight(self) -> torch.Tensor:
        """The whole matrix, (V + n, width): for whoever asks for the embedding's size, type or values."""
        return torch.cat([self.base.weight, self.rows.to(self.base.weight.dtype)])

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the embeddings, (..., width), of token ids."""
        known = self.base.num_embeddings
        new = ids >= known
        old = self.base(ids.clamp(max=known - 1))
        rows = F.embedding((ids - known).clamp(min=0), self.rows).to(old.dtype)
        return torch.where(new[..., None], rows, old)


def add_concepts(pipeline: DiffusionPipeline, concepts: Sequence[Concept]) -> list[ConceptEmbedding]:
    """Give the pipeline's tokenizers the concepts' tokens, and its text encoders rows for them; return those.

    Raises:
        ConfigurationError: a token that the tokenizer has already, an initializer without a known token, or a
            tokenizer and a text encoder of different sizes.
    """
    names = [token for concept in concepts for token in concept.tokens]
    made = []
    for tokenizer, encoder in text_towers(pipeline):
        taken = [name for name in names if name in tokenizer.get_vocab()]
        if taken:
            raise ConfigurationError(
                f"The tokenizer has a token {taken[0]!r} already: this base has learned it, or another concept of that "
                'name. Choose other names with --placeholder, such as "<my-{value}>".'
            )
        embedding = encoder.get_input_embeddings()
        known = embedding.num_embeddings
        if len(tokenizer) > known:
            raise ConfigurationError(
                f"The tokenizer has {len(tokenizer)} tokens, but its text encoder only {known}: the base is damaged."
            )
        starts = [initial_rows(tokenizer, embedding, concept) for concept in concepts]
        # Rows that the matrix has beyond the tokenizer's tokens are filled up, so that ids go on where rows do.
        while len(tokenizer) < known:
            tokenizer.add_tokens([f"<unused-{len(tokenizer)}>"])
        tokenizer.add_tokens(names)
        own = ConceptEmbedding(embedding, torch.cat(starts))
        encoder.set_input_embeddings(own)
        made.append(own)
    return made


def initial_rows(tokenizer: Any, embedding: torch.nn.Embedding, concept: Concept) -> torch.Tensor:
    """Return the first values of a concept's vectors, (vectors, width), from its initializer's tokens.

    As many vectors as tokens take one each; more take them in turn; a single one is their mean.
    """
    ids = tokenizer(concept.initializer, add_special_tokens=False).input_ids
    if not ids:
        raise ConfigurationError(
            f"The initializer {concept.initializer!r} of {concept.placeholder} has no token. Give words with "
            "--initializer."
        )
    rows = embedding.weight.detach()[ids]
    count = len(concept.tokens)
    if count == 1:
        return rows.mean(0, keepdim=True)
    return rows[[index % len(rows) for index in range(count)]]


def write_concepts(embeddings: Sequence[ConceptEmbedding], concepts: Sequence[Concept], folder: Path) -> None:
    """Write the learned rows for `load_textual_inversion`: a tensor (vectors, width) under each placeholder."""
    from safetensors.torch import save_file

    counts = [len(concept.tokens) for concept in concepts]
    for embedding, file in zip(embeddings, FILES, strict=False):
        parts = embedding.rows.detach().cpu().split(counts)
        tensors = {
            concept.placeholder: part.clone().contiguous() for concept, part in zip(concepts, parts, strict=True)
        }
        save_file(tensors, folder / file, metadata={"format": "pt"})


def merge_concepts(pipeline: DiffusionPipeline, embeddings: Sequence[ConceptEmbedding]) -> None:
    """Put the learned rows into the text encoders' own matrices, which grow by as much."""
    for (_, encoder), embedding in zip(text_towers(pipeline), embeddings, strict=True):
        weight = embedding.weight.detach()
        encoder.set_input_embeddings(embedding.base)
        encoder.resize_token_embeddings(len(weight), mean_resizing=False)
        with torch.no_grad():
            encoder.get_input_embeddings().weight.copy_(weight)
