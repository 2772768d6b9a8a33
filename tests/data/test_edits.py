from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest

from latentdrift.data import Cohort, EditPair, Record, edit_pairs
from latentdrift.data.images import read_array
from latentdrift.data.records import Value
from latentdrift.data.simulate import DIAGNOSES, simulate_cohort, true_counterfactual
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError

Table = Callable[..., Path]

NIH = [
    "file_name,patient_id,follow_up,age,sex,view,findings",
    "images/7_000.png,7,0,58,M,PA,No Finding",
    "images/7_010.png,7,10,58,M,PA,Effusion|Mass",
    "images/7_002.png,7,2,58,M,PA,Effusion",
    "images/7_003.png,7,3,58,M,AP,Effusion",
    "images/8_000.png,8,0,40,F,PA,Effusion|Mass",
    "images/8_001.png,8,1,42,F,PA,Mass|Effusion",
    "images/9_000.png,9,0,31,F,PA,No Finding",
]
"""Layout of NIH ChestX-ray14: ages in whole years, sessions by number, several findings in a cell."""


def cohort_of(*visits: tuple[str, str, dict[str, Value]], label: str | None = None) -> Cohort:
    """Records without files: (key, subject, attributes)."""
    records = [Record(Path(key), subject, key, attributes, key) for key, subject, attributes in visits]
    return Cohort(records, Path("nowhere"), "toy", label)


def said(pairs: Sequence[EditPair]) -> list[tuple[str, str, str]]:
    return [(Path(pair.source.key).stem, Path(pair.target.key).stem, pair.instruction) for pair in pairs]


@pytest.fixture(scope="module")
def brains(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Six simulated people, three visits in four years."""
    return simulate_cohort(
        tmp_path_factory.mktemp("edits") / "brains", subjects=6, seed=3, size=32, visits=3, years_between=2.0
    )


def test_visits_are_paired_with_what_changed(brains: Cohort) -> None:
    pairs = edit_pairs(brains, kind="visits", age="difference")
    assert len(pairs) == 6 * 3
    records = {record.key: record for record in brains}
    for pair in pairs:
        assert pair.source is records[pair.source.key]
        assert pair.target is records[pair.target.key]
        assert pair.source.subject == pair.target.subject
        years = round(float(pair.target.attributes["age"]) - float(pair.source.attributes["age"]))
        assert years in (2, 4)
        assert f"{years} years" in pair.instruction
        converted = pair.source.attributes["diagnosis"] != pair.target.attributes["diagnosis"]
        assert (" and " in pair.instruction) == converted
    assert any(pair.source.attributes["diagnosis"] != pair.target.attributes["diagnosis"] for pair in pairs)
    assert len(edit_pairs(brains, kind="visits", min_years=3)) == 6
    assert len(edit_pairs(brains, kind="visits", max_years=3)) == 12
    # Only people and visits of the cohort given.
    part = brains.where(subject=[str(brains[0].subject)])
    assert len(edit_pairs(part, kind="visits")) == 3


def test_wordings_vary_with_the_seed_and_repeat(brains: Cohort) -> None:
    first, again, other = (edit_pairs(brains, kind="visits", seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert [pair.instruction for pair in first] != [pair.instruction for pair in other]
    assert len({pair.instruction.split(" brain")[0] for pair in first}) > 1
    assert all(pair.instruction.endswith("?") for pair in edit_pairs(brains, kind="visits", style="question"))
    with pytest.raises(FrozenInstanceError):
        first[0].instruction = ""  # type: ignore[misc]


def test_both_ways_doubles_the_pairs_and_turns_the_instruction() -> None:
    cohort = cohort_of(("a", "s", {"age": 70, "stage": "CN"}), ("b", "s", {"age": 73, "stage": "AD"}))
    forth, back = edit_pairs(cohort, both_ways=True, age="difference")
    assert (forth.source, forth.target) == (back.target, back.source)
    assert "3 years" in forth.instruction
    assert "Alzheimer's disease" in forth.instruction
    assert "3 years" in back.instruction
    assert "cognitively normal" in back.instruction
    assert "younger" in back.instruction or "earlier" in back.instruction


def test_a_later_visit_may_be_the_healthier() -> None:
    cohort = cohort_of(
        ("a", "s", {"days": 0, "diagnosis": "MCI"}), ("b", "s", {"days": 400, "diagnosis": "CN"}), label="diagnosis"
    )
    (pair,) = edit_pairs(cohort)
    assert (pair.source.key, pair.target.key) == ("a", "b")
    assert "cognitively normal" in pair.instruction or "healthy" in pair.instruction


def test_pairs_of_which_nothing_can_be_said_are_left_out() -> None:
    visits = [
        ("a", "s", {"days": 0, "age": 72.1, "stage": "CN", "scanner": "X", "sex": "F"}),
        ("b", "s", {"days": 250, "age": 72.8, "stage": "CN", "scanner": "Y", "sex": "F"}),
        ("c", "s", {"days": 650, "age": 73.9, "stage": "CN", "scanner": "Y", "sex": "F"}),
    ]
    pairs = edit_pairs(cohort_of(*visits))
    assert [(pair.source.key, pair.target.key) for pair in pairs] == [("a", "c"), ("b", "c")]
    assert all("73" in pair.instruction and "scanner" not in pair.instruction for pair in pairs)
    # As difference, 72.8 to 73.9 is one year and 72.1 to 73.9 two; as decade, nothing has changed.
    assert ["1 year" in p.instruction for p in edit_pairs(cohort_of(*visits), age="difference")] == [True, False, True]
    with pytest.raises(DataError, match="3 images of 1 subjects.*3 pairs.*written as 'decade'.*'stage'"):
        edit_pairs(cohort_of(*visits), age="decade")
    # What one of the two images lacks is not known to have changed.
    half = cohort_of(("a", "s", {"days": 0, "age": 70}), ("b", "s", {"days": 800, "age": 72, "stage": "AD"}))
    assert "Alzheimer" not in edit_pairs(half)[0].instruction


def test_layout_of_nih_chestxray14(table: Table) -> None:
    cohort = Cohort.open(table(NIH))
    # Half a year: of ages in whole years only those that differ; the same findings in another order are no change.
    (pair,) = edit_pairs(cohort, modality="xray")
    assert (pair.source.key, pair.target.key) == ("images/8_000.png", "images/8_001.png")
    assert "42" in pair.instruction
    assert "effusion" not in pair.instruction
    # No least time: in the order of the follow-ups, not of their letters, and never from PA to AP.
    pairs = edit_pairs(cohort, modality="xray", min_years=0)
    assert [(source, target) for source, target, _ in said(pairs)] == [
        ("7_000", "7_002"), ("7_000", "7_010"), ("7_002", "7_010"), ("8_000", "8_001")
    ]  # fmt: skip
    assert "a pleural effusion" in pairs[0].instruction
    assert "mass" in pairs[2].instruction
    assert "effusion" not in pairs[2].instruction
    backwards = edit_pairs(cohort, modality="xray", min_years=0, both_ways=True)[1]
    assert backwards.target.key == "images/7_000.png"
    assert any(word in backwards.instruction for word in ("remove the", "without the", "away the"))


def test_slices_pair_with_the_same_cut() -> None:
    slices = [
        (f"images/s_{visit}_axial{cut}.png", "s", {"days": 400 * visit, "age": 70 + visit, "visit": visit})
        for visit in (0, 1)
        for cut in ("-10", "+0", "+12.5")
        if (visit, cut) != (0, "-10")
    ]
    cohort = Cohort(
        [Record(Path(key), subject, f"v{attributes['visit']}", attributes, key) for key, subject, attributes in slices],
        Path("nowhere"),
        "slices",
    )
    pairs = edit_pairs(cohort)
    assert [(pair.source.key[-8:], pair.target.key[-8:]) for pair in pairs] == [
        ("al+0.png", "al+0.png"), ("12.5.png", "12.5.png")
    ]  # fmt: skip
    assert set(pairs[0].source.attributes) == {"days", "age", "visit"}


def test_the_truth_of_a_simulation(brains: Cohort) -> None:
    pairs = edit_pairs(brains)
    assert pairs == edit_pairs(brains, kind="truth")
    assert len(pairs) == 2 * len(brains)
    assert {pair.source.key for pair in pairs} == {record.key for record in brains}
    for pair in pairs:
        source, target = pair.source, pair.target
        assert (target.subject, target.session) == (source.subject, source.session)
        assert target.image == brains.root / target.key
        assert dict(target.attributes) == {**source.attributes, "diagnosis": target.attributes["diagnosis"]}
        assert {source.attributes["diagnosis"], target.attributes["diagnosis"]} < set(DIAGNOSES)
        assert "age" not in pair.instruction.replace("image", "")
    assert len({pair.target.key for pair in pairs}) == len(pairs)
    # The picture is the person's under that diagnosis, at that visit.
    pair = next(pair for pair in pairs if pair.source.session == "visit-3")
    expected = true_counterfactual(brains.root, pair.source, str(pair.target.attributes["diagnosis"]))
    np.testing.assert_allclose(read_array(pair.target.image), expected, atol=0.5 / 255 + 1e-6)
    assert len(edit_pairs(brains, kind="truth", both_ways=True)) == 4 * len(brains)


def test_the_truth_of_chests_has_a_finding(tmp_path: Path) -> None:
    cohort = simulate_cohort(tmp_path / "chests", subjects=4, seed=1, size=32, kind="chest")
    pairs = edit_pairs(cohort, modality="xray", attribute="sex")
    assert len(pairs) == 12
    healthy = next(r for r in cohort if r.attributes["finding"] == "NoFinding")
    from_healthy = [pair for pair in pairs if pair.source is healthy]
    assert {str(pair.target.attributes["finding"]) for pair in from_healthy} == {
        "Cardiomegaly", "Effusion", "Pneumonia"
    }  # fmt: skip
    assert all(str(p.target.attributes["finding"]).lower() in p.instruction for p in from_healthy)
    part = Cohort.open(cohort.root, columns=["age"])
    with pytest.raises(DataError, match="has no 'finding'.*Open the cohort with that column"):
        edit_pairs(part, modality="xray")


def test_a_cohort_with_some_truth_and_one_without(brains: Cohort, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(brains.root, root)
    kept = next(record for record in brains if record.attributes["diagnosis"] != "AD")
    for path in (root / "truth").iterdir():
        if path.name != f"{Path(kept.key).stem}_AD.png":
            path.unlink()
    cohort = Cohort.open(root)
    (pair,) = edit_pairs(cohort)
    assert (pair.source.key, pair.target.attributes["diagnosis"]) == (kept.key, "AD")
    shutil.rmtree(root / "truth")
    assert edit_pairs(cohort) == edit_pairs(cohort, kind="visits")
    with pytest.raises(DataError, match=r"18 images of 6 subjects.*truth/NAME_CLASS\.png"):
        edit_pairs(cohort, kind="truth")


def test_a_table_names_the_picture_before(
    table: Table,
    write_image: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    whole = write_image(elsewhere / "whole.png")
    write_image(elsewhere / "scans" / "near.png")
    monkeypatch.chdir(elsewhere)
    root = table(
        [
            "file_name,subject,source_file,diagnosis,age,instruction",
            f"images/a.png,s1,{whole},AD,70,",
            "images/b.png,s2,scans/near.png,CN,71,heal it",
            "images/c.png,s3,before/c.png,MCI,72,",
            "images/d.png,s4,images/e.png,AD,73,",
            "images/e.png,s4,,CN,73,",
        ]
    )
    write_image(root / "before" / "c.png")
    cohort = Cohort.open(root, missing="keep", label="diagnosis")
    pairs = edit_pairs(cohort)
    assert [pair.target.key for pair in pairs] == [f"images/{name}.png" for name in "abcd"]
    assert [pair.source.image.resolve() for pair in pairs] == [
        whole, elsewhere / "scans" / "near.png", root / "before" / "c.png", root / "images" / "e.png"
    ]  # fmt: skip
    assert pairs[0].source.attributes == {}
    assert pairs[0].source.subject == "s1"
    assert pairs[0].source.key == Path(os.path.relpath(whole, root)).as_posix()
    assert pairs[2].source.key == "before/c.png"
    assert "Alzheimer's disease" in pairs[0].instruction
    assert pairs[1].instruction == "heal it"
    assert "mild cognitive impairment" in pairs[2].instruction
    assert pairs[3].source is cohort[4]
    assert "Alzheimer's disease" in pairs[3].instruction
    assert all("7" not in pair.instruction for pair in pairs)
    with pytest.raises(ConfigurationError, match="both_ways"):
        edit_pairs(cohort, both_ways=True)


def test_a_folder_of_counterfactuals(
    table: Table,
    write_image: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    working = tmp_path_factory.mktemp("working")
    before = write_image(working / "a.png", level=3)
    monkeypatch.chdir(working)
    root = table(["file_name,source_file,age,prompt", "a.png,a.png,80,a brain"])
    # The edit of a.png is called a.png as well; it is not its own source.
    (pair,) = edit_pairs(Cohort.open(root))
    assert pair.source.image.resolve() == before
    assert pair.source.key != pair.target.key
    assert "80" in pair.instruction
    # A source that was moved, or is a scan, is stood in for by the copy beside the edit.
    before.unlink()
    with pytest.raises(DataError, match=r"a\.png: its source_file 'a\.png' cannot be used \(there is no such file"):
        edit_pairs(Cohort.open(root))
    copy = write_image(root / "a-source.png", level=3)
    assert edit_pairs(Cohort.open(root))[0].source.image == copy
    (working / "a.png").write_bytes(b"no picture")
    assert edit_pairs(Cohort.open(root))[0].source.image == copy
    copy.unlink()
    with pytest.raises(DataError, match=r"its source_file 'a\.png' cannot be used.*Write a picture's path"):
        edit_pairs(Cohort.open(root))


def test_a_source_in_two_places_is_refused(
    table: Table,
    write_image: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    working = tmp_path_factory.mktemp("working")
    root = table(["file_name,source_file,stage", "images/a.png,x.png,AD"])
    write_image(root / "x.png", level=1)
    write_image(working / "x.png", level=2)
    monkeypatch.chdir(working)
    with pytest.raises(DataError, match=r"images/a\.png: its source_file 'x\.png' is in .*two different files"):
        edit_pairs(Cohort.open(root))
    monkeypatch.chdir(root)
    assert edit_pairs(Cohort.open(root))[0].source.image.resolve() == root / "x.png"


def test_a_table_that_says_nothing(table: Table, write_image: Callable[..., Path]) -> None:
    root = table(["file_name,source_file", "images/a.png,x.png"])
    write_image(root / "x.png")
    with pytest.raises(DataError, match=r"images/a\.png has neither a class nor an age.*'instruction'"):
        edit_pairs(Cohort.open(root))
    with pytest.raises(DataError, match="no column 'source_file'"):
        edit_pairs(Cohort.open(root, columns=[]), kind="table")


def test_cohorts_without_pairs_say_what_would_help(toy_cohort: Path) -> None:
    cohort = Cohort.open(toy_cohort)
    # Two images of one age and no session: nobody knows which is the later.
    with pytest.raises(DataError, match="40 images of 20 subjects.*two visits of known time.*source_file"):
        edit_pairs(cohort, min_years=0)
    with pytest.raises(DataError, match="2 images of 1 subjects.*Widen the limits.*the same view.*min_years=0"):
        edit_pairs(cohort_of(("a", "s", {"age": 70, "view": "PA"}), ("b", "s", {"age": 70, "view": "PA"})))
    unnamed = Cohort([Record(Path("a.png")), Record(Path("b.png"))], Path("nowhere"), "toy")
    with pytest.raises(DataError, match="2 images of unknown subjects"):
        edit_pairs(unnamed)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"kind": "visit"}, UnknownNameError, "Did you mean 'visits'"),
        ({"attribute": "stag"}, UnknownNameError, "Did you mean 'stage'"),
        ({"modality": "ct"}, UnknownNameError, "modality"),
        ({"style": "poem"}, UnknownNameError, "style of instructions"),
        ({"age": "years"}, ConfigurationError, "no age style 'years'"),
        ({"min_years": 3, "max_years": 2}, ConfigurationError, "3 to 2"),
        ({"min_years": math.nan}, ConfigurationError, "nan"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object], error: type[Exception], message: str) -> None:
    cohort = cohort_of(("a", "s", {"age": 70, "stage": "CN"}), ("b", "s", {"age": 73, "stage": "AD"}))
    with pytest.raises(error, match=message):
        edit_pairs(cohort, **settings)  # type: ignore[arg-type]


def test_the_class_can_be_named() -> None:
    cohort = cohort_of(
        ("a", "s", {"days": 0, "grade": "I", "stage": "CN"}), ("b", "s", {"days": 400, "grade": "III", "stage": "AD"})
    )
    assert "Alzheimer" in edit_pairs(cohort)[0].instruction
    named = edit_pairs(cohort, attribute="grade")[0].instruction
    assert "III" in named
    assert "Alzheimer" not in named


def test_an_age_that_is_no_number_names_the_image() -> None:
    cohort = cohort_of(("a", "s", {"days": 0, "age": "80+"}), ("b", "s", {"days": 400, "age": "90+"}))
    with pytest.raises(DataError, match="^b: The age '80\\+' cannot be written.*without that column"):
        edit_pairs(cohort)
