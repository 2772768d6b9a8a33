from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from latentdrift.data.prompts import ages, grammar, instruction, instructions, read_template_file, words
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError

YOUNG = {"age": 72, "sex": "F", "diagnosis": "CN"}


@pytest.mark.parametrize(
    ("target", "style", "age", "text"),
    [
        ({"age": 82}, "command", "number", "make this brain look 82 years old"),
        ({"age": 82}, "command", "words", "make this brain look eighty-two years old"),
        ({"age": 82}, "command", "bin", "make this brain look 80 to 89 years old"),
        ({"age": 82}, "command", "difference", "make this brain 10 years older"),
        ({"age": 82}, "command", "difference-words", "make this brain ten years older"),
        ({"age": 71.5}, "command", "difference", "make this brain 1 year younger"),
        ({"age": 82}, "question", "number", "what would this brain look like at age 82?"),
        ({"age": 82}, "question", "words", "what would this brain look like at age eighty-two?"),
        ({"age": 82}, "question", "bin5", "what would this brain look like at age 80 to 84?"),
        ({"age": 82}, "question", "decade", "what would this brain look like in the eighties?"),
        ({"age": 82}, "question", "difference-words", "what would this brain look like ten years later?"),
        ({"diagnosis": "AD"}, "command", "number", "turn this into an Alzheimer's disease brain"),
        ({"diagnosis": "AD"}, "question", "number", "what would this brain look like with Alzheimer's disease?"),
        ({"sex": "M"}, "command", "number", "make this a male brain"),
        (
            {"age": 82, "diagnosis": "MCI"},
            "command",
            "number",
            "make this brain look 82 years old and turn this into a mild cognitive impairment brain",
        ),
        ({"scanner_field": 3}, "command", "number", "change the scanner field to 3"),
        ({"age": 72.0, "sex": "F"}, "command", "number", "leave this brain as it is"),
        ({"age": 72}, "question", "number", "what would this brain look like with nothing changed?"),
    ],
)
def test_brains(target: dict[str, str | float], style: str, age: str, text: str) -> None:
    assert instruction(YOUNG, target, style=style, age=age) == text


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ("No Finding", "Pleural Effusion", "add a pleural effusion"),
        ("Cardiomegaly", "No Finding", "remove the cardiomegaly"),
        ("Cardiomegaly", "Effusion", "add a pleural effusion and remove the cardiomegaly"),
        ("Cardiomegaly|Effusion", "Effusion|Cardiomegaly", "leave this chest as it is"),
        ("Cardiomegaly|Effusion", "Pleural_Effusion", "remove the cardiomegaly"),
        (
            "Enlarged Cardiomediastinum|Mass|Edema",
            "No Finding",
            "remove the enlarged cardiomediastinum, the mass and the edema",
        ),
        (None, "No Finding", "make this chest normal"),
        (None, "Lung Opacity|Strange_Thing", "add a lung opacity and strange thing"),
    ],
)
def test_chests(before: str | None, after: str, text: str) -> None:
    source = {} if before is None else {"findings": before}
    assert instruction(source, {"findings": after}, modality="xray") == text


def test_questions_about_chests() -> None:
    found = instruction({"findings": "Mass"}, {"findings": "Edema", "age": 50}, modality="xray", style="question")
    assert found == "what would this chest look like with edema and without the mass and at age 50?"


def test_wordings_are_chosen_by_the_key() -> None:
    found = [instruction(YOUNG, {"age": 82}, key=str(i)) for i in range(60)]
    assert len(set(found)) == 3
    assert found == [instruction(YOUNG, {"age": 82}, key=str(i)) for i in range(60)]
    assert found != [instruction(YOUNG, {"age": 82}, key=str(i), seed=1) for i in range(60)]
    assert all("82" in text for text in found)


def test_any_attribute_can_be_the_class() -> None:
    assert instruction({}, {"dx": "AD"}, attribute="dx") == "turn this into an Alzheimer's disease brain"
    assert instruction({}, {"dx": "AD"}) == "change the dx to Alzheimer's disease"


def test_own_wordings(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("extends: mri\ninstructions:\n  command:\n    age: ['{age:at}, please']\n    sex: ['{age}']\n")
    file = read_template_file(path)
    assert instruction(YOUNG, {"age": 82}, file=file, age="words") == "at age eighty-two, please"
    assert instruction(YOUNG, {"age": 82}, file=file, style="question").startswith("what would")
    assert instruction(YOUNG, {"diagnosis": "AD"}, file=file) == "turn this into an Alzheimer's disease brain"
    path.write_text("instructions:\n  command:\n    age: ['{age:at}, please']\n    sex: ['{age}']\n")
    file = read_template_file(path)
    with pytest.raises(ConfigurationError, match=r"no command for 'class'.*instructions\.command\.class"):
        instruction(YOUNG, {"diagnosis": "AD"}, file=file)
    with pytest.raises(ConfigurationError, match=r"has the place \{age\}; it can say \{sex\}"):
        instruction(YOUNG, {"sex": "M"}, file=file)


def test_what_cannot_be_said() -> None:
    with pytest.raises(ConfigurationError, match="only known with the source's age"):
        instruction({}, {"age": 82}, age="difference")
    with pytest.raises(UnknownNameError, match="style of instructions 'shout'"):
        instruction(YOUNG, {"age": 82}, style="shout")
    with pytest.raises(UnknownNameError, match="modality"):
        instruction(YOUNG, {"age": 82}, modality="ct")
    with pytest.raises(ConfigurationError, match="age style 'roman'"):
        instruction(YOUNG, {"age": 82}, age="roman")
    with pytest.raises(DataError, match="no number of years"):
        instruction(YOUNG, {"age": 820})


@pytest.mark.parametrize("module", [ages, grammar, instructions, words])
def test_examples_in_the_docstrings(module: object) -> None:
    found = doctest.testmod(module)  # type: ignore[arg-type]
    assert found.attempted > 0
    assert found.failed == 0
