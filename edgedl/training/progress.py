"""How far a long preparation is, for a person at a terminal."""

from __future__ import annotations

import sys


class Progress:
    """A line on a terminal's standard error; nothing where there is no terminal."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.shown = -1

    def __call__(self, done: int, total: int) -> None:
        """Shows whole per cents, each once."""
        share = 100 * done // total
        if share != self.shown and sys.stderr.isatty():
            self.shown = share
            end = "\n" if done == total else ""
            sys.stderr.write(f"\r{self.what}: {done} of {total}{end}")
            sys.stderr.flush()
