from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import class_in_samples
from benchmarks.method_data import script_list, write_pairs, write_prior
from benchmarks.method_memory import peak_memory
from benchmarks.method_operations import method_ceilings, method_operations
from benchmarks.method_speed import METHODS, find_script
from benchmarks.method_table import COMPARISONS
from benchmarks.stopwatch import Stopwatch
from benchmarks.whole_process import ProcessError, Setting, as_words, check_training_part
from latentdrift.evaluate import load_extractor
from latentdrift.models import load_pipeline

SETTING = Setting(steps=10, batch_size=4, images=10, size=32, image_size=32)


class Work:
    def outer(self) -> None:
        time.sleep(0.02)
        self.inner()

    def inner(self) -> None:
        time.sleep(0.05)


def test_stopwatch_counts_a_call_inside_another_once():
    class Watched(Work):
        pass

    watch = Stopwatch("start")
    watch.watch(Watched, "outer", "outer")
    watch.watch(Watched, "inner", "inner")
    watch.enter("loop")
    Watched().outer()
    calls, stages = watch.result()["calls"]["loop"], watch.result()["stages"]
    assert 0.05 <= calls["inner"] <= stages["loop"]
    assert calls["outer"] >= 0.02
    # The outer call's own seconds and the inner one's together fit into the stage, so that a rest can be given.
    assert calls["outer"] + calls["inner"] <= stages["loop"] + 1e-3


def test_stopwatch_counts_nested_calls_of_one_label_once():
    class Watched(Work):
        pass

    watch = Stopwatch("start")
    watch.watch(Watched, "outer", "work")
    watch.watch(Watched, "inner", "work")
    Watched().outer()
    found = watch.result()
    assert 0.07 <= found["calls"]["start"]["work"] <= found["stages"]["start"]


def test_flags_become_words():
    assert as_words({"rank": 4, "flip": True, "template": "a b"}) == ["--rank", "4", "--flip", "--template", "a b"]


def test_script_is_found_by_name_nearest_the_top(tmp_path: Path):
    for folder in ("examples/research_projects/a/b", "examples/dreambooth"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "train_dreambooth.py").touch()
    assert find_script(tmp_path, "train_dreambooth.py") == tmp_path / "examples/dreambooth/train_dreambooth.py"
    with pytest.raises(ProcessError, match=r"There is no textual_inversion\.py below"):
        find_script(tmp_path, "textual_inversion.py")


def test_lists_are_read_from_a_script(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text('import nowhere\nwordings = ["a {}", "the {}"]\n')
    assert script_list(script, "wordings") == ["a {}", "the {}"]
    with pytest.raises(ProcessError, match="has no list others"):
        script_list(script, "others")


def test_reference_gets_the_training_images_only(tmp_path: Path):
    facts = write_prior(tmp_path, replace(SETTING, class_images=3), value="sks", class_images=100, text=False)
    given = {path.name for path in (tmp_path / "reference").iterdir()}
    assert given == {Path(key).name for key in facts["training_files"]}
    assert len(given) == 8
    assert len(list((tmp_path / "class").iterdir())) == 3
    assert facts["encoded_images"] == 8 + 1 + 3
    rows = [f"images/{name},train" for name in sorted(given)]
    (tmp_path / "split.csv").write_text("\n".join(["file_name,part", *rows, "images/x.png,test"]) + "\n")
    check_training_part(tmp_path, facts["training_files"])
    (tmp_path / "split.csv").write_text("\n".join(["file_name,part", *rows[1:]]) + "\n")
    with pytest.raises(ProcessError, match="trained on 7 images"):
        check_training_part(tmp_path, facts["training_files"])


def test_pairs_are_the_same_for_both(tmp_path: Path):
    facts = write_pairs(tmp_path, SETTING, tmp_path)
    lines = (tmp_path / "reference" / "metadata.csv").read_text().splitlines()
    assert lines[0] == "input_image_file_name,edit_prompt,edited_image_file_name"
    # Three diagnoses: an image has two true counterfactuals.
    assert facts["pairs"] == len(lines) - 1 == 2 * facts["training_images"]
    assert facts["encoded_images"] == 3 * (facts["training_images"] + 1)


def test_every_method_has_a_comparison():
    assert set(METHODS) == set(COMPARISONS)
    assert {name for name in METHODS if COMPARISONS[name].bar is None} == {"lora"}


def test_frozen_weights_need_fewer_operations(toy_model: Path):
    pipeline = load_pipeline(toy_model, drift=None)
    found = {
        trained: method_operations(pipeline, trained, pipeline.unet.config.in_channels)
        for trained in ("unet", "embeddings", "keys and values")
    }
    assert found["embeddings"]["unet_forward"] == found["unet"]["unet_forward"]
    assert 0 < found["embeddings"]["unet_backward"] < found["keys and values"]["unet_backward"]
    assert found["keys and values"]["unet_backward"] < found["unet"]["unet_backward"]
    assert found["unet"]["text_backward"] == 0 < found["embeddings"]["text_backward"]


def test_ceiling_of_a_cache():
    data = {"rows": 1, "encodings": 2, "encoded_images": 20, "captions": 5, "captions_a_step": None}
    calls = {"U-Net forward": 10.0, "backward": 20.0, "VAE encoding": 60.0, "text encoder": 10.0}
    process = {"steps": 10, "batch_size": 10, "data": data, "reference": {"calls": {"training loop": calls}}}
    cost = {"unet_forward": 1, "unet_backward": 2, "vae_encode": 3, "text_forward": 1, "text_backward": 0}
    found = method_ceilings(process, cost)
    # 100 images: 3 each for the U-Net; 20 encodings of 3 in place of 200; 5 captions in place of 100.
    assert found["operations"]["ratio"] == pytest.approx((300 + 60 + 5) / (300 + 600 + 100))
    assert found["reference_seconds"]["ratio"] == pytest.approx((30 + 6 + 0.5) / 100)
    data["captions_a_step"] = 4
    # The text encoder stays, for 4 captions a step in place of 10.
    assert method_ceilings(process, cost)["operations"]["limit"] == pytest.approx((300 + 40) / 1000)


def test_peak_memory_is_this_process_own():
    held = bytearray(64_000_000)
    held[::4096] = b"x" * len(held[::4096])
    assert peak_memory()["peak_bytes"] > len(held)


def test_what_samples_carry_of_a_class() -> None:
    draw = np.random.default_rng(0)
    effect = np.zeros((16, 16))
    effect[10:14, 2:6] = 20.0
    truth = np.arange(400) % 2

    def people(part: float, rough: float = 0.0) -> np.ndarray:
        images = draw.normal(100, 2, (400, 16, 16)) + part * effect * truth[:, None, None]
        return images + rough * truth[:, None, None] * draw.normal(0, 20, images.shape)

    real = people(1.0)
    change = real[truth == 1].mean(0) - real[truth == 0].mean(0)
    half = class_in_samples.figures(people(0.5) + 7, truth, real, change)
    assert half["size"] == pytest.approx(0.5, abs=0.05)
    assert half["cosine"] > 0.95
    assert half["told_by_the_real_difference"]["low"] > 0.95
    assert half["error_of_the_mean_image"] == pytest.approx(7 - effect.mean() / 4, abs=0.3)
    # A class that only grain tells is no class that real images have.
    shortcut = class_in_samples.figures(people(0.0, rough=1.0), truth, real, change)
    assert shortcut["told_by_grain"]["low"] > 0.95
    assert shortcut["told_by_the_real_difference"]["value"] < 0.7


def test_distances_speak_of_their_scale() -> None:
    draw = np.random.default_rng(1)
    real = draw.normal(120, 20, (16, 32, 32)).clip(0, 255)
    gray = (real + 40).clip(0, 255)
    still = class_in_samples.coarse(real, 2).repeat(2, axis=1).repeat(2, axis=2)
    extractor = load_extractor("default")
    of_real, of_gray, of_still, of_rounded = (
        class_in_samples.distances(class_in_samples.scales(images, extractor), class_in_samples.scales(real, extractor))
        for images in (real, gray, still, real.round())
    )
    assert of_still["frechet_of_coarse_pixels"] < 1e-9 < of_gray["frechet_of_coarse_pixels"]
    assert of_still["frechet_without_grain"] < of_still["frechet"] / 2
    assert of_real["frechet"] < 1e-6 > of_rounded["frechet"]
