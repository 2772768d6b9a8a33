"""The web server of a study: log in by code, one image after another, answers kept as they are given.

Pages work without scripts; the script adds number keys and measures the time that an image is looked at. Nothing is
fetched from elsewhere. Files of the folder are served as the n-th image of the reader who asks, and in no other way.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import TYPE_CHECKING, Any

from latentdrift.errors import ConfigurationError
from latentdrift.evaluate.readers import LEVELS, QUALITIES
from latentdrift.studio.guard import checked_name
from latentdrift.studio.reader_study.answers import Answer, Answers
from latentdrift.studio.reader_study.forms import read_form, seconds_of, whole_number
from latentdrift.studio.reader_study.study import Reader, Study

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

COOKIE = "reader_session"
LONGEST_COMMENT = 2000
WRONG_CODES = 20
"""A minute, of all visitors together; then codes are not looked at until the minute is over."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}
RATINGS = (
    "surely real",
    "probably real",
    "rather real",
    "rather synthetic",
    "probably synthetic",
    "surely synthetic",
)
QUALITY_WORDS = ("unusable", "poor", "fair", "good", "excellent")
ASSETS = {"style.css": "text/css", "keys.js": "text/javascript"}


@dataclass(frozen=True)
class Choice:
    """One question of a page: choices by number key, from 1."""

    name: str
    legend: str
    options: tuple[str, ...]
    values: tuple[str, ...]


def questions_of(study: Study) -> list[Choice]:
    """Return what is asked of each image."""

    def numbers(count: int) -> tuple[str, ...]:
        return tuple(str(number) for number in range(1, count + 1))

    found = [Choice("rating", "Real or synthetic?", RATINGS, numbers(LEVELS))]
    if study.classes:
        legend = f"Which {(study.attribute or 'diagnosis').replace('_', ' ')}?"
        found.append(Choice("diagnosis", legend, study.classes, study.classes))
    return [*found, Choice("quality", "Image quality", QUALITY_WORDS, numbers(QUALITIES))]


def make_app(study: Study, answers: Answers, host: str = "127.0.0.1", public_name: str | None = None) -> Starlette:
    """Return the web application.

    Args:
        study: what is asked.
        answers: where it is kept.
        host: the address it will listen on; on loopback, other host names in requests are refused.
        public_name: host name under which a proxy in front is opened; it is not refused, and its forms are taken.

    Raises:
        ConfigurationError: the public name is no host name.
    """
    from jinja2 import Environment, StrictUndefined
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.routing import Route

    def load(name: str) -> str:
        return resources.files(__package__).joinpath("pages", name).read_text(encoding="utf-8")

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    pages = {name: environment.from_string(load(f"{name}.html.j2")) for name in ("login", "question", "done")}
    frame = environment.from_string(load("frame.html.j2"))
    public = None if public_name is None else checked_name(public_name)
    site = _Site(study, answers, questions_of(study), pages, frame, public)
    assets = {name: load(name) for name in ASSETS}
    hosts = ["127.0.0.1", "localhost", "[::1]"] if host in LOOPBACK else ["*"]
    hosts += [] if public is None else [public]
    return Starlette(
        routes=[
            Route("/", site.start),
            Route("/login", site.log_in, methods=["POST"]),
            Route("/logout", site.log_out, methods=["POST"]),
            Route("/next", site.next),
            Route("/image/{number}", site.question),
            Route("/image/{number}", site.answer, methods=["POST"]),
            Route("/picture/{number}", site.picture),
            Route("/done", site.done),
            *(Route(f"/{name}", partial(_asset, text, ASSETS[name])) for name, text in assets.items()),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
    )


def run_server(
    study: Study,
    answers: Answers,
    host: str,
    port: int,
    ready: Callable[[str], None],
    public_name: str | None = None,
) -> None:
    """Serve until interrupted; `ready` is called with the address when connections are accepted.

    Args:
        study: what is asked.
        answers: where it is kept.
        host: address to listen on.
        port: port; 0 takes a free one.
        ready: called once.
        public_name: host name under which a proxy in front is opened.

    Raises:
        ConfigurationError: the address is taken or not this machine's, or the public name is no host name.
    """
    import socket

    import uvicorn

    app = make_app(study, answers, host, public_name)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigurationError(f"{host}:{port} cannot be listened on: {error}. Choose another --port.") from error
    shown = f"[{host}]" if ":" in host else host
    with listener:
        ready(f"http://{shown}:{listener.getsockname()[1]}/")
        config = uvicorn.Config(app, log_level="warning", access_log=False)
        with suppress(KeyboardInterrupt):  # Ctrl-C is how a server ends
            uvicorn.Server(config).run(sockets=[listener])


async def _asset(text: str, kind: str, request: Request) -> Response:
    from starlette.responses import Response

    return Response(text, media_type=kind, headers=HEADERS)


class _Site:
    """What the routes do. Handlers that are no coroutines run in threads, so that the database blocks nobody."""

    def __init__(
        self,
        study: Study,
        answers: Answers,
        questions: list[Choice],
        pages: dict[str, Any],
        frame: Any,
        public: str | None,
    ) -> None:
        self.study, self.answers, self.questions, self.pages, self.frame = study, answers, questions, pages, frame
        self.public = public
        self.readers = {reader.name: reader for reader in study.readers}
        self.failures: deque[float] = deque(maxlen=WRONG_CODES)

    def page(self, name: str, title: str, status: int = 200, **values: Any) -> Response:
        """Return a page within the frame that all share."""
        from markupsafe import Markup
        from starlette.responses import HTMLResponse

        values = {"study": self.study, "reader": None, **values}
        body = Markup(self.pages[name].render(**values))
        html = self.frame.render(**values, title=title, body=body, scripted=name == "question")
        return HTMLResponse(html, status, headers=HEADERS)

    def who(self, request: Request) -> Reader | None:
        """Return the reader whose session it is."""
        return self.readers.get(self.answers.who(request.cookies.get(COOKIE)) or "")

    def start(self, request: Request) -> Response:
        """Ask for the code, or go on."""
        if self.who(request) is not None:
            return _go("/next")
        return self.page("login", "Log in", error="")

    async def log_in(self, request: Request) -> Response:
        """Open a session for a code."""
        from starlette.concurrency import run_in_threadpool

        form = await read_form(request, self.public)
        if form is None:
            return _refused()
        now = time.monotonic()
        if len(self.failures) == WRONG_CODES and now - self.failures[0] < 60:
            return self.page("login", "Log in", 429, error="Too many wrong codes. Wait a minute, then try again.")
        reader = self.study.reader(form.get("code", ""))
        if reader is None:
            self.failures.append(now)
            return self.page("login", "Log in", 403, error="There is no reader with this code.")
        response = _go("/next")
        token = await run_in_threadpool(self.answers.log_in, reader.name)
        response.set_cookie(COOKIE, token, max_age=90 * 86_400, httponly=True, samesite="strict")
        return response

    async def log_out(self, request: Request) -> Response:
        """End the session; the answers stay."""
        from starlette.concurrency import run_in_threadpool

        if await read_form(request, self.public) is None:
            return _refused()
        await run_in_threadpool(self.answers.log_out, request.cookies.get(COOKIE))
        response = _go("/")
        response.delete_cookie(COOKIE)
        return response

    def next(self, request: Request) -> Response:
        """Go to the first image without an answer."""
        reader = self.who(request)
        if reader is None:
            return _go("/")
        first = self.first(reader)
        return _go("/done" if first is None else f"/image/{first + 1}")

    def first(self, reader: Reader) -> int | None:
        """Return the first position without an answer, or None."""
        given = self.answers.of(reader.name)
        return next((place for place in range(len(reader.order)) if place not in given), None)

    def question(self, request: Request) -> Response:
        """Show an image that was answered, or is next."""
        reader, place = self.place(request)
        if reader is None or place is None:
            return _go("/next")
        self.answers.shown(reader.name, place)
        return self.ask(reader, place)

    def place(self, request: Request) -> tuple[Reader | None, int | None]:
        """Return the reader and the position asked for: none beyond the first without an answer."""
        reader = self.who(request)
        if reader is None:
            return None, None
        number, first = whole_number(request.path_params["number"]), self.first(reader)
        last = len(reader.order) - 1 if first is None else first
        return reader, number - 1 if number is not None and 1 <= number <= last + 1 else None

    def ask(self, reader: Reader, place: int, given: dict[str, str] | None = None, error: str = "") -> Response:
        """Return the page of an image, with the answer given before, or the incomplete one given now."""
        kept = self.answers.of(reader.name)
        before = kept.get(place)
        chosen = given or {}
        if before is not None and given is None:
            chosen = {
                "rating": str(before.rating),
                "diagnosis": before.diagnosis or "",
                "quality": str(before.quality),
                "comment": before.comment,
            }
        return self.page(
            "question",
            f"Image {place + 1} of {len(reader.order)}",
            422 if error else 200,
            reader=reader,
            number=place + 1,
            total=len(reader.order),
            answered=len(kept),
            questions=self.questions,
            chosen=chosen,
            revision=1 if before is None else before.revision + 1,
            error=error,
            longest=LONGEST_COMMENT,
        )

    async def answer(self, request: Request) -> Response:
        """Keep an answer, and go to the next image."""
        from starlette.concurrency import run_in_threadpool

        form = await read_form(request, self.public)
        if form is None:
            return _refused()
        return await run_in_threadpool(self.keep, request, form)

    def keep(self, request: Request, form: dict[str, str]) -> Response:
        """Check an answer and keep it."""
        reader, place = self.place(request)
        if reader is None or place is None:
            return _go("/next")
        revision = whole_number(form.get("revision", "1"))
        if revision is None:
            return _refused()
        for question in self.questions:
            if form.get(question.name) not in question.values:
                return self.ask(reader, place, form, f"One question is open: {question.legend}")
        elapsed = self.answers.since_shown(reader.name, place)
        answer = Answer(
            reader.name,
            place,
            reader.order[place],
            int(form["rating"]),
            form.get("diagnosis") if self.study.classes else None,
            int(form["quality"]),
            form.get("comment", "").strip()[:LONGEST_COMMENT],
            seconds_of(form.get("seconds", ""), elapsed),
            revision,
        )
        changed = answer.revision > 1
        if not self.answers.save(answer):
            return _go("/next")  # sent twice, or from an old page: what is there stays
        return _go(f"/image/{place + 2}" if changed and place + 1 < len(reader.order) else "/next")

    def picture(self, request: Request) -> Response:
        """Return the pixels of an image that may be seen now."""
        from starlette.responses import Response

        reader, place = self.place(request)
        if reader is None or place is None:
            return Response(status_code=404, headers=HEADERS)
        content = self.study.image(reader.order[place]).read_bytes()
        return Response(content, media_type="image/png", headers=HEADERS)

    def done(self, request: Request) -> Response:
        """Thank the reader, when all is answered."""
        reader = self.who(request)
        if reader is None or self.first(reader) is not None:
            return _go("/next")
        return self.page("done", "All answered", reader=reader, total=len(reader.order))


def _go(where: str) -> Response:
    from starlette.responses import RedirectResponse

    return RedirectResponse(where, 303, headers=HEADERS)


def _refused() -> Response:
    from starlette.responses import PlainTextResponse

    told = "This form is too large or damaged, or comes from another page. Behind a proxy, serve with --public-name."
    return PlainTextResponse(told, 400, headers=HEADERS)
