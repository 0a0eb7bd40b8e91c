"""When each frame of a video is shown."""

from __future__ import annotations

from fractions import Fraction


class Clock:
    """Seconds of each frame after the first one; they never run backwards.

    A frame without a time, or with one before the last frame's, follows by one step of the rate.

    Args:
        unit: of the times, in seconds.
        rate: frames a second, as the header has it; None where it has none.
    """

    def __init__(self, unit: Fraction | None, rate: Fraction | None) -> None:
        self._unit = float(unit or 0)
        self._step = float(1 / rate) if rate else 0.04
        self._offset: float | None = None
        self._elapsed = -self._step

    def elapsed(self, time: int | None) -> float:
        """Takes the next frame's time, in units; gives its seconds after the first one."""
        following = self._elapsed + self._step
        if time is not None:
            if self._offset is None:
                self._offset = following - time * self._unit
            seconds = time * self._unit + self._offset
            following = seconds if seconds >= self._elapsed else following
        self._elapsed = following
        return following
