"""Jaeger's timer task: a start and a duration come in, and the answer has to be up for exactly that long.

Jaeger, "A tutorial on training recurrent neural networks" (GMD report 159, 2002), section 1.4: the first input u1 is
mostly 0 and now and then 1, a start; the second, u2, is one of .1, .2 … 1.0 and drawn anew at each start; the target is
0.5 for 10·u2 steps after a start and 0 otherwise. What he leaves open is decided here:

- The step of the start is the first of them: after a start at step t with a duration d, steps t … t + d - 1 are up.
- A start while the timer runs begins it anew, with the u2 of that start; what was left is forgotten.
- u2 counts at the step of a start. Between starts it stays what it was there, as in Jaeger's figure.
- Before the first start u2 has some value, too, and the target is 0.
- Instead of 10, the scale may be any multiple of ten up to 1000, so that all durations are whole steps.
- Starts come by chance, on average every two scales: some four pulses of five are over before the next start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError

NAME = "timer"
UP = 0.5
LEVELS = 10
"""How many values u2 has."""
SCALE, LARGEST_SCALE = 10, 1000
SPACING = 2.0
"""Scales from a start to the next, on average."""
LENGTH = 12
"""Scales in a sequence, unless said otherwise."""

Split = Literal["train", "val", "test"]
Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class TimerSequences:
    """What goes in and what should come out.

    Attributes:
        inputs: (n, T, 2) u1 and u2.
        targets: (n, T).
        scale: steps that u2 = 1 stands for.
    """

    inputs: Array
    targets: Array
    scale: int

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True, slots=True, eq=False)
class Pulses:
    """Each start in a set of sequences, and the steps that belong to it: those before the next start.

    Attributes:
        row: (P,) the sequence.
        start: (P,) the step of the start.
        stop: (P,) the step after the last one that belongs to it: the next start, or the end of the sequence.
        duration: (P,) steps that the timer was set to.
    """

    row: NDArray[np.int64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    duration: NDArray[np.int64]

    @property
    def complete(self) -> NDArray[np.bool_]:
        """(P,) which ones run to their end, with at least one step after it that shows that they are over."""
        done: NDArray[np.bool_] = self.start + self.duration < self.stop
        return done


def check_scale(scale: int) -> None:
    """Refuses a scale that durations would not be whole steps of.

    Raises:
        InputError: it is no multiple of ten from 10 to 1000.
    """
    if scale % LEVELS or not SCALE <= scale <= LARGEST_SCALE:
        raise InputError(
            f"the scale is a multiple of {LEVELS} from {SCALE} to {LARGEST_SCALE}, so that .1 … 1.0 times it are whole "
            f"steps; found {scale}"
        )


def draw_sequences(
    count: int,
    *,
    scale: int = SCALE,
    steps: int | None = None,
    seed: int = 0,
    split: Split = "train",
    part: int = 0,
    spacing: float = SPACING,
) -> TimerSequences:
    """Draws sequences; equal arguments give equal sequences, and no two splits share one but by chance.

    Args:
        count: n sequences.
        scale: steps that u2 = 1 stands for.
        steps: T of each, by default twelve scales.
        seed: of all that is drawn.
        split: ``train``, ``val`` or ``test``.
        part: a number of one's own, e.g. the epoch.
        spacing: scales from a start to the next, on average.

    Raises:
        InputError: there is no such split, or the scale or a size is out of range.
    """
    check_scale(scale)
    if split not in get_args(Split):
        raise InputError(f"there is no split {split!r} of timer sequences; there is {', '.join(get_args(Split))}")
    steps = LENGTH * scale if steps is None else steps
    if count < 1 or steps < 1:
        raise InputError(f"sequences and their steps are at least 1, found {count} of {steps}")
    chance = np.random.default_rng([seed, get_args(Split).index(split), part, scale])
    starts = chance.random((count, steps)) < 1 / (spacing * scale)
    levels = chance.integers(1, LEVELS + 1, (count, steps + 1))  # [:, 0] holds until the first start
    number = _last_start(starts) + 1
    held = np.take_along_axis(levels, number, axis=1) / LEVELS
    inputs = np.stack([starts, held], axis=-1).astype(np.float32)
    return TimerSequences(inputs, timer_targets(inputs, scale), scale)


def timer_targets(inputs: Array, scale: int) -> Array:
    """The right answers (n, T) to inputs (n, T, 2), by the rules above; a u1 above one half is a start."""
    starts = inputs[..., 0] > 0.5
    last = _last_start(starts)
    begun = np.maximum(last, 0)
    durations = np.rint(np.take_along_axis(inputs[..., 1].astype(np.float64), begun, axis=1) * scale)
    since = np.arange(inputs.shape[1]) - last
    return np.where((last >= 0) & (since < durations), np.float32(UP), np.float32(0))


def find_pulses(inputs: Array, scale: int) -> Pulses:
    """All starts in inputs (n, T, 2), row by row and in order of time."""
    row, start = np.nonzero(inputs[..., 0] > 0.5)
    stop = np.full(len(row), inputs.shape[1])
    following = row[1:] == row[:-1]
    stop[:-1][following] = start[1:][following]
    return Pulses(row, start, stop, np.rint(inputs[row, start, 1].astype(np.float64) * scale).astype(np.int64))


def exact_pulses(answers: Array, targets: Array, pulses: Pulses) -> NDArray[np.bool_]:
    """Which pulses (P,) were timed exactly.

    An answer above half of 0.5 is up. A pulse is exact if every step from its start to the next start is up where it
    should be and down where it should be: one step too long or too short, a gap, a false alarm after it, and it is not.
    """
    wrong = (answers > UP / 2) != (targets > UP / 2)
    counts = np.concatenate([np.zeros((len(wrong), 1), np.int64), wrong.cumsum(axis=1)], axis=1)
    exact: NDArray[np.bool_] = counts[pulses.row, pulses.stop] == counts[pulses.row, pulses.start]
    return exact


def _last_start(starts: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The step (n, T) of the latest start up to each step, -1 before the first."""
    steps = np.arange(starts.shape[1])
    last: NDArray[np.int64] = np.maximum.accumulate(np.where(starts, steps, -1), axis=1)
    return last
