"""Waiting for what another thread or process does: for a state, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(reached: Callable[[], object], seconds: float = 60.0) -> None:
    """Waits until something is so; fails where it is not within a time that no machine needs."""
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
