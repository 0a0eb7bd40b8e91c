"""Files of a data set that cannot be read: left out, counted and named as long as they are few."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from runtime.errors import InputError

log = logging.getLogger(__name__)

T = TypeVar("T")

OPTION = "--max-unreadable"
"""The command line's name of the largest share that is left out."""

MAX_SHARE = 0.01
"""Of the files, by default. Published sets have far fewer; a copy that went wrong has far more."""

COUNTED = 20
"""So many files are counted before there are too many: of a small set all of them are named."""

NAMED, SHOWN = 20, 3
"""Names in a report, and in a message."""


class Unreadable:
    """Reads the files of a data set and remembers those that cannot be read.

    Any number of threads may read at once. A file counts once, however often it is tried.

    Args:
        dataset: its name, for messages.
        total: how many files there are to read.
        share: of them that may be left out, 0 to 1. With 0 the first one is an error.

    Raises:
        InputError: the share is no share.
    """

    def __init__(self, dataset: str, total: int, share: float = MAX_SHARE) -> None:
        if not 0 <= share <= 1:
            raise InputError(f"{OPTION} is a share from 0 to 1, not {share:g}; 5 % is 0.05")
        self.dataset, self.total, self.share = dataset, total, share
        self._reasons: dict[str, str] = {}
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """How many files could not be read so far."""
        return len(self._reasons)

    @property
    def names(self) -> tuple[str, ...]:
        """The files that could not be read so far, in the order of their names."""
        return tuple(sorted(self._reasons))

    def attempt(self, name: str, read: Callable[[], T]) -> T | None:
        """Reads a file.

        Args:
            name: of the file in its data set.
            read: reads it.

        Returns:
            What was read; None where the file cannot be read, which is counted.

        Raises:
            InputError: too many files cannot be read. Of a small set only `check` decides that.
        """
        try:
            return read()
        except InputError as error:
            with self._lock:
                self._reasons[name] = str(error)
                if self.share == 0 or self.count > max(self._allowed, COUNTED):
                    raise self._too_many("at least ") from error
            return None

    def check(self, readable: Mapping[str, int]) -> None:
        """Decides whether what is left can be used. To be called when everything has been read.

        Args:
            readable: how many files of each part of the set could be read, e.g. {"faces in split val": 10}.

        Raises:
            InputError: too many files cannot be read, or nothing of a part is left.
        """
        if self.count > self._allowed and any(readable.values()):
            raise self._too_many()
        for part, count in readable.items():
            if count == 0 and self.count == 0:
                raise InputError(f"there are no {part}")
            if count == 0:
                raise InputError(f"none of the {part} can be read: {self._listed()}; copy the data set here again")
        if self.count:
            what = f"{self.count:,} of {self.total:,} files of {self.dataset}"
            log.warning("left out %s that cannot be read: %s", what, self._listed())

    def to_json(self) -> dict[str, Any]:
        """{"count", "names"}; of many files the first `NAMED` names."""
        return {"count": self.count, "names": list(self.names[:NAMED])}

    def in_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """What a run's configuration says of it: the count among what a bundle says of its data, the names apart.

        Names of files may be private, so they stay in the run.
        """
        return {"data": {**config["data"], "unreadable": self.count}, "unreadable": list(self.names[:NAMED])}

    @property
    def _allowed(self) -> float:
        return self.share * self.total

    def _too_many(self, least: str = "") -> InputError:
        enough = "" if least else f" {-(-100 * self.count // self.total) / 100:g}"
        return InputError(
            f"{least}{self.count:,} of {self.total:,} files of {self.dataset} cannot be read, more than the share of"
            f" {self.share:g} that may be left out: {self._listed()}; mend or delete them, or allow more with"
            f" {OPTION}{enough}"
        )

    def _listed(self) -> str:
        # Of a reason its first part, what was found: how to mend it is said once, for all of them.
        shown = [f"{name} ({self._reasons[name].partition('; ')[0]})" for name in self.names[:SHOWN]]
        more = self.count - len(shown)
        return ", ".join(shown) + (f" and {more:,} more" if more else "")
