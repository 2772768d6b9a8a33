"""Means over seeds, intervals, differences to the control, and the tables made of them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from scipy import stats

from latentdrift.benchmark.data import BenchmarkData
from latentdrift.benchmark.plan import Benchmark, BenchmarkConfig, Cell, Column, Figures, Row, in_words
from latentdrift.benchmark.runner import Measured
from latentdrift.benchmark.summary import mean_over_seeds, summarise
from latentdrift.benchmark.tables import csv_text, escaped, latex, markdown, table_rows

NONE, AUTO = {"method": "basic", "drift": "none"}, {"method": "basic", "drift": "auto"}


class Toy(Benchmark):
    """Two rows."""

    columns = (
        Column("FID", "fid"),
        Column("KID × 1000", "kid", scale=1000, digits=2),
        Column("tone", "tone", better=None),
    )
    name = "toy"

    def rows(self, data: BenchmarkData) -> Iterator[tuple[Row, dict[str, Any]]]:
        yield NONE, {"drift": "none"}
        yield AUTO, {"drift": "auto"}

    def control(self, row: Row) -> Row | None:
        return NONE if row == AUTO else None

    def measure(self, settings: Mapping[str, Any], seed: int, workshop: Any) -> Figures:
        raise NotImplementedError

    def published(self, data: BenchmarkData) -> list[tuple[Row, dict[str, float]]]:
        return [(AUTO, {"FID": 49.68})]


def cell(row: Row, seed: int, **figures: Any) -> Measured:
    plain = {
        name: {"value": value} if isinstance(value, float) else dict(zip(("value", "low", "high"), value, strict=True))
        for name, value in figures.items()
    }
    return Measured(Cell(row, {}, seed), plain, {"seconds": 1.0})


@pytest.fixture
def found() -> list[Measured]:
    return [
        cell(NONE, 0, fid=(60.0, 55.0, 66.0), kid=0.08, tone=3.0),
        cell(AUTO, 0, fid=(50.0, 46.0, 55.0), kid=0.05),
        cell(NONE, 1, fid=(64.0, 59.0, 70.0), kid=0.09, tone=4.0),
        cell(AUTO, 1, fid=(52.0, 48.0, 57.0), kid=0.06),
        cell(AUTO, 2, fid=(54.0, 50.0, 59.0), kid=0.07),
    ]


def test_one_seed_keeps_its_own_interval() -> None:
    mean = mean_over_seeds([{"value": 5.0, "low": 4.0, "high": 7.0}])
    assert (mean.value, mean.low, mean.high) == (5.0, 4.0, 7.0)


def test_interval_adds_the_spread_of_seeds_by_students_t() -> None:
    mean = mean_over_seeds([{"value": 4.0, "low": 3.0, "high": 6.0}, {"value": 6.0, "low": 5.0, "high": 8.0}])
    # Deviation of 4 and 6 is √2, of their mean 1; t with one degree of freedom.
    between = stats.t.ppf(0.975, 1)
    assert mean.value == 5.0
    assert mean.low == pytest.approx(5.0 - math.hypot(1.0, between))
    assert mean.high == pytest.approx(5.0 + math.hypot(2.0, between))


def test_equal_seeds_do_not_narrow_the_interval() -> None:
    one = {"value": 5.0, "low": 4.0, "high": 7.0}
    mean = mean_over_seeds([one, one, one])
    assert (mean.low, mean.high) == (4.0, 7.0)


def test_a_figure_without_interval_stays_without() -> None:
    assert mean_over_seeds([{"value": 1.0}, {"value": 2.0}]).low is None


def test_an_interval_ends_where_the_figure_does() -> None:
    seeds = [{"value": value, "low": value - 0.05, "high": value + 0.05} for value in (0.3, 0.7)]
    wide = mean_over_seeds(seeds)
    assert wide.low is not None
    assert wide.low < 0
    mean = mean_over_seeds(seeds, (0.0, 1.0))
    assert (mean.low, mean.high) == (0.0, 1.0)
    close = [{"value": 0.5, "low": 0.4, "high": 0.6}] * 2
    assert mean_over_seeds(close, (0.0, 1.0)) == mean_over_seeds(close)


def test_differences_are_of_the_same_seed(found: list[Measured]) -> None:
    rows = summarise(Toy(BenchmarkConfig()), found)
    assert [row.row for row in rows] == [NONE, AUTO]
    plain, auto = rows
    assert plain.against is None
    assert not plain.differences
    # Seed 2 has no control, so that it takes no part.
    assert auto.differences["fid"].by_seed == (-10.0, -12.0)
    assert auto.differences["fid"].value == -11.0
    assert auto.differences["fid"].agreed
    assert auto.figures["fid"].by_seed == (50.0, 52.0, 54.0)
    assert "tone" not in auto.differences


def test_seeds_that_disagree_are_told() -> None:
    rows = summarise(
        Toy(BenchmarkConfig()),
        [cell(NONE, 0, fid=1.0), cell(AUTO, 0, fid=2.0), cell(NONE, 1, fid=3.0), cell(AUTO, 1, fid=2.0)],
    )
    assert rows[1].to_dict()["differences"]["fid"] == {"value": 0.0, "by_seed": [1.0, -1.0], "seeds_agree": False}


def test_markdown_has_figures_differences_and_the_papers(found: list[Measured]) -> None:
    plan = Toy(BenchmarkConfig())
    text = markdown(plan, BenchmarkData(), summarise(plan, found), "inception")
    head, _, plain, auto = text.splitlines()
    assert head == (
        "| method | drift | FID ↓ | KID × 1000 ↓ | tone | FID, minus control | KID × 1000, minus control | FID, paper |"
    )
    assert auto.startswith("| basic | auto | 52.0 (")
    assert auto.endswith("| – | -10.0, -12.0 | -30.00, -30.00 | 49.7 |")
    assert plain.endswith("| 3.5 | – | – | – |")


def test_published_names_are_of_inceptions_features_alone(found: list[Measured]) -> None:
    plan = Toy(BenchmarkConfig())
    head = markdown(plan, BenchmarkData(), summarise(plan, found), "efficientnet-lite0").splitlines()[0]
    assert head == (
        "| method | drift | Fréchet distance ↓ | kernel distance × 1000 ↓ | tone | Fréchet distance, minus control "
        "| kernel distance × 1000, minus control | FID, paper |"
    )


def test_a_label_says_what_a_number_counts() -> None:
    row = {"trained with": "no drift", "sampled with": "-0.1, start", "steps": "50", "latent": ""}
    assert in_words(row) == "no drift, -0.1, start, 50 steps"


def test_latex_escapes_and_closes(found: list[Measured]) -> None:
    plan = Toy(BenchmarkConfig())
    text = latex(plan, BenchmarkData(), summarise(plan, found), "inception")
    lines = text.splitlines()
    assert lines[1] == r"\begin{tabular}{llllllll}"
    assert lines[-1] == r"\end{tabular}"
    assert r"KID $\times$ 1000 $\downarrow$" in text
    assert all(line.count(" & ") == 7 for line in lines if line.endswith(r"\\"))
    assert escaped("a_b & 5 % \\ ~ #{δ}") == r"a\_b \& 5 \% \textbackslash{} \textasciitilde{} \#\{$\delta$\}"


def test_csv_is_unrounded(found: list[Measured]) -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text(summarise(Toy(BenchmarkConfig()), found)))))
    (kid,) = [row for row in rows if row["drift"] == "auto" and row["figure"] == "kid"]
    assert float(kid["value"]) == pytest.approx(0.06)
    assert [float(word) for word in kid["by_seed"].split()] == [0.05, 0.06, 0.07]
    assert kid["low"] == ""
    assert float(kid["minus_control"]) == pytest.approx(-0.03)


def test_nothing_measured_is_said() -> None:
    plan = Toy(BenchmarkConfig())
    assert table_rows(plan, BenchmarkData(), [], "inception") == []
    assert "No cell has been measured yet" in markdown(plan, BenchmarkData(), [], "inception")
