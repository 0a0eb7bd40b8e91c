"""Headers that every answer carries: the request id, what a browser may do with it, and who else may ask."""

from __future__ import annotations

import re
import secrets

from flask import Flask, Response, g, request

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
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def install(app: Flask, cors_origins: tuple[str, ...]) -> None:
    """Set the headers on every answer of ``app``.

    Args:
        app: The application.
        cors_origins: Origins whose pages may call the service (``https://example.org``, no path), or ``("*",)``.
    """

    @app.before_request
    def identify() -> None:
        # A proxy's id is kept, so that its log and ours can be joined; anything that is not plainly an id is not.
        given = request.headers.get("X-Request-ID", "")
        g.request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)

    @app.after_request
    def protect(response: Response) -> Response:
        response.headers["X-Request-ID"] = g.get("request_id", "")
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        # Pages and scripts are asked for again each time (an ETag makes that cheap); answers are never kept.
        cache = (
            "no-cache" if (response.mimetype or "").startswith("text/") or request.endpoint == "static" else "no-store"
        )
        response.headers["Cache-Control"] = cache
        _allow_origin(response, cors_origins)
        return response


def _allow_origin(response: Response, cors_origins: tuple[str, ...]) -> None:
    if not cors_origins:
        response.headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        return
    response.vary.add("Origin")
    origin = request.headers.get("Origin", "")
    if not origin or (origin not in cors_origins and "*" not in cors_origins):
        return
    response.headers["Access-Control-Allow-Origin"] = "*" if "*" in cors_origins else origin
    response.headers["Access-Control-Expose-Headers"] = "X-Request-ID, Server-Timing, Retry-After, Location"
    if request.method == "OPTIONS":
        response.headers["Access-Control-Allow-Methods"] = "GET, POST, DELETE"
        response.headers["Access-Control-Allow-Headers"] = "Content-Type, X-Request-ID"
        response.headers["Access-Control-Max-Age"] = "600"
