"""The frames behind a caption and, for each word, where the network looked."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from edgedl.figures.style import GREY, new_figure, save_figure
from runtime.errors import InputError

MOST_COLUMNS = 12
"""Frames that are drawn of a clip at most, evenly spread."""

PHOTO_COLUMNS = 5
CLIP_PANEL, PHOTO_PANEL = 1.15, 2.2
"""Inches along the longer side of a frame."""

FADED = 0.35
"""Contrast of a place that a word did not look at; it is grey and light."""

TINT, HEAT = 0.4, np.array((255.0, 80.0, 0.0))
"""Share of the heat map where a word looked most, and its colour."""

LUMINANCE = np.array((0.299, 0.587, 0.114))
"""Of red, green and blue, after ITU-R BT.601."""

GAP, TEXT, LABEL = 0.06, 0.22, 0.95
"""Inches: between panels, of a line of text, and for the words beside the rows of a clip."""

NARROWEST = 5.5

ALTERNATIVES = 2


class Sentence(Protocol):
    """A caption with its score."""

    @property
    def text(self) -> str:
        """The sentence."""
        ...

    @property
    def score(self) -> float:
        """The more, the better."""
        ...


def caption_figure(
    frames: NDArray[np.uint8],
    seconds: Sequence[float | None],
    captions: Sequence[Sentence],
    attention: NDArray[np.floating] | None = None,
) -> Figure:
    """The frames in a row, below it a row of the same frames for each word, bright and warm where that word looked.

    Of a photo the panels of the words stand side by side. The colour is relative to the place that the word looked at
    most in any frame.

    Args:
        frames: (T, H, W, 3) uint8 RGB.
        seconds: (T,) the time of each; None where there is none.
        captions: the best first.
        attention: (L, T, h, w) for the L words of the best caption; None draws the frames alone.

    Raises:
        InputError: other numbers of words or frames than there are.
    """
    words = captions[0].text.split()
    if attention is not None and (attention.ndim != 4 or attention.shape[:2] != (len(words), len(frames))):
        raise InputError(
            f"expected attention of {len(words)} words on {len(frames)} frames, found {list(attention.shape)}"
        )
    shown = _spread(len(frames))
    maps = None if attention is None else overlays(frames[shown], attention[:, shown])
    if len(frames) == 1:
        return _photo(frames[0], captions, [] if maps is None else [*zip(words, maps[:, 0], strict=True)])
    times = [_time(seconds[i]) for i in shown]
    return _clip(frames[shown], times, captions, [] if maps is None else [*zip(words, maps, strict=True)])


def save_caption(
    frames: NDArray[np.uint8],
    seconds: Sequence[float | None],
    captions: Sequence[Sentence],
    attention: NDArray[np.floating] | None,
    path: str | os.PathLike[str],
) -> Path:
    """Draws `caption_figure` into a PNG."""
    return save_figure(caption_figure(frames, seconds, captions, attention), path)


def overlays(frames: NDArray[np.uint8], attention: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Frames (T, H, W, 3) with attention (L, T, h, w) over them: (L, T, H, W, 3)."""
    height, width = frames.shape[1:3]
    heat = enlarged(attention / np.maximum(attention.max(axis=(1, 2, 3), keepdims=True), 1e-12), height, width)[
        ..., None
    ]
    faded = 255 * (1 - FADED) * 0.9 + FADED * (frames @ LUMINANCE)[..., None]
    lit = frames + TINT * (HEAT - frames)
    mixed: NDArray[np.uint8] = (faded + heat * (lit - faded)).round().astype(np.uint8)
    return mixed


def enlarged(grids: NDArray[np.floating], height: int, width: int) -> NDArray[np.float64]:
    """Grids (…, h, w) -> (…, height, width), linear between the centres of the cells."""
    return np.moveaxis(_along(np.moveaxis(_along(grids, width), -1, -2), height), -1, -2)


def _along(values: NDArray[np.floating], length: int) -> NDArray[np.float64]:
    """The last axis in another length."""
    cells = values.shape[-1]
    place = np.clip((np.arange(length) + 0.5) * cells / length - 0.5, 0, cells - 1)
    left = np.minimum(place.astype(np.int64), max(cells - 2, 0))
    right = np.minimum(left + 1, cells - 1)
    share = place - left
    mixed: NDArray[np.float64] = values[..., left] * (1 - share) + values[..., right] * share
    return mixed


def _spread(count: int) -> list[int]:
    """Which of the frames are drawn."""
    if count <= MOST_COLUMNS:
        return list(range(count))
    return [(2 * i + 1) * count // (2 * MOST_COLUMNS) for i in range(MOST_COLUMNS)]


def _time(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f} s"


def _photo(photo: NDArray[np.uint8], captions: Sequence[Sentence], seen: list[tuple[str, NDArray[np.uint8]]]) -> Figure:
    """The photo, then a panel for each word with the word above it, line by line."""
    panels = [("", photo), *seen]
    wide, high = _size(photo, PHOTO_PANEL)
    columns = min(PHOTO_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    sheet = _Sheet(columns * (wide + GAP) + GAP, rows * (high + TEXT + GAP), captions)
    for number, (word, picture) in enumerate(panels):
        row, column = divmod(number, columns)
        left, top = GAP + column * (wide + GAP), row * (high + TEXT + GAP)
        sheet.write(word, left + wide / 2, top + TEXT / 2, size=11)
        sheet.show(picture, left, top + TEXT, wide, high)
    return sheet.figure


def _clip(
    frames: NDArray[np.uint8],
    times: Sequence[str],
    captions: Sequence[Sentence],
    seen: list[tuple[str, NDArray[np.uint8]]],
) -> Figure:
    """The frames in a row with their times above them, then a row for each word with the word beside it."""
    wide, high = _size(frames[0], CLIP_PANEL)
    above, beside = TEXT if any(times) else 0.0, LABEL if seen else GAP
    sheet = _Sheet(beside + len(frames) * (wide + GAP), above + (1 + len(seen)) * (high + GAP), captions)
    for row, (word, pictures) in enumerate([("", frames), *seen]):
        top = above + row * (high + GAP)
        sheet.write(word, beside - GAP, top + high / 2, size=11, align="right")
        for column, picture in enumerate(pictures):
            left = beside + column * (wide + GAP)
            sheet.show(picture, left, top, wide, high)
            if row == 0:
                sheet.write(times[column], left + wide / 2, above / 2, size=8, colour=GREY)
    return sheet.figure


def _size(frame: NDArray[np.uint8], longer: float) -> tuple[float, float]:
    """Width and height in inches of a panel."""
    height, width = frame.shape[:2]
    unit = longer / max(height, width)
    return width * unit, height * unit


class _Sheet:
    """A figure that is laid out in inches from the upper left corner, below its captions.

    Args:
        width: of what will be shown.
        height: of what will be shown.
        captions: the best one is the title, some others stand below it.
    """

    def __init__(self, width: float, height: float, captions: Sequence[Sentence]) -> None:
        self.width = max(width, NARROWEST)
        best, *others = captions
        title = textwrap.wrap(best.text, max(1, int(self.width * 9))) or ["(no word)"]
        lines = [(line, 14, "black") for line in title]
        lines += [(f"score {round(best.score, 2) + 0.0:.2f}", 9, GREY)]
        lines += [(f"{other.score:.2f}  {other.text}", 9, GREY) for other in others[:ALTERNATIVES]]
        self.head = 0.0
        self.height = height + GAP + sum(size / 48 for _, size, _ in lines) + GAP
        self.figure = new_figure(self.width, self.height)
        self.figure.set_layout_engine("none")
        top = GAP
        for text, size, colour in lines:
            self.write(text, GAP, top + size / 96, size=size, colour=colour, align="left")
            top += size / 48
        self.head = top + GAP

    def write(
        self, text: str, x: float, y: float, *, size: float, colour: str = "black", align: str = "center"
    ) -> None:
        """A line of text whose middle is at the height y."""
        if text:
            place = (x / self.width, 1 - (self.head + y) / self.height)
            self.figure.text(*place, text, ha=align, va="center", fontsize=size, color=colour)

    def show(self, picture: NDArray[np.uint8], left: float, top: float, width: float, height: float) -> None:
        """A picture in a box."""
        bottom = 1 - (self.head + top + height) / self.height
        axes = self.figure.add_axes((left / self.width, bottom, width / self.width, height / self.height))
        axes.imshow(picture, aspect="auto", interpolation="antialiased")
        axes.set_axis_off()
