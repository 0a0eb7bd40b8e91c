"""The worker of gunicorn that `edgedl serve` runs: its ASGI worker, with limits on what a connection may cost.

Bound to gunicorn 27, whose names it uses: see the decision on the front.
"""

from __future__ import annotations

import asyncio
import ctypes
import mmap
import os
import select
import socket
import ssl
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any

from gunicorn.asgi.protocol import HIGH_WATER_LIMIT, ASGIProtocol
from gunicorn.workers import gasgi

from service.problems import PROBLEM_JSON, Problem, problem_document
from service.server.handshakes import MOST_BEYOND, Handshakes
from service.server.turns import Turns
from service.visits import Visit, kind_of

HEAD_SECONDS = 10.0
"""How long the head of a request may take to arrive."""

READ_SECONDS = 30.0
"""How long a client may take to read what is in the way of its answer: some fifty kilobytes."""

HALF_SECONDS = 1.0
"""How long a client that sends no more may wait for its turn. It may have left for good: the system tells the same."""

IDLE_SECONDS = 1
"""How long a connection may be silent once the server is to stop."""

GOODBYE_SECONDS = 5.0
"""How long a client of TLS may take to end its side once the server is to stop; those that do not look never do."""

SETTLE_SECONDS = 0.02
"""What connections that are being made may take, once no others are begun."""

_ATTACH_FILTER = 26  # SO_ATTACH_FILTER, which Python has no name for

_ending: mmap.mmap | bytes = bytes(1)

LONGEST = 200
"""Characters of gunicorn's sentence, which quotes what was sent."""


class Connection(ASGIProtocol):  # type: ignore[misc]
    """One connection, which may be slow, but not for ever."""

    def __init__(self, worker: Any, misdirected: bool = False, made: Callable[[], None] = lambda: None) -> None:
        super().__init__(worker)
        self._misdirected = misdirected  # it speaks plain HTTP where TLS is spoken
        self._made = made
        self._overdue: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._closes: bool | None = None  # what was said of the connection with the answer
        self._heard = False  # a part of a request has come

    def connection_made(self, transport: Any) -> None:
        """A connection is there: within some seconds it has to bring the head of a request."""
        super().connection_made(transport)
        self._made()
        self.worker.connections.add(self)
        if self.worker.connections_beyond() > 0:
            self._send_error_response(503, "As many connections are open as this service allows; try again soon.")
            self._close_transport()
            return
        self._overdue = self.worker.loop.call_later(HEAD_SECONDS, self._refuse_head)

    def data_received(self, data: bytes) -> None:
        """A piece of a request has come."""
        self._heard = True
        if self._misdirected:
            self._send_error_response(400, "This port speaks HTTPS, and the request came as plain HTTP; ask https://.")
            self._close_transport()
            return
        super().data_received(data)

    def _on_message_complete(self) -> None:
        super()._on_message_complete()
        self._heard = False

    def _on_headers_complete(self) -> Any:
        self._closes = None
        self._stop(self._overdue)
        return super()._on_headers_complete()

    def _refuse_head(self) -> None:
        if self.req_count <= 1 and self._current_request is None and not self._closed:
            self._send_error_response(408, f"The head of the request did not arrive within {HEAD_SECONDS:g} seconds.")
            self._close_transport()

    def eof_received(self) -> bool:
        """The client sends no more: because it has sent all, because something broke, or because it has left."""
        receiver = self._body_receiver
        if self._closed or self._is_ssl:
            return False
        if receiver is not None and receiver._complete:
            self._keepalive = 0  # no other request can come
            self._overdue = self.worker.loop.call_later(HALF_SECONDS, receiver.signal_disconnect)
            return True
        if receiver is not None or self._heard:
            self._send_error_response(400, "The request breaks off before it is whole.")
        return False

    def _will_close(self, request: Any, response_requires_close: bool) -> bool:
        # Decided once for each answer: what has been announced is kept.
        if self._closes is None:
            self._closes = self.worker.stopping or super()._will_close(request, response_requires_close)
        return self._closes

    def _keepalive_timeout(self) -> None:
        # Under load the time may be up while the next request lies in the socket already: it is read first.
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        if poll.poll(0):
            self._arm_keepalive_timer()
        else:
            super()._keepalive_timeout()

    def close_when_idle(self) -> None:
        """Closes the connection once no request has come for a while, a shorter one than usual."""
        self._keepalive = min(self._keepalive, IDLE_SECONDS)
        if self._awaiting_request and self.req_count > 1:
            self._arm_keepalive_timer()

    def _resume_reading(self) -> None:
        # gunicorn reads on after each request, however many it has not looked at yet.
        if not self._is_buffer_full():
            super()._resume_reading()

    async def _serve_http_request(self, request: Any, sockname: Any, peername: Any) -> bool:
        """Answers a request. What comes after it on this connection waits until its answer has been taken."""
        # Not in a task of its own, as gunicorn has it for applications that work on after their answer.
        kept: bool = await self._handle_http_request(request, sockname, peername)
        if kept and not self._closed:
            if self.transport.get_write_buffer_size():
                self.transport.set_write_buffer_limits(high=1)
                await self._flow_control.drain()
                self.transport.set_write_buffer_limits(high=HIGH_WATER_LIMIT)
            if self._callback_parser.remaining():
                await self.worker.turns.next()
        return kept

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
        elif closing and self._is_ssl and self.worker.stopping:
            self._unread = self.worker.loop.call_later(GOODBYE_SECONDS, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self.worker.connections.discard(self)
        self._stop(self._overdue)
        self._stop(self._unread)
        super().connection_lost(exc)

    def _send_error_response(self, status: int, message: str, extra_headers: Any = ()) -> None:
        """Says why a request cannot be read, as a problem document and not as text."""
        peer = self.transport.get_extra_info("peername") or ("a socket",)
        # gunicorn's 501, for an unknown transfer coding, is the sender's fault as well.
        status = 400 if status == 501 else status
        visit = Visit.of("-", "-", "", "")
        visit.route, visit.status, visit.kind = "unreadable", status, kind_of(status)
        number = visit.number
        fields = {"request_id": number, "status": status}
        self.log.warning("Invalid request from ip=%s", peer[0], extra={"fields": fields})  # and not what was sent
        detail = "The server failed before it could answer." if status == 500 else message[:LONGEST]
        extra = {"Retry-After": "2"} if status == 503 else {}
        body = problem_document(Problem(status, detail), number)
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", "Server: edgedl", "Connection: close"]
        headers = {"Content-Type": PROBLEM_JSON, "Content-Length": str(len(body)), "X-Request-ID": number}
        lines += [f"{name}: {value}" for name, value in (headers | extra | dict(extra_headers)).items()]
        self._safe_write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        visit.sent = len(body)
        self.app.parts.metrics.begin()
        self.app.parts.metrics.end(visit)

    @staticmethod
    def _stop(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()


class Worker(gasgi.ASGIWorker):  # type: ignore[misc]
    """gunicorn's ASGI worker, which ends without a word to nobody.

    gunicorn closes connections that it has just promised to keep open, and resets those that wait to be accepted. Here
    the first thing that ends is listening. Then each connection is told with its next answer, or closed when it has
    been silent for a while.
    """

    alive: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stopping = False
        self.connections: set[Connection] = set()
        self._draining: asyncio.Task[None] | None = None
        self.handshakes: Handshakes | None = None

    def _setup_event_loop(self) -> None:
        super()._setup_event_loop()
        self.turns = Turns(self.loop)
        if self.cfg.is_ssl:  # this is how gunicorn's server is reached
            self.loop.create_server = self._listen_for_handshakes

    async def _listen_for_handshakes(self, _make: Any, *, ssl: ssl.SSLContext, **options: Any) -> asyncio.Server:
        self.handshakes = Handshakes(
            self.loop,
            ssl,
            seconds=HEAD_SECONDS,
            make=partial(Connection, self),
            full=lambda: self.connections_beyond() >= MOST_BEYOND,
        )
        server: asyncio.Server = await type(self.loop).create_server(self.loop, self.handshakes.door, **options)
        return server

    def connections_beyond(self) -> int:
        """How many more connections are open than may be; negative where some more may be."""
        shaking = 0 if self.handshakes is None else len(self.handshakes)
        return int(self.nr_conns + shaking - self.worker_connections)

    def load_wsgi(self) -> None:
        """Loads the application, and lets its metrics know which worker this is."""
        super().load_wsgi()
        metrics = self.asgi.parts.metrics
        metrics.connections = lambda: self.connections_beyond() + self.worker_connections
        metrics.worker = str(self.age) if self.cfg.workers > 1 else ""

    def handle_exit_signal(self) -> None:
        """SIGTERM."""
        if not self.stopping:
            self.stopping = True
            self._draining = self.loop.create_task(self._drain())

    async def _drain(self) -> None:
        await self._stop_listening()
        for connection in list(self.connections):
            connection.close_when_idle()
        deadline = self.loop.time() + self.cfg.graceful_timeout
        idle = self.loop.time() + IDLE_SECONDS
        while self.alive and self.loop.time() < deadline:
            if not self.nr_conns and (not self.handshakes or self.loop.time() > idle):
                break
            await asyncio.sleep(0.05)
        self.alive = False

    async def _shutdown(self) -> None:
        await self._stop_listening()
        await super()._shutdown()

    async def _stop_listening(self) -> None:
        listeners = [listener for server in self.servers for listener in server.sockets]
        accepted = []
        if listeners and _ending[0]:  # otherwise another worker goes on with the same socket
            for listener in listeners:
                _take_no_more(listener.fileno())
            await asyncio.sleep(SETTLE_SECONDS)
            for listener in listeners:
                self.loop.remove_reader(listener.fileno())
                accepted += _waiting(listener.fileno())
        for server in self.servers:
            server.close()
        for connection in accepted:
            if self.handshakes is not None:
                self.handshakes.begin(connection)
                continue
            with suppress(OSError):
                await self.loop.connect_accepted_socket(lambda: Connection(self), connection)


def _take_no_more(listener: int) -> None:
    """Lets a listening socket ignore whoever begins to connect; Linux only.

    Whoever is ignored tries again after a second, and is refused then. Without this a connection that is made between
    the last look and the end of the socket would be reset.
    """
    if sys.platform != "linux":
        return
    # A filter of the Berkeley kind: the flags of the TCP header, those with SYN are dropped, the rest is kept.
    code = [(0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
    with socket.socket(fileno=os.dup(listener)) as copy, suppress(OSError):
        if copy.family in (socket.AF_INET, socket.AF_INET6):
            copy.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("HL", len(code), ctypes.addressof(program)))


def _waiting(listener: int) -> list[socket.socket]:
    """The connections that wait in a listening socket: closing it would reset them."""
    found = []
    with socket.socket(fileno=os.dup(listener)) as waiting, suppress(OSError):
        waiting.setblocking(False)
        while True:
            found.append(waiting.accept()[0])
    return found


def install(ending: mmap.mmap) -> None:
    """Has gunicorn's worker make connections of this kind.

    Args:
        ending: Shared with the master, which sets its first byte before it stops. A worker that is replaced is told to
            end as well, but another goes on in its place.
    """
    global _ending
    gasgi.ASGIProtocol = Connection
    _ending = ending
