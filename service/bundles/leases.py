"""Who is using a bundle, so that it is closed when nobody does and not before."""

from __future__ import annotations

import threading


class Leases:
    """Counts the requests that use a bundle. Once it is closed, no further one begins."""

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._count = 0
        self._closed = False

    @property
    def count(self) -> int:
        """How many requests are under way."""
        return self._count

    def begin(self) -> bool:
        """Takes a lease, which `end` gives back; False where the bundle is closed."""
        with self._changing:
            if self._closed:
                return False
            self._count += 1
            return True

    def end(self) -> None:
        """Gives a lease back."""
        with self._changing:
            self._count -= 1

    def close_if_idle(self) -> bool:
        """Closes if nobody has a lease; gives whether it is closed now."""
        with self._changing:
            self._closed = self._closed or not self._count
            return self._closed
