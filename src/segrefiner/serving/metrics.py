"""What the server counts, for Prometheus to fetch; nothing is sent anywhere."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

MEDIA_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.01, 0.03, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
_MASKS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The figures of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "segrefiner_requests",
            "Requests by route and status; 499 is a client that went away",
            ["route", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "segrefiner_request_seconds",
            "From a request's header to the end of its answer",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._waiting = Gauge("segrefiner_queue_length", "Requests that wait for the model", registry=self._registry)
        self._batches = Histogram(
            "segrefiner_batch_masks", "Masks refined together", buckets=_MASKS, registry=self._registry
        )
        self._masks = Counter("segrefiner_masks_refined", "Masks refined", registry=self._registry)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Counts an answered request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def batch(self, masks: int) -> None:
        """Counts masks that are refined together."""
        self._batches.observe(masks)

    def refined(self, masks: int) -> None:
        """Counts masks of a request that was computed."""
        self._masks.inc(masks)

    def watch_queue(self, length: Callable[[], int]) -> None:
        """Says where the queue's length is to be had."""
        self._waiting.set_function(length)

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self._registry)
