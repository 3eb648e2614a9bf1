"""Metrics of a service in the text format of Prometheus.

It does not know what is served. Each service has a registry of its own; labels are few and of bounded values.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """What is counted and measured; the watch of a batcher."""

    def __init__(self) -> None:
        """Begin at zero."""
        own = self._own = CollectorRegistry()
        self._requests = Counter(
            "shelfwise_requests_total", "Requests.", ["route", "method", "status"], registry=own
        )
        self._seconds = Histogram(
            "shelfwise_request_seconds",
            "From the head of a request to the end of its answer.",
            ["route"],
            buckets=SECONDS,
            registry=own,
        )
        self._refused = Counter("shelfwise_refused_total", "Requests refused.", ["code"], registry=own)
        self._dropped = Counter(
            "shelfwise_dropped_total",
            "Products dropped before they were looked at.",
            ["reason"],
            registry=own,
        )
        self._sizes = Histogram(
            "shelfwise_batch_products", "Products of a batch.", buckets=SIZES, registry=own
        )
        self._working = Histogram(
            "shelfwise_batch_seconds", "Seconds of a batch.", buckets=SECONDS, registry=own
        )
        self._waiting = Gauge("shelfwise_waiting_products", "Products that wait.", registry=own)
        self._loaded = Gauge("shelfwise_bundle_loaded_seconds", "When the bundle was loaded.", registry=own)

    def gauges(self, waiting: Callable[[], float], loaded: Callable[[], float]) -> None:
        """Say how many products wait, and when the bundle was loaded, in seconds since 1970."""
        self._waiting.set_function(waiting)
        self._loaded.set_function(loaded)

    def request(self, route: str, method: str, status: int, seconds: float, code: str) -> None:
        """Count a request that was answered or refused."""
        known = method if method in METHODS else "other"
        self._requests.labels(route, known, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        if code:
            self._refused.labels(code).inc()

    def batch(self, count: int, seconds: float) -> None:
        """Count a batch."""
        self._sizes.observe(count)
        self._working.observe(seconds)

    def dropped(self, reason: str, count: int) -> None:
        """Count products that were dropped."""
        self._dropped.labels(reason).inc(count)

    def text(self) -> bytes:
        """Return everything in the text format."""
        return generate_latest(self._own)
