from __future__ import annotations

import random

import pytest

from latentdrift.data import PromptTemplate
from latentdrift.data.prompts.grammar import Part, article, parse, places, unparse, without_optional
from latentdrift.errors import ConfigurationError, DataError

TEXT = "an MRI of a(n) {stage} brain[ of a(n) {sex} patient[ scanned by {site}]][, {age:years}]"


@pytest.mark.parametrize(
    ("known", "caption"),
    [
        (
            {"stage": "AD", "sex": "F", "age": 81, "site": "B"},
            "an MRI of an Alzheimer's disease brain of a female patient scanned by b, 81 years old",
        ),
        ({"stage": "CN", "sex": "M"}, "an MRI of a cognitively normal brain of a male patient"),
        ({"stage": "CN", "age": 81}, "an MRI of a cognitively normal brain, 81 years old"),
        # What is nested goes with what is around it: a site without a patient says nothing.
        ({"stage": "CN", "site": "B"}, "an MRI of a cognitively normal brain"),
        ({"stage": "CN", "age": float("nan"), "sex": ""}, "an MRI of a cognitively normal brain"),
        ({"stage": "CN", "sex": "unknown"}, "an MRI of a cognitively normal brain"),
    ],
)
def test_optional_parts_go_with_their_values(known: dict[str, str | float], caption: str) -> None:
    assert PromptTemplate(TEXT).caption(known) == caption


def test_required_and_optional_names() -> None:
    template = PromptTemplate(TEXT)
    assert template.attribute_names == ("stage", "sex", "site", "age")
    assert template.required_names == ("stage",)
    with pytest.raises(DataError, match=r"needs 'stage', which the attributes lack \(age\)"):
        template.caption({"age": 3})
    with pytest.raises(DataError, match="needs 'stage'"):
        template.caption({"stage": float("nan")})


def test_escapes() -> None:
    text = "{{a}} [[b]] {x} a(nn) b(n)"
    assert PromptTemplate(text).caption({"x": "[y] {z}"}) == "{a} [b] [y] {z} a(nn) b(n)"


def test_a_value_keeps_what_looks_like_grammar() -> None:
    assert PromptTemplate("{caption}").caption({"caption": "a(n) {thing} [or two]"}) == "a(n) {thing} [or two]"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a [b {x}", "is not closed"),
        ("a b] {x}", "closes nothing"),
        ("a [b]", "holds no {place}"),
        ("a [[b] {x}", "closes nothing"),
        ("a [ [b {x}] ]", "holds no {place}"),
        ("{a", "single '{'"),
        ("a}", "single '}'"),
        ("{a{b}}", "single"),
        ("{a-b}", "place 'a-b'"),
    ],
)
def test_malformed(text: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match="template") as caught:
        PromptTemplate(text)
    assert reason in str(caught.value)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("MRI", "an"), ("MR", "an"), ("CT", "a"), ("X-ray", "an"), ("x-ray", "an"), ("T1", "a"), ("AD", "an"),
        ("EMCI", "an"), ("LMCI", "an"), ("CN", "a"), ("PET", "a"), ("healthy", "a"), ("hour", "an"), ("honest", "an"),
        ("unimpaired", "an"), ("uninfected", "an"), ("unremarkable", "an"), ("unilateral", "a"), ("uniform", "a"),
        ("usual", "a"), ("European", "a"), ("one", "a"), ("one-hundred-year-old", "a"), ("eighty-one", "an"),
        ("eleven", "an"), ("8", "an"), ("80-year-old", "an"), ("11", "an"), ("18", "an"), ("110", "a"), ("180", "a"),
        ("1", "a"), ("74", "a"), ("Alzheimer's", "an"), ("enlarged", "an"), ("early", "an"), ("male", "a"),
        ("effusion", "an"), ("opacity", "an"), ("urban", "an"), ("upper", "an"), ("", "a"),
    ],
)  # fmt: skip
def test_articles(word: str, found: str) -> None:
    assert article(word) == found
    assert PromptTemplate("A(n) {x} is a(n) {x:s} y").caption({"x": "effusion"}) == "An effusion is an effusion y"


@pytest.mark.parametrize("seed", range(20))
def test_any_text_is_parsed_or_refused_and_comes_back(seed: int) -> None:
    rng = random.Random(seed)
    pieces = ["{x}", "{y:words}", "[", "]", "[[", "]]", "{{", "}}", "{", "}", " a(n) ", "b", " ", "[, {x}]", "[{y}]"]
    parsed = 0
    for _ in range(2000):
        text = "".join(rng.choices(pieces, k=rng.randint(1, 8)))
        try:
            parts = parse(text)
        except ConfigurationError:
            continue
        parsed += 1
        check_round_trip(text, parts)
    assert 100 < parsed < 1900


def check_round_trip(text: str, parts: tuple[Part, ...]) -> None:
    assert parse(unparse(parts)) == parts
    assert not list(places(without_optional(parts))) or list(places(parts))
    values = dict.fromkeys((place.name for place in places(parts)), "v")
    plain = [place for place in places(parts) if not place.spec]
    if len(plain) == len(list(places(parts))):
        assert PromptTemplate(text).caption(values).count("v") == len(plain)
