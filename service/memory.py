"""What large requests leave in the allocator goes back to the system."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

LONG_SECONDS = 0.25
"""Requests that took longer give memory back. It costs the next one five milliseconds: too much after an ordinary
photo, nothing after one that decoded hundreds of megabytes."""


def give_back(seconds: float) -> None:
    """Returns free memory to the system after a request that took so long.

    glibc keeps what was freed in blocks of less than 32 MB, up to 64 MB for each thread.
    """
    if seconds > LONG_SECONDS and (trim := _malloc_trim()) is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None  # another C library, which needs no asking or cannot be asked
