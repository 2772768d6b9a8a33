"""Who may ask, and what a page may ask for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from latentdrift.errors import ConfigurationError
from latentdrift.studio.guard import LOOPBACK, POLICY, Guard, host_name, without_foreign
from latentdrift.studio.server import ServerConfig, checker

PAGE = """<head><link rel="preconnect" href="https://fonts.example.org" /><link rel="stylesheet" href="./own.css">
<script src="https://cdn.example.org/x.js" async></script><script src="./own.js"></script>
<meta property="og:image" content="https://example.org/x.png"></head>"""


def ask(
    path: str = "/",
    host: str = "127.0.0.1:7860",
    kind: str = "text/html",
    hosts: Any = LOOPBACK,
    origin: str | None = None,
    public: str | None = None,
    method: str = "GET",
) -> dict[str, Any]:
    """Ask a guarded application for a path; return status, headers and body."""
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = PAGE.encode()
        headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body[:50], "more_body": True})
        await send({"type": "http.response.body", "body": body[50:]})

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"host", host.encode()), *([] if origin is None else [(b"origin", origin.encode())])]
    scope = {"type": "http", "method": method, "path": path, "headers": headers}
    asyncio.run(Guard(app, hosts, public)(scope, receive, send))
    return {
        "status": sent[0]["status"],
        "headers": {name.decode(): value.decode() for name, value in sent[0]["headers"]},
        "body": b"".join(part.get("body", b"") for part in sent[1:]).decode(),
        "parts": len(sent) - 1,
    }


def test_pages_keep_their_own_and_lose_foreign_tags() -> None:
    answer = ask()
    assert answer["status"] == 200
    assert "example.org" not in answer["body"]
    assert "./own.css" in answer["body"]
    assert "./own.js" in answer["body"]
    assert answer["headers"]["content-length"] == str(len(answer["body"].encode()))
    assert answer["headers"]["content-security-policy"] == POLICY
    assert without_foreign("<p>https://example.org</p>") == "<p>https://example.org</p>"


def test_what_is_no_page_streams_as_it_is() -> None:
    answer = ask(kind="text/event-stream")
    assert answer["body"] == PAGE
    assert answer["parts"] == 2


@pytest.mark.parametrize("host", ["evil.example.org", "127.0.0.1.example.org:7860", "", "0.0.0.0"])
def test_strange_names_are_refused_on_loopback(host: str) -> None:
    assert ask(host=host)["status"] == 421
    assert ask(host=host, hosts=None)["status"] == 200


@pytest.mark.parametrize("host", ["localhost:7860", "[::1]:7860", "127.0.0.1"])
def test_own_names_are_answered(host: str) -> None:
    assert host_name(host) in LOOPBACK
    assert ask(host=host)["status"] == 200


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize("hosts", [LOOPBACK, None])
@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:7860", "https://evil.example.org"),
        ("127.0.0.1:7860", "http://127.0.0.1:8000"),
        ("127.0.0.1:7860", "http://localhost:7860"),
        ("127.0.0.1:7860", "null"),
        ("127.0.0.1:7860", ""),
        ("127.0.0.1:7860", "http://127.0.0.1:7860.evil.example.org"),
        ("localhost", "file://localhost"),
    ],
)
def test_pages_of_others_are_refused(method: str, hosts: Any, host: str, origin: str) -> None:
    """Whatever the studio listens at: a page opened elsewhere must not ask in its visitor's name."""
    assert ask(host=host, hosts=hosts, origin=origin, method=method)["status"] == 403


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:7860", "http://127.0.0.1:7860"),
        ("[::1]:7860", "http://[::1]:7860"),
        ("studio.example.org", "https://studio.example.org"),  # a proxy that keeps Host and ends HTTPS
        ("studio.example.org:443", "https://studio.example.org"),
        ("Studio.example.org:80", "http://studio.example.org"),
        ("10.0.0.7:7860", "http://10.0.0.7:7860"),
    ],
)
def test_the_page_itself_may_ask(host: str, origin: str) -> None:
    assert ask(host=host, hosts=None, origin=origin, method="POST")["status"] == 200


def test_a_named_proxy_may_ask_whether_it_keeps_host_or_not() -> None:
    page = "https://studio.example.org"
    for host in ("studio.example.org", "127.0.0.1:7860"):
        assert ask(host=host, origin=page, public="studio.example.org")["status"] == 200
        assert ask(host=host, origin="https://example.org", public="studio.example.org")["status"] == 403
    assert ask(host="studio.example.org", origin=page)["status"] == 421
    for wrong in ("https://studio.example.org", "studio.example.org:443", "*", "*.example.org", "", "a b"):
        with pytest.raises(ConfigurationError, match="no host name"):
            ServerConfig(public_name=wrong)
    assert ServerConfig(public_name="Studio.example.org").public_name is not None


@pytest.mark.parametrize(("origin", "let_in"), [("http://127.0.0.1:7860", True), ("https://evil.example.org", False)])
def test_sockets_of_other_pages_are_refused(origin: str, let_in: bool) -> None:
    """They know no preflight: Origin is all that tells them apart."""
    reached: list[Any] = []
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope)

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"127.0.0.1:7860"), (b"origin", origin.encode())]
    asyncio.run(Guard(app)({"type": "websocket", "path": "/", "headers": headers}, receive, send))
    assert bool(reached) is let_in
    assert [message["type"] for message in sent] == ([] if let_in else ["websocket.close"])


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/proxy=https://x.hf.space/a",
        "/gradio_api/file=https://example.org/a",
        "/gradio_api/run-history/records",
    ],
)
def test_routes_that_reach_out_are_closed(path: str) -> None:
    assert ask(path)["status"] == 404


def test_only_this_machine_unless_told_otherwise() -> None:
    assert ServerConfig().host == "127.0.0.1"
    assert ServerConfig().is_local
    assert ServerConfig(host="::1").is_local
    assert ServerConfig(host="localhost").is_local
    assert not ServerConfig(host="0.0.0.0").is_local
    assert not ServerConfig(host="example.org").is_local


@pytest.mark.parametrize("wrong", [{"port": 70000}, {"max_upload_mb": 0}, {"password": ""}])
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        ServerConfig(**wrong)


def test_a_password_is_compared_whatever_the_name() -> None:
    check = checker("pässword")
    assert check("anybody", "pässword")
    assert not check("anybody", "password")
    assert not check("anybody", "")
