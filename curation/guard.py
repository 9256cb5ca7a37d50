"""What stands before every local page: loopback hosts only, a token, no other site's requests, small bodies.

A page on 127.0.0.1 is reachable from any web page the user has open. So: Host must be loopback (DNS rebinding), the token
from the terminal's link becomes an HttpOnly SameSite=Strict cookie, and whatever changes something must be a JSON POST
with our header and, if it names one, our Origin.
"""

import hmac
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

LIMIT = 64 * 1024  # bytes of a request body
COOKIE = "thresher"
HEADER = "x-thresher"
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
App = Callable[[Mapping[str, Any], Any, Any], Awaitable[None]]


class Guard:
    """ASGI middleware. `app` is served to whoever holds the token; everyone else gets a short refusal."""

    def __init__(self, app: App, port: int, token: str | None = None) -> None:
        self.app, self.port, self.token = app, port, token or secrets.token_urlsafe(32)
        self.hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}

    @property
    def link(self) -> str:
        return f"http://127.0.0.1:{self.port}/?token={self.token}"

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no websockets here: an unanswered handshake is refused by the server
        refusal = self._refusal(scope)
        if refusal is None and self._offers_token(scope):
            await self._answer(send, 303, "", {"location": "/", "set-cookie": self._cookie()})
        elif refusal is not None:
            await self._answer(send, *refusal, {})
        else:
            await self._bounded(scope, receive, send)

    def _refusal(self, scope: Mapping[str, Any]) -> tuple[int, str] | None:
        headers = _headers(scope)
        if headers is None:
            return 400, "a header was sent twice"
        if headers.get("host") not in self.hosts:
            return 421, "not for this host"
        if scope["method"] not in ("GET", "POST"):
            return 405, "GET or POST"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return 403, "another site asks"
        if "origin" in headers and headers["origin"] not in {f"http://{h}" for h in self.hosts}:
            return 403, "another origin asks"
        if self._offers_token(scope):
            return None
        if not self._same(_cookie_of(headers)):
            return 401, "open the link from the terminal"
        if scope["method"] == "POST":
            if headers.get("content-type", "").split(";")[0].strip() != "application/json":
                return 415, "application/json"
            if headers.get(HEADER) != "1" or "origin" not in headers:
                return 403, "not sent by this page"
            if not headers.get("content-length", "").isdigit() or int(headers["content-length"]) > LIMIT:
                return 413, f"at most {LIMIT} bytes, with a length"
        return None

    def _offers_token(self, scope: Mapping[str, Any]) -> bool:
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        return scope["method"] == "GET" and scope["path"] == "/" and self._same(query.get("token", [""])[0])

    def _same(self, offered: str) -> bool:
        return hmac.compare_digest(offered.encode(), self.token.encode())

    def _cookie(self) -> str:
        return f"{COOKIE}-{self.port}={self.token}; HttpOnly; SameSite=Strict; Path=/"

    async def _bounded(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        """The app behind our headers; a body longer than it said is cut off by ending the request."""
        nonce = secrets.token_urlsafe(16)
        seen = 0

        async def counted() -> Any:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            return {"type": "http.disconnect"} if seen > LIMIT else message

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                kept = [(k, v) for k, v in message["headers"] if k.decode().lower() not in HEADERS]
                message = {**message, "headers": kept + _raw({k: v.format(nonce=nonce) for k, v in HEADERS.items()})}
            await send(message)

        await self.app({**scope, "nonce": nonce}, counted, guarded)

    async def _answer(self, send: Any, status: int, text: str, more: Mapping[str, str]) -> None:
        headers = {**{k: v.format(nonce="none") for k, v in HEADERS.items()}, "content-type": "text/plain", **more}
        await send({"type": "http.response.start", "status": status, "headers": _raw(headers)})
        await send({"type": "http.response.body", "body": text.encode()})


def _headers(scope: Mapping[str, Any]) -> dict[str, str] | None:
    """Header names to values; None where one that decides is there twice."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        if key in found and key in ("host", "origin", "cookie", "content-length", "content-type", HEADER):
            return None
        found[key] = value.decode("latin-1")
    return found


def _cookie_of(headers: Mapping[str, str]) -> str:
    """The token among the cookies. The port is in its name: cookies of one host are shared by all its ports."""
    port = headers.get("host", "").rsplit(":", 1)[-1]
    for part in headers.get("cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == f"{COOKIE}-{port}":
            return value
    return ""


def _raw(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(k.encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()]
