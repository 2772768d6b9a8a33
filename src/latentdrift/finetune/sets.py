"""What a training draws from: cached latents, and the text that belongs to each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from latentdrift.data import Cohort, EditPair, ImageTransform, PromptTemplate
from latentdrift.data.records import Record
from latentdrift.finetune.augment import Augmentation, check_flip
from latentdrift.finetune.batch import Batch
from latentdrift.finetune.cache import LatentCache
from latentdrift.finetune.config import TrainingConfig
from latentdrift.finetune.schedules import offset_noise
from latentdrift.models import Conditioning, PromptTokens, encode_prompts, tokenize_prompts

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@dataclass(frozen=True)
class TrainingSet:
    """Latents with the row of the text that belongs to each, and how often each is drawn.

    Args:
        cache: posteriors of N samples.
        captions: row of `conditioning` of each sample, (N,).
        conditioning: distinct captions' conditioning, or their token ids; the last row is the empty caption.
        weights: relative frequency of each sample, (N,), or None for all alike.
    """

    cache: LatentCache
    captions: torch.Tensor
    conditioning: Conditioning | PromptTokens
    weights: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.captions)

    def draw(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Return `count` indices."""
        if self.weights is None:
            return torch.randint(len(self), (count,), generator=generator)
        return torch.multinomial(self.weights, count, replacement=True, generator=generator)

    def batch(
        self,
        indices: torch.Tensor,
        generator: torch.Generator,
        drop: float,
        horizon: int,
        device: torch.device,
        offset: float = 0.0,
    ) -> Batch:
        """Return a batch of the samples `indices`.

        Args:
            indices: samples, (B,).
            generator: decides everything that is random.
            drop: probability of an empty caption.
            horizon: number of timesteps.
            device: where to put it.
            offset: strength of offset noise.
        """
        latents = self.cache.draw(indices, generator)
        empty = torch.rand(len(indices), generator=generator) < drop
        rows = torch.where(empty, len(self.conditioning) - 1, self.captions[indices])
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = torch.randint(horizon, (len(indices),), generator=generator)
        noise = offset_noise(noise, offset, generator)
        return Batch(latents.to(device), self.text(rows, device), noise.to(device), timesteps.to(device))

    def means(self) -> Iterator[torch.Tensor]:
        """Yield the scaled means (B, C, h, w) of what is denoised, which an automatic drift is estimated from."""
        return self.cache.means()

    def text(self, rows: torch.Tensor, device: torch.device) -> Conditioning | PromptTokens:
        """Return rows of the conditioning, on `device`."""
        return self.conditioning[rows.to(self.conditioning.device)].to(device)


@dataclass(frozen=True)
class PriorSet(TrainingSet):
    """A set with images of the class beside it; every batch has as many of those, at its end (DreamBooth)."""

    prior: TrainingSet | None = None

    def batch(
        self,
        indices: torch.Tensor,
        generator: torch.Generator,
        drop: float,
        horizon: int,
        device: torch.device,
        offset: float = 0.0,
    ) -> Batch:
        """Return a batch of the samples `indices`, followed by as many of the prior's."""
        own = super().batch(indices, generator, drop, horizon, device, offset)
        if self.prior is None:
            return own
        prior = self.prior.batch(self.prior.draw(len(indices), generator), generator, 0.0, horizon, device, offset)
        return Batch(
            torch.cat([own.latents, prior.latents]),
            type(own.conditioning).stack([own.conditioning, prior.conditioning]),  # type: ignore[list-item]
            torch.cat([own.noise, prior.noise]),
            torch.cat([own.timesteps, prior.timesteps]),
            prior=len(indices),
        )


@dataclass(frozen=True)
class PairSet(TrainingSet):
    """Pairs of images with an instruction (InstructPix2Pix): `captions` has a row a pair.

    Args:
        sources: row of the cache of each pair's image before the edit, (P,).
        targets: row of the cache of each pair's image after it, (P,).
    """

    sources: torch.Tensor = field(default_factory=lambda: torch.empty(0).long())
    targets: torch.Tensor = field(default_factory=lambda: torch.empty(0).long())

    def means(self) -> Iterator[torch.Tensor]:
        """Yield the scaled means (B, C, h, w) of the images after the edit, one a pair.

        Noise is added to them alone: those before the edit are only seen, and would pull the mean to where no sampling
        leads.
        """
        return self.cache.means(indices=self.targets)

    def batch(
        self,
        indices: torch.Tensor,
        generator: torch.Generator,
        drop: float,
        horizon: int,
        device: torch.device,
        offset: float = 0.0,
    ) -> Batch:
        """Return a batch of the pairs `indices`.

        `drop` is the probability of the instruction alone, the image alone, and both being left out, each
        (arXiv 2211.09800, Section 3.2.1).
        """
        latents, source = self.cache.draw_pairs(self.sources[indices], self.targets[indices], generator)
        chance = torch.rand(len(indices), generator=generator)
        # Three neighbouring parts of the unit interval: the instruction alone, both, the image alone.
        rows = torch.where(chance < 2 * drop, len(self.conditioning) - 1, self.captions[indices])
        source = source * ((chance < drop) | (chance >= 3 * drop))[:, None, None, None]
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = torch.randint(horizon, (len(indices),), generator=generator)
        noise = offset_noise(noise, offset, generator)
        return Batch(
            latents.to(device), self.text(rows, device), noise.to(device), timesteps.to(device), source.to(device)
        )


@dataclass(frozen=True)
class SetMaker:
    """Makes training sets of images, with one pipeline, one way to read and to caption, one cache.

    Args:
        pipeline: encodes images and text.
        transform: brings a file to (3, H, W) in [-1, 1].
        prompts: writes captions.
        folder: where latents are cached.
        config: batch size, balance, augmentation.
        tell: called with what is being done, how much of it is done, and how much there is.
    """

    pipeline: DiffusionPipeline
    transform: ImageTransform
    prompts: PromptTemplate
    folder: Path
    config: TrainingConfig
    tell: Callable[[str, int, int], None] = lambda *_: None

    def images(
        self, cohort: Cohort, *, captions: Sequence[str] | None = None, tokens: bool = False, balance: bool = True
    ) -> TrainingSet:
        """Return the set of a cohort's images.

        Args:
            cohort: the images.
            captions: one an image; by the template where None.
            tokens: give token ids in place of text states, for text encoders in the training.
            balance: draw the classes as `config.balance` says.

        Raises:
            DataError: a caption that is too long or lacks an attribute, or an image that cannot be read.
            ConfigurationError: mirrored images whose captions would then be wrong.
            TrainingError: the latents cannot be written.
        """
        captions = self.prompts.captions(cohort) if captions is None else captions
        check_flip(captions, self.config.flip)
        rows, conditioning = self.text(captions, tokens=tokens)
        weights = class_weights(cohort, self.config) if balance else None
        return TrainingSet(self.latents(cohort), rows, conditioning, weights)

    def pairs(self, cohort: Cohort, pairs: Sequence[EditPair]) -> PairSet:
        """Return the set of edit pairs; `cohort` gives the images in them name and folder. Errors as for `images`."""
        records = list({record.key: record for pair in pairs for record in (pair.source, pair.target)}.values())
        place = {record.key: row for row, record in enumerate(records)}
        instructions = [pair.instruction for pair in pairs]
        check_flip(instructions, self.config.flip)
        rows, conditioning = self.text(instructions)
        everyone = Cohort(records, cohort.root, cohort.name, cohort.label)
        return PairSet(
            self.latents(everyone),
            rows,
            conditioning,
            class_weights(cohort, self.config, [pair.target for pair in pairs]),
            torch.tensor([place[pair.source.key] for pair in pairs]),
            torch.tensor([place[pair.target.key] for pair in pairs]),
        )

    def text(
        self, captions: Sequence[str], *, tokens: bool = False
    ) -> tuple[torch.Tensor, Conditioning | PromptTokens]:
        """Return each caption's row, and the distinct captions' conditioning with the empty one at the end."""
        distinct = sorted(set(captions))
        place = {caption: row for row, caption in enumerate(distinct)}
        encode = tokenize_prompts if tokens else encode_prompts
        conditioning = encode(self.pipeline, [*distinct, ""], self.transform.size)
        return torch.tensor([place[caption] for caption in captions]), conditioning

    def latents(self, cohort: Cohort) -> LatentCache:
        """Return the cached latents of a cohort, computed where they are not there yet."""
        return LatentCache.build(
            cohort,
            self.transform,
            self.pipeline.vae,
            self.folder,
            augmentation=Augmentation(count=self.config.augment, flip=self.config.flip),
            batch_size=self.config.batch_size,
            progress=partial(self.tell, "latents"),
        )


def class_weights(cohort: Cohort, config: TrainingConfig, drawn: Sequence[Record] | None = None) -> torch.Tensor | None:
    """Return how often each image, or each of `drawn`, comes (N,), by `config.balance`; None for all alike.

    Raises:
        UnknownNameError: no image has the attribute.
        DataError: some images lack it.
    """
    if config.balance is None:
        return None
    values = cohort.values(config.balance) if drawn is None else [one.attributes.get(config.balance) for one in drawn]
    counts = Counter(values)
    return torch.tensor([counts[value] ** -config.balance_strength for value in values])
