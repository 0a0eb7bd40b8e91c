"""What an operator, an orchestrator and a tool ask: alive, ready, healthy, and how much."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from flask import Blueprint

from service.bundles.repository import Repository
from service.bundles.swaps import Swaps
from service.operations.metrics import Metrics
from service.operations.readiness import readiness
from service.replies import Reply, flask_response, json_reply

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


def blueprint(probes: Probes) -> Blueprint:
    """The routes ``/livez``, ``/readyz``, ``/health`` and ``/metrics``."""
    routes = Blueprint("operations", __name__)
    for path, answer in probes.routes.items():
        routes.add_url_rule(path, path.strip("/"), lambda answer=answer: flask_response(answer()))
    return routes
