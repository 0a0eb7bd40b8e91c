"""Cutting faces out of photos: the margin crop of DEX, and the alignment that some networks were trained with.

Coordinates are pixels of the photo; a pixel's middle lies at .5, and x1 y1 x2 y2 are edges unless a function says
otherwise. Outside the photo its last row and column are repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import BundleError, MissingExtraError

Pixels = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]

LARGEST_CROP = 512
"""A face is never rendered larger than this: no network here looks at more than a quarter of it."""


@dataclass(frozen=True, slots=True)
class Detection:
    """One face: box (4,) as x1 y1 x2 y2, score 0..1, keypoints (P, 2)."""

    box: Floats
    score: float
    keypoints: Floats


@dataclass(frozen=True, slots=True)
class MarginCrop:
    """DEX's crop: the box and `margin` times its width and height on either side."""

    margin: float = 0.4

    def __call__(self, image: Pixels, face: Detection) -> Pixels:
        """Cuts the face out of an image (H, W, 3); the size follows the box."""
        x1, y1, x2, y2 = (float(v) for v in face.box)
        # DEX counts the last pixel in: an edge at x2 means that the last pixel is x2 - 1.
        return margin_crop(image, (x1, y1, x2 - 1, y2 - 1), self.margin)


@dataclass(frozen=True, slots=True)
class AlignedCrop:
    """Turns and scales the face until its keypoints lie where the network's training had them.

    Attributes:
        size: Side in pixels that the network looks at; crops are this times a power of two, so that several faces
            share a batch and the graph's own antialias does the last step.
        template: (P, 2) places of the detector's first P keypoints in the unit square.
        weights: (P,) how much each keypoint counts.
    """

    size: int
    template: tuple[tuple[float, float], ...]
    weights: tuple[float, ...]

    def __call__(self, image: Pixels, face: Detection) -> Pixels:
        """Cuts the face out of an image (H, W, 3): (S, S, 3) with S = size·2^k, at least the face's own resolution."""
        keypoints = face.keypoints[: len(self.template)]
        to_square = similarity(keypoints, np.array(self.template), np.array(self.weights))
        side = self.size
        pixels_across = 1 / max(float(np.hypot(to_square[0, 0], to_square[1, 0])), 1e-9)
        while side < pixels_across and 2 * side <= LARGEST_CROP:
            side *= 2
        return warp(image, to_square * side, side)


Crop = MarginCrop | AlignedCrop


def crop_from_json(data: Mapping[str, Any]) -> Crop:
    """Reads the `crop` setting of a bundle.

    Raises:
        BundleError: an unknown kind, or keys that do not belong to it.
    """
    fields = dict(data)
    kind = fields.pop("kind", None)
    try:
        if kind == "margin":
            return MarginCrop(margin=float(fields.pop("margin")), **fields)
        if kind == "aligned":
            template = tuple((float(x), float(y)) for x, y in fields.pop("template"))
            weights = tuple(float(w) for w in fields.pop("weights"))
            if len(template) != len(weights) or len(template) < 2:
                raise ValueError(f"{len(template)} template points and {len(weights)} weights")
            return AlignedCrop(size=int(fields.pop("size")), template=template, weights=weights, **fields)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"the bundle's crop setting {dict(data)} cannot be read: {error}") from error
    raise BundleError(f"the bundle's crop is of kind {kind!r}; expected 'margin' or 'aligned'")


def crop_to_json(crop: Crop) -> dict[str, Any]:
    """The inverse of `crop_from_json`."""
    if isinstance(crop, MarginCrop):
        return {"kind": "margin", "margin": crop.margin}
    return {
        "kind": "aligned",
        "size": crop.size,
        "template": [list(point) for point in crop.template],
        "weights": list(crop.weights),
    }


def matlab_round(x: float) -> int:
    """Rounds half away from zero, as MATLAB does and Python does not."""
    return int(np.trunc(x + np.copysign(0.5, x)))


def margin_crop(image: Pixels, box: tuple[float, float, float, float], margin: float) -> Pixels:
    """DEX's ``extractSubImage``: the box grown by `margin` on every side, the border replicated.

    Args:
        image: (H, W, C).
        box: x1 y1 x2 y2 of the first and the last pixel, counted from 0.
        margin: Share of the box's width and height.

    Returns:
        (h, w, C) with ``w = round(x2 + margin·w) - round(x1 - margin·w) + 1``.
    """
    x1, y1, x2, y2 = box
    across, down = margin * (x2 - x1 + 1), margin * (y2 - y1 + 1)
    return cut(
        image, matlab_round(x1 - across), matlab_round(y1 - down), matlab_round(x2 + across), matlab_round(y2 + down)
    )


def cut(image: Pixels, first_x: int, first_y: int, last_x: int, last_y: int) -> Pixels:
    """Cuts pixels first..last out of (H, W, C), both counted in; outside the image the border is replicated."""
    height, width = image.shape[:2]
    if first_x >= 0 and first_y >= 0 and last_x < width and last_y < height:
        return image[first_y : last_y + 1, first_x : last_x + 1]
    rows = np.arange(first_y, max(first_y, last_y) + 1).clip(0, height - 1)
    columns = np.arange(first_x, max(first_x, last_x) + 1).clip(0, width - 1)
    pixels: Pixels = image[rows[:, None], columns]
    return pixels


def framed(image: Pixels, share: float) -> tuple[Pixels, int, int]:
    """Sets an image into a frame of its own border, `share` of its sides wide; gives the frame's width and height."""
    height, width = image.shape[:2]
    across, down = round(width * share), round(height * share)
    return cut(image, -across, -down, width + across - 1, height + down - 1), across, down


def similarity(source: Floats, target: Floats, weights: Floats) -> NDArray[np.float64]:
    """The turn, scale and shift that brings points onto points with the least weighted squared error.

    Umeyama 1991, "Least-squares estimation of transformation parameters between two point patterns", for the plane
    and without reflection.

    Args:
        source: (P, 2).
        target: (P, 2).
        weights: (P,), not negative, not all zero.

    Returns:
        (2, 3): ``target ≈ source @ M[:, :2].T + M[:, 2]``. Points that all coincide give a shift alone.
    """
    share = np.asarray(weights, dtype=np.float64) / np.sum(weights)
    source, target = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    source_middle, target_middle = share @ source, share @ target
    s, t = source - source_middle, target - target_middle
    spread = float(share @ (s**2).sum(axis=1))
    cosine, sine = 1.0, 0.0
    if spread > 0:
        cosine = float(share @ (s[:, 0] * t[:, 0] + s[:, 1] * t[:, 1])) / spread
        sine = float(share @ (s[:, 0] * t[:, 1] - s[:, 1] * t[:, 0])) / spread
    turn = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([turn, target_middle - turn @ source_middle])


def warp(image: Pixels, transform: NDArray[np.float64], side: int) -> Pixels:
    """Renders (side, side, 3) such that a point p of the image lands at ``transform @ [p, 1]``, bilinearly.

    Raises:
        MissingExtraError: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError:
        raise MissingExtraError("opencv-python-headless", "media") from None
    # OpenCV counts pixel middles as whole numbers, this module as halves.
    half = np.full(2, 0.5)
    matrix = np.column_stack([transform[:, :2], transform[:, 2] + transform[:, :2] @ half - half])
    rendered = cv2.warpAffine(
        np.ascontiguousarray(image), matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(rendered, dtype=np.uint8)


def overlap(box: Floats, others: Floats) -> NDArray[np.float64]:
    """Intersection over union of one box (4,) with others (D, 4): (D,)."""
    box, others = np.asarray(box, dtype=np.float64), np.asarray(others, dtype=np.float64)
    sides = (np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])).clip(0)
    intersection = sides[:, 0] * sides[:, 1]
    areas = (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
    union = (box[2] - box[0]) * (box[3] - box[1]) + areas - intersection
    return np.asarray(intersection / np.maximum(union, 1e-12))
