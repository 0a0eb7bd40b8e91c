"""Cutting faces out of the photo inside a graph, as the crops of `runtime.faces` do.

Each gives planes of the side that the age network looks at: the resize that its graph begins with is done face by face,
so that the network itself runs once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgedl.tasks.age.photo.pixels import (
    ascending,
    clipped,
    cut,
    halved,
    halvings,
    plane_of,
    regions,
    sides,
    to_double,
    to_float,
    to_whole,
)
from edgedl.tasks.age.photo.rows import boxes_of, count
from exporters.writer import Value
from runtime.faces import FINEST_CROP, AlignedCrop, Crop, MarginCrop

Resize = Callable[[Value], Value]
"""What the age graph does first: a plane of any size -> one of the network's."""


def crops(image: Value, rows: Value, crop: Crop, resize: Resize) -> Value:
    """(F, 3, size, size): every face as the age network gets it."""
    writer = image.writer
    one = _margin(image, rows, crop) if isinstance(crop, MarginCrop) else _aligned(image, rows, crop)

    def body(place: Value, _: Sequence[Value]) -> tuple[None, list[Value], list[Value]]:
        return None, [], [resize(one(place))]

    with writer.step("crop"):
        (found,) = writer.repeat(count(rows), None, [], body)  # (F, 1, 3, size, size)
    return writer.op("Squeeze", found, writer.whole(1))


def _margin(image: Value, rows: Value, crop: MarginCrop) -> Callable[[Value], Value]:
    """See `runtime.faces.margin_crop`."""
    writer = image.writer
    corners = to_double(boxes_of(rows))
    first, last = corners.cut(0, 2, axis=1), corners.cut(2, 4, axis=1) - 1
    grown = (last - first + 1) * crop.margin

    def rounded(value: Value) -> Value:
        """Half away from zero."""
        return to_whole(value + writer.op("Sign", value) * 0.5)

    begin = rounded(first - grown)
    region = regions(image, begin, rounded(last + grown).most(begin))
    return lambda place: plane_of(cut(image, region, place))


def _aligned(image: Value, rows: Value, crop: AlignedCrop) -> Callable[[Value], Value]:
    """See `runtime.faces.AlignedCrop`.

    A pixel of the crop lies at ``origin + u * right + v * down`` of the photo, u and v from 0 to 1.
    """
    writer = image.writer
    size, finest = crop.size, FINEST_CROP * crop.size
    right, down, origin = _squares(rows, crop)  # (F, 2)
    wide = writer.op("ReduceL2", right, writer.whole(1), keepdims=1)  # (F, 1) pixels of the unit square's side
    fine = writer.where(wide <= size, writer.constant(np.array([[size]])), writer.constant(np.array([[finest]])))

    around = 2 * (wide / finest).most(1)
    limit = to_double(writer.joined(list(reversed(sides(image)))))  # width, height
    low, high = origin + right.least(0) + down.least(0), origin + right.most(0) + down.most(0)
    low = clipped(writer.op("Floor", low - around), 0, limit - 1)
    high = clipped(writer.op("Ceil", high + around), low + 1, limit)
    times = halvings(wide, finest)
    begin, end = (to_whole(corner).take(writer.whole(1, 0), axis=1) for corner in (low, high))
    affine = to_float(writer.joined([right, down, origin - low], axis=1))

    def one(place: Value) -> Value:
        first, last = (corner.take(place).reshaped(2) for corner in (begin, end))
        part, factor = halved(writer.op("Slice", image, first, last, writer.whole(0, 1)), times.take(place))
        side = fine.take(place).reshaped(1)
        steps = (to_float(ascending(side)) + 0.5) / to_float(side)
        across, down_by = steps.reshaped(1, -1), steps.reshaped(-1, 1)
        right_x, right_y, down_x, down_y, x, y = (affine.take(place) / to_float(factor)).parts(6, axis=1)
        # OpenCV counts pixel middles as whole numbers, `runtime.faces` as halves.
        pixels = _bilinear(
            part, across * right_x + (down_by * down_x + (x - 0.5)), across * right_y + (down_by * down_y + (y - 0.5))
        )  # (3, side * side)
        return writer.op("Reshape", pixels, writer.whole(1, 3, side, side))

    return one


def _squares(rows: Value, crop: AlignedCrop) -> tuple[Value, Value, Value]:
    """Where the unit square of each face lies in the photo: one side, the other one, and its corner, float64 (F, 2).

    See `runtime.faces.similarity`, whose closed form is written here for all faces at once.
    """
    writer = rows.writer
    template, weights = np.array(crop.template), np.array(crop.weights)
    shares = (weights / weights.sum()).reshape(1, -1, 1)
    target = (shares[0] * template).sum(axis=0)
    places = (template - target)[None]
    flipped = np.stack([places[..., 1], -places[..., 0]], axis=-1)
    points = to_double(rows.cut(5, 5 + 2 * len(template), axis=1)).reshaped(-1, len(template), 2)
    weight = writer.constant(shares)
    middle = (points * weight).over("ReduceSum", 1, keep=True)  # (F, 1, 2)
    spread = points - middle  # (F, P, 2)
    weighted = spread * weight
    others = (writer.constant(places), writer.constant(flipped), spread)
    along, across, spread = ((weighted * other).over("ReduceSum", 1, 2).reshaped(-1, 1) for other in others)  # (F, 1)
    known = spread > 0
    cosine, sine = writer.where(known, along / spread, 1), writer.where(known, across / spread, 0)
    square = (cosine * cosine + sine * sine).most(1e-18)
    cosine, sine = cosine / square, sine / square
    right, down = writer.joined([cosine, -sine], axis=1), writer.joined([sine, cosine], axis=1)
    return right, down, middle.reshaped(-1, 2) - right * float(target[0]) - down * float(target[1])


def _bilinear(image: Value, x: Value, y: Value) -> Value:
    """(3, n) float32 levels between the pixels of an image, at places x and y of n elements; its border is repeated."""
    writer = image.writer
    height, width = sides(image)

    def taps(place: Value, size: Value) -> tuple[Value, Value, Value]:
        last = to_float(size) - 1
        place = clipped(place, 0, last).reshaped(1, -1)
        first = writer.op("Floor", place)
        return first, (first + 1).least(last), place - first

    (left, right, near_x), (above, below, near_y) = taps(x, width), taps(y, height)
    above, below = above * to_float(width), below * to_float(width)
    # float32 holds every place of a part: it has 2 ** 24 pixels at the very most.
    places = to_whole(writer.joined([above + left, above + right, below + left, below + right]))  # (4, n)
    pixels = to_float(image.reshaped(-1, 3).take(places).turned(2, 0, 1))  # (3, 4, n)
    one, two, three, four = pixels.parts(4, axis=1)
    top, bottom = one + (two - one) * near_x, three + (four - three) * near_x
    return writer.op("Round", top + (bottom - top) * near_y)
