"""How many times as fast one graph is as another, the two timed in turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from exporters.quantize.inputs import Feed
from runtime.engine import Engine
from runtime.turns import Ratio, in_turns, ratio

FASTER = 1.2
"""A variant that gains less is not worth other answers."""

_SECONDS = 2.0


def compare_speed(first: Engine, second: Engine, feeds: Sequence[Feed], threads: int = 1) -> Ratio:
    """The time of the first graph over that of the second, on the same inputs.

    With one thread the time is that of the processor, which other programs hardly touch; with more it is the wall's.
    """
    times = in_turns({"first": _answering(first, feeds), "second": _answering(second, feeds)}, _SECONDS)
    one, other = times["first"], times["second"]
    return ratio(one.cpu, other.cpu) if threads == 1 else ratio(one.wall, other.wall)


def is_gain(speed: Ratio) -> bool:
    """Whether a graph is faster in three of four turns, and by enough in the middle."""
    return speed.median >= FASTER and speed.low > 1


def _answering(engine: Engine, feeds: Sequence[Feed]) -> Callable[[], None]:
    def answer() -> None:
        for feed in feeds:
            engine.session.run(None, feed)

    return answer
