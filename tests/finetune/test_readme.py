"""The card of a model in the hub's form: readable by the hub's own library, true, and with code that runs."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard as HubCard

from latentdrift.data import Cohort
from latentdrift.finetune.counts import count_parts
from latentdrift.finetune.readme import hub_name, quoted

STAGES = {"NonDemented", "MildDemented"}


@pytest.fixture(scope="module")
def model(toy_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(toy_run / "model", tmp_path_factory.mktemp("card") / "model"))


def test_the_head_is_the_hubs(model: Path) -> None:
    data: Any = HubCard.load(model / "README.md").data
    assert data.license == "other"
    assert data.library_name == "diffusers"
    assert data.pipeline_tag == "text-to-image"
    assert {"medical-imaging", "latent-drifting", "synthetic-data", "basic"} <= set(data.tags)
    assert len(data.datasets) == 1
    assert re.fullmatch(r"[\w.-]+", data.base_model)


def test_what_it_says_is_so(toy_run: Path, toy_cohort: Path) -> None:
    text = (toy_run / "model" / "README.md").read_text()
    with (toy_run / "split.csv").open() as file:
        parts = [row["part"] for row in csv.DictReader(file)]
    facts = json.loads((toy_run / "run.json").read_text())
    for name in set(parts):
        assert facts["parts"][name]["images"] == parts.count(name)
        assert re.search(rf"\| {name} \| {parts.count(name)} \| \d+ \|", text)
    for stage in STAGES:
        assert stage in text
    for words in ("Out of scope: diagnosis", "## Terms", "## Limits", "## Bias", "not for", "automatic vector",
                  facts["data"]["content_hash"], "training loss", "validation loss", "samples.png"):  # fmt: skip
        assert words in text, words
    for record in Cohort.open(toy_cohort):
        assert record.subject
        assert not re.search(rf"\b{record.subject}\b", text)
    assert (toy_run / "model" / "samples.png").is_file()
    assert str(toy_cohort) not in text


def test_its_code_runs(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (model / "README.md").read_text(), re.S)
    assert len(blocks) == 2
    monkeypatch.chdir(model)
    plain: dict[str, Any] = {}
    exec(blocks[0], plain)
    assert type(plain["pipe"]).__name__ == "StableDiffusionPipeline"
    ours: dict[str, Any] = {}
    exec(blocks[1].replace("seeds=[0]", "seeds=[0], steps=1"), ours)
    assert ours["images"].shape == (1, 3, 32, 32)


def test_sex_and_age_are_counted_though_captions_do_not_use_them(toy_cohort: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(toy_cohort, tmp_path / "cohort"))
    lines = (folder / "metadata.csv").read_text().splitlines()
    names = lines[0].split(",")
    sexes = [("F", "M")[index % 4 == 0] for index in range(len(lines) - 1)]
    rows = [f"{line},{sex}" for line, sex in zip(lines[1:], sexes, strict=True)]
    (folder / "metadata.csv").write_text("\n".join([",".join([*names, "sex"]), *rows]) + "\n")
    cohort = Cohort.open(folder, columns=["stage"])
    counted = count_parts(cohort, cohort.split({"train": 0.5, "test": 0.5}))
    found = [part["by"]["sex"] for part in counted.values()]
    assert sum(one.get("M", 0) for one in found) == sexes.count("M")
    assert sum(one.get("F", 0) for one in found) == sexes.count("F")
    ages = {decade for part in counted.values() for decade in part["by"]["age"]}
    assert ages <= {"60 to 69", "70 to 79", "80 to 89", "90 to 99"}
    assert all(part["subjects"] for part in counted.values())


def test_free_text_is_not_counted(toy_cohort: Path) -> None:
    cohort = Cohort.open(toy_cohort)
    records = [
        type(record)(record.image, record.subject, record.session, {**record.attributes, "note": f"Mr {i}"}, record.key)
        for i, record in enumerate(cohort)
    ]
    named = Cohort(records, cohort.root, cohort.name)
    counted = count_parts(named, {"train": named})
    assert "stage" in counted["train"]["by"]
    assert "note" not in counted["train"]["by"]


def test_names_and_captions(tmp_path: Path) -> None:
    assert hub_name("CompVis/stable-diffusion-v1-4") == "CompVis/stable-diffusion-v1-4"
    assert hub_name(str(tmp_path / "my run")) == "my-run"
    assert hub_name("tiny") == "tiny"
    assert quoted('a "b" ```x') == '"a \\"b\\" \'\'\'x"'
