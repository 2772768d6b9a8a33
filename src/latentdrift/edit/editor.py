"""What an editor is: images and wishes → edited latents.

Adding one is one file in `editors`: a frozen config dataclass and a class under `@editor("name")`. Only `run` must be
written.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch

from latentdrift.edit.inversion import Inversion, invert
from latentdrift.edit.mask import confine
from latentdrift.edit.request import Editing, check_finite, check_request
from latentdrift.edit.result import EditResult
from latentdrift.generate import decode_latents
from latentdrift.generate.images import Progress
from latentdrift.models import check_from_noise
from latentdrift.registry import Registry

Edited = tuple[torch.Tensor, torch.Tensor | None]
"""Of one batch, the edited latents (B, C, h, w), and the reconstructed images (B, 3, H, W) if they were made."""


class Editor(ABC):
    """Base of all editors. It never mentions the drift: the scheduler it is given is drifted, or not."""

    config_class: type[Any]
    starts_from_inversion = True
    """Whether it starts from the image's own noise; others draw noise and leave an inversion unused."""
    by_instruction = False
    """Whether the target captions are instructions, to a model that was trained to follow those."""

    def __init__(self, config: Any = None) -> None:
        self.config = self.config_class() if config is None else config

    def check(self, request: Editing) -> None:
        """Raise ConfigurationError for what this editor cannot do."""
        check_from_noise(request.pipeline)
        check_request(request)

    def invert(self, request: Editing) -> Inversion:
        """Return the inversion that suits this editor best; any editor takes any other's."""
        return invert(request)

    @abstractmethod
    def run(self, request: Editing, inversion: Inversion | None) -> Iterator[Edited]:
        """Yield what became of each of `request.parts()`.

        `edit` has checked the request, and gives an inversion of its images to an editor that starts from one. No
        gradients are on.
        """

    @torch.no_grad()
    def edit(
        self, request: Editing, inversion: Inversion | None = None, *, progress: Progress | None = None
    ) -> EditResult:
        """Return the edited images.

        Args:
            request: images, wishes and settings.
            inversion: of the same images, made before by `invert`; made here where it is needed and not given.
            progress: called with the number of images finished since the last call.

        Raises:
            ConfigurationError: a request that cannot be, an inversion of something else, a model of the wrong kind.
            DataError: a caption longer than the tokenizer takes.
            LatentDriftError: latents that are no longer finite; no image is made.
        """
        self.check(request)
        if self.starts_from_inversion:
            inversion = self.invert(request) if inversion is None else inversion
            inversion.check(request)
        latents, images, rebuilt = [], [], []
        for edited, reconstruction in self.run(request, inversion):
            check_finite(edited, "The edited latents")
            latents.append(edited)
            images.append(decode_latents(request.pipeline, edited, request.batch_size))
            if reconstruction is not None:
                rebuilt.append(reconstruction)
            if progress is not None:
                progress(len(edited))
        source = request.images.float().cpu()
        mask = None if request.mask is None else request.mask.cpu()
        return EditResult(
            source=source,
            image=confine(torch.cat(images), source, mask),
            latents=torch.cat(latents),
            reconstruction=torch.cat(rebuilt) if rebuilt else None,
            source_captions=tuple(request.source_captions),
            target_captions=tuple(request.target_captions),
            mask=mask,
        )


editor: Registry[type[Editor]] = Registry("editor", "latentdrift.edit.editors")
"""Decorator and table of the editors."""
