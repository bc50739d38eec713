"""Photos fetched from one Label Studio server, and from nowhere else.

Addresses come with tasks, so that whoever may import tasks writes them. A connection is only ever made to the host and
port that the server was started with; an address says no more than which path is asked for there.
"""

import base64
import http.client
import json
import re
import socket
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from ...errors import ImageError, InputError, printable, reason

SECONDS = 30.0
"""For one photo with its redirects, from the first connection to the last byte."""

_REDIRECTS = 3
_MOVED = (301, 302, 303, 307, 308)
_PIECE = 1 << 16
_LONGEST = 2048
_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?|[0-9a-f:]*:[0-9a-f:.]*")
_TOKEN = re.compile(r"[\x21-\x7e]+")
_PERSONAL = re.compile(r"eyJ[\w-]*\.[\w-]+\.[\w-]+")
"""A JSON Web Token: Label Studio's personal access tokens are some, its legacy tokens are not."""
_REFRESH = "/api/token/refresh/"
_CLOUDS = ("s3", "gs", "azure-blob")
"""Schemes of Label Studio's cloud storages: tasks name such photos as the storage does."""
_KEPT = "/%:@!$&'()*+,;=-._~"
"""What a path may have as it is; all else is written as UTF-8 in per cent."""

# Label Studio answers 406 to who accepts pictures alone.
_HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "Connection": "close"}


class _RefusedError(ImageError):
    """The host does not let this token in."""


@dataclass(frozen=True)
class ImageHost:
    """The Label Studio server whose photos may be fetched.

    Attributes:
        scheme: "http" or "https".
        host: Its name or address, in lower case.
        port: Its port.
        prefix: The path below which it lies, without a slash at its end.
        token: A user's access token, which only this host is told: a legacy token as it is; a personal access token
            once in a few minutes, for a token of that time.
        most_bytes: Of a photo.
        seconds: For each photo.
    """

    scheme: str
    host: str
    port: int
    prefix: str = ""
    token: str | None = field(default=None, repr=False)
    most_bytes: int = 32_000_000
    seconds: float = SECONDS
    _brief: list[str] = field(default_factory=list, repr=False, compare=False)
    """The token of some minutes, if there is one."""

    @classmethod
    def of(cls, url: str, *, token: str | None = None, most_bytes: int = 32_000_000) -> "ImageHost":
        """The server at an address such as `http://localhost:8080`. Raises `InputError` for anything else."""
        try:
            parts = urlsplit(url)
            scheme, host, port = parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
        except ValueError:
            scheme, host, port, parts = "", "", 0, urlsplit("")
        plain = _is_plain(url) and not (parts.query or parts.fragment) and "@" not in parts.netloc
        if not plain or scheme not in _PORTS or not port or not _HOST.fullmatch(host):
            # Where there is a user's name, there may be a password.
            shown = "the address" if "@" in url else repr(url)
            raise InputError(
                f"{shown} is none of a Label Studio server: expected one such as http://localhost:8080, without "
                "a user, a query or a fragment"
            )
        if token is not None and not _TOKEN.fullmatch(token):
            raise InputError("the token of Label Studio is none: expected one line of letters and digits")
        return cls(scheme, host, port, parts.path.rstrip("/"), token, most_bytes)

    @property
    def url(self) -> str:
        """As people write it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.prefix}"

    def path(self, address: str, task: int | None = None) -> str:
        """What is asked of the host for an address: path and query.

        Args:
            address: A path such as `/data/upload/1/a.jpg`, a URL of this host, or a cloud storage's `s3://bucket/a.jpg`.
            task: The task's id: with it, Label Studio passes on what its cloud storages hold.

        Raises:
            ImageError: It means another host, port or scheme, or none.
        """
        shown = printable(address[:120])
        wrong = ImageError(f"the photo {shown!r} is not on {self.url}: photos are fetched from there alone")
        # Programs disagree on what these letters mean in an address.
        if len(address) > _LONGEST or not _is_plain(address) or "#" in address:
            raise wrong
        try:
            parts = urlsplit(address)
            if task is not None and parts.scheme in _CLOUDS:
                uri = base64.urlsafe_b64encode(address.encode()).decode()
                return f"{self.prefix}/tasks/{task}/resolve/?fileuri={uri}"
            port = parts.port
        except ValueError:
            raise wrong from None
        if parts.scheme or parts.netloc:
            own = (self.scheme, self.host, self.port)
            named = (parts.scheme, parts.hostname, port or _PORTS.get(parts.scheme))
            if named != own or "@" in parts.netloc:
                raise wrong
        if address.startswith("//") or not parts.path.startswith("/") or parts.path.startswith("//"):
            raise wrong
        if any(part in (".", "..") for part in re.sub("%2e", ".", parts.path, flags=re.IGNORECASE).split("/")):
            raise wrong
        prefix = "" if parts.scheme or parts.path.startswith(f"{self.prefix}/") else self.prefix
        query = f"?{quote(parts.query, safe=_KEPT + '?')}" if parts.query else ""
        return prefix + quote(parts.path, safe=_KEPT) + query

    def fetch(self, address: str, task: int | None = None) -> bytes:
        """The content of a photo's file; arguments as of `path`.

        Raises:
            ImageError: The address is another host's, or leads to one; the file is not there, too large or too slow.
        """
        path, end = self.path(address, task), time.monotonic() + self.seconds
        for _ in range(_REDIRECTS + 1):
            answer = self._authorized(path, end)
            if isinstance(answer, bytes):
                return answer
            path = self.path(answer)
        raise ImageError(f"{self.url} sends from one address to the next for {path!r:.120}: correct the task's address")

    def _authorized(self, path: str, end: float) -> bytes | str:
        """What the host answers to who knows the token; one of some minutes is asked for again when it is over."""
        if self.token is None or not _PERSONAL.fullmatch(self.token):
            return self._asked(path, end, {} if self.token is None else {"Authorization": f"Token {self.token}"})
        if self._brief:
            try:
                return self._asked(path, end, {"Authorization": f"Bearer {self._brief[0]}"})
            except _RefusedError:
                self._brief.clear()
        brief = self._exchanged(end)
        self._brief[:] = [brief]
        return self._asked(path, end, {"Authorization": f"Bearer {brief}"})

    def _exchanged(self, end: float) -> str:
        """A token of some minutes for a personal access token."""
        body = json.dumps({"refresh": self.token}, allow_nan=False).encode()
        answer = self._asked(self.prefix + _REFRESH, end, {"Content-Type": "application/json"}, body)
        try:
            brief = json.loads(answer)["access"]
        except (ValueError, KeyError, TypeError, RecursionError):
            brief = None
        if not isinstance(brief, str) or not _TOKEN.fullmatch(brief):
            raise ImageError(f"{self.url} gives nothing for the personal access token: check the address and the token")
        return brief

    def _asked(self, path: str, end: float, headers: dict[str, str], body: bytes | None = None) -> bytes | str:
        """A file's content, or the address to which the host sends instead."""
        seconds = max(0.001, end - time.monotonic())
        connection, late = self._connection(seconds), threading.Event()
        opened: list[socket.socket] = []

        def cut() -> None:
            late.set()
            for one in opened:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

        # Timeouts of sockets begin again with each byte; whatever the host does, the connection ends then.
        clock = threading.Timer(seconds, cut)
        clock.daemon = True
        clock.start()
        try:
            connection.connect()
            opened.append(connection.sock)
            if late.is_set():
                raise TimeoutError
            connection.request("GET" if body is None else "POST", path, body, _HEADERS | headers)
            with connection.getresponse() as response:
                answer = self._read(response, path)
            if late.is_set():
                raise TimeoutError
            return answer
        except (OSError, http.client.HTTPException) as error:
            slow = late.is_set() or isinstance(error, TimeoutError)
            why = f"it took longer than {self.seconds:g} s" if slow else reason(error)
            raise ImageError(f"{self.url} does not give {path!r:.120} ({why}): check that it runs") from error
        finally:
            clock.cancel()
            connection.close()

    def _read(self, answer: http.client.HTTPResponse, path: str) -> bytes | str:
        if answer.status in _MOVED:
            return answer.getheader("Location", "")
        if answer.status in (401, 403):
            raise _RefusedError(
                f"{self.url} refuses {path!r:.120}: give a token that may read the project's photos, and that is still "
                "valid: legacy tokens must be switched on in the organization's settings"
            )
        if answer.status != 200 or answer.getheader("Content-Encoding", "identity") != "identity":
            raise ImageError(f"{self.url} answers {answer.status} for {path!r:.120}: check the task's address")
        content = bytearray()
        while len(content) + (answer.length or 0) <= self.most_bytes:
            piece = answer.read1(_PIECE)
            content += piece
            if not piece:
                if answer.length:
                    raise http.client.IncompleteRead(b"", answer.length)
                return bytes(content)
        raise ImageError(f"{path!r:.120} is larger than this server's limit of {self.most_bytes / 1e6:g} MB")

    def _connection(self, seconds: float) -> http.client.HTTPConnection:
        if self.scheme == "http":
            return http.client.HTTPConnection(self.host, self.port, timeout=seconds)
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(self.host, self.port, timeout=seconds, context=context)


def _is_plain(text: str) -> bool:
    """Whether all programs read an address in one way: no spaces, no controls, no backslashes."""
    return bool(text) and "\\" not in text and all(letter.isprintable() and letter != " " for letter in text)
