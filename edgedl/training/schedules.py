"""Learning-rate schedules as plain functions of the step, so that a resumed run continues bit for bit.

Each gives the factor on the base learning rate for step 0, 1, …, total-1. A warm-up rises linearly from one
``warmup``-th to 1 and precedes any schedule; the rest of the schedule runs over the remaining steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from runtime.errors import InputError

ScheduleName = Literal["constant", "step", "cosine", "one-cycle"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """A learning-rate factor for every step of a training of ``total`` steps; a callable that pickles.

    Attributes:
        name: ``constant``; ``step``: times ``gamma`` at each of ``drops`` equal parts; ``cosine``: half a cosine
            down to ``final`` (Loshchilov and Hutter 2017, equation 5); ``one-cycle``: half a cosine up from
            ``start`` to 1 over ``rise`` of the steps, then down to ``final`` (Smith and Topin 2018).
        total: Number of steps.
        warmup: Number of steps of linear warm-up before the schedule.
        final: Factor that cosine and one-cycle end on.
        gamma: Factor of each drop.
        drops: Number of equal parts less one: 2 drops at one and two thirds.
        start: Factor that one-cycle starts on.
        rise: Share of the steps in which one-cycle rises.
        settle: Number of last steps that come after the schedule: half a cosine from ``settle_start`` down to 0.
        settle_start: Factor that they start on.
    """

    name: ScheduleName
    total: int
    warmup: int = 0
    final: float = 0.0
    gamma: float = 0.1
    drops: int = 2
    start: float = 0.04
    rise: float = 0.3
    settle: int = 0
    settle_start: float = 0.2

    def __post_init__(self) -> None:
        if self.name not in get_args(ScheduleName):
            raise InputError(f"no schedule is called {self.name!r}; there are {', '.join(get_args(ScheduleName))}")
        if not 0 <= self.warmup <= max(self.total - self.settle, 0):
            settling = f" and {self.settle} to settle do" if self.settle else " does"
            raise InputError(f"a warm-up of {self.warmup} steps{settling} not fit a training of {self.total} steps")
        if not 0 < self.rise < 1:
            raise InputError(f"the rise of one-cycle is a share of the steps between 0 and 1, not {self.rise}")

    def __call__(self, step: int) -> float:
        """The factor for one step; after the last step it is ``final``."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        scheduled = self.total - self.settle
        if self.settle and step >= scheduled:
            return _half_cosine(self.settle_start, 0.0, min((step - scheduled) / self.settle, 1.0))
        span = max(scheduled - self.warmup, 1)
        done = min(step - self.warmup, span)
        if self.name == "step":
            return self.gamma ** min(done * (self.drops + 1) // span, self.drops)
        # 1 is reached after the last step: a step with the final factor 0 would teach nothing.
        progress = done / span
        if self.name == "cosine":
            return _half_cosine(1.0, self.final, progress)
        if self.name == "one-cycle":
            if progress < self.rise:
                return _half_cosine(self.start, 1.0, progress / self.rise)
            return _half_cosine(1.0, self.final, (progress - self.rise) / (1 - self.rise))
        return 1.0


def _half_cosine(begin: float, end: float, progress: float) -> float:
    return end + (begin - end) * (1 + math.cos(math.pi * progress)) / 2
