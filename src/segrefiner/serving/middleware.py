"""What every request passes before anything reads it: request id, host, origin, key, size and time."""

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Collection, Mapping
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .limits import Arriving, Limits
from .metrics import Metrics
from .problems import (
    BAD_REQUEST,
    FAILED,
    FOREIGN_ORIGIN,
    TOO_LARGE,
    TOO_SLOW,
    UNAUTHORIZED,
    WRONG_HOST,
    GoneError,
    ProblemError,
    as_problem,
    fault,
    response,
)

OPEN = ("/healthz", "/readyz")
"""What is answered without a key: whether the server lives, and nothing else."""

LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
"""Host names under which a server on this machine is meant; a foreign name that leads here is an attack."""

_READING = ("GET", "HEAD", "OPTIONS")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NOBODY = 499
_PORT = re.compile(r":\d*$")
_ADDED = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}

_log = logging.getLogger(__name__)

_LINGER_SECONDS, _LINGER_BYTES = 2.0, 64_000_000
"""How long, and for how much, the rest of a refused body is waited for; nothing of it is kept."""


class Guard:
    """ASGI middleware that lets requests through to `app`, or answers with a problem.

    Args:
        app: What answers.
        limits: What is put up with.
        metrics: Where requests are counted.
        key: That clients must know, or none.
        hosts: Names of the host that requests may be for, without port; `None` for any.
    """

    def __init__(
        self, app: ASGIApp, *, limits: Limits, metrics: Metrics, key: str | None, hosts: Collection[str] | None
    ) -> None:
        self.app, self._limits, self._metrics, self._hosts = app, limits, metrics, hosts
        self._arriving = Arriving(limits)
        # Digests are of one length, so that not even the key's length shows in how long a comparison takes.
        self._key = None if key is None else _digest(key.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, begun, status = Headers(scope=scope), time.perf_counter(), _NOBODY
        body = Body(receive, headers, self._limits, self._arriving, client_of(scope))
        request_id = headers.get("x-request-id", "")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = secrets.token_hex(16)

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                added = MutableHeaders(scope=message)
                added["X-Request-Id"] = request_id
                for name, value in _ADDED.items():
                    added.setdefault(name, value)
                if status >= 400:
                    # What else comes on this connection is nothing that anybody should wait for.
                    added["Connection"] = "close"
                if scope["path"].startswith("/v1/"):
                    added.setdefault("Cache-Control", "no-store")
            elif not message.get("more_body", False) and not body.complete:
                await send({**message, "more_body": True})
                await body.drain()
                message = {"type": "http.response.body"}
            await send(message)

        try:
            self._check(scope, headers)
            body.check_length()
            await self.app(scope, body.receive, answer)
        except GoneError:
            pass
        except Exception as error:
            problem = as_problem(error)
            if problem.kind is FAILED:
                _log.error("request %s failed: %s", request_id, fault(error))
            if status != _NOBODY:
                raise  # A part of the answer is on its way: the server can only cut it off.
            await response(problem, request_id)(scope, receive, answer)
        finally:
            body.forget()
            self._metrics.request(_route(scope), status, time.perf_counter() - begun)

    def _check(self, scope: Scope, headers: Headers) -> None:
        host = headers.get("host", "").lower()
        if self._hosts is not None and _PORT.sub("", host) not in self._hosts:
            raise ProblemError(WRONG_HOST, "the Host header names another host: use http://127.0.0.1 or localhost")
        origin = headers.get("origin")
        if origin is not None and scope["method"] not in _READING and origin.partition("://")[2].lower() != host:
            raise ProblemError(FOREIGN_ORIGIN, "the Origin header names another site: send requests from a program")
        if self._key and scope["path"] not in OPEN and not self._knows_key(headers):
            # A browser asks its user for a password then, which is the key; programs read which header is meant.
            scheme = "Bearer" if scope["path"].startswith("/v1/") else "Basic"
            raise ProblemError(
                UNAUTHORIZED,
                "expected the API key in the header Authorization: Bearer KEY, or X-API-Key: KEY",
                headers={"WWW-Authenticate": f'{scheme} realm="segrefiner"'},
            )

    def _knows_key(self, headers: Headers) -> bool:
        scheme, _, value = headers.get("authorization", "").partition(" ")
        given = headers.get("x-api-key", "").encode("latin-1")
        if scheme.lower() == "bearer":
            given = value.strip().encode("latin-1")
        elif scheme.lower() == "basic":
            try:
                given = base64.b64decode(value, validate=True).partition(b":")[2]
            except (binascii.Error, ValueError):
                given = b""
        assert self._key is not None
        return hmac.compare_digest(_digest(given), self._key)


def client_of(scope: Scope) -> str:
    """Who asks, for quotas: an address, or for IPv6 the network of a household."""
    host = str(scope["client"][0]) if scope.get("client") else "nobody"
    return ":".join(host.split(":")[:4]) if ":" in host else host


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _route(scope: Scope) -> str:
    """The route's template: paths that clients make up must not become names of figures."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) and path else "other"


class Body:
    """A request's body as it arrives, cut off where it is too large or too slow.

    Args:
        receive: Where messages come from.
        headers: Of the request, names in lower case.
        limits: What is put up with.
        arriving: Where what arrives is counted.
        client: Who sends.

    Attributes:
        complete: Whether nothing more will come.
    """

    def __init__(
        self, receive: Receive, headers: Mapping[str, str], limits: Limits, arriving: Arriving, client: str
    ) -> None:
        self._receive, self._limits, self._arriving, self._client = receive, limits, arriving, client
        self._counted = 0
        self._left = limits.upload_bytes
        self._until = time.monotonic() + limits.upload_seconds
        self._announced = headers.get("content-length", "0")
        self.complete = self._announced == "0" and "transfer-encoding" not in headers

    def check_length(self) -> None:
        """Raises `ProblemError` if the announced length is no number, or too large."""
        announced = self._announced
        if not (announced.isascii() and announced.isdecimal()):
            raise ProblemError(BAD_REQUEST, "Content-Length is no number: correct it")
        # The comparison of lengths first: Python refuses to read numbers of thousands of digits.
        if len(announced) > 18 or int(announced) > self._left:
            raise self._too_large()

    async def receive(self) -> Message:
        """The next message.

        Raises:
            ProblemError: The body is larger than the limit, or the client too slow.
        """
        if self.complete:
            return await self._receive()
        seconds = min(self._limits.idle_seconds, self._until - time.monotonic())
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, seconds))
        except TimeoutError:
            raise ProblemError(
                TOO_SLOW,
                f"the body did not arrive within {self._limits.upload_seconds:g} s, or nothing of it for "
                f"{self._limits.idle_seconds:g} s: send it faster, or less",
            ) from None
        count = len(message.get("body", b""))
        self._left -= count
        if self._left < 0:
            raise self._too_large()
        self._counted += count
        self._arriving.add(self._client, count)
        self.complete = message["type"] != "http.request" or not message.get("more_body", False)
        if self.complete:
            self.forget()
        return message

    def forget(self) -> None:
        """Says that nothing of it arrives any more; whoever holds it has other bounds."""
        self._arriving.remove(self._client, self._counted)
        self._counted = 0

    async def drain(self) -> None:
        """Waits a moment for the rest, and forgets it: who is cut off while sending does not get to read the answer."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._rest(), _LINGER_SECONDS)

    async def _rest(self) -> None:
        left = max(_LINGER_BYTES, 4 * self._limits.upload_bytes)
        while not self.complete and left > 0:
            message = await self._receive()
            left -= len(message.get("body", b""))
            self.complete = message["type"] != "http.request" or not message.get("more_body", False)

    def _too_large(self) -> ProblemError:
        limit = self._limits.upload_bytes / 1e6
        return ProblemError(
            TOO_LARGE, f"the body is larger than this server's limit of {limit:g} MB: send smaller files"
        )
