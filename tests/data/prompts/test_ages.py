from __future__ import annotations

import pytest

from latentdrift.data import PromptTemplate
from latentdrift.data.prompts.ages import AgeSpec, number_words, with_style
from latentdrift.errors import ConfigurationError, DataError

UNITS = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16,
    "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50,
    "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip


def read_number(words: str) -> int:
    """The other way round, by adding and multiplying as one reads."""
    total = 0
    for word in words.replace("-", " ").replace(" and ", " ").split():
        total = total * 100 if word == "hundred" else total + UNITS[word]
    return total


def test_numbers_in_words_can_be_read_back() -> None:
    found = [number_words(number) for number in range(1000)]
    assert [read_number(words) for words in found] == list(range(1000))
    assert len(set(found)) == 1000
    assert found[40] == "forty"
    assert found[74] == "seventy-four"
    assert found[115] == "one hundred and fifteen"
    for number in (-1, 1000):
        with pytest.raises(DataError, match="0 to 999"):
            number_words(number)


@pytest.mark.parametrize(
    ("spec", "age", "text"),
    [
        ("number", 74, "74"),
        ("number", 79.6, "79"),
        ("words", 79.6, "seventy-nine"),
        ("decade", 79.6, "seventies"),
        ("bin", 79.6, "70 to 79"),
        ("bin10", 80, "80 to 89"),
        ("bin5", 74, "70 to 74"),
        ("bin5", 75, "75 to 79"),
        ("bin1", 74, "74"),
        ("years", 74, "74 years old"),
        ("years", 1, "1 year old"),
        ("years-words", 1.9, "one year old"),
        ("years-words", 0, "zero years old"),
        ("years-decade", 74, "in the seventies"),
        ("years-bin5", 74, "70 to 74 years old"),
        ("year-old", 74, "74-year-old"),
        ("year-old-words", 102, "one-hundred-and-two-year-old"),
        ("year-old-decade", 74, "seventy-something"),
        ("year-old-decade", 15, "teenage"),
        ("year-old-decade", 9, "under-ten"),
        ("year-old-decade", 104, "hundred-something"),
        ("year-old-bin", 74, "70-to-79-year-old"),
        ("at", 74, "at age 74"),
        ("at-words", 74, "at age seventy-four"),
        ("at-decade", 15, "in the teens"),
        ("decade", 45, "forties"),
        ("decade", 9, "first decade"),
        ("decade", 100, "hundreds"),
        ("number", "074", "74"),
    ],
)
def test_ages(spec: str, age: float | str, text: str) -> None:
    found = AgeSpec.parse(spec)
    assert found is not None
    assert found.write(age) == text
    assert PromptTemplate(f"a brain, {{age:{spec}}}").caption({"age": age}) == f"a brain, {text}"


@pytest.mark.parametrize("width", [3, 5, 10, 20])
def test_bins_meet_without_a_gap(width: int) -> None:
    spec = AgeSpec.parse(f"bin{width}")
    assert spec is not None
    for age in range(121):
        low, high = map(int, spec.write(age).split(" to "))
        assert low <= age <= high
        assert high - low + 1 == width
        assert low % width == 0


def test_every_age_has_its_own_number_and_word() -> None:
    for spec in ("number", "words", "years", "at-words", "year-old"):
        found = AgeSpec.parse(spec)
        assert found is not None
        assert len({found.write(age) for age in range(121)}) == 121


@pytest.mark.parametrize("age", [-1, 151, float("nan"), float("inf"), "old", ""])
def test_what_is_no_age(age: float | str) -> None:
    spec = AgeSpec.parse("number")
    assert spec is not None
    with pytest.raises(DataError, match="no number of years from 0 to 150"):
        spec.write(age)


def test_other_specifications_are_left_to_python() -> None:
    assert AgeSpec.parse(".1f") is None
    assert AgeSpec.parse("binary") is None
    assert PromptTemplate("{age:.1f}").caption({"age": 74.26}) == "74.3"
    with pytest.raises(ConfigurationError, match="at least bin1"):
        AgeSpec.parse("bin0")
    with pytest.raises(DataError, match=r"cannot write 'age' = 74 as 'deacde'"):
        PromptTemplate("{age:deacde}").caption({"age": 74})
    with pytest.raises(DataError, match=r"The prompt 'x \{age:words\}' cannot write 'age'.*'many'"):
        PromptTemplate("x {age:words}").caption({"age": "many"})


def test_a_style_goes_to_forms_that_name_none() -> None:
    assert with_style("years", "words") == "years-words"
    assert with_style("years-bin5", "words") == "years-bin5"
    assert with_style("", "words") == ""
