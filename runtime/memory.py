"""How the C library keeps memory that was freed; glibc only, elsewhere nothing happens."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -3, -4, -8  # malloc.h of glibc
_LARGE, _KEPT, _MOST_MAPPED = 4 << 20, 16 << 20, 1 << 16


def give_back() -> None:
    """Returns to the system what was freed and the C library would keep, up to 64 MB for each thread."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def return_large_blocks() -> None:
    """From now on blocks of 4 MiB and more go back to the system when they are freed; a pool keeps 16 MiB at most.

    Left to itself, glibc raises both limits up to 32 and 64 MB for each of its pools, of which every few threads have
    one of their own: a decoder's threads leave hundreds of megabytes behind.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, _LARGE)
        library.mallopt(_TRIM_THRESHOLD, _KEPT)


@contextlib.contextmanager
def large_blocks_kept() -> Iterator[None]:
    """While it lasts, freed blocks stay with the process, whatever their size.

    Left to itself, glibc asks the system for each block of 32 MB and more, which clears it: two fifths of the processor
    time of exporting a captioner of photos, a fifth of that of training an age network.
    """
    library: Any = None
    with contextlib.suppress(AttributeError, OSError, TypeError):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_MAX, 0)
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        with contextlib.suppress(AttributeError, OSError, TypeError):
            library.mallopt(_MMAP_MAX, _MOST_MAPPED)
            library.mallopt(_TRIM_THRESHOLD, _KEPT)
        give_back()


def share_one_arena() -> None:
    """Lets the threads that will be started share one arena: of the others up to 64 MB each cannot be given back."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)
