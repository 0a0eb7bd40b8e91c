"""Bundles that are not offered any more but still in use: requests under way and open streams end on them."""

from __future__ import annotations

import logging
import threading

from runtime.arena import release_memory
from service.bundles.background import Background
from service.bundles.served import Served

LOG = logging.getLogger("edgedl.service")

POLL_SECONDS = 0.1


class Retired:
    """Closes each bundle once nobody uses it; its memory goes back to the system."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: tuple[Served, ...] = ()
        self._thread: Background | None = None

    @property
    def bundles(self) -> tuple[Served, ...]:
        """Those that are still in use."""
        return self._waiting

    def add(self, one: Served) -> None:
        """Takes a bundle that is not offered any more."""
        with self._lock:
            self._waiting = (*self._waiting, one)
            if self._thread is None:
                self._thread = Background(self._close_idle, "edgedl-retired")

    def close(self) -> None:
        """Ends the thread; what is still in use is left to the interpreter."""
        thread = self._thread
        if thread is not None:
            thread.stop()

    def _close_idle(self, stopping: threading.Event) -> None:
        while not stopping.wait(POLL_SECONDS):
            for one in self._waiting:
                if one.close_if_idle():
                    with self._lock:
                        self._waiting = tuple(other for other in self._waiting if other is not one)
                    LOG.info("bundle %s %s is closed", one.name, one.version)
                    release_memory()
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
