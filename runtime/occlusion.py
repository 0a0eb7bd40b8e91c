"""Where an answer comes from, asked of the graph alone: hide a patch of the picture and see how the answer changes.

Zeiler and Fergus 2014, "Visualizing and understanding convolutional networks", section 4.2. Nothing is known of the
network and no gradient is needed, so it works on whatever bundle takes a picture, through ONNX Runtime, with numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError

Pixels = NDArray[np.uint8]

PARTS = 8
"""By default the patch is an eighth of the picture's shorter side, and moves on by half of itself."""

MOST_PATCHES = 4096
ROWS_AT_ONCE, BYTES_AT_ONCE = 32, 32 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """One picture, and one number that a bundle answers to pictures of that size.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, what the graph gets.
        answer: uint8 (N, H, W, 3) -> (N,), any N up to `ROWS_AT_ONCE`.
        meaning: what the number is, e.g. ``age``.
        unit: of the number, e.g. ``year``.
    """

    pixels: Pixels
    answer: Callable[[Pixels], NDArray[np.float64]]
    meaning: str
    unit: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Occlusion:
    """What hiding each patch does.

    Attributes:
        whole: the answer to the whole picture.
        effect: (R, C) the answer to the whole picture less the answer without the patch: above 0 where what is hidden
            speaks for a larger answer.
        tops: (R,) the first row of pixels of each row of patches.
        lefts: (C,) the first column of pixels of each column.
        patch: side of a patch in pixels.
        shape: height and width of the picture.
    """

    whole: float
    effect: NDArray[np.float64]
    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    patch: int
    shape: tuple[int, int]

    def per_pixel(self) -> NDArray[np.float64]:
        """(H, W): the mean effect of the patches that hide a pixel; every pixel is hidden by at least one."""
        total, count = np.zeros(self.shape), np.zeros(self.shape)
        for row, top in enumerate(self.tops):
            for column, left in enumerate(self.lefts):
                where = np.s_[top : top + self.patch, left : left + self.patch]
                total[where] += self.effect[row, column]
                count[where] += 1
        return np.asarray(total / count, np.float64)


def occlude(
    probe: Probe,
    *,
    patch: int | None = None,
    stride: int | None = None,
    fill: tuple[int, int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Occlusion:
    """Hides every patch of the picture in turn.

    Args:
        probe: the picture and whom to ask.
        patch: side of the square that is hidden, in pixels; `PARTS` of them fill the shorter side by default.
        stride: from one patch to the next; half a patch by default. The last row and column touch the border.
        fill: the colour that hides, RGB; by default the mean colour of the picture, which takes least by surprise.
        progress: is told how many of how many patches are done.

    Raises:
        InputError: the patch does not fit, there would be more than `MOST_PATCHES`, or the answer is no number.
    """
    pixels = probe.pixels
    height, width = pixels.shape[:2]
    side = patch if patch is not None else max(1, min(height, width) // PARTS)
    step = stride if stride is not None else max(1, side // 2)
    if not 1 <= side <= min(height, width):
        raise InputError(f"a patch of {side} pixels does not fit a picture of {width}×{height}")
    if not 1 <= step <= side:
        raise InputError(f"patches of {side} pixels move on by 1 to {side} pixels, not by {step}")
    tops, lefts = _starts(height, side, step), _starts(width, side, step)
    places = [(top, left) for top in tops for left in lefts]
    if len(places) > MOST_PATCHES:
        raise InputError(f"{len(places)} patches are more than {MOST_PATCHES}; take a larger patch or stride")
    colour = np.array(fill if fill is not None else pixels.reshape(-1, 3).mean(axis=0).round(), np.uint8)
    whole = float(_ask(probe, pixels[None])[0])
    rows = max(1, min(ROWS_AT_ONCE, BYTES_AT_ONCE // max(pixels.nbytes, 1)))
    effects = np.empty(len(places))
    for start in range(0, len(places), rows):
        part = places[start : start + rows]
        hidden = np.repeat(pixels[None], len(part), axis=0)  # (N, H, W, 3)
        for picture, (top, left) in zip(hidden, part, strict=True):
            picture[top : top + side, left : left + side] = colour
        effects[start : start + len(part)] = whole - _ask(probe, hidden)
        if progress is not None:
            progress(start + len(part), len(places))
    return Occlusion(whole, effects.reshape(len(tops), len(lefts)), tops, lefts, side, (height, width))


def _starts(length: int, side: int, step: int) -> tuple[int, ...]:
    starts = list(range(0, length - side + 1, step))
    if starts[-1] != length - side:
        starts.append(length - side)
    return tuple(starts)


def _ask(probe: Probe, pictures: Pixels) -> NDArray[np.float64]:
    answers = np.asarray(probe.answer(np.ascontiguousarray(pictures)), np.float64)
    if answers.shape != (len(pictures),) or not np.isfinite(answers).all():
        raise InputError(
            f"the answer to {len(pictures)} pictures is {answers.shape} or not finite; expected a number each"
        )
    return answers
