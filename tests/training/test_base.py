"""The base model's training, on a handful of invented photographs."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.base.autoencoder import AutoencoderTraining, learning_rate, train_autoencoder
from training.base.photographs import centre_square, change_tones, random_crop, read_photographs, split
from training.base.text import build_text_encoder, build_tokenizer


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path / "photographs"
    folder.mkdir()
    with (folder / "metadata.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "caption"])
        for index in range(20):
            smooth = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((200, 180))
            smooth.save(folder / f"{index:02d}.png")
            table.writerow([f"{index:02d}.png", f"a photo of a thing {index}"])
    return folder


def test_photographs_are_read_at_one_short_side_and_split(photographs: Path) -> None:
    images, captions, names = read_photographs(photographs, short_side=96)
    assert [min(image.shape[1:]) for image in images] == [96] * 20
    assert captions[3] == "a photo of a thing 3"
    assert names == sorted(names)
    train, held_out = split(len(images))
    assert held_out == [0, 15]
    assert sorted(train + held_out) == list(range(20))


def test_crops_have_the_asked_size_and_range(photographs: Path) -> None:
    images, _, _ = read_photographs(photographs)
    rng = np.random.default_rng(1)
    for image in images[:5]:
        crop = change_tones(random_crop(image, 64, (1.0, 1.9), rng), rng, wide=True)
        assert crop.shape == (3, 64, 64)
        assert crop.min() >= -1
        assert crop.max() <= 1
    assert centre_square(images[0], 128).shape == (3, 128, 128)


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [learning_rate(step, 1000, 1e-3) for step in range(1000)]
    assert rates[0] == pytest.approx(1e-5)
    assert max(rates) == pytest.approx(1e-3)
    assert rates[-1] == pytest.approx(1e-5, rel=0.01)


def test_training_goes_on_where_it_stopped(photographs: Path, tmp_path: Path) -> None:
    once = AutoencoderTraining(steps=3, decoder_steps=1, batch=2, crop=32, colour_from=1, full_precision_from=0)
    whole = train_autoencoder(photographs, tmp_path / "whole", once, checkpoint_every=2)
    shorter = AutoencoderTraining(steps=3, decoder_steps=0, batch=2, crop=32, colour_from=1, full_precision_from=0)
    train_autoencoder(photographs, tmp_path / "parts", shorter, checkpoint_every=2)
    resumed = train_autoencoder(photographs, tmp_path / "parts", once, checkpoint_every=2)
    first, second = (
        torch.load(folder.parent / "autoencoder.pt", weights_only=True)["average"] for folder in (whole, resumed)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_decoder_goes_on_alone(photographs: Path, tmp_path: Path) -> None:
    settings = {"batch": 2, "crop": 32, "colour_from": 1, "full_precision_from": 0.0}
    out = tmp_path / "out"
    train_autoencoder(photographs, out, AutoencoderTraining(steps=2, decoder_steps=0, **settings))
    before = torch.load(out / "autoencoder.pt", weights_only=True)["average"]
    train_autoencoder(photographs, out, AutoencoderTraining(steps=2, decoder_steps=3, **settings))
    after = torch.load(out / "autoencoder.pt", weights_only=True)["average"]
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"decoder", "post_quant_conv"}


def test_the_tokenizer_survives_saving_and_covers_every_byte(tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    tokenizer = build_tokenizer(["a photo of a great white shark"] * 3)
    tokenizer.save_pretrained(tmp_path)
    again = CLIPTokenizer.from_pretrained(tmp_path)
    for text in ("a 74-year-old woman with Alzheimer's disease", "Zürich ☃ 中", ""):
        ids = tokenizer(text).input_ids
        assert again(text).input_ids == ids
        assert tokenizer.unk_token_id not in ids[1:-1]
    assert tokenizer("brain").input_ids != tokenizer("chest").input_ids
    encoder = build_text_encoder(tokenizer, width=32, layers=1)
    tokens = tokenizer(["brain", "chest"], padding="max_length", return_tensors="pt").input_ids
    hidden = encoder(tokens).last_hidden_state
    assert hidden.shape == (2, 77, 32)
    assert (hidden[0] - hidden[1]).abs().max() > 0.01
