"""Answers drawn into pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import MissingExtraError

BOX = (64, 224, 208)
INK = (16, 24, 32)


def draw_faces(image: NDArray[np.uint8], faces: Sequence[Mapping[str, Any]]) -> NDArray[np.uint8]:
    """A copy of the photo (H, W, 3) with boxes, and ages on labels that stay inside the picture.

    Args:
        image: uint8 RGB.
        faces: documents with `box` in pixels and `age`, `low`, `high` in years.

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
    scale = max(0.35, 0.8 * unit)
    for face in faces:
        x1, y1, x2, y2 = (round(v) for v in face["box"])
        cv2.rectangle(drawn, (x1, y1), (x2, y2), BOX, stroke, cv2.LINE_AA)
        label = f"{face['age']:.0f} ({face['low']:.0f}-{face['high']:.0f})"
        (across, up), below = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, scale, max(1, stroke // 2))
        pad = max(2, stroke)
        left = int(np.clip(x1, 0, max(0, width - across - 2 * pad)))
        bottom = y1 if y1 - up - below - 2 * pad >= 0 else min(height, y2 + up + below + 2 * pad)
        corner = (left, bottom - up - below - 2 * pad)
        cv2.rectangle(drawn, corner, (left + across + 2 * pad, bottom), BOX, cv2.FILLED)
        cv2.putText(
            drawn, label, (left + pad, bottom - below - pad), cv2.FONT_HERSHEY_SIMPLEX, scale, INK,
            max(1, stroke // 2), cv2.LINE_AA,
        )  # fmt: skip
    return drawn
