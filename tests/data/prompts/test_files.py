from __future__ import annotations

import re
from pathlib import Path

import pytest

from latentdrift.data.prompts import as_template, read_template_file
from latentdrift.data.prompts.files import MODALITIES, shipped
from latentdrift.errors import ConfigurationError, UnknownNameError

YAML = """
# ours
attribute: group
wordings:
  - "a scan of a(n) {class} brain[, {age:years}]"
  - {class} on MRI
words:
  class:
    P: [patient, diseased]
    C:
      words: [control]
      also: [NO, 0.5]
  sex:
    F: [feminine]
"""
TOML = """
attribute = "group"
wordings = ["a scan of a(n) {class} brain[, {age:years}]", "{class} on MRI"]
[words.class]
P = ["patient", "diseased"]
C = {words = ["control"], also = ["NO", "0.5"]}
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.yaml", YAML.replace("- {class}", "- '{class}").replace("on MRI", "on MRI'")), ("a.toml", TOML)],
)
def test_yaml_and_toml_say_the_same(tmp_path: Path, name: str, text: str) -> None:
    template = as_template(write(tmp_path, name, text))
    assert template.texts == ("a scan of a(n) {group} brain[, {age:years-number}]", "{group} on MRI")
    known = {"group": "P", "age": 80}
    assert template.caption(known) == "a scan of a patient brain, 80 years old"
    # A wording says the same class in the same words, for everyone.
    captions = {template.caption(known, key=str(i)) for i in range(40)}
    assert captions == {"a scan of a patient brain, 80 years old", "diseased on MRI"}
    assert template.caption({"group": "NO"}) == template.caption({"group": 0.5}) == "a scan of a control brain"
    assert as_template(str(write(tmp_path, name, text)), attribute="arm", age="bin").texts[0] == (
        "a scan of a(n) {arm} brain[, {age:years-bin}]"
    )


def test_text_file(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", "# two wordings\n\na {stage} brain\n  an MRI of a {stage} brain[, {sex}]\n")
    template = as_template(path)
    assert template.texts == ("a {stage} brain", "an MRI of a {stage} brain[, {sex}]")
    with pytest.raises(ConfigurationError, match=r"b\.txt, line 3 \(1\).*malformed"):
        read_template_file(write(tmp_path, "b.txt", "a {x}\n\nb {\n"))


def test_wordings_a_class(tmp_path: Path) -> None:
    text = "attribute: dx\nwordings:\n  CN:\n    - a healthy brain\n    - a normal brain[, {sex}]\n  AD: an old brain\n"
    template = as_template(write(tmp_path, "a.yaml", text))
    assert template.caption({"dx": "AD", "sex": "F"}) == "an old brain"
    assert {template.caption({"dx": "CN"}, key=str(i)) for i in range(30)} == {"a healthy brain", "a normal brain"}
    assert template.required_names == ("dx",)
    with pytest.raises(Exception, match=r"no text for dx = 'MCI' \(it has: CN, AD\)"):
        template.caption({"dx": "MCI"})


def test_a_file_can_extend_a_shipped_one(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "extends: mri\nwords:\n  class:\n    AD: [demented]\n    FTD: [frontotemporal]\n")
    template = as_template(path)
    assert len(template.texts) == 21
    assert template.caption({"diagnosis": "AD"}) == "an MRI of a demented brain"
    assert template.caption({"diagnosis": "FTD"}) == "an MRI of a frontotemporal brain"
    assert template.caption({"diagnosis": "CN"}) == "an MRI of a cognitively normal brain"


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("wordings:\n  - a {x}\n  - b {x\n", ConfigurationError, "a.yaml, line 3 (wordings.1)"),
        (
            "wordings:\n  - a {x}\n  - a {x}\n",
            ConfigurationError,
            "a.yaml, line 3 (wordings.1): 'a {x}' is there twice",
        ),
        (
            "wordings:\n  - a\nwording:\n  - b\n",
            UnknownNameError,
            "a.yaml, line 3 (wording), called 'wording'. Did you mean",
        ),
        ("wordings:\n  - [a]\n", ConfigurationError, "a.yaml, line 2 (wordings.0) is no text"),
        ("wordings: []\n", ConfigurationError, "a.yaml, line 1 (wordings) is no list"),
        ("wordings:\n  - ''\n", ConfigurationError, "line 2 (wordings.0) is no text"),
        ("words:\n  class:\n    AD: {noun: x}\n", ConfigurationError, "line 3 (words.class.AD) has no words"),
        ("words:\n  class:\n    AD: {words: x, other: y}\n", UnknownNameError, "line 3 (words.class.AD.other)"),
        ("words:\n  class:\n    AD: {words: x, nothing: perhaps}\n", ConfigurationError, "nothing) is 'perhaps'"),
        ("words: [a]\n", ConfigurationError, "line 1 (words) holds no `name: value` lines"),
        ("wordings: [a]\nwordings: [b]\n", ConfigurationError, "line 2: 'wordings' is there twice"),
        ("extends: ct\n", UnknownNameError, "line 1 (extends)"),
        ("attribute: a b\nwordings: [a]\n", ConfigurationError, "'a b' is no attribute's name"),
        ("instructions: {shout: {age: [x]}}\n", UnknownNameError, "style of instructions"),
        ("instructions: {command: {edge: [x]}}\n", UnknownNameError, "Did you mean 'age'"),
        ("attribute: x\n", ConfigurationError, "holds no wordings, words or instructions"),
        ("a: &a [x]\nwordings: *a\n", ConfigurationError, "line 1: parts cannot be referred to"),
        ("wordings: [a\n", ConfigurationError, "is no YAML"),
        ("? [a]\n: b\n", ConfigurationError, "line 1: a key is no text"),
        ("", ConfigurationError, "is empty"),
        ("[" * 3000, ConfigurationError, "is no YAML"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=re.escape(says)):
        read_template_file(write(tmp_path, "a.yaml", text))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        as_template(tmp_path / "missing.yaml")
    with pytest.raises(ConfigurationError, match="ends in none of"):
        read_template_file(write(tmp_path, "a.doc", "x"))
    with pytest.raises(ConfigurationError, match="is no TOML"):
        read_template_file(write(tmp_path, "a.toml", "x = "))
    with pytest.raises(ConfigurationError, match=r"a\.toml \(wordings\.0\).*malformed"):
        read_template_file(write(tmp_path, "a.toml", 'wordings = ["{"]'))
    with pytest.raises(ConfigurationError, match="larger than"):
        read_template_file(write(tmp_path, "a.txt", "x\n" * 600_000))
    with pytest.raises(ConfigurationError, match="holds no wording"):
        read_template_file(write(tmp_path, "a.txt", "# nothing\n"))
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_template_file(tmp_path / "b.txt")


def test_entities_do_not_multiply(tmp_path: Path) -> None:
    bomb = "a: &a [x, x]\n" + "".join(
        f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefghijk", "bcdefghijkl", strict=True)
    )
    with pytest.raises(ConfigurationError, match="cannot be referred to"):
        read_template_file(write(tmp_path, "a.yaml", bomb))


@pytest.mark.parametrize("modality", MODALITIES)
def test_shipped_files(modality: str) -> None:
    file = shipped(modality)
    assert len(file.wordings) == 21
    assert set(file.instructions) == {"command", "question"}
