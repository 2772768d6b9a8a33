"""What stands before the page: who may ask, and that a browser asks nobody else."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "media-src 'self' data: blob:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "frame-src 'self' data: blob:",
        "object-src 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
"""Nothing from another host: the page's own scripts could not fetch it even if a library of theirs tried to."""

HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
}

CLOSED = re.compile(r"/proxy=|/file=(?:https?|ftp)\b|/(?:run-history|deep_link|vibe|monitoring)\b", re.IGNORECASE)
"""Routes of the page's library that fetch from elsewhere or keep what was done; the studio needs none of them."""

_TAGS = re.compile(r"<(?:link|meta)\b[^>]*?https?://[^>]*>|<script\b[^>]*\bsrc=[\"']https?://[^>]*>\s*</script>", re.I)

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Guard:
    """Wrap an application: refuse strange hosts and closed routes, set headers, and take foreign tags out of pages.

    Args:
        app: the page.
        hosts: names under which it may be asked; None for any. A page of somebody else's whose name was made to mean
            this machine is refused so.
    """

    def __init__(self, app: App, hosts: frozenset[str] | None = LOOPBACK) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        if self.hosts is not None and host_name(host) not in self.hosts:
            await refuse(send, 421, "This studio answers to this machine's own names only.")
            return
        if CLOSED.search(scope["path"]):
            await refuse(send, 404, "Not here.")
            return
        await self.app(scope, receive, _Answer(send))


class _Answer:
    """Pass an answer on, with headers; pages are held back until they are whole, everything else streams."""

    def __init__(self, send: Send) -> None:
        self.send = send
        self.start: Message | None = None
        self.parts: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [(name, value) for name, value in message["headers"] if name.decode().lower() not in HEADERS]
            message["headers"] = [*kept, *((name.encode(), value.encode()) for name, value in HEADERS.items())]
            kinds = [value for name, value in kept if name.lower() == b"content-type"]
            if kinds and kinds[0].startswith(b"text/html"):
                self.start = message
                return
        elif self.start is not None and message["type"] == "http.response.body":
            self.parts.append(message.get("body", b""))
            if message.get("more_body"):
                return
            start, self.start = self.start, None
            body = without_foreign(b"".join(self.parts).decode("utf-8", "replace")).encode()
            headers = [pair for pair in start["headers"] if pair[0].lower() != b"content-length"]
            start["headers"] = [*headers, (b"content-length", str(len(body)).encode())]
            await self.send(start)
            message = {"type": "http.response.body", "body": body}
        await self.send(message)


def without_foreign(page: str) -> str:
    """Return a page without links, scripts and tags that name other hosts."""
    return _TAGS.sub("", page)


def host_name(header: str) -> str:
    """Return the name in a Host header, without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].lower()


async def refuse(send: Send, status: int, text: str) -> None:
    """Answer with a status and a sentence."""
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
