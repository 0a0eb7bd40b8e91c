"""Truth at the door of the service: a bundle is tried before it answers, and the rest of its cases while it does.

What a probe asks is a state that these threads keep. It is read in a request, never computed there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from runtime.arena import release_memory
from runtime.door import Door
from runtime.errors import BundleError, CheckFailedError
from service.bundles.background import Background

LOG = logging.getLogger("edgedl.service")

REST = 4.0
"""Times that a piece of background work took, until the next one begins: it takes a fifth of a processor at most."""

IDLE_SECONDS = 2.0
"""Longest wait for a moment without requests before the next recorded case."""

TRIES, AGAIN_SECONDS = 3, 0.5
"""Of a case that fails: a machine that is out of memory for a moment must not take a good bundle away."""

BROKEN_SECONDS = 5.0
"""Between the tries of an engine that is broken."""


class Proving:
    """Replays the cases that were not replayed at the door, one at a time, between the requests.

    Args:
        door: Of the bundle; its first cases are done.
        name: What the log calls the bundle.
        busy: Whether requests are under way.
        withdraw: Called with the reason once an answer differs.
        done: Called once all cases were replayed and are right.
    """

    def __init__(
        self,
        door: Door,
        name: str,
        busy: Callable[[], bool],
        withdraw: Callable[[str], None],
        done: Callable[[], None] | None = None,
    ) -> None:
        self._door, self._name, self._busy, self._withdraw, self._done = door, name, busy, withdraw, done

    def start(self) -> Background:
        """Begins in a thread, which ends by itself."""
        return Background(self._run, f"edgedl-prove-{self._name}")

    def _run(self, stopping: threading.Event) -> None:
        steps, failed = self._door.rest(), 0
        while not stopping.is_set():
            self._wait_for_quiet(stopping)
            begin = time.perf_counter()
            try:
                self._door.judge_rows()
                if next(steps, stopping) is stopping:
                    if self._done is not None:
                        self._done()
                    break
                failed = 0
            except CheckFailedError as error:
                failed += 1
                LOG.error("bundle %s, try %d of %d: %s", self._name, failed, TRIES, error)
                if failed == TRIES:
                    self._withdraw(str(error))
                    return
                steps = self._door.rest()
                stopping.wait(AGAIN_SECONDS)
            except BundleError as error:
                # Files that were replaced say nothing of what is in memory.
                LOG.warning("bundle %s: %s were replayed, the others cannot be read: %s",
                            self._name, self._door.proven, error)  # fmt: skip
                return
            except Exception as error:  # noqa: BLE001 - the engine is broken; the bundle's own tries tell how
                LOG.warning("bundle %s cannot replay its recorded cases at present: %r", self._name, error)
                steps = self._door.rest()
                stopping.wait(BROKEN_SECONDS)
            stopping.wait(REST * (time.perf_counter() - begin))
        release_memory()

    def _wait_for_quiet(self, stopping: threading.Event) -> None:
        end = time.monotonic() + IDLE_SECONDS
        while self._busy() and time.monotonic() < end and not stopping.wait(0.01):
            pass
