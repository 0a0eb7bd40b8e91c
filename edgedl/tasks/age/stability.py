"""Small changes of a picture that change nobody's age, and by how much they move the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import MissingExtraError
from runtime.media.pictures import read_image

Pixels = NDArray[np.uint8]

DARKER = 0.8
QUALITY = 50
"""Of the JPEG: what messengers and web pages make of a photo."""


def mirrored(image: Pixels) -> Pixels:
    """Left and right exchanged: (H, W, 3)."""
    return np.ascontiguousarray(image[:, ::-1])


def shifted(image: Pixels) -> Pixels:
    """Moved to the right by one pixel, the first column twice: (H, W, 3)."""
    return np.concatenate([image[:, :1], image[:, :-1]], axis=1)


def darkened(image: Pixels) -> Pixels:
    """With `DARKER` of its brightness: (H, W, 3)."""
    return np.round(image * np.float32(DARKER)).astype(np.uint8)


def recompressed(image: Pixels) -> Pixels:
    """As a JPEG of `QUALITY` shows it: (H, W, 3).

    Raises:
        MissingExtraError: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError:
        raise MissingExtraError("opencv-python-headless", "media") from None
    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return read_image(data.tobytes())


CHANGES: Mapping[str, Callable[[Pixels], Pixels]] = {
    "mirrored": mirrored,
    "one pixel to the right": shifted,
    f"brightness × {DARKER:g}": darkened,
    f"JPEG of quality {QUALITY}": recompressed,
}


def moved(before: NDArray[np.floating[Any]], after: NDArray[np.floating[Any]]) -> dict[str, float]:
    """By how many years (n,) answers move: mean and 95th percentile of the absolute change, and the mean change."""
    change = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    size = np.abs(change)
    return {"mean": float(size.mean()), "95 %": float(np.quantile(size, 0.95)), "bias": float(change.mean())}
