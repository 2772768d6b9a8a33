"""Cross-attention maps of a frozen U-Net, read while it runs."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch

from latentdrift.errors import ConfigurationError
from latentdrift.models import Conditioning


class _AllRecorded(Exception):
    """Every map is there: the rest of the U-Net need not run."""


class CrossAttentionMaps:
    """Within this context the U-Net's weights take no gradients and its cross-attention maps can be read.

    Its own attention processors are back afterwards; they also do all the work while no maps are read.

    Args:
        unet: of a Stable Diffusion pipeline.

    Raises:
        ConfigurationError: a U-Net without cross-attention, or with processors that have weights of their own.
    """

    def __init__(self, unet: Any) -> None:
        self.unet = unet
        self.processors = dict(unet.attn_processors)
        self.layers = [name for name in self.processors if name.endswith("attn2.processor")]
        if not self.layers:
            raise ConfigurationError(
                "This model's U-Net has no cross-attention: there are no maps to guide an edit by."
            )
        for name in self.layers:
            if isinstance(self.processors[name], torch.nn.Module):
                raise ConfigurationError(
                    f"{name} is a {type(self.processors[name]).__name__} with weights of its own, whose maps cannot be "
                    "read. Take that adapter off, or use another editor."
                )
        self.maps: dict[str, torch.Tensor] = {}
        self.reading = self.stopping = False

    def __enter__(self) -> CrossAttentionMaps:
        self._trained = [parameter for parameter in self.unet.parameters() if parameter.requires_grad]
        for parameter in self._trained:
            parameter.requires_grad_(False)
        reading = {name: _ReadingProcessor(name, self.processors[name], self) for name in self.layers}
        self.unet.set_attn_processor({**self.processors, **reading})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unet.set_attn_processor(dict(self.processors))
        for parameter in self._trained:
            parameter.requires_grad_(True)

    def predict(
        self, latents: torch.Tensor, timestep: torch.Tensor, conditioning: Conditioning
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the U-Net's prediction (B, C, h, w), and for each layer the maps (B, heads, positions, tokens)."""
        return self._read(latents, timestep, conditioning, stopping=False)

    def only(self, latents: torch.Tensor, timestep: torch.Tensor, conditioning: Conditioning) -> list[torch.Tensor]:
        """Return the maps alone; the U-Net runs no further than its last cross-attention."""
        return self._read(latents, timestep, conditioning, stopping=True)[1]

    def _read(
        self, latents: torch.Tensor, timestep: torch.Tensor, conditioning: Conditioning, *, stopping: bool
    ) -> tuple[Any, list[torch.Tensor]]:
        self.maps, self.reading, self.stopping = {}, True, stopping
        predicted = None
        try:
            predicted = self.unet(latents, timestep, **conditioning.unet_arguments()).sample
        except _AllRecorded:
            pass
        finally:
            self.reading, maps = False, self.maps
            self.maps = {}
        return predicted, [maps[name] for name in self.layers]


class _ReadingProcessor:
    """Attention written out, as fused kernels do not give the maps away; the layer's own while none are read."""

    def __init__(self, name: str, own: Any, reader: CrossAttentionMaps) -> None:
        self.name, self.own, self.reader = name, own, reader

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        reader = self.reader
        if not reader.reading:
            return self.own(attn, hidden_states, encoder_hidden_states, attention_mask, **kwargs)
        told = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if encoder_hidden_states is not None and attn.norm_cross:
            told = attn.norm_encoder_hidden_states(told)
        mask = attn.prepare_attention_mask(attention_mask, told.shape[1], len(told))
        query, key = attn.head_to_batch_dim(attn.to_q(hidden_states)), attn.head_to_batch_dim(attn.to_k(told))
        maps = attn.get_attention_scores(query, key, mask)
        reader.maps[self.name] = maps.unflatten(0, (len(hidden_states), -1))
        if reader.stopping and len(reader.maps) == len(reader.layers):
            raise _AllRecorded
        attended = attn.batch_to_head_dim(torch.bmm(maps, attn.head_to_batch_dim(attn.to_v(told))))
        attended = attn.to_out[1](attn.to_out[0](attended))
        if attn.residual_connection:
            attended = attended + hidden_states
        return attended / attn.rescale_output_factor
