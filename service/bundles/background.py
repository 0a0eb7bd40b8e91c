"""Work beside the requests, in a thread that ends when it is told to, or with the interpreter."""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable

LOG = logging.getLogger("edgedl.service")

PATIENCE = 10.0
"""Seconds that whoever stops a thread waits for the piece of work that is under way."""


class Background:
    """A thread.

    The interpreter waits for it: a thread that is inside ONNX Runtime when Python goes brings the process down.

    Args:
        work: Gets an event. It ends soon after that is set, and waits on it where it has to wait.
        name: Of the thread.
    """

    def __init__(self, work: Callable[[threading.Event], None], name: str) -> None:
        self._work = work
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        atexit.register(self.stop)
        self._thread.start()

    def stop(self, seconds: float = PATIENCE) -> None:
        """Tells the thread to end and waits for it, unless it is the caller itself."""
        self._stopping.set()
        if self._thread is not threading.current_thread():
            self._thread.join(seconds)

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._work(self._stopping)
        except Exception as error:
            LOG.error("%s ended by a fault", self._thread.name, exc_info=error)
        finally:
            atexit.unregister(self.stop)
