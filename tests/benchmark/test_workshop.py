"""What cells share: bases of another size, and the captions that samples have."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from latentdrift.benchmark.data import BenchmarkData, open_parts
from latentdrift.benchmark.plan import BenchmarkConfig
from latentdrift.benchmark.results import samples_picture
from latentdrift.benchmark.summary import RowSummary
from latentdrift.benchmark.workshop import Workshop
from latentdrift.data import Cohort
from latentdrift.errors import ConfigurationError
from latentdrift.models import load_pipeline


def opened(toy_model: Path, folder: Path, cohort: Path | None = None, size: int | None = None) -> Workshop:
    given = BenchmarkData(str(cohort), attribute="stage") if cohort else BenchmarkData()
    return Workshop(given, BenchmarkConfig(base=str(toy_model), image_size=size, seeds=(0,)), folder, "cpu")


def test_the_base_keeps_its_weights_at_another_size(toy_model: Path, tmp_path: Path) -> None:
    own = opened(toy_model, tmp_path)
    assert own.size == 32
    assert own.base == str(toy_model)
    half = opened(toy_model, tmp_path, size=16)
    assert half.size == 16
    assert half.base == own.base_of_size(halved=True)
    before, after = load_pipeline(toy_model, device="cpu"), load_pipeline(half.base, device="cpu")
    assert after.unet.config.sample_size * after.vae_scale_factor == 16
    weights = after.unet.state_dict()
    assert all(weights[name].equal(value) for name, value in before.unet.state_dict().items())


def test_sizes_that_the_base_cannot_make_are_refused(toy_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"a multiple of \d+ pixels, not 33"):
        _ = opened(toy_model, tmp_path, size=33).base
    with pytest.raises(ConfigurationError, match="image_size is 0"):
        BenchmarkConfig(image_size=0)


def test_captions_are_of_all_classes_though_files_stand_class_by_class(toy_model: Path, tmp_path: Path) -> None:
    workshop = opened(toy_model, tmp_path)
    records = [SimpleNamespace(key=str(index), stage="CN" if index < 60 else "AD") for index in range(80)]
    workshop.__dict__["parts"] = SimpleNamespace(test=records)
    asked = workshop.asked(20)
    assert len({record.key for record in asked}) == 20
    assert set(Counter(record.stage for record in asked)) == {"CN", "AD"}
    assert workshop.asked(200)[:20] == asked
    assert set(Counter(record.key for record in workshop.asked(160)).values()) == {2}


def test_simulated_chests_have_one_visit(tmp_path: Path) -> None:
    parts = open_parts(BenchmarkData(modality="xray", subjects=10), tmp_path)
    assert (parts.attribute, parts.template) == ("finding", "a radiograph of a {finding} chest")
    assert {record.subject for record in parts.train}.isdisjoint(record.subject for record in parts.test)
    assert (tmp_path / "simulated-xray-10" / "truth").is_dir()


def test_a_picture_to_be_handed_on_shows_no_real_image(toy_model: Path, toy_cohort: Path, tmp_path: Path) -> None:
    workshop = opened(toy_model, tmp_path, toy_cohort)
    cohort = Cohort.open(toy_cohort)
    (tmp_path / "sample.png").write_bytes(cohort[0].image.read_bytes())
    row = RowSummary({"method": "basic"}, (0,), {}, None, {}, ("sample.png",))
    heights = []
    for show_real in (False, True):
        path = samples_picture(tmp_path / f"{show_real}.png", workshop, [row], show_real)
        assert path is not None
        with Image.open(path) as picture:
            heights.append(picture.height)
    assert heights[1] > 1.5 * heights[0]
    assert samples_picture(tmp_path / "none.png", workshop, [], True) is None
