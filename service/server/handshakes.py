"""Connections to a port that speaks TLS, until their handshake is done."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial

_HANDSHAKE = b"\x16"
"""What TLS begins with: the type of a record that belongs to a handshake (RFC 8446, section 5.1)."""

MOST_BEYOND = 32
"""Handshakes beyond the connections that may be open: their clients are to be told, which TLS lets one do after it."""


class Handshakes:
    """Leads connections through their handshake, within a time, and counts them meanwhile.

    asyncio hands a connection over when its handshake is done, and cuts off one that speaks plain HTTP.

    Args:
        loop: The event loop.
        context: What connections are encrypted with.
        seconds: How long a handshake may take, from the first moment.
        make: Makes the protocol of a connection, which is told whether the client speaks plain HTTP, and calls the
            function that it is given once the connection is made.
        full: Whether no connection may come in addition.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: ssl.SSLContext,
        *,
        seconds: float,
        make: Callable[[bool, Callable[[], None]], asyncio.Protocol],
        full: Callable[[], bool],
    ) -> None:
        self._loop, self._context, self._seconds = loop, context, seconds
        self._make, self._full = make, full
        self._under_way: set[asyncio.Task[None] | None] = set()

    def __len__(self) -> int:
        """Handshakes that are under way."""
        return len(self._under_way)

    def door(self) -> asyncio.Protocol:
        """The protocol of connections as asyncio accepts them."""
        return _Door(self.begin)

    def begin(self, connection: socket.socket) -> None:
        """Leads a connection through its handshake, in a task."""
        if self._full():
            connection.close()
            return
        connection.setblocking(False)
        task = self._loop.create_task(self._shake(connection))
        self._under_way.add(task)

    async def _shake(self, connection: socket.socket) -> None:
        task = asyncio.current_task()
        made = partial(self._under_way.discard, task)
        try:
            async with asyncio.timeout(self._seconds):
                plain = await self._first_byte(connection) != _HANDSHAKE
                protocol = self._make(plain, made)
                context = None if plain else self._context
                await self._loop.connect_accepted_socket(lambda: protocol, connection, ssl=context)
        except OSError:  # TimeoutError and what is wrong with the handshake are some, too
            connection.close()
        finally:
            made()

    async def _first_byte(self, connection: socket.socket) -> bytes:
        """What the client begins with. It stays in the socket."""
        there = self._loop.create_future()
        self._loop.add_reader(connection, _finish, there)
        try:
            await there
        finally:
            self._loop.remove_reader(connection)
        first = connection.recv(1, socket.MSG_PEEK)
        if not first:
            raise ConnectionAbortedError("the client has left")
        return first


class _Door(asyncio.Protocol):
    """Takes a connection out of asyncio's hands again, as a socket from which nothing has been read."""

    def __init__(self, begin: Callable[[socket.socket], None]) -> None:
        self._begin = begin

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        with suppress(OSError):  # no descriptor is left
            self._begin(transport.get_extra_info("socket").dup())
        transport.close()  # closes the descriptor that asyncio has; ours keeps the connection


def _finish(there: asyncio.Future[None]) -> None:
    if not there.done():
        there.set_result(None)
