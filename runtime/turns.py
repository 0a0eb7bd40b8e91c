"""Timing several ways to do the same thing in turns, so that what else the machine does falls on all of them.

A time says little on another day or another machine; a ratio of two times that were taken in turn does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LEAST_TURNS = 10
CALLS_A_TURN = 3
"""Timed calls of one way in a row; one before them is not timed, since another way had the caches until then."""


@dataclass(frozen=True, slots=True)
class Times:
    """What each turn of one way took, a call.

    Attributes:
        wall: Seconds a call.
        cpu: Seconds of processor time a call, of all threads of the process.
    """

    wall: Sequence[float]
    cpu: Sequence[float]

    @property
    def p50_ms(self) -> float:
        """The median turn, in milliseconds a call."""
        return round(float(np.median(self.wall)) * 1e3, 4)

    @property
    def cpu_ms(self) -> float:
        """The median turn, in milliseconds of processor time a call."""
        return round(float(np.median(self.cpu)) * 1e3, 4)


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as long one way takes as another, turn by turn: the median, and the quartiles as its spread."""

    median: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """JSON-able values."""
        return {"median": self.median, "low": self.low, "high": self.high}

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def in_turns(ways: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, Times]:
    """Times each way again and again, in turns whose order is reversed each time.

    Args:
        ways: Each is called without arguments.
        seconds: How long the measurement may take; at least `LEAST_TURNS` turns are taken.
    """
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    order = list(ways)
    for call in ways.values():
        call()
    end = time.perf_counter() + seconds
    turns = 0
    while turns < LEAST_TURNS or time.perf_counter() < end:
        for name in order:
            call = ways[name]
            call()
            begun, worked = time.perf_counter(), time.process_time()
            for _ in range(CALLS_A_TURN):
                call()
            cpu[name].append((time.process_time() - worked) / CALLS_A_TURN)
            wall[name].append((time.perf_counter() - begun) / CALLS_A_TURN)
        order.reverse()
        turns += 1
    return {name: Times(tuple(wall[name]), tuple(cpu[name])) for name in ways}


def ratio(one: Sequence[float], other: Sequence[float]) -> Ratio:
    """The ratio of times that were taken in the same turns: `one` over `other`."""
    shares = np.asarray(one, dtype=np.float64) / np.maximum(np.asarray(other, dtype=np.float64), 1e-12)
    low, median, high = (round(float(value), 4) for value in np.percentile(shares, (25, 50, 75)))
    return Ratio(median, low, high)


def largest_difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> float | None:
    """How far the answers of two ways are apart; None where there is nothing to compare.

    Numbers of the same shape are compared, by name, or in order where no name is the same.
    """
    if not set(one) & set(other):
        other = dict(zip(one, other.values(), strict=False))
    worst: float | None = None
    for name in one:
        mine, theirs = np.asarray(one[name]), np.asarray(other.get(name))
        if mine.shape != theirs.shape or mine.dtype.kind not in "biuf" or theirs.dtype.kind not in "biuf":
            continue
        first, second = mine.astype(np.float64), theirs.astype(np.float64)
        with np.errstate(invalid="ignore"):
            apart = np.where(first == second, 0.0, np.abs(first - second))
        worst = max(worst or 0.0, float(apart.max(initial=0.0)))
    return worst
