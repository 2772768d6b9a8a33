"""Pages stand alone, escape what they are given, and say that images are synthetic."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from latentdrift.errors import DataError
from latentdrift.report import Notice, Picture, Repeat, Section, Table, image_grid, write_page
from latentdrift.report.page import STATEMENT, render_text

NASTY = "<script>alert('x')</script> & \"quotes\""


class Reader(HTMLParser):
    """Collects tags, references and text; complains about tags that do not match."""

    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.references += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "action", "data"}]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    assert reader.open == []
    return reader


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return image_grid(tmp_path / "grid.png", [[np.zeros((8, 8), dtype=np.uint8)]])


def full(picture: Path) -> list[Section]:
    return [
        Section("What", ["First *words*.\n\n- one\n- two", Picture(picture, "A grid")]),
        Section("Figures", [Table([{"a": 1.23456, "b": "x"}, {"a": 2, "c": None}], "a table"), Notice(["mind this"])]),
        Section("How to repeat it", [Repeat(["latentdrift demo --out runs/demo"], settings={"seed": 3})]),
    ]


def test_page_stands_alone(tmp_path: Path, picture: Path) -> None:
    path = write_page(tmp_path / "out" / "page.html", "Title", full(picture), summary="short")
    picture_bytes = picture.read_bytes()
    picture.unlink()
    html, reader = path.read_text(encoding="utf-8"), read(path)
    assert reader.references
    assert all(ref.startswith(("data:image/png;base64,", "#")) for ref in reader.references)
    assert not re.search(r"https?://|url\(|@import|<link|<script", html)
    embedded = next(ref for ref in reader.references if ref.startswith("data:"))
    assert base64.b64decode(embedded.split(",")[1]) == picture_bytes
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]


def test_page_says_what_it_must(tmp_path: Path, picture: Path) -> None:
    path = write_page(tmp_path / "page.html", "Title", full(picture))
    text = read(path).text
    for words in (STATEMENT, "Title", "A grid", "1.235", "–", "mind this", "latentdrift demo", "seed: 3", "python 3."):
        assert words in text
    assert STATEMENT in read(write_page(tmp_path / "empty.html", "Nothing", [])).text
    assert "prefers-color-scheme: dark" in path.read_text()


def test_everything_is_escaped(tmp_path: Path, picture: Path) -> None:
    sections = [
        Section(NASTY, [NASTY, f"`{NASTY}`", f"- {NASTY}", Picture(picture, NASTY, NASTY)]),
        Section("t", [Table([{NASTY: NASTY}], NASTY), Notice([NASTY], NASTY)]),
        Section("r", [Repeat([NASTY], {NASTY: NASTY}, {NASTY: NASTY})]),
    ]
    path = write_page(tmp_path / "page.html", NASTY, sections, summary=NASTY)
    reader = read(path)
    assert "script" not in reader.tags
    assert reader.text.count("alert('x')") >= 14
    assert ("alt", NASTY) in reader.attributes


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("one\n\ntwo", "<p>one</p>\n<p>two</p>"),
        ("**a** *b* `*c*`", "<p><strong>a</strong> <em>b</em> <code>*c*</code></p>"),
        ("2 * 3 * 4", "<p>2 * 3 * 4</p>"),
        ("list:\n- a\n  more\n- b", "<p>list:</p>\n<ul><li>a\n  more</li><li>b</li></ul>"),
        ("<b>", "<p>&lt;b&gt;</p>"),
        ("", ""),
    ],
)
def test_light_markdown(text: str, html: str) -> None:
    assert str(render_text(text)) == html


def test_numbers_stand_right_and_missing_cells_are_marked(tmp_path: Path) -> None:
    path = write_page(tmp_path / "page.html", "t", [Section("s", [Table([{"a": 0.000123456, "b": True}, {"c": "x"}])])])
    html = path.read_text()
    assert '<td class="number">0.0001235</td><td>True</td><td>–</td>' in html
    assert "<td>–</td><td>–</td><td>x</td>" in html


def test_pictures_that_cannot_be_shown_are_named(tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    with pytest.raises(DataError, match=r"missing\.png cannot be put"):
        write_page(out, "t", [Section("s", [Picture(tmp_path / "missing.png")])])
    with pytest.raises(DataError, match="no PNG"):
        write_page(out, "t", [Section("s", [Picture(b"<svg onload=x>")])])
    with pytest.raises(DataError, match="'int'"):
        write_page(out, "t", [Section("s", [3])])  # type: ignore[list-item]
    assert not list(tmp_path.iterdir())


def test_no_warnings_no_box(tmp_path: Path) -> None:
    assert "Take care" not in write_page(tmp_path / "p.html", "t", [Section("s", [Notice([])])]).read_text()
