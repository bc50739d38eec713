"""How much a client may send, and how long it may take."""

from collections import Counter
from dataclasses import dataclass

from .problems import BUSY, busy


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
