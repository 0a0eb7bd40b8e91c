"""Threads for what would hold up the event loop: those of Flask, and those that decode pictures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from contextvars import copy_context
from typing import Any

from service.bundles.batching import Call, busy, overdue
from service.server.bodies import Gone

MOST_WAITING = 256
"""Requests that may wait for a thread of Flask, and pictures that may wait to be decoded."""


class Pools:
    """Two pools of threads.

    Args:
        threads: In each pool; as many pictures are in memory at a time.
        wait_seconds: How long a picture waits for its turn.
    """

    def __init__(self, threads: int, wait_seconds: float) -> None:
        self._flask = ThreadPoolExecutor(threads, thread_name_prefix="edgedl-request")
        self._decoders = ThreadPoolExecutor(threads, thread_name_prefix="edgedl-decode")
        self._pictures = asyncio.Semaphore(threads)
        self._requests_waiting = self._pictures_waiting = 0
        self._wait_seconds = wait_seconds

    def close(self) -> None:
        """Lets the threads end."""
        for pool in (self._flask, self._decoders):
            pool.shutdown(cancel_futures=True)

    @asynccontextmanager
    async def turn(self, call: Call) -> AsyncIterator[None]:
        """A place among the pictures that are in memory at a time.

        Raises:
            Problem: 503, too many wait for one, or this one did so for too long.
            Gone: The sender has left meanwhile.
        """
        if self._pictures_waiting >= MOST_WAITING:
            raise busy()
        self._pictures_waiting += 1
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._pictures.acquire()
        except TimeoutError:
            raise overdue() from None
        finally:
            self._pictures_waiting -= 1
        try:
            if call.gone:
                raise Gone
            yield
        finally:
            self._pictures.release()

    async def decode(self, work: Callable[[], None]) -> None:
        """Decodes a picture that has its turn."""
        await self._in(self._decoders, work)

    async def run(self, work: Callable[[], Any]) -> Any:
        """Does the work of Flask.

        Raises:
            Problem: 503, too many requests wait for a thread.
        """
        if self._requests_waiting >= MOST_WAITING:
            raise busy()
        self._requests_waiting += 1
        try:
            return await self._in(self._flask, work)
        finally:
            self._requests_waiting -= 1

    @staticmethod
    async def _in(pool: ThreadPoolExecutor, work: Callable[[], Any]) -> Any:
        # In a copy of the context, which says which request the thread works for.
        return await asyncio.get_running_loop().run_in_executor(pool, copy_context().run, work)
