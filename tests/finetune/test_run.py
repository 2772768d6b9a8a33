from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from latentdrift.data import Cohort
from latentdrift.drift import LatentDrift, LatentMoments, drift_of, load_drift
from latentdrift.errors import ConfigurationError, DataError, DriftError, ModelError, TrainingError, UnknownNameError
from latentdrift.finetune import finetune_model
from latentdrift.models import load_pipeline, read_model_card
from tests.finetune.conftest import same, weights

Train = Callable[..., Path]


class Stop(Exception):
    """What a test stops a training with."""


def test_the_run_folder_has_all_that_is_needed(train: Train, toy_cohort: Path, toy_model: Path) -> None:
    told: list[tuple[str, int, int]] = []
    settings = {"steps": 4, "validate_every": 2, "sample_every": 2, "ema_decay": 0.5, "seed": 3}
    run = train(drift="auto", stage=lambda *what: told.append(what), **settings)
    assert {path.name for path in run.iterdir()} == {
        "run.json", "split.csv", "losses.csv", "logs", "samples", "model",
    }  # fmt: skip
    facts = json.loads((run / "run.json").read_text())
    assert facts["base"] == str(toy_model)
    assert facts["training"]["seed"] == 3
    assert facts["template"] == "a slice, {stage}"
    assert facts["data"]["content_hash"] == Cohort.open(toy_cohort).content_hash()
    assert {"python", "latentdrift", "torch", "diffusers"} <= facts["versions"].keys()
    assert LatentDrift.from_dict(facts["drift_used"]) == load_drift(run / "model")
    parts = dict(line.split(",") for line in (run / "split.csv").read_text().splitlines()[1:])
    assert set(parts) == {record.key for record in Cohort.open(toy_cohort)}
    subjects: dict[str, set[str]] = {}
    for name, part in parts.items():
        subjects.setdefault(name.split("-")[0], set()).add(part)
    assert all(len(found) == 1 for found in subjects.values())
    rows = [line.split(",") for line in (run / "losses.csv").read_text().splitlines()]
    assert rows[0] == ["step", "loss", "validation_loss"]
    assert [bool(row[2]) for row in rows[1:]] == [False, True, False, True]
    assert sorted(path.name for path in (run / "samples").iterdir()) == ["step-000002.png", "step-000004.png"]
    with Image.open(run / "samples" / "step-000004.png") as sheet:
        assert sheet.size == (6 * 33 + 1, 2 * 33 + 1)
        assert sheet.text["SyntheticData"] == "YES"
    assert any("tfevents" in path.name for path in (run / "logs").iterdir())
    assert told[-1] == ("samples", 1, 1)
    assert ("latents", 32, 32) in told
    assert [done for what, done, _ in told if what.startswith("training")] == [1, 2, 3, 4]


def test_the_model_brings_its_drift_and_its_card(train: Train, toy_cohort: Path) -> None:
    run = train(drift="auto-vector", template="a slice, {stage}, {age} years")
    pipeline = load_pipeline(run)
    drift = drift_of(pipeline)
    assert drift is not None
    assert drift.automatic
    assert drift.kind == "vector"
    card = read_model_card(run / "model")
    assert card == pipeline.latentdrift_card
    assert card is not None
    assert (card.size, card.gray, card.steps, card.method) == (32, True, 4, "basic")
    assert card.attributes == {"stage": ["MildDemented", "NonDemented"], "age": list(range(60, 80))}
    assert card.template == "a slice, {stage}, {age} years"
    assert card.data["images"] == 32


def test_the_automatic_drift_is_that_of_the_training_images(train: Train, toy_cohort: Path, toy_model: Path) -> None:
    from latentdrift.data import ImageTransform
    from latentdrift.generate import encode_images

    drift = load_drift(train(drift="auto") / "model")
    parts = Cohort.open(toy_cohort).split()
    images = torch.stack([ImageTransform(size=32).read(record.image) for record in parts["train"]])
    moments = LatentMoments.from_latents(encode_images(load_pipeline(toy_model), images))
    assert drift is not None
    assert torch.allclose(torch.as_tensor(drift.numbers), torch.as_tensor(moments.mean), atol=1e-4)


def test_a_finished_run_returns_at_once(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    run = train()
    before = weights(run / "model")

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("nothing is to be loaded")

    monkeypatch.setattr("latentdrift.finetune.run.load_pipeline", refuse)
    assert train() == run
    assert same(before, weights(run / "model"))


def test_other_settings_need_another_folder(train: Train, toy_cohort: Path, tmp_path: Path) -> None:
    run = train(steps=2)
    with pytest.raises(TrainingError, match=r"training\.seed: 0 there, 1 now\). Choose another --out"):
        train(steps=2, seed=1)
    with pytest.raises(TrainingError, match="drift: none there, 0.1 now"):
        train(steps=2, drift=0.1)
    folder = Path(shutil.copytree(toy_cohort, tmp_path / "slices"))
    Image.new("L", (32, 32)).save(folder / "images" / "s00-0.png")
    with pytest.raises(TrainingError, match=r"data\.content_hash"):
        train(steps=2, cohort=Cohort.open(folder))
    assert (run / "model").exists()
    # The same images under another name are the same data.
    same_images = Cohort.open(toy_cohort)
    assert train(steps=2, cohort=Cohort(list(same_images), same_images.root, "another name")) == run


def test_a_run_with_checkpoints_is_not_begun_anew(train: Train) -> None:
    def stage(what: str, done: int, total: int) -> None:
        if what.startswith("training") and done == 3:
            raise Stop

    with pytest.raises(Stop):
        train(checkpoint_every=2, stage=stage)
    with pytest.raises(TrainingError, match=r"training\.learning_rate"):
        train(checkpoint_every=2, learning_rate=1e-3)


def test_a_folder_of_something_else_is_left_alone(train: Train, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("precious")
    with pytest.raises(TrainingError, match="is not empty and holds no run"):
        train()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_a_record_of_another_program_is_left_alone(train: Train, tmp_path: Path) -> None:
    (tmp_path / "run" / "logs").mkdir(parents=True)
    (tmp_path / "run" / "run.json").write_text('{"program": "another", "base": 3}')
    (tmp_path / "run" / "losses.csv").write_text("precious")
    with pytest.raises(TrainingError, match="is of no fine-tuning of latentdrift"):
        train()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["logs", "losses.csv", "run.json"]
    assert (tmp_path / "run" / "losses.csv").read_text() == "precious"


def test_a_damaged_record_is_named(train: Train) -> None:
    run = train(steps=1)
    (run / "run.json").write_text("{")
    with pytest.raises(TrainingError, match=r"run\.json is damaged"):
        train(steps=1)


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"base": "nobody/no-such-model"}, ModelError, "There is no model"),
        ({"template": "a slice, {stge}"}, UnknownNameError, "Did you mean 'stage'"),
        ({"template": "long " * 40 + "{stage}"}, DataError, "tokens long"),
        ({"balance": "diagnosis"}, UnknownNameError, "diagnosis"),
        ({"drift": "0.1,0.2,0.3"}, DriftError, "4 were expected"),
        ({"drift": "nan"}, DriftError, "contains nan"),
        ({"drift": "much"}, DriftError, "not understood"),
        ({"drift": 0.1, "rule": "strat"}, UnknownNameError, "Did you mean 'start'"),
        ({"drift": LatentDrift(torch.zeros(4, 16, 16))}, DriftError, r"map of \(4, 16, 16\)"),
    ],
)
def test_bad_input_is_told_before_anything_is_written(
    train: Train, tmp_path: Path, settings: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        train(**settings)
    assert not (tmp_path / "run").exists()


def test_an_unknown_method(toy_cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'basic'"):
        finetune_model(Cohort.open(toy_cohort), tmp_path / "run", method="basics")


def test_a_split_without_a_training_part(toy_cohort: Path, toy_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No part of the split is called 'train'"):
        finetune_model(Cohort.open(toy_cohort), tmp_path / "run", base=toy_model, fractions={"training": 1.0})


def test_an_image_that_is_damaged_is_named(train: Train, toy_cohort: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(toy_cohort, tmp_path / "slices"))
    image = folder / "images" / "s01-0.png"
    cohort = Cohort.open(folder)
    image.write_bytes(image.read_bytes()[:60])
    with pytest.raises(DataError, match=r"s01-0\.png"):
        train(cohort=cohort)


def test_a_folder_that_cannot_be_made(toy_cohort: Path, toy_model: Path, latents: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainingError, match="cannot be written|holds no run"):
        finetune_model(Cohort.open(toy_cohort), tmp_path / "file" / "run", base=toy_model, drift="none", cache=latents)


def test_a_drifted_run_as_base_brings_no_drift_of_its_own(train: Train, toy_run: Path) -> None:
    run = train(base=toy_run, steps=1)
    assert load_drift(run / "model") is None


def test_xl_goes_the_whole_way(train: Train, toy_xl_model: Path) -> None:
    run = train(base=toy_xl_model, steps=2, drift="auto")
    assert type(load_pipeline(run)).__name__ == "StableDiffusionXLPipeline"


def test_many_numbers_are_kept_as_quartiles(tmp_path: Path) -> None:
    from latentdrift.data import Record
    from latentdrift.finetune.run import attribute_values

    records = [
        Record(tmp_path / f"{i}.png", attributes={"age": i, "sex": "MF"[i % 2], "note": f"text {i}"})
        for i in range(101)
    ]
    cohort = Cohort(records, tmp_path, "made")
    assert attribute_values(cohort, "age") == [0, 25, 50, 75, 100]
    assert attribute_values(cohort, "sex") == ["F", "M"]
    assert attribute_values(cohort, "note") == []
