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
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from flask import Flask

from runtime.errors import EdgedlError
from service.batching import Call, busy, overdue
from service.direct import Direct, taken
from service.headers import answer_headers, request_id
from service.inputs import too_large
from service.parts import Parts
from service.problems import PROBLEM_JSON, Problem, from_edgedl, problem_document
from service.replies import Reply
from service.wsgi import Message, Scope, environ_of, response_start, run_wsgi

LOG = logging.getLogger("edgedl.service")

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

THREADS = 8
MOST_WAITING = 256
"""Requests that may wait for a thread."""

HELD_BODIES = 8
"""Bodies of the largest size that all requests together may hold, from their first byte to their answer."""

SMALL_BODY = 1 << 18
"""Bytes of a body that are taken even then: whoever holds all the rest shuts nobody else out."""

WAIT_SECONDS = 30.0
"""How long a request waits for its turn."""

DRAIN_SECONDS, DRAIN_BYTES = 2.0, 64 << 20
"""What is still read of a body that was refused, so that its sender gets to read why."""


class Gone(Exception):  # noqa: N818 - nothing is wrong
    """Whoever asked has left."""


class Front:
    """Answers HTTP requests for an application made by `service.app.create_app`.

    Args:
        app: The application.
        threads: Requests that Flask answers at a time.
        wait_seconds: How long a request waits for its turn.
    """

    def __init__(self, app: Flask, *, threads: int = THREADS, wait_seconds: float = WAIT_SECONDS) -> None:
        self.app = app
        self.parts: Parts = app.extensions["edgedl.parts"]
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="edgedl-request")
        self._decoded = asyncio.Semaphore(threads)  # pictures in memory at a time
        self._waiting = 0
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
        self._threads.shutdown(cancel_futures=True)
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
            done.get_loop().call_soon_threadsafe(self._collect)

    def _collect(self) -> None:
        self._waking = False
        while self._posted:
            _finish(self._posted.popleft())

    @asynccontextmanager
    async def turn(self, call: Call) -> AsyncIterator[None]:
        """A place among the pictures that are in memory at a time.

        Raises:
            Problem: 503, too many wait for one, or this one did so for too long.
            Gone: The sender has left meanwhile.
        """
        if self._waiting >= MOST_WAITING:
            raise busy()
        self._waiting += 1
        try:
            async with asyncio.timeout(self.wait_seconds):
                await self._decoded.acquire()
        except TimeoutError:
            raise overdue() from None
        finally:
            self._waiting -= 1
        try:
            if call.gone:
                raise Gone
            yield
        finally:
            self._decoded.release()

    async def in_thread(self, work: Callable[[], Any]) -> Any:
        """Does work in one of the threads.

        Raises:
            Problem: 503, too many requests wait for one.
        """
        if self._waiting >= MOST_WAITING:
            raise busy()
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1


class _Exchange:
    """One request and its answer."""

    def __init__(self, front: Front, scope: Scope, receive: Receive, send: Send) -> None:
        self.front, self.scope = front, scope
        self.receive, self.send = receive, send
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.path: str = scope["path"]
        self.began = time.perf_counter()
        self.whole = False  # the body has been read to its end
        self.held = 0

    async def answer(self) -> None:
        """Answers, whatever happens."""
        parts, method = self.front.parts, self.scope["method"]
        probe = parts.probes.routes.get(self.path)
        route, bundle, posted = "unmatched", "", method == "POST"
        failed: Callable[[], None] | None = None
        try:
            if probe is not None and method in ("GET", "HEAD"):
                route, reply = self.path, probe()
            else:
                body = await self._body()
                with taken(
                    parts, self.path, self.headers, self.scope["query_string"], body if posted else b""
                ) as asked:
                    if asked is None:
                        await self._flask(body)
                        return
                    route, bundle, failed = asked.route, asked.served.name, asked.failed
                    reply = await self._ask(asked, len(body))
        except Gone:
            return
        except Exception as error:  # noqa: BLE001 - it becomes a problem document
            if failed is not None:
                failed()
            reply = self._refusal(error)
        finally:
            self.front.release(self.held)
        parts.metrics.count_request(route, bundle, method, reply.status, time.perf_counter() - self.began)
        await self._send(reply)
        await self._drain()

    async def _body(self) -> bytes:
        """The whole body.

        Raises:
            Problem: 408 or 413; 503, too many bodies arrive at once.
            Gone: Its sender has left.
        """
        settings = self.front.parts.settings
        length = self.headers.get(b"content-length")
        if length is not None and int(length) > settings.max_bytes:
            raise too_large(f"a body of {int(length):,} bytes", settings)
        deadline = self.began + settings.body_seconds
        pieces: list[bytes] = []
        while not self.whole:
            message = await self._message(deadline - time.perf_counter())
            piece: bytes = message.get("body", b"")
            if self.held + len(piece) > settings.max_bytes:
                raise too_large(f"a body of more than {settings.max_bytes:,} bytes", settings)
            self.front.hold(len(piece), self.held + len(piece))
            self.held += len(piece)
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _message(self, seconds: float) -> Message:
        """The next part of the body.

        Raises:
            Problem: 408, it did not come in time.
            Gone: The sender has left.
        """
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                message = await self.receive()
        except TimeoutError:
            allowed = self.front.parts.settings.body_seconds
            raise Problem(408, f"The body did not arrive within {allowed:g} seconds.") from None
        if message["type"] == "http.disconnect":
            raise Gone
        self.whole = not message.get("more_body", False)
        return message

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
        leaving = asyncio.get_running_loop().create_task(self._leave(call, done))
        try:
            if asked.decode is None:
                one.submit(call)
                await done
            else:
                async with self.front.turn(call):
                    call.source = await self.front.in_thread(partial(asked.decode, call.source))
                    one.submit(call)
                    await done
        finally:
            leaving.cancel()
            one.mark(size, time.perf_counter() - begun, graph=asked.graph)
        if call.error is not None:
            raise call.error
        if call.outcome is None:
            raise Gone
        reply: Reply = call.outcome
        return reply

    async def _leave(self, call: Call, done: asyncio.Future[None]) -> None:
        """Gives a call up as soon as the sender has left, unless it is being answered already."""
        await self._disconnected()
        call.gone = True
        if not call.taken:
            _finish(done)

    async def _disconnected(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def _flask(self, body: bytes) -> None:
        """Lets Flask answer, and sends what it gives as it comes."""
        loop = asyncio.get_running_loop()
        messages: asyncio.Queue[Message | None] = asyncio.Queue()
        left = False

        def emit(message: Message | None) -> bool:
            loop.call_soon_threadsafe(messages.put_nowait, message)
            return left

        async def run() -> None:
            try:
                await self.front.in_thread(partial(run_wsgi, self.front.app, environ_of(self.scope, body), emit))
            finally:
                messages.put_nowait(None)

        async def watch() -> None:
            nonlocal left
            await self._disconnected()
            left = True

        running = loop.create_task(run())
        watching: asyncio.Task[None] | None = None
        started = False
        try:
            while (message := await messages.get()) is not None:
                started = True
                await self.send(message)
                if watching is None and message.get("more_body", False):
                    watching = loop.create_task(watch())
            await running
        except Problem as problem:
            if not started:
                await self._send(self._refusal(problem))
        finally:
            left = True
            if watching is not None:
                watching.cancel()

    def _refusal(self, error: Exception) -> Reply:
        """The problem document of an error."""
        number = self._number()
        if isinstance(error, EdgedlError):
            error = from_edgedl(error)
        if not isinstance(error, Problem):
            LOG.error("request %s failed: %s %s", number, self.scope["method"], self.path, exc_info=error)
            error = Problem(500, "The server failed; its log has the reason under this request id.")
        document = problem_document(error, number, self.path)
        return Reply(error.status, document, PROBLEM_JSON, {**error.headers, "X-Request-ID": number})

    def _number(self) -> str:
        return request_id(self.headers.get(b"x-request-id", b"").decode("latin-1"))

    async def _send(self, reply: Reply) -> None:
        origin = self.headers.get(b"origin", b"").decode("latin-1")
        common = answer_headers(self._number(), origin, self.front.parts.settings.cors_origins)
        headers = common | dict(reply.headers) | {"Content-Type": reply.content_type}
        if not self.whole and self.scope["method"] not in ("GET", "HEAD"):
            headers["Connection"] = "close"
        await self.send(response_start(reply.status, [*headers.items(), ("Content-Length", str(len(reply.body)))]))
        await self.send({"type": "http.response.body", "body": reply.body})

    async def _drain(self) -> None:
        """Reads on for a while where the body was refused: closing at once could destroy the answer on its way."""
        if self.whole or (b"content-length" not in self.headers and b"transfer-encoding" not in self.headers):
            return
        size = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while size < DRAIN_BYTES:
                    message = await self.receive()
                    size += len(message.get("body", b""))
                    if not message.get("more_body", False):
                        return


def _finish(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
