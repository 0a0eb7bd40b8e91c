"""What large requests leave in the allocator goes back to the system."""

from __future__ import annotations

from runtime import memory

LONG_SECONDS, LARGE_BYTES = 0.25, 4 << 20
"""Requests that took longer or brought more give memory back. It costs the next one five milliseconds: too much after
an ordinary photo, nothing after one that decoded hundreds of megabytes."""


def give_back(seconds: float, sent: int) -> None:
    """Returns free memory to the system after a request of so many bytes that took so long."""
    if seconds > LONG_SECONDS or sent > LARGE_BYTES:
        memory.give_back()
