"""One request as the log and the metrics know it, from its first byte to the last one of its answer."""

from __future__ import annotations

import logging
import re
import secrets
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from urllib.parse import quote

from service.tracing import Trace, continued

ACCESS = logging.getLogger("edgedl.access")
"""A line for each request, on the level INFO. Silent until its own level is set to INFO."""

if ACCESS.level == logging.NOTSET:
    ACCESS.setLevel(logging.WARNING)

LEFT = 499
"""The status of a request whose sender left before the answer; nginx writes the same."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_STREAM = re.compile(r"(/streams/)[^/]+")
_LONGEST = 200

# RFC 9110 and what this service means by each status. 503 has several causes, so `service.problems.Problem` says which.
_KINDS = {
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "not_found",
    408: "timeout",
    410: "not_found",
    413: "too_large",
    414: "too_large",
    415: "unreadable",
    422: "unreadable",
    431: "too_large",
    499: "left",
    503: "overload",
}
KINDS = frozenset((*_KINDS.values(), "bad_request", "broken", "internal"))
"""Every kind of error that the metrics tell apart."""


def kind_of(status: int) -> str:
    """The kind of error that a status stands for, if nothing more is known; none for a success."""
    if status < 400:
        return ""
    return _KINDS.get(status, "bad_request" if status < 500 else "internal")


def request_id(given: str) -> str:
    """A proxy's id is kept, so that its log and ours can be joined; what is not plainly an id is replaced."""
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


@dataclass(slots=True)
class Visit:
    """One request and what became of it.

    Attributes:
        method: HTTP method.
        path: What was asked for.
        number: The request id.
        trace: The trace that it belongs to, if any.
        began: `time.perf_counter` at its beginning.
        route: The route that answers, as a pattern; the same for all requests that it answers.
        bundle: The name of the bundle that answers, if one does.
        key: The name of the key that it was sent with, if keys are asked for.
        admitted: It has shown a key, or needs none.
        status: HTTP status of the answer.
        kind: The kind of error, one of `KINDS`; empty for a success.
        received: Bytes of its body.
        sent: Bytes of the answer's body.
    """

    method: str
    path: str
    number: str
    trace: Trace | None = None
    began: float = field(default_factory=time.perf_counter)
    route: str = "unmatched"
    bundle: str = ""
    key: str = ""
    admitted: bool = False
    status: int = 0
    kind: str = ""
    received: int = 0
    sent: int = 0

    @classmethod
    def of(cls, method: str, path: str, given_id: str, traceparent: str) -> Visit:
        """A request that has just come, with the headers that say which it is."""
        return cls(method, path, request_id(given_id), continued(traceparent) if traceparent else None)

    @property
    def shown(self) -> str:
        """The path as a log may have it: on one line, not too long, without the secret name of a stream."""
        return quote(_STREAM.sub(r"\1*", self.path)[:_LONGEST] or "/", safe="/:@!$&'()*+,;=-._~")

    def leave(self) -> None:
        """Notes that the sender has left."""
        self.status, self.kind = LEFT, "left"

    def log(self) -> None:
        """Writes the line of the access log, if there is one."""
        if not ACCESS.isEnabledFor(logging.INFO):
            return
        milliseconds = round((time.perf_counter() - self.began) * 1e3, 3)
        fields = {
            "request_id": self.number,
            "method": self.method,
            "path": self.shown,
            "route": self.route,
            "bundle": self.bundle,
            "status": self.status,
            "ms": milliseconds,
            "received": self.received,
            "sent": self.sent,
            "key": self.key,
            "error": self.kind,
        }
        if self.trace is not None:
            fields |= {"trace_id": self.trace.trace_id, "span_id": self.trace.span_id}
        ACCESS.info(
            '"%s %s" %d %d bytes %.1f ms', self.method, self.shown, self.status, self.sent, milliseconds,
            extra={"fields": {name: value for name, value in fields.items() if value != ""}},
        )  # fmt: skip


CURRENT: ContextVar[Visit | None] = ContextVar("edgedl_visit", default=None)
"""The request that this task or thread works for."""
