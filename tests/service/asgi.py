"""Asks an ASGI application in this very process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from service.server.front import Front


@dataclass
class Answered:
    """What came back."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    parts: list[bytes] = field(default_factory=list)

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)


async def ask(
    front: Front,
    method: str,
    path: str,
    body: bytes | Sequence[bytes] = b"",
    headers: Mapping[str, str] = {},
    *,
    query: str = "",
    leave_after: float | None = None,
) -> Answered:
    """One request; a body in several pieces is sent as such, and the sender may leave some seconds after it."""
    pieces = [body] if isinstance(body, bytes) else list(body)
    sent = {"content-length": str(sum(map(len, pieces))), **{name.lower(): value for name, value in headers.items()}}
    fields = [(name.encode(), value.encode("latin-1")) for name, value in sent.items()]
    scope: dict[str, Any] = {
        "type": "http", "http_version": "1.1", "method": method, "path": path, "raw_path": quote(path).encode(),
        "query_string": query.encode("latin-1"), "headers": fields,
        "server": ("127.0.0.1", 1), "client": ("127.0.0.1", 2),
    }  # fmt: skip
    answered = Answered()

    async def receive() -> dict[str, Any]:
        if pieces:
            piece = pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(pieces)}
        await asyncio.sleep(3600 if leave_after is None else leave_after)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answered.status = message["status"]
            answered.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            answered.parts.append(message.get("body", b""))

    await front(scope, receive, send)
    return answered
