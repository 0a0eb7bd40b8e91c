"""The conversation with whoever deploys: a JSON object in a line for each request, and for each thing that is told."""

from __future__ import annotations

import json
import os
import select
from collections.abc import Iterator
from typing import Any

PIECE = 1 << 18


class Refused(Exception):  # noqa: N818 - it is an answer
    """What cannot be done, in a sentence for whoever deploys."""


class Gone(Exception):  # noqa: N818 - nothing is wrong here
    """Whoever deploys is not there any more."""


class Channel:
    """Reads requests and the bytes of files, and tells what is done.

    Args:
        source: The file descriptor that is read.
        sink: The one that is written.
    """

    def __init__(self, source: int, sink: int) -> None:
        self._source, self._sink = source, sink
        self._read = b""

    def request(self, seconds: float) -> dict[str, Any]:
        """The next request.

        Raises:
            Gone: It does not come in time, or nobody is there any more.
        """
        while b"\n" not in self._read:
            self._read += self._more(seconds)
        line, _, self._read = self._read.partition(b"\n")
        found: dict[str, Any] = json.loads(line.decode())
        return found

    def pieces(self, count: int, seconds: float) -> Iterator[bytes]:
        """The bytes that follow a request.

        Raises:
            Gone: They stop coming.
        """
        while count > 0:
            if not self._read:
                self._read = self._more(seconds)
            piece, self._read = self._read[:count], self._read[count:]
            count -= len(piece)
            yield piece

    def tell(self, **told: Any) -> None:
        """Sends an object.

        Raises:
            Gone: Nobody reads it.
        """
        data = json.dumps(told).encode() + b"\n"
        try:
            while data:
                data = data[os.write(self._sink, data) :]
        except OSError as error:
            raise Gone from error

    def _more(self, seconds: float) -> bytes:
        ready, _, _ = select.select([self._source], [], [], seconds)
        piece = os.read(self._source, PIECE) if ready else b""
        if not piece:
            raise Gone
        return piece
