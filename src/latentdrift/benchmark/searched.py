"""δ from the cohort's latents, and δ by the paper's search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from latentdrift.data import PromptTemplate
from latentdrift.drift import LatentDrift, LatentMoments
from latentdrift.finetune.drifting import AUTO_KINDS
from latentdrift.generate import encode_images

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from latentdrift.benchmark.workshop import Workshop

LIMIT = 0.2
"""The paper's grid goes from -0.2 to 0.2."""
BATCH = 32


def cohort_moments(workshop: Workshop, model: Path, kind: str) -> LatentMoments:
    """Return the first moment of the training images' latents: kind scalar, vector or map."""
    from latentdrift.benchmark.workshop import read

    pipeline = workshop.open(model)
    train, size = workshop.parts.train, pipeline.latentdrift_card.size
    batches = (encode_images(pipeline, read(train[i : i + BATCH], size), BATCH) for i in range(0, len(train), BATCH))
    return LatentMoments.accumulate(batches, kind=kind)


def sampling_drift(wish: str) -> Callable[[Workshop, Path], LatentDrift] | None:
    """Return what makes the drift of rule `start` for a model that was trained without; None for one that is learned.

    Args:
        wish: a number, auto, or auto-scalar, auto-vector or auto-map.
    """
    kind = AUTO_KINDS.get(wish)
    if kind is not None:
        return lambda workshop, model: LatentDrift(cohort_moments(workshop, model, kind), rule="start")
    try:
        value = float(wish)
    except ValueError:
        return None
    return lambda workshop, model: LatentDrift(value, rule="start")


def searched_delta(workshop: Workshop, model: Path, seed: int, config: Any) -> tuple[float, int]:
    """Return the δ of the paper's grid whose samples are nearest to the training images, and the evaluations it took.

    Nearest by the L1 distance of the marginals (see `counterfactual.distribution`); one number for every latent pixel,
    rule `start`. The captions are of training images, the held-out ones stay unseen.
    """
    from latentdrift.benchmark.workshop import read
    from latentdrift.counterfactual.distribution import DistributionScore, SampleRenderer
    from latentdrift.counterfactual.search import SearchConfig, search

    pipeline, train = workshop.open(model), workshop.parts.train
    prompts = PromptTemplate.restore(pipeline.latentdrift_card.template)
    chosen = train.take(min(config.search_samples, len(train)), seed=seed)
    render = SampleRenderer(
        pipeline,
        [prompts.caption(record) for record in chosen],
        [10_000_000 + seed * len(chosen) + index for index in range(len(chosen))],
        steps=config.search_steps,
        guidance=config.guidance,
        batch_size=config.sampling_batch,
    )
    score = DistributionScore(pipeline, read(chosen, pipeline.latentdrift_card.size))
    found = search(
        render,
        score,
        {"delta": (-LIMIT, LIMIT)},
        SearchConfig(method="grid", points=config.search_points),
        log=workshop.folder / "searches.jsonl",
        context=f"{model.parent.name} {seed} {config.common()} {config.search_samples} {config.search_steps}",
    )
    evaluations = config.search_points * config.search_steps * len(chosen) * (1 if config.guidance == 1 else 2)
    return found.best.parameters["delta"], evaluations
