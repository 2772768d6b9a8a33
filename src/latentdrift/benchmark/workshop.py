"""What the cells of a benchmark share: data, models and samples, each made once and kept under its content.

Several processes may work in one folder: whoever needs a model that another one is training waits for it.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from latentdrift.benchmark.data import BenchmarkData, Parts, described, open_parts
from latentdrift.benchmark.plan import BenchmarkConfig
from latentdrift.data import Cohort, ImageTransform, PromptTemplate, Record
from latentdrift.data.provenance.manifest import Origin, SyntheticFile, write_marked_images
from latentdrift.drift import DriftMismatchWarning, LatentDrift
from latentdrift.drift.attachment import sampling_under
from latentdrift.errors import ConfigurationError, DataError
from latentdrift.finetune import TrainingConfig, finetune_method, finetune_model
from latentdrift.finetune.contrast import LowContrastWarning
from latentdrift.generate import generate_images
from latentdrift.models import load_pipeline
from latentdrift.models.identity import drift_facts, model_facts
from latentdrift.models.saving import save_pipeline

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from latentdrift.evaluate import FeatureExtractor

Tell = Callable[[str, int, int], None]
VALIDATION = 0.05
"""Part of the training images that only the validation loss sees."""
SHOWN = 6
"""Images of a cell that the page shows."""


class InHandError(Exception):
    """What is needed is being made by another process, and was not to be waited for."""


@dataclass(eq=False)
class Workshop:
    """See the module.

    Args:
        data: what is worked on.
        config: how long, and how many.
        folder: where everything is kept.
        device: where to train and sample; a GPU by default where there is one.
        tell: called with what is being done, how much of it is done, and how much there is.
    """

    data: BenchmarkData
    config: BenchmarkConfig
    folder: Path
    device: str | None = None
    tell: Tell = lambda *_: None
    memory: dict[Any, Any] = field(default_factory=dict, repr=False)
    """What measures compute once of the training and the held-out images."""
    _pictures: dict[str, Path] = field(default_factory=dict, repr=False)
    _waits: bool = field(default=True, repr=False)

    @functools.cached_property
    def parts(self) -> Parts:
        """The cohort, divided."""
        with self.locked(self.folder / "simulated"):
            return open_parts(self.data, self.folder)

    @functools.cached_property
    def extractor(self) -> FeatureExtractor:
        """The feature extractor, loaded."""
        from latentdrift.evaluate import load_extractor

        return load_extractor(self.config.extractor, device=self.device or "cpu")

    def model(
        self,
        seed: int,
        *,
        drift: str = "none",
        rule: str = "forward",
        method: str = "basic",
        template: str | None = None,
        base: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Path:
        """Fine-tune on the training part, or find it done; return the model's folder.

        Args:
            seed: of the training.
            drift: as `latentdrift finetune --drift`.
            rule: where it acts.
            method: of fine-tuning.
            template: of captions; the data's own by default.
            base: in place of the config's.
            options: settings of the method.
        """
        config, parts = self.config, self.parts
        # Without a drift the rule says nothing: one model, whoever asks.
        rule = rule if drift != "none" else "start"
        given = {"method": method, "drift": drift, "rule": rule if drift != "none" else "", "seed": seed}
        pairs = method == "instruct_pix2pix"
        training = TrainingConfig(
            steps=config.steps,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            # A class with a few dozen images is not repeated until it is known by heart.
            balance=None if pairs else parts.attribute,
            balance_strength=0.5,
            validate_every=0,
            sample_columns=0,
            sample_steps=config.sampling_steps,
            mixed_precision=config.mixed_precision,
            seed=seed,
        )
        template = None if pairs else template or parts.template
        base = base or self.base
        about = [given, base, template, dict(options or {}), training, parts.facts["content_hash"]]
        folder = self.folder / "models" / f"{described(given)}-{digest(about)}"
        with self.locked(folder), warnings.catch_warnings():
            warnings.simplefilter("ignore", LowContrastWarning)
            return finetune_model(
                parts.train,
                folder,
                base=base,
                method=method,
                drift=drift,
                rule=rule,
                template=template,
                config=training,
                method_config=finetune_method.get(method).config_class(**dict(options or {})),
                fractions={"train": 1 - VALIDATION, "validation": VALIDATION},
                cache=self.folder / "latents",
                device=self.device,
                stage=lambda what, done, total: self.tell(f"training, {described(given)}: {what}", done, total),
            )

    @functools.cached_property
    def base(self) -> str:
        """What is fine-tuned: the config's base, told to make images of the config's size."""
        return self.base_of_size(self.config.image_size)

    @functools.cached_property
    def size(self) -> int:
        """Height and width of the images that models make, pixels."""
        if self.config.image_size is not None:
            return self.config.image_size
        pipeline = self.bare(self.config.base, "cpu")
        size: int = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
        return size

    def base_of_size(self, size: int | None = None, *, halved: bool = False) -> str:
        """Return the config's base for images of `size` x `size` pixels: the same weights, told of another size.

        Args:
            size: by default the base's own.
            halved: half of that.

        Raises:
            ConfigurationError: no size that the base can make.
        """
        pipeline = self.bare(self.config.base, "cpu")
        own, factor = pipeline.unet.config.sample_size, pipeline.vae_scale_factor
        size = (size or own * factor) // (2 if halved else 1)
        # Every level of the U-Net but the last halves the latent, and must find an even side.
        least = factor * 2 ** (len(pipeline.unet.config.block_out_channels) - 1)
        if size % least:
            raise ConfigurationError(
                f"The base {self.config.base} makes images whose side is a multiple of {least} pixels, not {size}."
            )
        if own * factor == size:
            return self.config.base
        folder = self.folder / "bases" / f"{described({'base': Path(self.config.base).name})}-{size}"
        with self.locked(folder):
            if not folder.exists():
                pipeline.unet.register_to_config(sample_size=size // factor)
                save_pipeline(pipeline, folder)
        return str(folder)

    def bare(self, model: str, device: str | None = None) -> DiffusionPipeline:
        """Return a model's pipeline without its drift, where nothing is sampled from it."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DriftMismatchWarning)
            return load_pipeline(model, device=device or self.device, drift=None)

    def open(self, model: Path) -> DiffusionPipeline:
        """Return a model's pipeline, with its card as `latentdrift_card`."""
        return load_pipeline(model, device=self.device)

    def sample(
        self,
        model: Path,
        seed: int,
        *,
        drift: LatentDrift | str | None = "saved",
        steps: int | None = None,
        spacing: str | None = None,
        about: Mapping[str, Any],
    ) -> Cohort:
        """Draw images of the held-out captions, or find them; return them as a cohort with their captions' class.

        Args:
            model: folder of a model that makes images from captions.
            seed: other seeds share no noise.
            drift: in place of the model's own.
            steps: denoising steps, in place of the config's.
            spacing: of the timesteps, in place of the scheduler's: leading, trailing or linspace.
            about: what tells these samples from others, for the folder's name and content.
        """
        config, parts = self.config, self.parts
        facts = [dict(about), seed, model.parent.name, config.common(), parts.facts["content_hash"]]
        folder = self.folder / "samples" / f"{described(about)}-s{seed}-{digest(facts)}"
        with self.locked(folder):
            if not folder.exists():
                pipeline = self.open(model)
                if spacing is not None:
                    respace(pipeline, spacing)
                with sampling_under(pipeline, drift) if not isinstance(drift, str) else nullcontext():
                    self._draw(pipeline, model, folder, seed, steps or config.sampling_steps)
        return Cohort.open(folder, label=parts.attribute)

    def asked(self, count: int) -> list[Record]:
        """Return the held-out images whose captions the first `count` samples have, some of them again if need be."""
        # Cohorts stand in the order of their files, often class by class: the first few would be of one class.
        order = np.random.default_rng(0).permutation(len(self.parts.test))
        return [self.parts.test[int(order[index % len(order)])] for index in range(count)]

    def _draw(self, pipeline: DiffusionPipeline, model: Path, folder: Path, seed: int, steps: int) -> None:
        config, parts, card = self.config, self.parts, pipeline.latentdrift_card
        prompts, records, done = PromptTemplate.restore(card.template), self.asked(config.samples), 0

        def progress(count: int) -> None:
            nonlocal done
            done += count
            self.tell(f"sampling, {folder.name}", done, config.samples)

        captions = [prompts.caption(record) for record in records]
        seeds = [seed * config.samples + index for index in range(config.samples)]
        images = generate_images(
            pipeline,
            captions,
            seeds=seeds,
            steps=steps,
            guidance=config.guidance,
            batch_size=config.sampling_batch,
            progress=progress,
        )
        with whole_folder(folder) as partial:
            files = [
                SyntheticFile(f"{index:05d}.png", own, caption, {parts.attribute: record.attributes[parts.attribute]})
                for index, (own, caption, record) in enumerate(zip(seeds, captions, records, strict=True))
            ]
            settings = {"steps": steps, "guidance": config.guidance}
            origin = Origin(model_facts(pipeline, model), drift_facts(pipeline), settings=settings)
            # As `latentdrift generate` writes them: gray, if all training images were.
            write_marked_images(partial, origin, list(zip(files, images, strict=True)), gray=bool(card.gray))
            rows = [(one.file, one.attributes[parts.attribute]) for one in files]
            with (partial / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([("file_name", parts.attribute), *rows])

    def keep_picture(self, name: str, images: Cohort) -> None:
        """Keep the first images of a cell for the page: links to their files."""
        for index, record in enumerate(images[:SHOWN]):
            self._pictures[f"{name}-{index}"] = record.image

    def pictures(self) -> list[str]:
        """Return the files kept for the cell in hand, and forget them."""
        found = [path.resolve().relative_to(self.folder.resolve()).as_posix() for path in self._pictures.values()]
        self._pictures.clear()
        return found

    @contextmanager
    def locked(self, path: Path) -> Iterator[None]:
        """Hold the lock of a file or folder that is made once; waits while another process has it.

        Raises:
            InHandError: another process has it, in a block that does not wait.
        """
        locks = self.folder / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(locks / f"{path.name}.lock")
        try:
            lock.acquire(timeout=-1 if self._waits else 0)
        except Timeout as error:
            raise InHandError(f"Another process makes {path}.") from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def waiting(self, wait: bool) -> Iterator[None]:
        """Say whether what another process makes is waited for in the block."""
        former, self._waits = self._waits, wait
        try:
            yield
        finally:
            self._waits = former


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that takes the name `folder` when the block ends well, and is removed otherwise."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield partial
        partial.chmod(0o755)
        partial.rename(folder)
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error}. Free space or choose another folder.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def respace(pipeline: DiffusionPipeline, spacing: str) -> None:
    """Let the sampler take its timesteps at another spacing, under the drift that it has."""
    from latentdrift.drift import drift_of
    from latentdrift.drift.attachment import plain

    own, bare = drift_of(pipeline), plain(pipeline.scheduler)
    bare = type(bare).from_config(bare.config, timestep_spacing=spacing)
    pipeline.scheduler = bare if own is None else own.apply(bare)


def read(cohort: Cohort, size: int) -> torch.Tensor:
    """Return images (N, 3, H, W) in [-1, 1]."""
    transform = ImageTransform(size=size)
    return torch.stack([transform.read(record.image) for record in cohort])


def digest(about: Any) -> str:
    """Return 10 hexadecimal digits over plain values."""
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:10]
