"""Cutting faces out of photos: the margin crop of DEX, and the alignment that some networks were trained with.

Coordinates are pixels of the photo; a pixel's middle lies at .5, and x1 y1 x2 y2 are edges unless a function says
otherwise. Outside the photo its last row and column are repeated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import BundleError, MissingExtraError

Pixels = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]

FINEST_CROP = 2
"""A face is rendered at no more than so many times the network's side: its own antialias has enough to average."""


@dataclass(frozen=True, slots=True)
class Detection:
    """One face: box (4,) as x1 y1 x2 y2, score 0..1, keypoints (P, 2)."""

    box: Floats
    score: float
    keypoints: Floats

    @property
    def side(self) -> float:
        """The longer side of the box."""
        return float((self.box[2:] - self.box[:2]).max())

    @property
    def middle(self) -> Floats:
        """(2,), of the box."""
        return (self.box[:2] + self.box[2:]) / 2

    def moved(self, x: float, y: float, scale: float = 1) -> Detection:
        """Scaled about the first pixel's corner, then shifted."""
        shift = np.array([x, y], dtype=np.float32)
        factor = np.float32(scale)
        box = (self.box.reshape(2, 2) * factor + shift).reshape(4)
        return Detection(box, self.score, self.keypoints * factor + shift)

    def turned_back(self, quarters: int, size: tuple[int, int]) -> Detection:
        """Of ``np.rot90(image, quarters)`` -> of the image itself.

        Args:
            quarters: 0 to 3.
            size: height and width of the image itself.
        """
        corners, keypoints = np.reshape(self.box, (2, 2)), self.keypoints
        for quarter in reversed(range(quarters)):
            # What lies at (x, y) after a quarter turn to the left lay at (width - y, x) before it.
            width = np.float32(size[1 - quarter % 2])
            corners, keypoints = (np.column_stack([width - p[:, 1], p[:, 0]]) for p in (corners, keypoints))
        return Detection(np.concatenate([corners.min(axis=0), corners.max(axis=0)]), self.score, keypoints)

    def among(self, others: Sequence[Detection], least: float) -> Detection | None:
        """The one of others that overlaps this most, if by `least` (IoU) or more: the same face."""
        if not others:
            return None
        overlaps = overlap(self.box, np.stack([other.box for other in others]))
        best = int(overlaps.argmax())
        return others[best] if overlaps[best] >= least else None


@dataclass(frozen=True, slots=True)
class MarginCrop:
    """DEX's crop: the box and `margin` times its width and height on either side."""

    margin: float = 0.4

    def __call__(self, image: Pixels, face: Detection) -> Pixels:
        """Cuts the face out of an image (H, W, 3); the size follows the box."""
        x1, y1, x2, y2 = (float(v) for v in face.box)
        # DEX counts the last pixel in: an edge at x2 means that the last pixel is x2 - 1.
        return margin_crop(image, (x1, y1, x2 - 1, y2 - 1), self.margin)

    def spare(self, face: Detection) -> float:
        """0: how many pixels the network needs is not known here."""
        return 0.0


@dataclass(frozen=True, slots=True)
class AlignedCrop:
    """Turns and scales the face until its keypoints lie where the network's training had them.

    Attributes:
        size: Side in pixels that the network looks at; crops are this or twice this, so that several faces share a
            batch and the graph's own antialias does the last step.
        template: (P, 2) places of the detector's first P keypoints in the unit square.
        weights: (P,) how much each keypoint counts.
    """

    size: int
    template: tuple[tuple[float, float], ...]
    weights: tuple[float, ...]

    def __call__(self, image: Pixels, face: Detection) -> Pixels:
        """Cuts the face out of an image (H, W, 3).

        Returns:
            (S, S, 3): S = size if the face has no more pixels than that, else twice the size.
        """
        to_square, across = self._placed(face)
        finest = FINEST_CROP * self.size
        if across > finest:
            image, to_square = _about(image, to_square, across / finest)
        side = self.size if across <= self.size else finest
        return warp(image, to_square * side, side)

    def spare(self, face: Detection) -> float:
        """How many times as many pixels a face has, along each side, as the network looks at."""
        return self._placed(face)[1] / self.size

    def _placed(self, face: Detection) -> tuple[NDArray[np.float64], float]:
        """What brings a face's keypoints to the template in the unit square, and that square's side in pixels."""
        keypoints = face.keypoints[: len(self.template)]
        to_square = similarity(keypoints, np.array(self.template), np.array(self.weights))
        return to_square, 1 / max(float(np.hypot(to_square[0, 0], to_square[1, 0])), 1e-9)


def _about(image: Pixels, to_square: NDArray[np.float64], excess: float) -> tuple[Pixels, NDArray[np.float64]]:
    """The part of an image that lands in the unit square, halved as often as `excess`, its surplus of pixels, allows.

    Bilinear sampling reads four pixels, however far apart: what shrinks more is averaged first.
    """
    turn = to_square[:, :2]
    corners = (np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) - to_square[:, 2]) @ np.linalg.pinv(turn).T
    height, width = image.shape[:2]
    # A little more for the sampling; an edge of the photo stays one, so that what lies outside is its repetition.
    left, top = (np.floor(corners.min(axis=0) - 2 * excess)).clip(0, [width - 1, height - 1]).astype(int)
    right, bottom = (np.ceil(corners.max(axis=0) + 2 * excess)).clip([left + 1, top + 1], [width, height]).astype(int)
    part, factor = halved(image[top:bottom, left:right], excess)
    # A point p of the image is q = (p - corner) / factor of the part.
    return part, np.column_stack([turn * factor, turn @ [left, top] + to_square[:, 2]])


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
    last_x, last_y = max(first_x, last_x), max(first_y, last_y)
    pixels = np.empty((last_y - first_y + 1, last_x - first_x + 1, *image.shape[2:]), image.dtype)
    # The part inside, of at least one row and column, then its outermost ones repeated: slices cost a twentieth of
    # picking every pixel by its index.
    (rows, top, bottom), (columns, left, right) = _inside(first_y, last_y, height), _inside(first_x, last_x, width)
    pixels[top:bottom, left:right] = image[rows, columns]
    pixels[top:bottom, :left] = pixels[top:bottom, left : left + 1]
    pixels[top:bottom, right:] = pixels[top:bottom, right - 1 : right]
    pixels[:top] = pixels[top]
    pixels[bottom:] = pixels[bottom - 1]
    return pixels


def _inside(first: int, last: int, size: int) -> tuple[slice, int, int]:
    """The pixels of first..last that exist, the nearest one where none does, and from where to where they go."""
    begin, end = (min(max(place, 0), size - 1) for place in (first, last))
    start = min(max(begin - first, 0), last - first)
    return slice(begin, end + 1), start, start + end + 1 - begin


def square(image: Pixels, face: Detection, share: float) -> tuple[Pixels, int, int]:
    """Cuts a square of `share` times a face's side around its middle, and says where its first column and row lie."""
    half = share * face.side / 2
    left, top = (int(v) for v in np.floor(face.middle - half))
    right, bottom = (int(v) for v in np.ceil(face.middle + half))
    side = max(right - left, bottom - top)  # a square but for the rounding
    return cut(image, left, top, left + side, top + side), left, top


def halved(image: Pixels, factor: float) -> tuple[Pixels, int]:
    """Halves an image (H, W, C) by the mean of 2×2 pixels as often as `factor` holds a 2.

    An odd last row or column is left out, so that every pixel of the result stands for a whole block.

    Returns:
        The image, and the power of two by which it was shrunk: a point of it lies at that times its place.

    Raises:
        MissingExtraError: OpenCV is not installed.
    """
    done = 1
    while factor >= 2 * done and min(image.shape[:2]) >= 2:
        height, width = image.shape[0] // 2, image.shape[1] // 2
        # OpenCV's fast path is the exact half only; it rounds a mean that ends in a half up.
        image = _resized(image[: 2 * height, : 2 * width], width, height)
        done *= 2
    return image, done


def shrunk(image: Pixels, side: int) -> Pixels:
    """Shrinks a square (S, S, C) to (side, side, C) by area; one that is smaller already stays as it is."""
    return image if image.shape[0] <= side else brought_to(image, side)


def brought_to(image: Pixels, side: int) -> Pixels:
    """Brings a square (S, S, C) to (side, side, C): by area where it shrinks, else bilinearly."""
    image, _ = halved(image, image.shape[0] / side)
    return image if image.shape[0] == side else _resized(image, side, side)


def fitted(image: Pixels, longest: int) -> Pixels:
    """Brings an image (H, W, C) to a longest side: halved as often as possible, then bilinearly."""
    image, _ = halved(image, max(image.shape[:2]) / longest)
    largest = max(image.shape[:2])
    if largest == longest:
        return image
    height, width = (max(1, round(side * longest / largest)) for side in image.shape[:2])
    cv2 = _opencv()
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def _resized(image: Pixels, width: int, height: int) -> Pixels:
    cv2 = _opencv()
    kind = cv2.INTER_AREA if width <= image.shape[1] and height <= image.shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=kind), dtype=np.uint8)


def _opencv() -> Any:
    try:
        import cv2
    except ImportError:
        raise MissingExtraError("opencv-python-headless", "media") from None
    return cv2


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
    # A handful of points: Python's own numbers take a fifth of the time of numpy's arrays.
    whole = float(sum(weights))
    rows = [
        (float(weight) / whole, *map(float, point), *map(float, place))
        for weight, point, place in zip(weights, source, target, strict=True)
    ]
    sx, sy = (sum(row[0] * row[axis] for row in rows) for axis in (1, 2))
    tx, ty = (sum(row[0] * row[axis] for row in rows) for axis in (3, 4))
    spread = along = across = 0.0
    for share, x, y, u, v in rows:
        x, y, u, v = x - sx, y - sy, u - tx, v - ty
        spread += share * (x * x + y * y)
        along += share * (x * u + y * v)
        across += share * (x * v - y * u)
    cosine, sine = (along / spread, across / spread) if spread > 0 else (1.0, 0.0)
    turn = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([turn, np.array([tx, ty]) - turn @ np.array([sx, sy])])


def warp(image: Pixels, transform: NDArray[np.float64], side: int) -> Pixels:
    """Renders (side, side, 3) such that a point p of the image lands at ``transform @ [p, 1]``, bilinearly.

    Raises:
        MissingExtraError: OpenCV is not installed.
    """
    cv2 = _opencv()
    # OpenCV counts pixel middles as whole numbers, this module as halves.
    half = np.full(2, 0.5)
    matrix = np.column_stack([transform[:, :2], transform[:, 2] + transform[:, :2] @ half - half])
    rendered = cv2.warpAffine(
        np.ascontiguousarray(image), matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(rendered, dtype=np.uint8)


def overlap(box: Floats, others: Floats) -> NDArray[np.float64]:
    """Intersection over union of one box (4,) with others (D, 4): (D,); boxes of any shapes (…, 4) are broadcast."""
    box, others = np.asarray(box, dtype=np.float64), np.asarray(others, dtype=np.float64)
    sides = (np.minimum(box[..., 2:], others[..., 2:]) - np.maximum(box[..., :2], others[..., :2])).clip(0)
    intersection = sides[..., 0] * sides[..., 1]
    area, areas = ((b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1]) for b in (box, others))
    return np.asarray(intersection / np.maximum(area + areas - intersection, 1e-12))
