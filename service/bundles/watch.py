"""What a bundle tells of its work while it works; the metrics listen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _unseen(_number: float) -> None:
    """Measures nothing."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told how long things took, in seconds, and how many calls a run answered.

    Attributes:
        waited: How long a call waited for its turn.
        decoded: How long a file took to decode.
        ran: How long a run took.
        together: How many calls it answered.
    """

    waited: Callable[[float], None] = _unseen
    decoded: Callable[[float], None] = _unseen
    ran: Callable[[float], None] = _unseen
    together: Callable[[float], None] = _unseen
