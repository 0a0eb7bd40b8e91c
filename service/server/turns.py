"""Turns of the event loop: those that have had one let others go first."""

from __future__ import annotations

import asyncio
from collections import deque

AT_ONCE = 4
"""Who goes on in one round of the event loop."""


class Turns:
    """Lets a few of those who wait go on in each round of an event loop, the longest waiting first.

    A connection may bring many requests at once. If hundreds do, and each goes on as soon as it can, a round takes a
    tenth of a second, and a new connection needs several rounds. With turns a round stays short, however many wait. The
    loop goes round as long as anybody waits, so no time is lost.

    Args:
        loop: The event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def next(self) -> None:
        """Waits for a turn."""
        turn = self._loop.create_future()
        if not self._waiting:
            self._loop.call_soon(self._go_on)
        self._waiting.append(turn)
        await turn

    def _go_on(self) -> None:
        for _ in range(min(AT_ONCE, len(self._waiting))):
            turn = self._waiting.popleft()
            if not turn.done():  # nor cancelled
                turn.set_result(None)
        if self._waiting:
            self._loop.call_soon(self._go_on)
