"""The ASGI application in front of Flask: what is slow in a request costs a connection, never a thread.

The event loop answers the probes itself, so they answer when everything else is busy. It reads each body whole, under
a limit and a deadline. Then an array or a picture goes to the queue of its bundle, and any other request to Flask, in
one of a few threads. An answer is handed over whole, or as it comes, and no thread waits until it is read.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

from flask import Flask

from runtime.errors import EdgedlError
from service.bundles.batching import Call
from service.bundles.served import Served
from service.headers import answer_headers
from service.operations.hooks import VISIT
from service.problems import PROBLEM_JSON, Problem, from_edgedl, problem_document
from service.replies import Reply
from service.server.bodies import Body, Gone, Leaving, disconnected
from service.server.direct import Direct, taken
from service.server.parts import Parts
from service.server.places import NOWHERE_ELSE, Places
from service.server.pools import Pools
from service.server.wsgi import Message, Relay, Scope, environ_of, response_start
from service.visits import CURRENT, Visit, kind_of

LOG = logging.getLogger("edgedl.service")

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

THREADS = 8
HELD_BODIES = 8
"""Bodies of the largest size that all requests together may hold, from their first byte to their answer."""

SMALL_BODY = 1 << 18
"""Bytes of a body that are taken even then: whoever holds all the rest shuts nobody else out."""

WAIT_SECONDS = 30.0
"""How long a request waits for its turn."""


class Front:
    """Answers HTTP requests for an application made by `service.app.create_app`.

    Args:
        app: The application.
        threads: Requests that Flask answers at a time, and pictures that are decoded at a time.
        wait_seconds: How long a request waits for its turn.
        places: Where the routes are.
    """

    def __init__(
        self, app: Flask, *, threads: int = THREADS, wait_seconds: float = WAIT_SECONDS, places: Places = NOWHERE_ELSE
    ) -> None:
        self.app = app
        self.parts: Parts = app.extensions["edgedl.parts"]
        self.places = places
        self.pools = Pools(threads, wait_seconds)
        self._posted: deque[asyncio.Future[None]] = deque()
        self._waking = False
        self.wait_seconds = wait_seconds
        self._held = 0
        self._most_held = HELD_BODIES * self.parts.settings.max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        match scope["type"]:
            case "http":
                await _Exchange(self, scope, receive, send).answer()
            case "lifespan":
                await receive()
                await send({"type": "lifespan.startup.complete"})
                await receive()
                await asyncio.get_running_loop().run_in_executor(None, self.close)
                await send({"type": "lifespan.shutdown.complete"})
            case _:
                await send({"type": "websocket.close", "code": 1000})

    def close(self) -> None:
        """Lets the sessions go."""
        self.pools.close()
        self.parts.swaps.close()

    def hold(self, size: int, of: int) -> None:
        """Counts bytes of a body that are in memory.

        Args:
            size: How many more.
            of: How many that body has by now.

        Raises:
            Problem: 503, all requests together hold too much.
        """
        if self._held + size > self._most_held and of > SMALL_BODY:
            raise Problem(503, "Too many large requests arrive at once; try again soon.", headers={"Retry-After": "2"})
        self._held += size

    def release(self, size: int) -> None:
        """Counts bytes that are in memory no longer."""
        self._held -= size

    def post(self, done: asyncio.Future[None], _call: Call) -> None:
        """Tells the event loop, from any thread, that a call is answered. Calls that end together wake it once."""
        self._posted.append(done)
        if not self._waking:
            self._waking = True
            with suppress(RuntimeError):  # the loop has ended, and nobody waits
                done.get_loop().call_soon_threadsafe(self._collect)

    def _collect(self) -> None:
        self._waking = False
        while self._posted:
            _finish(self._posted.popleft())


class _Exchange:
    """One request and its answer."""

    def __init__(self, front: Front, scope: Scope, receive: Receive, send: Send) -> None:
        self.front, self.scope = front, scope
        self.receive, self.send = receive, send
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.root, path = front.places.find(scope, self.headers)
        self.outside = path is None
        self.path: str = scope["path"] if path is None else path
        number = self._header(b"x-request-id")
        self.visit = Visit.of(scope["method"], self.path, number, self._header(b"traceparent"))
        self.body = Body(receive, self.headers, self.visit, front.parts.settings, front.hold)
        self.begun = False  # the answer
        self.ended = False

    async def answer(self) -> None:
        """Answers, whatever happens."""
        CURRENT.set(self.visit)
        self.front.parts.metrics.begin()
        try:
            reply = await self._outcome()
            if reply is not None:
                await self._send(reply)
        finally:
            self._end()
        await self.body.drain()

    def _end(self) -> None:
        """The last byte of the answer is on its way."""
        if not self.ended:
            self.ended = True
            if not self.visit.status:
                self.visit.leave()
            self.front.parts.metrics.end(self.visit)

    async def _outcome(self) -> Reply | None:
        """The answer or the refusal; None where nothing is left to be sent."""
        try:
            return await self._reply()
        except Gone:
            return None
        except Exception as error:  # noqa: BLE001 - it becomes a problem document
            refusal = self._refusal(error)
            return None if self.begun else refusal
        finally:
            self.front.release(self.visit.received)

    async def _reply(self) -> Reply | None:
        """The answer; None where Flask has given it.

        Raises:
            Problem: The request is wrong, or there is too much to do.
            EdgedlError: The bundle refuses it.
            Gone: The sender has left.
        """
        parts, visit = self.front.parts, self.visit
        probe = parts.probes.routes.get(self.path) if visit.method in ("GET", "HEAD") else None
        if probe is None and self.outside:
            raise Problem(404, f"There is nothing at {self.path}; this service answers below {self.root}/.")
        if parts.settings.keys is not None:
            parts.settings.keys.admit(visit, self._header(b"authorization"))
        if probe is not None:
            visit.route = self.path
            return probe()
        body = await self.body.read()
        posted = body if visit.method == "POST" else b""
        with taken(parts, self.path, self.headers, self.scope["query_string"], posted) as asked:
            if asked is None:
                await self._flask(body)
                return None
            visit.route, visit.bundle = asked.route, asked.served.name
            try:
                return await self._ask(asked, len(body))
            except Exception as error:
                if asked.failed is not None and not isinstance(error, Gone):
                    asked.failed()
                raise

    def _header(self, name: bytes) -> str:
        return self.headers.get(name, b"").decode("latin-1")

    async def _ask(self, asked: Direct, size: int) -> Reply:
        """The answer of a bundle's queue.

        Args:
            asked: What is asked of it.
            size: Bytes of the body.

        Raises:
            Problem: 503, it is full or broken.
            EdgedlError: The bundle refuses the request.
            Gone: The sender has left.
        """
        one, call = asked.served, asked.call
        begun = time.perf_counter()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        call.deadline = time.monotonic() + self.front.wait_seconds
        call.deliver = partial(self.front.post, done)
        leaving = Leaving(self.receive, partial(self._give_up, call, done))
        try:
            if asked.decode is None:
                one.submit(call)
                await done
            else:
                async with self.front.pools.turn(call):
                    await self.front.pools.decode(partial(_decode_and_submit, asked.decode, one, call))
                    await done
        except asyncio.CancelledError:
            call.gone = True
            raise
        finally:
            leaving.stop()
            one.mark(size, time.perf_counter() - begun, graph=asked.graph)
        reply: Reply | None = call.result()
        if reply is None:
            raise Gone
        return reply

    @staticmethod
    def _give_up(call: Call, done: asyncio.Future[None]) -> None:
        """The sender has left: nobody needs the answer, unless it is being made already."""
        call.gone = True
        if not call.taken:
            _finish(done)

    async def _flask(self, body: bytes) -> None:
        """Lets Flask answer, and sends what it gives as it comes."""
        visit = self.visit
        environ = environ_of(self.scope, body, self.root, len(self.scope["path"]) - len(self.path))
        environ[VISIT] = visit
        async with Relay(self.front.app, environ, self.front.pools.run) as relay:
            while (message := await relay.next()) is not None:
                self.begun = True
                visit.sent += len(message.get("body", b""))
                await self.send(message)
                if message.get("more_body", False):
                    relay.stop_once(partial(disconnected, self.receive))
                elif message["type"] == "http.response.body":
                    if relay.left:
                        visit.leave()
                    self._end()

    def _refusal(self, error: Exception) -> Reply:
        """The problem document of an error."""
        visit = self.visit
        name = self.path.removeprefix("/v1/")
        if visit.route == "unmatched" and name != self.path and name in self.front.parts.served:
            visit.route, visit.bundle = "/v1/<name>", name  # refused before it was asked
        if isinstance(error, EdgedlError):
            error = from_edgedl(error)
        if not isinstance(error, Problem):
            LOG.error("request %s failed: %s %s", visit.number, visit.method, visit.shown, exc_info=error)
            error = Problem(500, "The server failed; its log has the reason under this request id.")
        visit.kind = error.kind
        return Reply(error.status, problem_document(error, visit.number, self.path), PROBLEM_JSON, error.headers)

    async def _send(self, reply: Reply) -> None:
        visit = self.visit
        common = answer_headers(visit, self._header(b"origin"), self.front.parts.settings.cors_origins)
        headers = common | dict(reply.headers) | {"Content-Type": reply.content_type}
        if not self.body.whole and visit.method not in ("GET", "HEAD"):
            headers["Connection"] = "close"
        visit.status, visit.kind = reply.status, visit.kind or kind_of(reply.status)
        visit.sent = 0 if visit.method == "HEAD" else len(reply.body)
        await self.send(response_start(reply.status, [*headers.items(), ("Content-Length", str(len(reply.body)))]))
        await self.send({"type": "http.response.body", "body": reply.body})


def _decode_and_submit(decode: Callable[[Any], Any], one: Served, call: Call) -> None:
    """Goes to the queue from the thread that decodes, so that the event loop is woken for the answer alone."""
    call.source = decode(call.source)
    one.submit(call)


def _finish(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
