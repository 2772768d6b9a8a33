"""What a training draws: priors, pairs, classes, captions and noise."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latentdrift.data import Cohort, EditPair, ImageTransform, PromptTemplate
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError
from latentdrift.finetune import LatentCache, TrainingConfig
from latentdrift.finetune.batch import Batch
from latentdrift.finetune.methods.instruct_pix2pix import InstructPix2Pix, InstructPix2PixConfig
from latentdrift.finetune.sets import PairSet, PriorSet, SetMaker, TrainingSet, class_weights
from latentdrift.models import Conditioning, PromptTokens, encode_prompts, load_pipeline, tokenize_prompts

Maker = Callable[..., SetMaker]
CPU = torch.device("cpu")
MANY = 20_000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(path: Path, count: int, spread: float = 0.0, first: int = 0) -> LatentCache:
    """Latents (1, 2, 2) whose value is the sample's number."""
    rows = np.zeros((count, 1, 2, 1, 2, 2), np.float32)
    rows[:, 0, 0] = np.arange(first, first + count, dtype=np.float32)[:, None, None, None]
    rows[:, 0, 1] = spread
    np.save(path, rows)
    return LatentCache(path, 1.0)


def numbered_text(*rows: float) -> Conditioning:
    """Conditioning of one number a row."""
    return Conditioning(torch.tensor(rows).float()[:, None, None])


@pytest.fixture
def maker(toy_model: Path, latents: Path) -> Maker:
    def make(template: str = "a {stage} x", base: Path = toy_model, **settings: Any) -> SetMaker:
        return SetMaker(
            load_pipeline(base),
            ImageTransform(size=32),
            PromptTemplate(template),
            latents,
            TrainingConfig(**{"batch_size": 8, **settings}),
        )

    return make


# Single images.


def test_every_sample_has_its_own_text_and_latent(tmp_path: Path) -> None:
    made = TrainingSet(numbered(tmp_path / "a.npy", 3), torch.tensor([1, 0, 1]), numbered_text(10, 11, -1))
    batch = made.batch(torch.tensor([2, 0, 1, 2]), seeded(), 0.0, 1000, CPU)
    assert batch.latents[:, 0, 0, 0].tolist() == [2, 0, 1, 2]
    assert batch.conditioning.hidden[:, 0, 0].tolist() == [11, 11, 10, 11]
    assert batch.noise.shape == batch.latents.shape == (4, 1, 2, 2)
    assert batch.source is None
    assert batch.prior == 0
    dropped = made.batch(torch.tensor([2, 0, 1, 2]), seeded(), 1.0, 1000, CPU)
    assert dropped.conditioning.hidden[:, 0, 0].tolist() == [-1] * 4
    assert torch.equal(dropped.noise, batch.noise)


def test_captions_are_dropped_and_timesteps_drawn_evenly(tmp_path: Path) -> None:
    made = TrainingSet(numbered(tmp_path / "a.npy", 2), torch.tensor([0, 0]), numbered_text(1, 0))
    batch = made.batch(torch.zeros(MANY).long(), seeded(), 0.25, 10, CPU)
    assert 1 - batch.conditioning.hidden.mean() == pytest.approx(0.25, abs=0.01)
    counts = torch.bincount(batch.timesteps, minlength=10)
    assert len(counts) == 10
    assert counts.float() / MANY == pytest.approx(torch.full((10,), 0.1), abs=0.01)
    assert batch.noise.mean().item() == pytest.approx(0, abs=0.02)
    assert batch.noise.std().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("kind", ["images", "prior", "pairs"])
def test_offset_noise_shifts_each_image_and_nothing_else(tmp_path: Path, kind: str) -> None:
    cache, rows, text = numbered(tmp_path / "a.npy", 2, spread=1.0), torch.tensor([0, 1]), numbered_text(1, 2, 0)
    made = {
        "images": TrainingSet(cache, rows, text),
        "prior": PriorSet(cache, rows, text, None, TrainingSet(cache, rows, text)),
        "pairs": PairSet(cache, rows, text, None, rows, rows.flip(0)),
    }[kind]
    indices = torch.tensor([0, 1] * 50)
    plain, shifted = (made.batch(indices, seeded(), 0.2, 1000, CPU, offset) for offset in (0.0, 0.5))
    if kind != "prior":  # there the prior is drawn after the images' shifts
        assert torch.equal(plain.latents, shifted.latents)
        assert torch.equal(plain.timesteps, shifted.timesteps)
        assert torch.equal(plain.conditioning.hidden, shifted.conditioning.hidden)
    shift = (shifted.noise - plain.noise)[:100]
    assert (shift - shift[:, :, :1, :1]).abs().max() < 1e-5
    assert shift[:, 0, 0, 0].std().item() == pytest.approx(0.5, rel=0.2)
    if kind == "prior":
        means = shifted.noise[100:].mean((1, 2, 3))
        assert means.std().item() == pytest.approx((0.5**2 + 1 / 4) ** 0.5, rel=0.2)


# Images of the class beside them.


def prior_set(folder: Path, weights: torch.Tensor | None = None) -> PriorSet:
    prior = TrainingSet(
        numbered(folder / "prior.npy", 4, first=100), torch.tensor([0, 0, 1, 1]), numbered_text(50, 51, -2)
    )
    own = numbered(folder / "own.npy", 3)
    return PriorSet(own, torch.tensor([0, 1, 0]), numbered_text(10, 11, -1), weights, prior)


def test_the_prior_s_images_are_the_last_of_a_batch(tmp_path: Path) -> None:
    made = prior_set(tmp_path)
    assert len(made) == 3
    batch = made.batch(torch.tensor([2, 1]), seeded(), 0.0, 1000, CPU)
    assert batch.prior == 2
    assert len(batch.latents) == len(batch.noise) == len(batch.timesteps) == len(batch.conditioning) == 4
    assert batch.latents[:2, 0, 0, 0].tolist() == [2, 1]
    assert batch.conditioning.hidden[:2, 0, 0].tolist() == [10, 11]
    for latent, text in zip(batch.latents[2:, 0, 0, 0], batch.conditioning.hidden[2:, 0, 0], strict=True):
        assert 100 <= latent <= 103
        assert text == (50 if latent < 102 else 51)
    assert torch.equal(batch.latents, made.batch(torch.tensor([2, 1]), seeded(), 0.0, 1000, CPU).latents)


def test_the_prior_is_drawn_evenly_and_keeps_its_captions(tmp_path: Path) -> None:
    made = prior_set(tmp_path, weights=torch.tensor([1.0, 0.0, 3.0]))
    indices = made.draw(MANY, seeded())
    assert torch.bincount(indices) / MANY == pytest.approx(torch.tensor([0.25, 0, 0.75]), abs=0.015)
    batch = made.batch(indices, seeded(1), 0.5, 1000, CPU)
    own, prior = batch.conditioning.hidden[:MANY].flatten(), batch.conditioning.hidden[MANY:].flatten()
    assert (own == -1).float().mean() == pytest.approx(0.5, abs=0.015)
    assert set(prior.tolist()) == {50, 51}
    counts = torch.bincount(batch.latents[MANY:, 0, 0, 0].long() - 100)
    assert counts / MANY == pytest.approx(torch.full((4,), 0.25), abs=0.015)
    # Independent of the image beside it.
    together = torch.corrcoef(torch.stack([batch.latents[:MANY, 0, 0, 0], batch.latents[MANY:, 0, 0, 0]]))
    assert abs(together[0, 1]) < 0.03


def test_without_images_of_the_class_a_set_is_as_any_other(tmp_path: Path) -> None:
    made = dataclasses.replace(prior_set(tmp_path), prior=None)
    plain = TrainingSet(made.cache, made.captions, made.conditioning)
    one, other = (kind.batch(torch.tensor([0, 2]), seeded(), 0.3, 9, CPU) for kind in (made, plain))
    assert one.prior == 0
    assert torch.equal(one.noise, other.noise)
    assert torch.equal(one.conditioning.hidden, other.conditioning.hidden)


def test_token_ids_are_joined_too(tmp_path: Path, toy_xl_model: Path) -> None:
    pipeline = load_pipeline(toy_xl_model)
    own, other = tokenize_prompts(pipeline, ["a", ""]), tokenize_prompts(pipeline, ["x", ""])
    cache, rows = numbered(tmp_path / "a.npy", 1), torch.tensor([0])
    batch = PriorSet(cache, rows, own, None, TrainingSet(cache, rows, other)).batch(rows, seeded(), 1.0, 9, CPU)
    assert isinstance(batch.conditioning, PromptTokens)
    for ids, first, second in zip(batch.conditioning.ids, own.ids, other.ids, strict=True):
        assert torch.equal(ids, torch.stack([first[1], second[0]]))
    assert batch.conditioning.blank.tolist() == [True, False]
    assert batch.conditioning.times is not None
    assert batch.conditioning.times.shape == (2, 6)


# Pairs.


def pair_set(folder: Path) -> PairSet:
    """Pairs 3 → 1 and 2 → 4, whose instructions are 10 and 20, the empty one 0."""
    rows = torch.tensor([0, 1])
    cache = numbered(folder / "pairs.npy", 5, spread=0.01)
    return PairSet(cache, rows, numbered_text(10, 20, 0), None, torch.tensor([3, 2]), torch.tensor([1, 4]))


def test_a_pair_is_an_image_beside_the_latents_of_its_edit(tmp_path: Path) -> None:
    batch = pair_set(tmp_path).batch(torch.tensor([1, 0, 1]), seeded(), 0.0, 1000, CPU)
    assert isinstance(batch, Batch)
    assert batch.source is not None
    assert batch.source[:, 0, 0, 0].tolist() == [2, 3, 2]  # the posterior's mode, not a draw
    assert batch.latents[:, 0, 0, 0].round().tolist() == [4, 1, 4]
    assert not torch.equal(batch.latents, batch.latents.round())
    assert batch.conditioning.hidden.flatten().tolist() == [20, 10, 20]


def test_a_drift_is_estimated_from_what_the_pairs_lead_to(tmp_path: Path) -> None:
    made = dataclasses.replace(pair_set(tmp_path), targets=torch.tensor([1, 1]))
    every = torch.cat(list(made.cache.means()))
    assert torch.equal(torch.cat(list(made.means())), every[[1, 1]])
    assert torch.equal(torch.cat(list(TrainingSet(made.cache, made.captions, made.conditioning).means())), every)


def test_instruction_image_and_both_are_dropped_as_often(tmp_path: Path) -> None:
    batch = pair_set(tmp_path).batch(torch.zeros(MANY).long(), seeded(), 0.05, 1000, CPU)
    assert batch.source is not None
    text, image = batch.conditioning.hidden.flatten() == 10, batch.source[:, 0, 0, 0] == 3
    assert ((batch.source == 0).flatten(1).all(1) | image).all()
    for both, expected in (
        (~text & image, 0.05),
        (text & ~image, 0.05),
        (~text & ~image, 0.05),
        (text & image, 0.85),
    ):
        assert both.float().mean() == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize("drop", [0.0, 0.05, 0.2, 1 / 3])
def test_what_is_dropped_is_that_of_the_published_script(tmp_path: Path, drop: float) -> None:
    """The two masks of `train_instruct_pix2pix.py`, from one number a pair."""
    made, count = pair_set(tmp_path), 500
    batch = made.batch(torch.zeros(count).long(), seeded(4), drop, 1000, CPU)
    generator = seeded(4)
    made.cache.draw_pairs(torch.full((count,), 3), torch.full((count,), 1), generator)
    chance = torch.rand(count, generator=generator)
    text = torch.where(chance < 2 * drop, 0.0, 10.0)
    image = 1 - (chance >= drop).float() * (chance < 3 * drop).float()
    assert batch.source is not None
    assert torch.equal(batch.conditioning.hidden.flatten(), text)
    assert torch.equal(batch.source[:, 0, 0, 0], 3 * image)
    if drop == 1 / 3:
        assert not ((text == 10) & (image == 1)).any()


# From a cohort.


def test_captions_are_encoded_once_each_with_the_empty_one_last(maker: Maker, toy_cohort: Path) -> None:
    cohort, make = Cohort.open(toy_cohort), maker()
    states, tokens = make.images(cohort), make.images(cohort, tokens=True)
    assert len(states) == len(states.cache) == 40
    assert isinstance(states.conditioning, Conditioning)
    assert isinstance(tokens.conditioning, PromptTokens)
    assert len(states.conditioning) == len(tokens.conditioning) == 3
    captions = ["a mild demented x", "a non demented x", ""]
    assert torch.allclose(states.conditioning.hidden, encode_prompts(make.pipeline, captions).hidden, atol=1e-6)
    assert torch.equal(tokens.conditioning.ids[0], tokenize_prompts(make.pipeline, captions).ids[0])
    assert [captions[row] for row in states.captions] == make.prompts.captions(cohort)
    assert torch.equal(states.captions, tokens.captions)
    own = make.images(cohort, captions=["x"] * 40)
    assert own.captions.tolist() == [0] * 40
    assert len(own.conditioning) == 2


def test_xl_is_told_the_size_of_the_images(maker: Maker, toy_cohort: Path, toy_xl_model: Path) -> None:
    made = maker(base=toy_xl_model).images(Cohort.open(toy_cohort), tokens=True).conditioning
    assert made.times is not None
    assert made.times.tolist() == [[32, 32, 0, 0, 32, 32]] * 3


@pytest.mark.parametrize(
    ("strength", "share"),
    # One in four, weighed by its square root against the others': 1 / (1 + sqrt(3)).
    [(None, 0.25), (1.0, 0.5), (0.5, 0.366), (0.0, 0.25)],
)
def test_classes_are_drawn_as_often_as_told(
    maker: Maker, toy_cohort: Path, strength: float | None, share: float
) -> None:
    cohort = Cohort.open(toy_cohort)
    settings = {} if strength is None else {"balance": "stage", "balance_strength": strength}
    made = maker(**settings).images(cohort)
    mild = torch.tensor([stage == "MildDemented" for stage in cohort.values("stage")])
    assert mild[made.draw(MANY, seeded())].float().mean() == pytest.approx(share, abs=0.015)
    assert maker(**settings).images(cohort, balance=False).weights is None


def test_weights_of_classes(toy_cohort: Path) -> None:
    cohort = Cohort.open(toy_cohort)
    assert class_weights(cohort, TrainingConfig()) is None
    found = class_weights(cohort, TrainingConfig(balance="stage"))
    assert found is not None
    stages = cohort.values("stage")
    sums = {stage: sum(w for w, s in zip(found.tolist(), stages, strict=True) if s == stage) for stage in set(stages)}
    assert sums == pytest.approx(dict.fromkeys(sums, 1.0))
    with pytest.raises(UnknownNameError, match="Did you mean 'stage'"):
        class_weights(cohort, TrainingConfig(balance="stages"))


def pairs_of(cohort: Cohort, picks: Sequence[tuple[int, int, str]]) -> list[EditPair]:
    return [EditPair(cohort[source], cohort[target], text) for source, target, text in picks]


def test_pairs_share_the_latents_of_their_images(maker: Maker, toy_cohort: Path) -> None:
    cohort, make = Cohort.open(toy_cohort), maker()
    made = make.pairs(cohort, pairs_of(cohort, [(4, 5, "b"), (5, 4, "a"), (4, 6, "b")]))
    assert len(made.cache) == 3
    assert [made.sources.tolist(), made.targets.tolist()] == [[0, 1, 0], [1, 0, 2]]
    assert made.captions.tolist() == [1, 0, 1]
    assert len(made) == 3
    alone = make.latents(cohort)
    assert torch.allclose(made.cache.modes(made.sources), alone.modes(torch.tensor([4, 5, 4])), atol=1e-5)
    assert torch.allclose(made.cache.modes(made.targets), alone.modes(torch.tensor([5, 4, 6])), atol=1e-5)
    expected = encode_prompts(make.pipeline, ["a", "b", ""]).hidden
    assert torch.allclose(made.conditioning.hidden, expected, atol=1e-6)


def test_pairs_are_balanced_by_what_they_lead_to(maker: Maker, toy_cohort: Path) -> None:
    cohort = Cohort.open(toy_cohort)  # subjects 0 and 4 are MildDemented, two images each
    # The same target several times, as when a subject has many earlier visits.
    made = maker(balance="stage").pairs(cohort, pairs_of(cohort, [(2, 0, "a"), (4, 0, "a"), (6, 0, "a"), (0, 2, "b")]))
    assert made.weights is not None
    assert made.weights.tolist() == pytest.approx([1 / 3] * 3 + [1.0])
    assert maker().pairs(cohort, pairs_of(cohort, [(2, 0, "a")])).weights is None


def test_mirrors_of_what_names_a_side_are_refused(maker: Maker, toy_cohort: Path) -> None:
    cohort, make = Cohort.open(toy_cohort), maker(flip=True)
    with pytest.raises(ConfigurationError, match="--flip would mirror"):
        make.images(cohort, captions=["left x"] * 40)
    with pytest.raises(ConfigurationError, match="--flip would mirror"):
        make.pairs(cohort, pairs_of(cohort, [(0, 1, "shrink the left x")]))


def test_a_caption_too_long_is_refused(maker: Maker, toy_cohort: Path) -> None:
    with pytest.raises(DataError, match="tokens long"):
        maker("long " * 30 + "{stage}").images(Cohort.open(toy_cohort), tokens=True)


def test_a_part_without_a_pair_is_not_validated_with(maker: Maker, toy_cohort: Path, tmp_path: Path) -> None:
    method, cohort = InstructPix2Pix(InstructPix2PixConfig(pairs="visits")), Cohort.open(toy_cohort)
    with pytest.raises(DataError):
        method.training_set(cohort, maker())
    assert method.validation_set(cohort, maker()) is None


def test_a_damaged_image_of_a_pair_is_named_in_every_part(maker: Maker, toy_cohort: Path, tmp_path: Path) -> None:
    records = [
        dataclasses.replace(record, attributes={"age": 60 + 2 * i, "days": 730 * i})
        for i, record in enumerate(list(Cohort.open(toy_cohort))[:2])
    ]
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(records[1].image.read_bytes()[:60])
    cohort = Cohort([records[0], dataclasses.replace(records[1], image=damaged)], toy_cohort, "toy")
    method = InstructPix2Pix(InstructPix2PixConfig())
    for make_set in (method.training_set, method.validation_set):
        with pytest.raises(DataError, match=r"damaged\.png"):
            make_set(cohort, maker())
