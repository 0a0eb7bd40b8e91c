"""What comes from the sender of a request: its body, within a limit and a deadline, and the news that it has left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from service.problems import Problem
from service.routes.inputs import too_large
from service.server.wsgi import Message
from service.settings import Settings
from service.visits import Visit

DRAIN_SECONDS, DRAIN_BYTES = 2.0, 64 << 20
"""What is still read of a body that was refused, so that its sender gets to read why."""

WATCH_SECONDS = 0.1
"""How long an answer may take before it is asked whether its reader is still there; asking costs a task."""


class Gone(Exception):  # noqa: N818 - nothing is wrong
    """Whoever asked has left."""


class Body:
    """The body of one request.

    Attributes:
        whole: It has been read to its end.

    Args:
        receive: Gives its parts.
        headers: Of the request.
        visit: The request; it is told how much has been received.
        settings: The limits.
        hold: Called with each part's size and the size so far; it raises a `Problem` to refuse the part.
    """

    def __init__(
        self,
        receive: Callable[[], Awaitable[Message]],
        headers: Mapping[bytes, bytes],
        visit: Visit,
        settings: Settings,
        hold: Callable[[int, int], None],
    ) -> None:
        self._receive, self._headers, self._visit = receive, headers, visit
        self._settings, self._hold = settings, hold
        self.whole = False

    async def read(self) -> bytes:
        """All of it.

        Raises:
            Problem: 408 or 413; 503, too many bodies arrive at once.
            Gone: Its sender has left.
        """
        settings, visit = self._settings, self._visit
        length = self._headers.get(b"content-length")
        if length is not None and int(length) > settings.max_bytes:
            raise too_large(f"a body of {int(length):,} bytes", settings)
        deadline = visit.began + settings.body_seconds
        pieces: list[bytes] = []
        while not self.whole:
            message = await self._message(deadline - time.perf_counter())
            piece: bytes = message.get("body", b"")
            size = visit.received + len(piece)
            if size > settings.max_bytes:
                raise too_large(f"a body of more than {settings.max_bytes:,} bytes", settings)
            self._hold(len(piece), size)
            visit.received = size
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _message(self, seconds: float) -> Message:
        """The next part.

        Raises:
            Problem: 408, it did not come in time.
            Gone: The sender has left.
        """
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                message = await self._receive()
        except TimeoutError:
            allowed = self._settings.body_seconds
            raise Problem(408, f"The body did not arrive within {allowed:g} seconds.") from None
        if message["type"] == "http.disconnect":
            raise Gone
        self.whole = not message.get("more_body", False)
        return message

    async def drain(self) -> None:
        """Reads on for a while where it was refused: closing at once could destroy the answer on its way."""
        if self.whole or (b"content-length" not in self._headers and b"transfer-encoding" not in self._headers):
            return
        size = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while size < DRAIN_BYTES:
                    message = await self._receive()
                    size += len(message.get("body", b""))
                    if not message.get("more_body", False):
                        return


async def disconnected(receive: Callable[[], Awaitable[Message]]) -> None:
    """Returns when whoever asked has left. All of the body has to be read before.

    Args:
        receive: Gives what comes from them.
    """
    while (await receive())["type"] != "http.disconnect":
        pass


class Leaving:
    """Tells when whoever asked has left, unless the answer is there soon.

    Args:
        receive: Gives what comes from them.
        left: Called when they have.
    """

    def __init__(self, receive: Callable[[], Awaitable[Message]], left: Callable[[], None]) -> None:
        self._receive, self._left = receive, left
        self._loop = asyncio.get_running_loop()
        self._watching: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(WATCH_SECONDS, self._begin)

    def stop(self) -> None:
        """Nobody needs to know any more."""
        self._timer.cancel()
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None  # the two would keep each other, and the request, until the garbage collector comes

    def _begin(self) -> None:
        self._watching = self._loop.create_task(self._watch())

    async def _watch(self) -> None:
        await disconnected(self._receive)
        self._left()
