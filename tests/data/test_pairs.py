from __future__ import annotations

import itertools
import math
import pickle
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentdrift.data import Cohort, Record
from latentdrift.data.pairs import Pair, longitudinal_pairs
from latentdrift.data.records import Value
from latentdrift.data.scan import Scan
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError


def record(key: str, subject: str | None, session: str | None, **attributes: Value) -> Record:
    return Record(Path(f"{key}.png"), subject, session, attributes, key)


def keys(pairs: list[Pair[Record]]) -> list[tuple[str, str]]:
    return [(pair.earlier.key, pair.later.key) for pair in pairs]


# Two people: the first is seen five times in ten years and becomes ill, the second twice.
VISITS = [
    record("a3", "s1", "v3", days=1461, age=74.0, stage="MCI", sex="F"),
    record("a1", "s1", "v1", days=0, age=70.0, stage="CN", sex="F"),
    record("a2", "s1", "v2", days=100, age=70.27, stage="CN", sex="F"),
    record("a5", "s1", "v10", days=3653, age=80.0, stage="AD", sex="F"),
    record("a4", "s1", "v9", days=2922, age=78.0, stage="AD", sex="F"),
    record("b2", "s2", "v2", days=1096, age=63.0, stage="CN", sex="M", lesions=2),
    record("b1", "s2", "v1", days=365, age=61.0, stage="CN", sex="M"),
    record("c1", "s3", "v1", days=0, age=50.0, stage="CN", sex="M"),
    record("d1", None, "v1", days=0, age=50.0, stage="CN", sex="M"),
]


def test_first_and_last_visit() -> None:
    pairs = longitudinal_pairs(VISITS)
    assert keys(pairs) == [("a1", "a5"), ("b1", "b2")]
    first, second = pairs
    assert first.years == pytest.approx(3653 / 365.25)
    assert first.measured == "days"
    assert dict(first.changed) == {"age": (70.0, 80.0), "stage": ("CN", "AD")}
    assert dict(second.changed) == {"age": (61.0, 63.0), "lesions": (None, 2)}


def test_policies_and_limits() -> None:
    assert keys(longitudinal_pairs(VISITS, policy="consecutive")) == [
        ("a2", "a3"), ("a3", "a4"), ("a4", "a5"), ("b1", "b2")
    ]  # fmt: skip
    everything = longitudinal_pairs(VISITS, policy="all", min_years=0)
    assert len(everything) == math.comb(5, 2) + 1
    assert all(pair.years > 0 for pair in everything)
    # Within limits that forbid the first and the last visit, the longest that is left.
    assert keys(longitudinal_pairs(VISITS, max_years=7)) == [("a3", "a5"), ("b1", "b2")]
    assert keys(longitudinal_pairs(VISITS, min_years=4, max_years=4)) == [("a1", "a3")]
    assert keys(longitudinal_pairs(VISITS, min_years=0, policy="consecutive"))[0] == ("a1", "a2")


def test_same_attributes_pair_like_with_like() -> None:
    views = [
        record("f1", "s1", "v1", age=60, view="PA", position=0),
        record("l1", "s1", "v1", age=60, view="Lateral", position=0),
        record("f2", "s1", "v2", age=63, view="PA", position=0),
        record("l3", "s1", "v3", age=65, view="Lateral", position=0),
    ]
    assert keys(longitudinal_pairs(views, same_attributes=("view",))) == [("l1", "l3"), ("f1", "f2")]
    pair = longitudinal_pairs(views)[0]
    assert (pair.earlier.key, pair.later.key, pair.years, pair.measured) == ("f1", "l3", 5, "age")


def test_several_images_of_a_session_are_one_visit() -> None:
    slices = [record(f"v{v}-slice{s}", "s1", f"v{v}", days=v * 400, slice=s) for v in (1, 2) for s in (10, 9)]
    assert keys(longitudinal_pairs(slices, policy="all")) == [("v1-slice9", "v2-slice9")]
    assert len(longitudinal_pairs(slices, policy="all", same_attributes=("slice",))) == 2


def test_time_is_days_then_dates_then_age() -> None:
    dated = [record(str(y), "s", str(y), scan_date=f"{y}-03-01", age=70) for y in (2004, 2008)]
    (pair,) = longitudinal_pairs(dated)
    assert (pair.measured, pair.years) == ("scan_date", 1461 / 365.25)
    # Days are not used where one visit lacks them.
    (pair,) = longitudinal_pairs([record("1", "s", "1", days=3, age=70), record("2", "s", "2", age=72.5)])
    assert (pair.measured, pair.years) == ("age", 2.5)
    with pytest.raises(DataError, match="scan_date is 'soon'"):
        longitudinal_pairs([*dated, record("x", "s", "x", scan_date="soon")])


def test_scans_of_a_source_are_paired_too() -> None:
    scans = [
        Scan(f"{d}.nii", (Path(f"{d}.nii"),), "OAS30001", f"d{d}", {"days": d, "stage": "CN"}) for d in (129, 1129)
    ]
    (pair,) = longitudinal_pairs(scans)
    assert (pair.earlier, pair.later, pair.changed) == (*scans, {})
    assert pickle.loads(pickle.dumps(pair)) == pair
    assert len({pair, pickle.loads(pickle.dumps(pair))}) == 1


def test_nothing_to_pair_says_why() -> None:
    with pytest.raises(DataError, match=r"None of 1 subjects \(2 images\) has two visits"):
        longitudinal_pairs(VISITS[-2:])
    with pytest.raises(DataError, match="has two visits"):
        longitudinal_pairs([record("1", "s", "1"), record("2", "s", "2")])
    with pytest.raises(DataError, match=r"20 to inf years apart; the times between are 0\.27 to 10\.00 years"):
        longitudinal_pairs(VISITS, min_years=20)
    with pytest.raises(DataError, match="None of 0 subjects"):
        longitudinal_pairs(list[Record]())
    for low, high in ((2, 1), (-1, 1), (math.nan, 1)):
        with pytest.raises(ConfigurationError, match="years between"):
            longitudinal_pairs(VISITS, min_years=low, max_years=high)
    with pytest.raises(UnknownNameError, match="'first-last'"):
        longitudinal_pairs(VISITS, policy="first_last")
    with pytest.raises(UnknownNameError, match="'stage'"):
        longitudinal_pairs(VISITS, same_attributes=("stages",))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 4000)), min_size=2, max_size=14, unique=True),
    st.floats(0, 3),
    st.floats(3, 8),
    st.randoms(use_true_random=False),
)
def test_all_pairs_are_those_of_a_plain_double_loop(
    visits: list[tuple[str, int]], low: float, high: float, rng: random.Random
) -> None:
    records = [record(f"{who}{day}", who, f"d{day}", days=day) for who, day in visits]
    expected = {
        (a.key, b.key)
        for a, b in itertools.permutations(records, 2)
        if a.subject == b.subject
        and float(b.attributes["days"]) - float(a.attributes["days"]) > 0
        and low <= (float(b.attributes["days"]) - float(a.attributes["days"])) / 365.25 <= high
    }
    try:
        found = longitudinal_pairs(records, min_years=low, max_years=high, policy="all")
    except DataError:
        assert not expected
        return
    assert set(keys(found)) == expected
    shuffled = rng.sample(records, len(records))
    assert longitudinal_pairs(shuffled, min_years=low, max_years=high, policy="all") == found
    longest = longitudinal_pairs(shuffled, min_years=low, max_years=high)
    for pair in longest:
        assert pair.years >= max(other.years for other in found if other.earlier.subject == pair.earlier.subject) - 1e-9


def test_a_split_keeps_both_visits_in_one_part() -> None:
    records = [
        record(f"s{s}v{v}", f"s{s}", f"v{v}", age=60 + s % 9 + 2 * v, stage=("CN", "AD")[(s + v) % 2])
        for s in range(40)
        for v in range(2)
    ]
    cohort = Cohort(records, Path("."), "visits", "stage")
    whole = longitudinal_pairs(cohort)
    assert len(whole) == 40
    for seed in range(3):
        parts = cohort.split(seed=seed)
        paired = [longitudinal_pairs(part) for part in parts.values()]
        assert sum(map(len, paired)) == len(whole)
        assert {pair.earlier.subject for pairs in paired for pair in pairs} == {f"s{s}" for s in range(40)}
