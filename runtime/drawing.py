"""Answers drawn into pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import MissingExtraError
from runtime.media.pictures import RGBImage, opencv

SHEET_WIDTH = 1200
"""Most pixels across a sheet of frames."""

SHEET_COLUMNS = 4
PAPER = (250, 250, 247)
FAINT = (110, 118, 126)
BOX = (64, 224, 208)
INK = (16, 24, 32)


def draw_faces(image: NDArray[np.uint8], faces: Sequence[Mapping[str, Any]], *, scale: float = 1) -> NDArray[np.uint8]:
    """A copy of the photo (H, W, 3) with boxes, and ages on labels that stay inside the picture.

    Args:
        image: uint8 RGB.
        faces: documents with `box` in pixels of the photo and `age`, `low`, `high` in years.
        scale: pixels of the photo to one of the image, along each side.

    Raises:
        MissingExtraError: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError:
        raise MissingExtraError("opencv-python-headless", "media") from None
    drawn = np.ascontiguousarray(image).copy()
    height, width = drawn.shape[:2]
    unit = max(height, width) / 1000  # line and letter sizes that look alike on any photo
    stroke = max(1, round(2.5 * unit))
    size = max(0.35, 0.8 * unit)
    for face in faces:
        x1, y1, x2, y2 = (round(v / scale) for v in face["box"])
        cv2.rectangle(drawn, (x1, y1), (x2, y2), BOX, stroke, cv2.LINE_AA)
        label = f"{face['age']:.0f} ({face['low']:.0f}-{face['high']:.0f})"
        (across, up), below = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, size, max(1, stroke // 2))
        pad = max(2, stroke)
        left = int(np.clip(x1, 0, max(0, width - across - 2 * pad)))
        bottom = y1 if y1 - up - below - 2 * pad >= 0 else min(height, y2 + up + below + 2 * pad)
        corner = (left, bottom - up - below - 2 * pad)
        cv2.rectangle(drawn, corner, (left + across + 2 * pad, bottom), BOX, cv2.FILLED)
        cv2.putText(
            drawn, label, (left + pad, bottom - below - pad), cv2.FONT_HERSHEY_SIMPLEX, size, INK,
            max(1, stroke // 2), cv2.LINE_AA,
        )  # fmt: skip
    return drawn


def fitted(image: RGBImage, width: int, height: int) -> RGBImage:
    """A picture (H, W, 3) made as large as fits into a box, its sides in proportion; never larger than it is."""
    rows, columns = image.shape[:2]
    factor = min(1.0, width / columns, height / rows)
    size = (max(1, round(columns * factor)), max(1, round(rows * factor)))
    if size == (columns, rows):
        return image
    cv2 = opencv()
    return cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA)  # type: ignore[no-any-return]


def draw_clip(frames: NDArray[np.uint8], seconds: Sequence[float | None], caption: str) -> NDArray[np.uint8]:
    """The frames of a clip on one sheet, their times under them and the caption below.

    Args:
        frames: uint8 RGB (T, H, W, 3).
        seconds: the time of each; None where there is none, as with a photo.
        caption: the sentence; letters that OpenCV's font lacks become question marks.

    Returns:
        uint8 RGB, at most `SHEET_WIDTH` pixels across, or as much as the caption's longest word takes.

    Raises:
        MissingExtraError: OpenCV is not installed.
    """
    cv2 = opencv()
    columns = min(SHEET_COLUMNS, len(frames))
    gap, line = 8, 34
    across = (SHEET_WIDTH - gap * (columns + 1)) // columns
    small = [fitted(frame, across, across) for frame in frames]
    high, wide = small[0].shape[:2]
    told = any(second is not None for second in seconds) and len(frames) > 1
    pitch = high + gap + (20 if told else 0)
    rows = -(-len(frames) // columns)
    font = cv2.FONT_HERSHEY_SIMPLEX
    width = max(columns * (wide + gap) + gap, 320)
    lines = _wrapped(caption, lambda text: cv2.getTextSize(text, font, 0.8, 2)[0][0] <= width - 2 * gap)
    width = max([width, *(cv2.getTextSize(text, font, 0.8, 2)[0][0] + 2 * gap for text in lines)])
    sheet = np.full((gap + rows * pitch + line * len(lines) + gap, width, 3), PAPER, np.uint8)
    for index, (frame, second) in enumerate(zip(small, seconds, strict=True)):
        top, left = gap + index // columns * pitch, gap + index % columns * (wide + gap)
        sheet[top : top + high, left : left + wide] = frame
        if told and second is not None:
            place = (left, top + high + 17)
            cv2.putText(sheet, f"{second:.2f} s", place, font, 0.45, FAINT, 1, cv2.LINE_AA)
    for index, text in enumerate(lines):
        place = (gap, gap + rows * pitch + line * index + 24)
        cv2.putText(sheet, text, place, font, 0.8, INK, 2, cv2.LINE_AA)
    return sheet


def _wrapped(text: str, fits: Callable[[str], bool]) -> list[str]:
    """The words of a text in lines that fit; a word that fits no line has one to itself."""
    lines: list[str] = []
    for word in text.split():
        if lines and fits(f"{lines[-1]} {word}"):
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines or [""]
