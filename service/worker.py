"""The worker of gunicorn that `edgedl serve` runs: its ASGI worker, with limits on what a connection may cost.

Bound to gunicorn 27, whose names it uses: see the decision on the front.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from http import HTTPStatus
from typing import Any

from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.workers import gasgi

from service.problems import PROBLEM_JSON, Problem, problem_document

HEAD_SECONDS = 10.0
"""How long the head of a request may take to arrive."""

READ_SECONDS = 30.0
"""How long a client may take to read what is in the way of its answer: some fifty kilobytes."""

CONNECTIONS = 1000
"""Open at a time. More are told so and closed."""

LONGEST = 200
"""Characters of gunicorn's sentence, which quotes what was sent."""


class Connection(ASGIProtocol):  # type: ignore[misc]
    """One connection, which may be slow, but not for ever."""

    def __init__(self, worker: Any) -> None:
        super().__init__(worker)
        self._overdue: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A connection is there: within some seconds it has to bring the head of a request."""
        super().connection_made(transport)
        if self.worker.nr_conns > CONNECTIONS:
            self._send_error_response(503, "As many connections are open as this service allows; try again soon.")
            self._close_transport()
            return
        self._overdue = self.worker.loop.call_later(HEAD_SECONDS, self._refuse_head)

    def _on_headers_complete(self) -> Any:
        self._stop(self._overdue)
        return super()._on_headers_complete()

    def _refuse_head(self) -> None:
        if self.req_count <= 1 and self._current_request is None and not self._closed:
            self._send_error_response(408, f"The head of the request did not arrive within {HEAD_SECONDS:g} seconds.")
            self._close_transport()

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """The client has read on."""
        super().resume_writing()
        self._stop(self._unread)

    def _watch_reader(self) -> None:
        self._stop(self._unread)
        self._unread = self.worker.loop.call_later(READ_SECONDS, self.transport.abort)

    def _close_transport(self) -> None:
        closing = not self._closed
        super()._close_transport()
        if closing and self.transport is not None and self.transport.get_write_buffer_size():
            self._watch_reader()  # closed is what has been sent

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._stop(self._overdue)
        self._stop(self._unread)
        super().connection_lost(exc)

    def _send_error_response(self, status: int, message: str, extra_headers: Any = ()) -> None:
        """Says why a request cannot be read, as a problem document and not as text."""
        peer = self.transport.get_extra_info("peername") or ("a socket",)
        self.log.warning("Invalid request from ip=%s", peer[0])  # and not what was sent
        # gunicorn's 501, for an unknown transfer coding, is the sender's fault as well.
        status = 400 if status == 501 else status
        self.app.parts.metrics.count_request("unreadable", "", "other", status, 0.0)
        number = secrets.token_hex(8)
        detail = "The server failed before it could answer." if status == 500 else message[:LONGEST]
        extra = {"Retry-After": "2"} if status == 503 else {}
        body = problem_document(Problem(status, detail), number)
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", "Server: edgedl", "Connection: close"]
        headers = {"Content-Type": PROBLEM_JSON, "Content-Length": str(len(body)), "X-Request-ID": number}
        lines += [f"{name}: {value}" for name, value in (headers | extra | dict(extra_headers)).items()]
        self._safe_write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    @staticmethod
    def _stop(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()


class Worker(gasgi.ASGIWorker):  # type: ignore[misc]
    """gunicorn's ASGI worker, which leaves no connection in the listening socket when it stops."""

    async def _shutdown(self) -> None:
        for server in self.servers:
            for listener in server.sockets:
                await self._take_waiting(listener)
        await super()._shutdown()

    async def _take_waiting(self, listener: Any) -> None:
        """Accepts what has connected: closing the socket would reset it."""
        self.loop.remove_reader(listener.fileno())
        with socket.socket(fileno=os.dup(listener.fileno())) as waiting:
            waiting.setblocking(False)
            accepted = []
            while True:
                try:
                    accepted.append(waiting.accept()[0])
                except OSError:
                    break
        for connection in accepted:
            await self.loop.connect_accepted_socket(lambda: Connection(self), connection, ssl=self._get_ssl_context())


def install() -> None:
    """Has gunicorn's worker make connections of this kind."""
    gasgi.ASGIProtocol = Connection
