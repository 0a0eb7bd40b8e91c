"""Lists of detections inside a graph: float32 rows (D, 17), see `runtime.faces.Detection`.

A row holds the box x1 y1 x2 y2, the score, and six keypoints x y.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from edgedl.tasks.age.photo.pixels import to_float
from exporters.writer import Value, Writer

KEYPOINTS = 6
SCORE = 4
WIDTH = SCORE + 1 + 2 * KEYPOINTS

_PLACES = np.array([place != SCORE for place in range(WIDTH)])


def rows_of(boxes: Value, scores: Value, keypoints: Value) -> Value:
    """Boxes (D, 4), scores (D,) and keypoints (D, 6, 2) -> rows."""
    return boxes.writer.joined([boxes, scores.reshaped(-1, 1), keypoints.reshaped(-1, 2 * KEYPOINTS)], axis=1)


def no_rows(writer: Writer) -> Value:
    """An empty list."""
    return writer.constant(np.zeros((0, WIDTH), np.float32))


def count(rows: Value) -> Value:
    """How many there are, of shape (1,)."""
    return rows.writer.op("Shape", rows, dtype=TensorProto.INT64, start=0, end=1)


def boxes_of(rows: Value) -> Value:
    """(D, 4)."""
    return rows.cut(0, SCORE, axis=1)


def scores_of(rows: Value) -> Value:
    """(D,)."""
    return rows.take(SCORE, axis=1)


def side_of(rows: Value) -> Value:
    """(D,): the longer side of each box."""
    return (rows.cut(2, 4, axis=1) - rows.cut(0, 2, axis=1)).over("ReduceMax", 1)


def middle_of(rows: Value) -> Value:
    """(D, 2): of each box."""
    return (rows.cut(0, 2, axis=1) + rows.cut(2, 4, axis=1)) / 2


def moved(rows: Value, shift: Value | None, scale: Value) -> Value:
    """Scaled about the first pixel's corner, then shifted.

    Args:
        rows: (D, 17).
        shift: x and y, (1, 2) or (D, 2), float32; None does not shift.
        scale: (1, 1) or (D, 1), float32.
    """
    writer = rows.writer
    scaled = rows * writer.where(writer.constant(_PLACES), scale, 1)
    if shift is None:
        return scaled
    # The matrix sends x and y to their places and nothing to the score.
    to = np.zeros((2, WIDTH), np.float32)
    to[0, [0, 2, *range(SCORE + 1, WIDTH, 2)]] = to[1, [1, 3, *range(SCORE + 2, WIDTH, 2)]] = 1
    return scaled + shift @ writer.constant(to)


def kept(rows: Value, which: Value) -> Value:
    """Those of the rows for which a condition (D,) holds."""
    return rows.writer.op("Compress", rows, which, axis=0)


def with_nothing(rows: Value) -> Value:
    """The rows and one more of zeros, which overlaps with nothing: there is always a largest overlap."""
    return rows.writer.op("Pad", rows, rows.writer.whole(0, 0, 1, 0))


def overlaps(rows: Value, others: Value) -> Value:
    """(D, M): intersection over union of each two boxes."""
    writer = rows.writer
    ones, twos = writer.op("Unsqueeze", rows, writer.whole(1)), writer.op("Unsqueeze", others, writer.whole(0))
    low = ones.cut(0, 2, axis=2).most(twos.cut(0, 2, axis=2))
    high = ones.cut(2, 4, axis=2).least(twos.cut(2, 4, axis=2))
    common = _area((high - low).most(0))
    union = _area(ones.cut(2, 4, axis=2) - ones.cut(0, 2, axis=2))
    union = union + _area(twos.cut(2, 4, axis=2) - twos.cut(0, 2, axis=2)) - common
    return common / union.most(1e-12)


def _area(sides: Value) -> Value:
    return sides.take(0, axis=2) * sides.take(1, axis=2)


def scalar(writer: Writer, number: float) -> Value:
    """A float32 number of shape (1, 1)."""
    return writer.constant(np.array([[number]], np.float32))


def column(value: Value) -> Value:
    """(D,) or (1,) numbers -> (D, 1) or (1, 1) float32."""
    return to_float(value).reshaped(-1, 1)
