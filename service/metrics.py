"""What ``GET /metrics`` tells Prometheus. The registry belongs to one application, so tests and apps never mix."""

from __future__ import annotations

import time
from collections.abc import Container, Mapping
from typing import Any

from flask import Flask, Response, g, request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from service.replies import Reply
from service.served import Served

# Seconds; from a tiny network on a fast core to a caption on a slow board.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_METHODS = frozenset(("GET", "HEAD", "POST", "DELETE", "OPTIONS"))


class Metrics:
    """Counters of one application; labels come from fixed sets, so no request can add a time series of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "edgedl_requests",
            "Requests answered.",
            ["route", "bundle", "method", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "edgedl_request_seconds",
            "Seconds from the first byte of a request to its answer.",
            ["route", "bundle"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.in_flight = Gauge("edgedl_requests_in_flight", "Requests being answered now.", registry=self.registry)
        self.images = Counter("edgedl_images", "Images and clips answered.", ["bundle"], registry=self.registry)
        self.results = Counter(
            "edgedl_results", "Things found in them, such as faces.", ["bundle", "kind"], registry=self.registry
        )
        self.ready = Gauge(
            "edgedl_ready", "1 where the bundle answers its warm-up run.", ["bundle"], registry=self.registry
        )

    def count_result(self, bundle: str, result: Mapping[str, Any]) -> None:
        """Counts an image and the members of each list in its result."""
        self.images.labels(bundle).inc()
        for kind, value in result.items():
            if isinstance(value, list):
                self.results.labels(bundle, kind).inc(len(value))

    def count_request(self, route: str, bundle: str, method: str, status: int, seconds: float) -> None:
        """Counts an answered request."""
        self.requests.labels(route, bundle, method if method in _METHODS else "other", str(status)).inc()
        self.seconds.labels(route, bundle).observe(seconds)

    def install(self, app: Flask, bundles: Container[str]) -> None:
        """Measures every request that reaches ``app``; unknown paths share one label."""

        @app.before_request
        def begin() -> None:
            g.began = time.perf_counter()
            self.in_flight.inc()

        @app.after_request
        def count(response: Response) -> Response:
            route = request.url_rule.rule if request.url_rule is not None else "unmatched"
            name = (request.view_args or {}).get("name", "")
            seconds = time.perf_counter() - g.began
            self.count_request(route, name if name in bundles else "", request.method, response.status_code, seconds)
            return response

        @app.teardown_request
        def end(_error: BaseException | None) -> None:
            if "began" in g:
                self.in_flight.dec()

    def exposition(self, served: Mapping[str, Served]) -> Reply:
        """The text that Prometheus reads."""
        self.ready.clear()  # bundles come and go
        for name, one in served.items():
            self.ready.labels(name).set(one.failure is None)
        return Reply(200, generate_latest(self.registry), CONTENT_TYPE_LATEST)
