"""What an operator, an orchestrator and a tool ask: alive, ready, healthy, how much, and which routes there are."""

from __future__ import annotations

import time
from typing import Any

from flask import Blueprint, Response

from service.metrics import Metrics
from service.openapi import document
from service.repository import Repository
from service.served import Settings
from service.v1 import json_response

_RETRY = {"Retry-After": "2"}


def blueprint(served: Repository, settings: Settings, metrics: Metrics) -> Blueprint:
    """The routes ``/livez``, ``/readyz``, ``/health``, ``/metrics`` and ``/openapi.json``."""
    routes = Blueprint("operations", __name__)
    started = time.monotonic()

    @routes.get("/livez")
    def live() -> Response:
        return json_response({"status": "alive"})

    @routes.get("/readyz")
    def ready() -> Response:
        # Asking is also what makes a failed pipeline try again.
        unready = [name for name, one in served.items() if not one.ready()]
        if not unready:
            return json_response({"status": "ready"})
        response = json_response({"status": "unready", "unready": unready}, 503)
        response.headers.update(_RETRY)
        return response

    @routes.get("/health")
    def health() -> Response:
        bundles: dict[str, Any] = {}
        for name, one in served.items():
            ok = one.ready()
            bundles[name] = {"ready": ok, "failure": one.failure, "warm_up_ms": one.warm_up_ms}
        ok = all(entry["ready"] for entry in bundles.values())
        body = {
            "status": "ready" if ok else "unready",
            "live": True,
            "ready": ok,
            "uptime_seconds": round(time.monotonic() - started, 3),
            "bundles": bundles,
        }
        response = json_response(body, 200 if ok else 503)
        if not ok:
            response.headers.update(_RETRY)
        return response

    @routes.get("/metrics")
    def prometheus() -> Response:
        return metrics.exposition({name: one.failure is None for name, one in served.items()})

    @routes.get("/openapi.json")
    def openapi() -> Response:
        return json_response(document(served, settings))

    return routes
