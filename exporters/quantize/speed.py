"""How many times as fast one graph is as another, the two timed in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from exporters.quantize.inputs import Feed
from runtime.engine import Engine

FASTER = 1.1
"""A variant that gains less is not worth other answers."""

_PAIRS = 15
_SECONDS = 0.04
"""Of each timing: many times the clock's step, and short enough that a change of frequency falls on both."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Ratios of the time of the first graph to that of the second, over pairs: quartiles, and the first's time."""

    low: float
    median: float
    high: float
    first_ms: float

    @property
    def is_gain(self) -> bool:
        """Whether the gain is there in three of four pairs and worth it in the middle."""
        return self.median >= FASTER and self.low > 1

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def compare_speed(first: Engine, second: Engine, feeds: Sequence[Feed], threads: int = 1) -> Speed:
    """Times two graphs on the same inputs, one after the other, again and again.

    With one thread the time is that of the processor, which other programs hardly touch; with more it is the wall's.
    """
    clock = time.process_time if threads == 1 else time.perf_counter

    def once(engine: Engine) -> None:
        for feed in feeds:
            engine.session.run(None, feed)

    once(second)
    rounds = max(1, round(_SECONDS / max(_timed(clock, lambda: once(first), 1), 1e-6)))
    pairs = np.array(
        [
            (_timed(clock, lambda: once(first), rounds), _timed(clock, lambda: once(second), rounds))
            for _ in range(_PAIRS)
        ]
    )
    low, median, high = np.percentile(pairs[:, 0] / pairs[:, 1], (25, 50, 75))
    calls = rounds * len(feeds)
    return Speed(float(low), float(median), float(high), float(np.median(pairs[:, 0])) / calls * 1e3)


def _timed(clock: Callable[[], float], call: Callable[[], None], rounds: int) -> float:
    start = clock()
    for _ in range(rounds):
        call()
    return clock() - start
