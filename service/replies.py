"""An answer before it is put into the form that Flask or the front sends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from flask import Response

JSON_TYPE = "application/json"
EVENT_STREAM = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer.

    Attributes:
        status: HTTP status.
        body: The bytes.
        content_type: Of the body.
        headers: Those that belong to this answer only.
    """

    status: int
    body: bytes
    content_type: str = JSON_TYPE
    headers: Mapping[str, str] = field(default_factory=dict)


def json_reply(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """A JSON answer; numpy values are written as they are."""
    body = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    return Reply(status, body, JSON_TYPE, headers or {})


def answered(name: str, version: str, results: Sequence[Any], **seconds: float) -> Reply:
    """The results of a bundle, and how many seconds went into them."""
    timing = ", ".join(f"{part};dur={spent * 1e3:.2f}" for part, spent in seconds.items())
    return json_reply({"name": name, "version": version, "results": results}, headers={"Server-Timing": timing})


def flask_response(reply: Reply) -> Response:
    """A reply as Flask sends it."""
    response = Response(reply.body, status=reply.status, content_type=reply.content_type)
    response.headers.update(reply.headers)
    return response
