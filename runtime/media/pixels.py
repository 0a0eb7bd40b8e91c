"""From whatever values a picture has to uint8 RGB, a few rows at a time: no copy of the whole is made on the way."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import MediaError

RGBImage = NDArray[np.uint8]
"""A picture, uint8 RGB (H, W, 3)."""

_VALUES_AT_ONCE = 1 << 18


def to_rgb(array: NDArray[Any], *, blue_first: bool = False, transparent_grey: int | None = None) -> RGBImage:
    """Grey becomes RGB; 16 bits become 8, rounded; what is transparent is laid over white.

    Args:
        array: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), uint8 or uint16.
        blue_first: the channels are in the order BGR(A), as OpenCV has them.
        transparent_grey: the value of a grey picture that is transparent.

    Returns:
        uint8 RGB (H, W, 3), contiguous; the array itself where it is that already.

    Raises:
        MediaError: an array of another form.
    """
    if array.dtype not in (np.uint8, np.uint16):
        raise MediaError(f"a picture's values are uint8 (or uint16), got {array.dtype}; scale and convert them first")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise MediaError(f"a picture is (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {array.shape}")
    height, width, channels = array.shape
    if array.dtype == np.uint8 and channels == 3 and not blue_first:
        return np.ascontiguousarray(array)
    image = np.empty((height, width, 3), np.uint8)
    rows = max(1, _VALUES_AT_ONCE // (width * channels))
    for top in range(0, height, rows):
        part = array[top : top + rows]
        if transparent_grey is not None:
            part = np.where(part == transparent_grey, np.iinfo(part.dtype).max, part)
        if part.dtype == np.uint16:
            part = (part - (part >> 8) + (part >> 15) + 127 >> 8).astype(np.uint8)  # the rounded quotient by 257
        alpha = part[:, :, 3].astype(np.uint16) if channels == 4 else None
        for channel in range(3):  # one at a time: numpy is slow where the innermost axis has three values
            plane = part[:, :, 0 if channels == 1 else 2 - channel if blue_first else channel]
            image[top : top + rows, :, channel] = plane if alpha is None else _over_white(plane, alpha)
    return image


def _over_white(plane: NDArray[np.uint8], alpha: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """One channel (H, W) over white: 255 - (255 - value)·alpha / 255, rounded."""
    shade = (255 - plane) * alpha + 127
    return (255 - (shade + 1 + (shade >> 8) >> 8)).astype(np.uint8)  # the quotient by 255, exactly
