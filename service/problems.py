"""Errors as RFC 9457 problem documents (``application/problem+json``).

Everything that is not a success leaves the process in this one form: what was found, what was expected, and the
request id under which the server's log has the rest. A stack trace never does.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

import orjson
from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from runtime.errors import EdgedlError, InputError, MissingExtraError, TooLargeError
from service.visits import CURRENT, kind_of

PROBLEM_JSON = "application/problem+json"
LOG = logging.getLogger("edgedl.service")


class Problem(Exception):  # noqa: N818 - the RFC's own word
    """An answer that is not a success.

    Args:
        status: HTTP status.
        detail: One or two sentences for the person who sent the request.
        found: What was found, if the request was at fault.
        expected: What was expected instead.
        headers: Further response headers, such as ``Allow``.
        kind: The kind of error in the metrics, one of `service.visits.KINDS`, if the status does not tell it.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        found: str | None = None,
        expected: str | None = None,
        headers: dict[str, str] | None = None,
        kind: str = "",
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.found = found
        self.expected = expected
        self.headers = headers or {}
        self.kind = kind or kind_of(status)


def bad_request(found: str, expected: str) -> Problem:
    """400: the request itself has the wrong form."""
    return Problem(400, f"Found {found}; expected {expected}.", found=found, expected=expected)


def from_edgedl(error: EdgedlError, where: str = "") -> Problem:
    """The problem for an error of the runtime that the sender can mend: 413 if too large, else 422."""
    status = 413 if isinstance(error, TooLargeError) else 422
    return Problem(status, f"{where}: {error}" if where else str(error))


def problem_document(problem: Problem, request_id: str, path: str = "") -> bytes:
    """The problem as JSON.

    Args:
        problem: What went wrong.
        request_id: Under which the log has the rest.
        path: What was asked for. Under ``/v2`` the document has ``error`` as well, which clients of that protocol read.
    """
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "request_id": request_id,
    }
    if problem.found is not None:
        document["found"] = problem.found
    if problem.expected is not None:
        document["expected"] = problem.expected
    if f"{path}/".startswith("/v2/"):
        document["error"] = problem.detail
    # Python's JSON of a lone surrogate (a path in undecodable bytes) is refused by orjson: replace, never fail here.
    text = {k: v.encode("utf-8", "replace").decode() if isinstance(v, str) else v for k, v in document.items()}
    return orjson.dumps(text)


def problem_response(problem: Problem) -> Response:
    """The response that carries a problem document."""
    visit = CURRENT.get()
    if visit is not None:
        visit.kind = problem.kind
    body = problem_document(problem, g.get("request_id", ""), request.path)
    response = Response(body, status=problem.status, content_type=PROBLEM_JSON)
    response.headers.extend(problem.headers)
    return response


def install(app: Flask) -> None:
    """Make every error of ``app`` a problem document."""
    app.register_error_handler(Problem, problem_response)
    app.register_error_handler(HTTPException, _http_exception)
    app.register_error_handler(InputError, lambda error: problem_response(from_edgedl(error)))
    app.register_error_handler(MissingExtraError, _not_installed)
    app.register_error_handler(Exception, _unexpected)


def _not_installed(error: MissingExtraError) -> Response:
    """What this service could read, had it what reads it: of all requests a video's."""
    return problem_response(Problem(415, f"This service does not read files of this kind: {error}."))


def _http_exception(error: HTTPException) -> Response:
    """What the framework itself refuses: unknown paths, wrong methods, malformed hosts."""
    status = error.code or 500
    headers = {k: v for k, v in error.get_headers() if k.lower() in {"allow", "retry-after"}}
    if status == 404:
        problem = Problem(
            404, f"There is nothing at {request.path}; GET {request.script_root}/openapi.json lists what there is."
        )
    elif status == 405:
        allowed = headers.get("Allow", "")
        problem = Problem(
            405,
            f"{request.path} does not take {request.method}; it takes {allowed}.",
            found=request.method,
            expected=allowed,
            headers=headers,
        )
    else:
        problem = Problem(status, error.description or HTTPStatus(status).phrase, headers=headers)
    return problem_response(problem)


def _unexpected(error: Exception) -> Response:
    """A fault of ours: the log gets the trace, the sender the id to ask for."""
    shown = "" if (visit := CURRENT.get()) is None else visit.shown
    LOG.error("request %s failed: %s %s", g.get("request_id", "?"), request.method, shown, exc_info=error)
    return problem_response(Problem(500, "The server failed; its log has the reason under this request id."))
