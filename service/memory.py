"""What large requests leave in the allocator goes back to the system."""

from __future__ import annotations

from runtime import memory

LONG_SECONDS = 0.25
"""Requests that took longer give memory back. It costs the next one five milliseconds: too much after an ordinary
photo, nothing after one that decoded hundreds of megabytes."""


def give_back(seconds: float) -> None:
    """Returns free memory to the system after a request that took so long."""
    if seconds > LONG_SECONDS:
        memory.give_back()
