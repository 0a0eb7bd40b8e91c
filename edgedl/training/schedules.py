"""Learning-rate schedules as plain functions of the step, so that a resumed run continues bit for bit.

torch's own schedules were weighed (docs/decisions/0041-schedules.md).

Each gives the factor on the base learning rate for step 0, 1, …, total-1. A warm-up rises linearly from one
``warmup``-th to 1 and precedes any schedule; the rest of the schedule runs over the remaining steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from runtime.errors import InputError

ScheduleName = Literal["constant", "step", "cosine", "one-cycle"]

START, RISE = 0.04, 0.3
"""The factor that one-cycle starts on, and the share of the steps in which it rises."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A learning-rate factor for every step of a training of ``total`` steps; a callable that pickles.

    Attributes:
        name: ``constant``; ``step``: a tenth from one third on, a hundredth from two thirds on; ``cosine``: half a
            cosine from 1 down to 0 (Loshchilov and Hutter 2017, equation 5); ``one-cycle``: half a cosine from `START`
            up to 1 over `RISE` of the steps, then one down to 0 (Smith and Topin 2018).
        total: Number of steps.
        warmup: Number of steps of linear warm-up before the schedule.
        settle: Number of last steps that come after the schedule: half a cosine from ``settle_start`` down to 0.
        settle_start: Factor that they start on.
    """

    name: ScheduleName
    total: int
    warmup: int = 0
    settle: int = 0
    settle_start: float = 0.2

    def __post_init__(self) -> None:
        if self.name not in get_args(ScheduleName):
            raise InputError(f"no schedule is called {self.name!r}; there are {', '.join(get_args(ScheduleName))}")
        if not 0 <= self.warmup <= max(self.total - self.settle, 0):
            settling = f" and {self.settle} to settle do" if self.settle else " does"
            raise InputError(f"a warm-up of {self.warmup} steps{settling} not fit a training of {self.total} steps")

    def __call__(self, step: int) -> float:
        """The factor for one step; after the last step it stays as the schedule ends."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        scheduled = self.total - self.settle
        if self.settle and step >= scheduled:
            return _half_cosine(self.settle_start, 0.0, min((step - scheduled) / self.settle, 1.0))
        span = max(scheduled - self.warmup, 1)
        done = min(step - self.warmup, span)
        if self.name == "step":
            return 0.1 ** min(3 * done // span, 2)
        # 1 is reached after the last step: a step with the factor 0 would teach nothing.
        progress = done / span
        if self.name == "cosine":
            return _half_cosine(1.0, 0.0, progress)
        if self.name == "one-cycle":
            if progress < RISE:
                return _half_cosine(START, 1.0, progress / RISE)
            return _half_cosine(1.0, 0.0, (progress - RISE) / (1 - RISE))
        return 1.0


def _half_cosine(begin: float, end: float, progress: float) -> float:
    return end + (begin - end) * (1 + math.cos(math.pi * progress)) / 2
