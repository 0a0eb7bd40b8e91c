"""What Flask does for each request beside answering it: it asks for a key, and counts and logs what became of it.

Behind `service.server.front` the request was begun there, and ends there. Under any other WSGI server it begins and
ends here.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from typing import cast

from flask import Flask, Response, g, request

from service.keys import Keys
from service.operations.metrics import Metrics
from service.replies import EVENT_STREAM
from service.visits import CURRENT, Visit, kind_of

VISIT = "edgedl.visit"
"""Where the front leaves a request that it has begun, in the environment of WSGI."""


def install(app: Flask, bundles: Container[str], metrics: Metrics, keys: Keys | None) -> None:
    """Does so for every request that reaches ``app``; unknown paths share one route in the metrics."""

    @app.before_request
    def begin() -> None:
        headers = request.headers
        visit: Visit | None = request.environ.get(VISIT)
        if visit is None:
            traced = headers.get("traceparent", "")
            visit = Visit.of(request.method, request.path, headers.get("X-Request-ID", ""), traced)
            metrics.begin()
        g.visit, g.request_id = visit, visit.number
        CURRENT.set(visit)
        visit.route = request.url_rule.rule if request.url_rule is not None else "unmatched"
        visit.bundle = _bundle((request.view_args or {}).get("name", ""), bundles)
        if keys is not None and not visit.admitted:
            keys.admit(visit, headers.get("Authorization", ""))

    @app.after_request
    def measure(response: Response) -> Response:
        visit: Visit = g.visit
        visit.status = response.status_code
        visit.kind = visit.kind or kind_of(visit.status)
        streamed = response.mimetype == EVENT_STREAM
        if streamed:
            texts = metrics.texts.labels(visit.bundle)
            texts.inc()
            response.call_on_close(texts.dec)
        if VISIT in request.environ:
            return response
        visit.received = request.content_length or 0
        if streamed:
            response.response = _counted(cast("Iterable[bytes]", response.response), visit)
            response.call_on_close(lambda: metrics.end(visit))
        else:
            visit.sent = response.content_length or response.calculate_content_length() or 0
            metrics.end(visit)
        return response


def _bundle(name: str, bundles: Container[str]) -> str:
    """The bundle that a route asks by its name, or by that of one of its models: ``NAME.MODEL``."""
    return next((found for found in (name, name.rpartition(".")[0]) if found in bundles), "")


def _counted(chunks: Iterable[bytes], visit: Visit) -> Iterator[bytes]:
    for chunk in chunks:
        visit.sent += len(chunk)
        yield chunk
