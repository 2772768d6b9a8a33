"""Prompts → what the U-Net is conditioned on, for Stable Diffusion 1.x, 2.x and XL alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@dataclass(frozen=True)
class Conditioning:
    """What the U-Net is told beside the latent and the timestep.

    Args:
        hidden: text states, (B, tokens, width).
        pooled: pooled text states, (B, width), of Stable Diffusion XL only.
        times: size conditioning, (B, 6), of Stable Diffusion XL only.
    """

    hidden: torch.Tensor
    pooled: torch.Tensor | None = None
    times: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.hidden)

    @property
    def device(self) -> torch.device:
        """Where the states are."""
        return self.hidden.device

    def __getitem__(self, index: Any) -> Conditioning:
        pooled, times = (None if t is None else t[index] for t in (self.pooled, self.times))
        return Conditioning(self.hidden[index], pooled, times)

    def to(self, device: torch.device | str) -> Conditioning:
        """Return the same on another device."""
        pooled, times = (None if t is None else t.to(device) for t in (self.pooled, self.times))
        return Conditioning(self.hidden.to(device), pooled, times)

    @classmethod
    def stack(cls, parts: Sequence[Conditioning]) -> Conditioning:
        """Return several conditionings, one after the other, as one batch."""
        pooled = [part.pooled for part in parts if part.pooled is not None]
        times = [part.times for part in parts if part.times is not None]
        return cls(
            torch.cat([part.hidden for part in parts]),
            torch.cat(pooled) if pooled else None,
            torch.cat(times) if times else None,
        )

    def unet_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of `UNet2DConditionModel.forward`."""
        arguments: dict[str, Any] = {"encoder_hidden_states": self.hidden}
        if self.pooled is not None:
            arguments["added_cond_kwargs"] = {"text_embeds": self.pooled, "time_ids": self.times}
        return arguments


@dataclass(frozen=True)
class PromptTokens:
    """Prompts as token ids, for training that goes through the text encoders.

    Args:
        ids: for each text encoder, (B, tokens).
        blank: rows that stand for the unconditional prompt as zeros, (B,); Stable Diffusion XL has it so.
        times: size conditioning, (B, 6), of Stable Diffusion XL only.
    """

    ids: tuple[torch.Tensor, ...]
    blank: torch.Tensor
    times: torch.Tensor | None = None

    @property
    def device(self) -> torch.device:
        """Where the ids are."""
        return self.blank.device

    def __len__(self) -> int:
        return len(self.blank)

    def __getitem__(self, index: Any) -> PromptTokens:
        times = None if self.times is None else self.times[index]
        return PromptTokens(tuple(ids[index] for ids in self.ids), self.blank[index], times)

    def to(self, device: torch.device | str) -> PromptTokens:
        """Return the same on another device."""
        times = None if self.times is None else self.times.to(device)
        return PromptTokens(tuple(ids.to(device) for ids in self.ids), self.blank.to(device), times)

    @classmethod
    def stack(cls, parts: Sequence[PromptTokens]) -> PromptTokens:
        """Return several, one after the other, as one batch."""
        times = [part.times for part in parts if part.times is not None]
        columns = zip(*(part.ids for part in parts), strict=True)
        return cls(
            tuple(torch.cat(column) for column in columns),
            torch.cat([part.blank for part in parts]),
            torch.cat(times) if times else None,
        )


def expanded(pipeline: DiffusionPipeline, prompts: Sequence[str]) -> list[str]:
    """Return prompts in which a concept of several vectors is written out as its tokens, as diffusers' pipelines do."""
    convert = getattr(pipeline, "maybe_convert_prompt", None)
    return list(prompts) if convert is None else list(convert(list(prompts), pipeline.tokenizer))


def tokenize_prompts(pipeline: DiffusionPipeline, prompts: Sequence[str], size: int | None = None) -> PromptTokens:
    """Return `prompts` as token ids, on the U-Net's device; arguments and errors are those of `encode_prompts`."""
    from latentdrift.data import check_caption_length

    written = expanded(pipeline, prompts)
    check_caption_length(written, pipeline.tokenizer)
    device = pipeline.unet.device
    two = hasattr(pipeline, "text_encoder_2")
    tokenizers = [pipeline.tokenizer, pipeline.tokenizer_2] if two else [pipeline.tokenizer]
    ids = tuple(
        tokenizer(
            written,
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids.to(device)
        for tokenizer in tokenizers
    )
    zeros = two and pipeline.config.get("force_zeros_for_empty_prompt")
    blank = torch.tensor([bool(zeros) and prompt == "" for prompt in prompts], device=device)
    times = size_conditioning(pipeline, len(prompts), size) if two else None
    return PromptTokens(ids, blank, times)


def size_conditioning(pipeline: DiffusionPipeline, count: int, size: int | None) -> torch.Tensor:
    """Return what Stable Diffusion XL is told of the images' size, (count, 6): original, crop, target."""
    size = size or pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    row = [size, size, 0, 0, size, size]
    return torch.tensor([row] * count, device=pipeline.unet.device, dtype=pipeline.unet.dtype)


class TextEncoders(torch.nn.Module):
    """A pipeline's text encoders as one module: token ids → conditioning, with gradients.

    Args:
        pipeline: Stable Diffusion 1.x, 2.x or XL; the encoders are shared with it, not copied.
    """

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        super().__init__()
        second = getattr(pipeline, "text_encoder_2", None)
        self.encoders = torch.nn.ModuleList([pipeline.text_encoder, *([] if second is None else [second])])

    def forward(self, tokens: PromptTokens) -> Conditioning:
        """Return the conditioning; prompts that occur several times in the batch are encoded once."""
        every = torch.cat([*tokens.ids, tokens.blank[:, None].long()], 1)
        _, rows = torch.unique(every, dim=0, return_inverse=True)
        count = int(rows.max()) + 1
        first = torch.full((count,), len(rows), device=rows.device)
        first = first.scatter_reduce(0, rows, torch.arange(len(rows), device=rows.device), "amin")
        if len(self.encoders) == 1:
            return Conditioning(self.encoders[0](tokens.ids[0][first], attention_mask=None)[0][rows])
        found = [
            encoder(ids[first], output_hidden_states=True)
            for encoder, ids in zip(self.encoders, tokens.ids, strict=True)
        ]
        # XL takes the last layer but one of both encoders, and the second one's projected end token.
        hidden, pooled = torch.cat([output.hidden_states[-2] for output in found], -1), found[-1][0]
        kept = (~tokens.blank[first]).to(hidden.dtype)
        return Conditioning((hidden * kept[:, None, None])[rows], (pooled * kept[:, None])[rows], tokens.times)


@torch.no_grad()
def encode_prompts(pipeline: DiffusionPipeline, prompts: Sequence[str], size: int | None = None) -> Conditioning:
    """Return the conditioning of `prompts`, each distinct prompt encoded once.

    Args:
        pipeline: a Stable Diffusion pipeline.
        prompts: one prompt an image; "" is the unconditional one, which Stable Diffusion XL has as zeros if its
            configuration says so.
        size: side of the images in pixels, which Stable Diffusion XL is told; the model's own by default.

    Raises:
        DataError: a prompt has more tokens than the tokenizer takes.
    """
    distinct = list(dict.fromkeys(prompts))
    place = {prompt: row for row, prompt in enumerate(distinct)}
    encoded = TextEncoders(pipeline)(tokenize_prompts(pipeline, distinct, size))
    return encoded[torch.tensor([place[prompt] for prompt in prompts], device=encoded.device)]
