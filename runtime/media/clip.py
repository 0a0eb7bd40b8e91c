"""What a clip is read from, and what was read of it. Sampling and limits are in `runtime.media.frames`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.media.pictures import Picture, PictureSource

ClipSource = PictureSource | Picture | Sequence[PictureSource | Picture]
"""What `runtime.media.clips.read_frames` takes."""


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """The frames of a clip that were taken.

    Attributes:
        pixels: uint8 RGB (T, H, W, 3), T at least 1.
        indices: the number of each in the clip, from 0, rising.
        seconds: time of each after the clip's first frame; None where the source has no times.
        note: what the reader should know, e.g. that the video breaks off; None where all is well.
    """

    pixels: NDArray[np.uint8]
    indices: tuple[int, ...]
    seconds: tuple[float | None, ...]
    note: str | None = None
