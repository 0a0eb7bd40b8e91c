"""What an operator, an orchestrator and a tool ask: alive, ready, healthy, how much, and which routes there are."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import zip_longest

from flask import Blueprint, Response

from service.metrics import Metrics
from service.openapi import document
from service.readiness import readiness
from service.replies import Reply, json_reply
from service.repository import Repository
from service.served import Served
from service.settings import Settings
from service.swaps import Swaps

_RETRY = {"Retry-After": "2"}


class Probes:
    """Answers that take no time and no thread: they read what is known, and run nothing."""

    def __init__(self, served: Repository, swaps: Swaps, metrics: Metrics) -> None:
        self._served, self._swaps, self._metrics = served, swaps, metrics
        self._started = time.monotonic()
        self.routes: Mapping[str, Callable[[], Reply]] = {
            "/livez": self.live,
            "/readyz": self.ready,
            "/health": self.health,
            "/metrics": self.exposition,
        }

    def live(self) -> Reply:
        """The process is alive."""
        return json_reply({"status": "alive"})

    def ready(self) -> Reply:
        """Which bundles answer, and what was proven of each."""
        document, ok = readiness(self._served, self._swaps.kept_out)
        return json_reply(document, 200 if ok else 503, {} if ok else _RETRY)

    def health(self) -> Reply:
        """Liveness and readiness of each bundle."""
        bundles = {
            name: {"ready": one.ready(), "failure": one.failure, "warm_up_ms": one.health.warm_up_ms}
            for name, one in self._served.items()
        }
        ok = all(one.ready() for one in self._served.all())
        body = {
            "status": "ready" if ok else "unready",
            "live": True,
            "ready": ok,
            "uptime_seconds": round(time.monotonic() - self._started, 3),
            "bundles": bundles,
        }
        return json_reply(body, 200 if ok else 503, {} if ok else _RETRY)

    def exposition(self) -> Reply:
        """What Prometheus reads."""
        return self._metrics.exposition()


def blueprint(served: Repository, settings: Settings, probes: Probes) -> Blueprint:
    """The routes ``/livez``, ``/readyz``, ``/health``, ``/metrics`` and ``/openapi.json``."""
    routes = Blueprint("operations", __name__)
    for path, answer in probes.routes.items():
        routes.add_url_rule(path, path.strip("/"), lambda answer=answer: flask_response(answer()))

    kept: list[tuple[tuple[Served, ...], Reply]] = []

    @routes.get("/openapi.json")
    def openapi() -> Response:
        # Made once for the bundles that are served: it takes milliseconds, and anybody may ask for it.
        offered = served.all()
        if not kept or any(one is not other for one, other in zip_longest(kept[0][0], offered)):
            kept[:] = [(offered, json_reply(document(served, settings)))]
        return flask_response(kept[0][1])

    return routes


def flask_response(reply: Reply) -> Response:
    """A reply as Flask sends it."""
    response = Response(reply.body, status=reply.status, content_type=reply.content_type)
    response.headers.update(reply.headers)
    return response
