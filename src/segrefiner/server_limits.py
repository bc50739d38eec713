"""How much a client may send, and how long it may take."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from starlette.types import Message, Receive

from .server_errors import BAD_REQUEST, BUSY, TOO_LARGE, TOO_SLOW, ProblemError, busy

_LINGER_SECONDS, _LINGER_BYTES = 2.0, 64_000_000
"""How long, and for how much, the rest of a refused body is waited for; nothing of it is kept."""


@dataclass(frozen=True)
class Limits:
    """What one server puts up with.

    Attributes:
        upload_bytes: Of a request's body.
        pixels: Of a photo.
        side: Pixels of a photo's longer side.
        mask_pixels: Of all masks of a request together; by default four times as many as of a photo.
        masks: Of a request, or labels of a label map.
        views: Of the network that a request's masks are estimated to take, see `cost`.
        queue: Requests that are decoded, wait or are computed at the same time.
        receiving_bytes: Of bodies that have begun to arrive, all together; half of it from one client.
        waiting_bytes: Decoded pictures that wait.
        idle_seconds: Without a byte of a body that is not complete.
        upload_seconds: Until a body is complete.
        queue_seconds: Until a request's turn comes.
        request_seconds: From the end of a request's body to its answer.
        stuck_seconds: Without a sign of the thread that computes, after which the server says that it is not ready.
    """

    upload_bytes: int = 32_000_000
    pixels: int = 50_000_000
    side: int = 65_535
    mask_pixels: int = 0
    masks: int = 100
    views: float = 1000.0
    queue: int = 32
    receiving_bytes: int = 512_000_000
    waiting_bytes: int = 2 << 30
    idle_seconds: float = 10.0
    upload_seconds: float = 60.0
    queue_seconds: float = 60.0
    request_seconds: float = 300.0
    stuck_seconds: float = 120.0

    def __post_init__(self) -> None:
        if not self.mask_pixels:
            object.__setattr__(self, "mask_pixels", 4 * self.pixels)


class Arriving:
    """What is being received, of all requests.

    Args:
        limits: Say how much it may be.
    """

    def __init__(self, limits: Limits) -> None:
        self._most = limits.receiving_bytes
        self._bytes: Counter[str] = Counter()

    def add(self, client: str, count: int) -> None:
        """Counts bytes of a client. Raises `ProblemError` where they are too many."""
        self._bytes[client] += count
        if self._bytes[client] > self._most // 2 or self._bytes.total() > self._most:
            raise busy(BUSY, "too much is being sent at the same time: try again later", 5)

    def remove(self, client: str, count: int) -> None:
        """Forgets bytes of a client."""
        self._bytes[client] -= count
        if self._bytes[client] <= 0:
            del self._bytes[client]


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
        except asyncio.TimeoutError:
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
