"""What stands before the page: who may ask, and that a browser asks nobody else."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from latentdrift.errors import ConfigurationError

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
    "referrer-policy": "same-origin",  # with no-referrer the page's own forms would have the origin "null"
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
}

CLOSED = re.compile(r"/proxy=|/file=(?:https?|ftp)\b|/(?:run-history|deep_link|vibe|monitoring)\b", re.IGNORECASE)
"""Routes of the page's library that fetch from elsewhere or keep what was done; the studio needs none of them."""

_TAGS = re.compile(r"<(?:link|meta)\b[^>]*?https?://[^>]*>|<script\b[^>]*\bsrc=[\"']https?://[^>]*>\s*</script>", re.I)

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

PORTS = {"http": 80, "https": 443}
"""Which browsers leave out of a page's address."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


class Guard:
    """Wrap an application: refuse strange hosts and closed routes, set headers, and take foreign tags out of pages.

    Args:
        app: the page.
        hosts: names under which it may be asked; None for any. A page of somebody else's whose name was made to mean
            this machine is refused so.
        public: name under which a proxy in front is opened; its pages are the studio's own, whatever Host it sends on.
    """

    def __init__(self, app: App, hosts: frozenset[str] | None = LOOPBACK, public: str | None = None) -> None:
        self.app, self.public = app, public
        self.hosts = hosts if hosts is None or public is None else hosts | {public}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        refused = self.refusal(scope)
        if scope["type"] == "websocket":
            if refused is None:
                await self.app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008})  # before it was accepted: the server answers 403
            return
        if refused is not None:
            await refuse(send, *refused)
            return
        await self.app(scope, receive, _Answer(send))

    def refusal(self, scope: MutableMapping[str, Any]) -> tuple[int, str] | None:
        """Return status and sentence for a request that is not let in, None for one that is."""
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        if self.hosts is not None and host_name(host) not in self.hosts:
            return 421, "This studio answers to this machine's own names only. Name a proxy's with --public-name."
        # The library behind answers any page when it is asked by a name of the network, cookies and all.
        origins = [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]
        if not all(own_origin(origin, host, self.public) for origin in origins):
            return 403, "This request comes from another page. Behind a proxy, start the studio with --public-name."
        if CLOSED.search(scope["path"]):
            return 404, "Not here."
        return None


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
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()


def own_origin(origin: str, host: str, public: str | None = None) -> bool:
    """Tell whether a page may ask, by where it is from.

    The scheme is left open: a proxy that ends HTTPS sends the page's https beside a request in plain HTTP.

    Args:
        origin: the header Origin. "null" is a page that hides where it is from, such as one in a closed frame.
        host: the header Host.
        public: name under which a proxy in front is opened, whatever Host it sends on.
    """
    try:
        page, asked = urlsplit(origin), urlsplit(f"//{host}")
        usual = PORTS.get(page.scheme)
        if usual is None or not page.hostname:
            return False
        if page.hostname == public:
            return True
        return (page.hostname, page.port or usual) == (asked.hostname, asked.port or usual)
    except ValueError:  # a port that is no number, brackets that do not close
        return False


def checked_name(name: str) -> str:
    """Return a proxy's name as headers are compared with it.

    Raises:
        ConfigurationError: a whole address, a port or a pattern.
    """
    if not _NAME.fullmatch(name.lower()):
        raise ConfigurationError(
            f"The public name {name!r} is no host name. Give it without https:// and port, such as studio.example.org."
        )
    return name.lower()


async def refuse(send: Send, status: int, text: str) -> None:
    """Answer with a status and a sentence."""
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
