"""Headers that every answer carries: the request id, what a browser may do with it, and who else may ask."""

from __future__ import annotations

from collections.abc import Sequence

from flask import Flask, Response, g, request

from service.visits import Visit

# Everything the page needs comes from its own origin as a file: no inline script or style, no other host, no frame.
# blob: is a video that the person chose, played from the browser's own memory.
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}


def answer_headers(visit: Visit, origin: str, cors_origins: Sequence[str]) -> dict[str, str]:
    """What every answer carries that is not a file of the page.

    Args:
        visit: The request.
        origin: The request's header of that name; empty where there is none.
        cors_origins: Origins whose pages may call the service (``https://example.org``, no path), or ``("*",)``.
    """
    headers = {"X-Request-ID": visit.number, **SECURITY_HEADERS, "Cache-Control": "no-store"}
    if visit.trace is not None:
        headers["traceparent"] = visit.trace.header
    if not cors_origins:
        headers["Cross-Origin-Resource-Policy"] = "same-origin"
        return headers
    headers["Vary"] = "Origin"
    if origin and (origin in cors_origins or "*" in cors_origins):
        headers["Access-Control-Allow-Origin"] = "*" if "*" in cors_origins else origin
        headers["Access-Control-Expose-Headers"] = (
            "X-Request-ID, Server-Timing, Retry-After, Location, Inference-Header-Content-Length, traceparent"
        )
    return headers


def install(app: Flask, cors_origins: Sequence[str]) -> None:
    """Sets the headers on every answer of ``app``; see `answer_headers`."""

    @app.after_request
    def protect(response: Response) -> Response:
        origin = request.headers.get("Origin", "")
        for name, value in answer_headers(g.visit, origin, cors_origins).items():
            if name == "Vary":
                response.vary.add(value)
            else:
                response.headers.setdefault(name, value)
        # Pages and scripts are asked for again each time (an ETag makes that cheap); answers are never kept.
        if (response.mimetype or "").startswith("text/") or request.endpoint == "static":
            response.headers["Cache-Control"] = "no-cache"
        if request.method == "OPTIONS" and "Access-Control-Allow-Origin" in response.headers:
            response.headers["Access-Control-Allow-Methods"] = "GET, POST, DELETE"
            response.headers["Access-Control-Allow-Headers"] = (
                "Authorization, Content-Type, X-Request-ID, Inference-Header-Content-Length, traceparent"
            )
            response.headers["Access-Control-Max-Age"] = "600"
        return response
