"""A bound on how long a request body may take to arrive.

A thread that waits for a sender is a thread that serves nobody, and a sender that trickles a byte now and then never
trips a time-out on single reads. One watching thread closes the receiving half of connections that are overdue; the
reader then sees the end of the stream and can still answer.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Condition, Thread


@dataclass(slots=True, eq=False)
class Deadline:
    """One wait. ``expired`` turns true when the connection was cut."""

    connection: socket.socket
    at: float
    expired: bool = field(default=False)


class Deadlines:
    """Watches the connections of one process; its thread starts with the first wait, so after any fork."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._waiting: set[Deadline] = set()
        self._watcher: Thread | None = None

    @contextmanager
    def limit(self, connection: socket.socket | None, seconds: float) -> Iterator[Deadline | None]:
        """Cut ``connection`` if the block takes longer than ``seconds``; None (no real connection) is not watched."""
        if connection is None:
            yield None
            return
        deadline = Deadline(connection, time.monotonic() + seconds)
        with self._changed:
            self._waiting.add(deadline)
            if self._watcher is None:
                self._watcher = Thread(target=self._watch, name="edgedl-deadlines", daemon=True)
                self._watcher.start()
            elif len(self._waiting) == 1:
                self._changed.notify()
        try:
            yield deadline
        finally:
            with self._changed:
                self._waiting.discard(deadline)

    def _watch(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                now = time.monotonic()
                for deadline in [waiting for waiting in self._waiting if waiting.at <= now]:
                    deadline.expired = True
                    self._waiting.discard(deadline)
                    with suppress(OSError):  # the sender may have gone already
                        deadline.connection.shutdown(socket.SHUT_RD)
                nearest = min((waiting.at for waiting in self._waiting), default=now + 0.25)
            # Not woken for each new wait: that would cost every request a thread switch. A quarter second will do.
            time.sleep(min(max(nearest - now, 0.01), 0.25))
