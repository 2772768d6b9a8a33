"""The server by its requests: logins, answers kept once, no way to what one may not see."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from latentdrift.errors import ConfigurationError, DataError
from latentdrift.studio.reader_study.answers import Answer, Answers
from latentdrift.studio.reader_study.build import Built
from latentdrift.studio.reader_study.server import WRONG_CODES, make_app
from latentdrift.studio.reader_study.study import Study

GIVEN = {"rating": "5", "diagnosis": "MildDemented", "quality": "4", "comment": " odd edge ", "revision": "1"}


class Visitor:
    """A browser without scripts."""

    def __init__(self, study: Study, answers: Answers, host: str = "127.0.0.1", public_name: str | None = None) -> None:
        self.client = TestClient(make_app(study, answers, host, public_name), base_url="http://127.0.0.1:8347")

    def get(self, path: str, **more: Any) -> Any:
        return self.client.get(path, **more)

    def post(self, path: str, data: dict[str, str], **more: Any) -> Any:
        return self.client.post(path, data=data, **more)

    def log_in(self, code: str) -> Any:
        return self.post("/login", {"code": code})


@pytest.fixture
def answers(tmp_path: Path) -> Answers:
    return Answers(tmp_path / "answers.sqlite")


@pytest.fixture
def visitor(built: Built, answers: Answers) -> Visitor:
    found = Visitor(built.study, answers)
    page = found.log_in(built.study.readers[0].code)
    assert page.status_code == 200
    assert page.url.path == "/image/1"
    return found


def test_a_code_is_needed(built: Built, answers: Answers) -> None:
    stranger = Visitor(built.study, answers)
    for path in ("/next", "/image/1", "/done"):
        assert "Your code" in stranger.get(path).text
    assert stranger.get("/picture/1").status_code == 404
    assert stranger.post("/image/1", GIVEN).url.path == "/"
    refused = stranger.log_in("wrong")
    assert refused.status_code == 403
    assert "no reader with this code" in refused.text
    assert answers.all() == []


def test_codes_cannot_be_tried_out(built: Built, answers: Answers) -> None:
    stranger = Visitor(built.study, answers)
    assert {stranger.log_in(str(number)).status_code for number in range(WRONG_CODES)} == {403}
    assert stranger.log_in(built.study.readers[0].code).status_code == 429


def test_an_answer_is_kept_and_the_next_image_shown(visitor: Visitor, built: Built, answers: Answers) -> None:
    page = visitor.post("/image/1", GIVEN)
    assert page.url.path == "/image/2"
    assert "Image 2 of 9" in page.text
    assert "1 answered" in page.text
    (kept,) = answers.all()
    reader = built.study.readers[0]
    assert (kept.reader, kept.position, kept.image) == (reader.name, 0, reader.order[0])
    assert (kept.rating, kept.diagnosis, kept.quality, kept.comment) == (5, "MildDemented", 4, "odd edge")
    assert 0 < kept.seconds < 60


def test_an_answer_sent_twice_is_kept_once(visitor: Visitor, answers: Answers) -> None:
    visitor.post("/image/1", GIVEN)
    again = visitor.post("/image/1", {**GIVEN, "rating": "1"})
    assert again.url.path == "/image/2"
    assert [one.rating for one in answers.all()] == [5]


def test_going_back_shows_the_answer_and_takes_a_change(visitor: Visitor, answers: Answers) -> None:
    visitor.post("/image/1", GIVEN)
    page = visitor.get("/image/1").text
    assert re.search(r'name="rating" value="5" required checked', page)
    assert re.search(r'name="diagnosis" value="MildDemented" required checked', page)
    assert ">odd edge</textarea>" in page
    revision = re.search(r'name="revision" value="(\d+)"', page)
    assert revision is not None
    assert visitor.post("/image/1", {**GIVEN, "rating": "2", "revision": revision[1]}).url.path == "/image/2"
    (kept,) = answers.all()
    assert (kept.rating, kept.revision) == (2, 2)


def test_images_ahead_are_not_shown(visitor: Visitor) -> None:
    for number in (2, 9, 10, 0):
        assert visitor.get(f"/image/{number}").url.path == "/image/1"
        assert visitor.get(f"/picture/{number}").status_code == 404
    assert visitor.post("/image/3", GIVEN).url.path == "/image/1"


@pytest.mark.parametrize("lacks", ["rating", "diagnosis", "quality"])
def test_every_question_needs_an_answer(visitor: Visitor, answers: Answers, lacks: str) -> None:
    page = visitor.post("/image/1", {name: value for name, value in GIVEN.items() if name != lacks})
    assert page.status_code == 422
    assert "One question is open" in page.text
    assert "odd edge" in page.text  # what was given is not lost
    assert answers.all() == []


@pytest.mark.parametrize(("name", "value"), [("rating", "7"), ("rating", "x"), ("quality", "0"), ("diagnosis", "AD")])
def test_answers_that_are_no_choice(visitor: Visitor, answers: Answers, name: str, value: str) -> None:
    assert visitor.post("/image/1", {**GIVEN, name: value}).status_code == 422
    assert answers.all() == []


def test_who_comes_back_goes_on(visitor: Visitor, built: Built, answers: Answers) -> None:
    visitor.post("/image/1", GIVEN)
    visitor.post("/image/2", GIVEN)
    assert visitor.post("/logout", {}).url.path == "/"
    assert visitor.get("/next").url.path == "/"
    later = Visitor(built.study, Answers(answers.path))  # the server was started anew
    assert later.log_in(built.study.readers[0].code).url.path == "/image/3"
    assert Visitor(built.study, answers).log_in(built.study.readers[1].code).url.path == "/image/1"


def test_a_session_outlives_the_server(visitor: Visitor, built: Built, answers: Answers) -> None:
    visitor.post("/image/1", GIVEN)
    later = Visitor(built.study, Answers(answers.path))
    later.client.cookies = visitor.client.cookies
    assert later.get("/").url.path == "/image/2"


def test_all_answered(visitor: Visitor, answers: Answers) -> None:
    assert visitor.get("/done").url.path == "/image/1"
    for number in range(1, 10):
        page = visitor.post(f"/image/{number}", GIVEN)
    assert page.url.path == "/done"
    assert "All 9 images have your answer" in page.text
    assert len(answers.all()) == 9


def test_pictures_have_no_name(visitor: Visitor, built: Built) -> None:
    picture = visitor.get("/picture/1")
    assert picture.content == built.study.image(built.study.readers[0].order[0]).read_bytes()
    assert picture.headers["cache-control"] == "no-store"
    page = visitor.get("/image/1").text
    assert all(name not in page + str(picture.headers) for name in built.study.images)


@pytest.mark.parametrize(
    "path", ["/study.json", "/images/", "/answers.sqlite", "/../key.csv", "/picture/..%2fstudy.json", "/docs"]
)
def test_no_other_file_is_served(visitor: Visitor, path: str) -> None:
    assert visitor.get(path).status_code == 404


def test_pages_ask_nothing_of_others(visitor: Visitor) -> None:
    for path in ("/image/1", "/style.css", "/keys.js"):
        found = visitor.get(path)
        assert found.status_code == 200
        assert not re.search(r"https?://|url\(|@import", found.text)
        assert "default-src 'none'" in found.headers["content-security-policy"]


def test_forms_of_other_pages_are_refused(visitor: Visitor, answers: Answers) -> None:
    away = {"origin": "http://elsewhere.example"}
    assert visitor.post("/image/1", GIVEN, headers=away).status_code == 400
    assert visitor.post("/image/1", {**GIVEN, "comment": "x" * 40_000}).status_code == 400
    assert answers.all() == []
    assert visitor.post("/image/1", GIVEN, headers={"origin": "http://127.0.0.1:8347"}).url.path == "/image/2"


def test_other_host_names_are_refused_on_loopback(built: Built, answers: Answers) -> None:
    away = {"host": "elsewhere.example"}
    assert Visitor(built.study, answers).get("/", headers=away).status_code == 400
    assert Visitor(built.study, answers, "0.0.0.0").get("/", headers=away).status_code == 200


@pytest.mark.parametrize("host", ["study.example.org", "127.0.0.1:8347"])
def test_a_proxy_with_https_in_front(built: Built, answers: Answers, host: str) -> None:
    """It keeps Host or rewrites it; the browser's Origin is the proxy's in both cases."""
    code = {"code": built.study.readers[0].code}
    headers = {"host": host, "origin": "https://study.example.org"}
    behind = Visitor(built.study, answers, public_name="Study.example.org")
    assert "Your code" in behind.get("/", headers=headers).text
    assert behind.post("/login", code, headers=headers, follow_redirects=False).headers["location"] == "/next"
    away = {**headers, "origin": "https://elsewhere.example"}
    assert behind.post("/login", code, headers=away).status_code == 400
    assert behind.get("/", headers={"host": "elsewhere.example"}).status_code == 400
    assert Visitor(built.study, answers).post("/login", code, headers=headers).status_code == 400
    with pytest.raises(ConfigurationError, match="no host name"):
        make_app(built.study, answers, public_name="https://study.example.org")


def test_serve_passes_the_public_name_on(built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from latentdrift.cli.reader_study_serve import main
    from latentdrift.studio.reader_study import server

    served: list[dict[str, Any]] = []
    monkeypatch.setattr(server, "run_server", lambda *_, **more: served.append(more))
    for words in ([], ["--public-name", "study.example.org"]):
        assert main(["--study", str(tmp_path / "study"), *words]) == 0
    assert served == [{"public_name": None}, {"public_name": "study.example.org"}]


@pytest.mark.parametrize("revision", ["9" * 5000, "9" * 30, "-1", "x", "²"])
def test_revisions_that_cannot_be_are_refused(visitor: Visitor, answers: Answers, revision: str) -> None:
    assert visitor.post("/image/1", {**GIVEN, "revision": revision}).status_code == 400
    assert answers.all() == []


def test_forms_of_too_many_fields_are_refused(visitor: Visitor, answers: Answers) -> None:
    more = {f"field-{number}": "x" for number in range(20)}
    assert visitor.post("/image/1", {**GIVEN, **more}).status_code == 400
    assert answers.all() == []


def test_addresses_of_endless_numbers_are_no_image(visitor: Visitor) -> None:
    for number in ("9" * 5000, "-1", "x"):
        assert visitor.get(f"/image/{number}").url.path == "/image/1"
        assert visitor.get(f"/picture/{number}").status_code == 404


def test_the_time_told_must_be_possible(visitor: Visitor, answers: Answers) -> None:
    visitor.post("/image/1", {**GIVEN, "seconds": "99999"})
    visitor.post("/image/2", {**GIVEN, "seconds": "nan"})
    visitor.post("/image/3", {**GIVEN, "seconds": "0.001"})
    kept = answers.all()
    assert kept[0].seconds < 60
    assert kept[1].seconds < 60
    assert kept[2].seconds == 0.001


def test_text_is_text(built: Built, visitor: Visitor) -> None:
    visitor.post("/image/1", {**GIVEN, "comment": "</textarea><script>alert(1)</script>"})
    assert "<script>alert" not in visitor.get("/image/1").text


def test_answers_of_two_threads_are_both_kept(answers: Answers) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def save(position: int) -> bool:
        return answers.save(Answer("a", position % 10, "x", 1, None, 3))

    with ThreadPoolExecutor(8) as pool:
        kept = list(pool.map(save, range(40)))
    assert sum(kept) == 10
    assert [one.position for one in answers.all()] == list(range(10))


def test_files_that_hold_no_answers(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("not a database, but long enough to be taken for one" * 20)
    with pytest.raises(DataError, match="not a database"):
        Answers(tmp_path / "text.sqlite")
    with pytest.raises(DataError, match="no answers"):
        Answers(tmp_path / "missing.sqlite", reading=True)
    with pytest.raises(DataError, match="writable"):
        Answers(tmp_path / "missing" / "answers.sqlite")
