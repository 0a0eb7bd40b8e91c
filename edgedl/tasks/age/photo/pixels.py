"""Cutting, halving and resizing pixels inside a graph, each as `runtime.faces` and OpenCV do it.

Images are uint8 (H, W, 3) unless a function says otherwise; a *plane* is float32 (1, 3, H, W), in whole levels. Sizes
and places are int64 of shape (1,).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from onnx import TensorProto, helper

from exporters.writer import Value

BLOCK = 16
"""Pixels of a row that the halving takes at once: 48 numbers fill the int8 kernels of ONNX Runtime."""

BAND = 32
"""Rows that are resized at once: all that is computed of them stays in the processor's cache."""

_SUM = 16
"""Weight of each of the four pixels; with a 64th more than their sum's 64th, a mean that ends in a half rounds up."""


def sides(image: Value) -> tuple[Value, Value]:
    """Height and width of an image."""
    height, width = (image.writer.op("Shape", image, dtype=TensorProto.INT64, start=s, end=s + 1) for s in (0, 1))
    return height, width


def to_float(value: Value) -> Value:
    """The same numbers as float32."""
    return value.cast(TensorProto.FLOAT)


def to_double(value: Value) -> Value:
    """The same numbers as float64: Python's own."""
    return value.cast(TensorProto.DOUBLE)


def to_whole(value: Value) -> Value:
    """The same numbers as int64, without what lies behind the point."""
    return value.cast(TensorProto.INT64)


def rounded(value: Value) -> Value:
    """As Python rounds: a half to the even number."""
    return to_whole(value.writer.op("Round", value))


def clipped(value: Value, low: Value | float, high: Value | float) -> Value:
    """Not below the one and, what counts more, not above the other."""
    return value.most(low).least(high)


def plane_of(image: Value) -> Value:
    """An image -> a plane."""
    # uint8 moves a quarter of the bytes, so transpose before the cast.
    return to_float(image.turned(2, 0, 1)).unsqueezed()


def halvings(size: Value, least: Value | float) -> Value:
    """How often a size may be halved until it is less than twice the least: (n,) int64.

    Args:
        size: (n,) of any type.
        least: (1,) of the same type, or a number.
    """
    powers = size.writer.constant(np.array([[2**k for k in range(1, 16)]], helper.tensor_dtype_to_np_dtype(size.dtype)))
    return to_whole(size.reshaped(-1, 1) >= powers * least).over("ReduceSum", 1)


def halved(image: Value, times: Value) -> tuple[Value, Value]:
    """Halves an image by the mean of 2×2 pixels, see `runtime.faces.halved`.

    Args:
        image: the image.
        times: (1,) how often, see `halvings`; a strip of one pixel is not halved.

    Returns:
        The image, and the power of two by which it was shrunk.
    """
    writer = image.writer

    def is_wide(image: Value) -> Value:
        size = writer.op("Shape", image, dtype=TensorProto.INT64, start=0, end=2)
        return size.over("ReduceMin", 0, keep=True) >= 2

    def body(_: Value, carried: Sequence[Value]) -> tuple[Value, list[Value], list[Value]]:
        image, done = _half(carried[0]), carried[1] * 2
        return is_wide(image), [image, done], []

    with writer.step("halved"):
        image, done = writer.repeat(times, is_wide(image), [image, writer.whole(1)], body, ranks=(3, 1))
    return image, done


def _half(image: Value) -> Value:
    """Half as wide and high; an odd last row or column is left out.

    The pixels are numbers of a convolution in whole numbers: that is exact, and takes a sixth of the time of means in
    float32. A row is cut into blocks, whose pixels and colours are the channels.
    """
    writer = image.writer
    height, width = sides(image)
    blocks = (width + (BLOCK - 1)) / BLOCK
    beyond = blocks * BLOCK - width

    def means(pixels: Value) -> Value:
        rows = writer.op("Reshape", pixels, writer.whole(1, height, blocks, 3 * BLOCK)).turned(0, 3, 1, 2)
        weights = np.zeros((3 * BLOCK // 2, 3 * BLOCK, 2, 1), np.int8)
        for pixel in range(BLOCK):
            for colour in range(3):
                weights[pixel // 2 * 3 + colour, pixel * 3 + colour] = _SUM
        one, zero = writer.constant(np.float32(1)), writer.constant(np.uint8(0))
        half = writer.op(
            "QLinearConv", rows, one, zero, writer.constant(weights), one, writer.constant(np.int8(0)),
            writer.constant(np.float32(4 * _SUM)), zero, writer.constant(np.ones(3 * BLOCK // 2, np.int32)),
            kernel_shape=[2, 1], strides=[2, 1],
        )  # fmt: skip
        return writer.op("Reshape", half.turned(0, 2, 3, 1), writer.whole(height / 2, blocks * (BLOCK // 2), 3))

    def padded() -> list[Value]:
        # At the right only, and cut off again.
        none = writer.whole(0)
        pixels = writer.op("Pad", image, writer.joined([none, none, none, none, beyond, none]))
        return [means(pixels).cut(0, width / 2, axis=1)]

    (half,) = writer.choose(beyond > 0, padded, lambda: [means(image)])
    return half


class Region(NamedTuple):
    """Which pixels of an image regions first..last hold, both counted in; outside its border is repeated.

    Attributes:
        begin: (n, 2) first row and column that exist; the nearest ones where none does.
        end: (n, 2) one more than the last ones.
        around: (n, 6) how often the border is repeated, as `Pad` takes it.
        outside: (n,) whether it is.
    """

    begin: Value
    end: Value
    around: Value
    outside: Value


def regions(image: Value, first: Value, last: Value) -> Region:
    """See `runtime.faces.cut`.

    Args:
        image: the image.
        first: (n, 2) x and y, int64.
        last: (n, 2) x and y, int64, not less than the first.
    """
    writer = image.writer
    with writer.step("regions"):
        first, last = (corner.take(writer.whole(1, 0), axis=1) for corner in (first, last))  # rows, columns
        size = writer.op("Shape", image, dtype=TensorProto.INT64, start=0, end=2)
        begin, end = (clipped(place, 0, size - 1) for place in (first, last))
        before = clipped(begin - first, 0, last - first)
        behind = last - first - before - (end - begin)
        none = writer.constant(np.zeros((1, 1), np.int64)) * before.cut(0, 1, axis=1)  # (n, 1): the colours
        around = writer.joined([before, none, behind, none], axis=1)
        outside = around.over("ReduceMax", 1) > 0
        return Region(begin, end + 1, around, outside)


def cut(image: Value, region: Region, place: Value) -> Value:
    """Cuts one of some regions out of an image."""
    writer = image.writer
    with writer.step("cut"):
        begin, end = (bound.take(place).reshaped(2) for bound in (region.begin, region.end))

        def inside() -> Value:
            return writer.op("Slice", image, begin, end, writer.whole(0, 1))

        def grown() -> list[Value]:
            return [writer.op("Pad", inside(), region.around.take(place).reshaped(6), mode="edge")]

        (pixels,) = writer.choose(region.outside.take(place), grown, lambda: [inside()])
    return pixels


def fitted(image: Value, longest: Value) -> Value:
    """Brings an image to a longest side, see `runtime.faces.fitted`, as a plane."""
    writer = image.writer
    with writer.step("fitted"):
        size = writer.op("Shape", image, dtype=TensorProto.INT64, start=0, end=2)
        half, _ = halved(image, halvings(size.over("ReduceMax", 0, keep=True), longest))
        size = writer.op("Shape", half, dtype=TensorProto.INT64, start=0, end=2)
        largest = to_double(size.over("ReduceMax", 0, keep=True))
        # Whole numbers are multiplied before Python divides them.
        return bilinear(half, rounded(to_double(size * longest) / largest).most(1))


def bilinear(image: Value, wanted: Value) -> Value:
    """Resizes an image without antialias, exactly as OpenCV does it in whole numbers, to a plane.

    A face's second look is cut at whole pixels around what the first one saw. A picture that differs by one level here
    and there moves that square by a pixel now and then, and the face's box by up to two.

    Args:
        image: the image.
        wanted: (2,) height and width.
    """
    writer = image.writer

    def matrix(value: Value, *shape: Value | int) -> Value:
        return writer.op("Reshape", value, writer.whole(*shape))

    with writer.step("bilinear"):
        (height, width), (rows, columns) = sides(image), wanted.parts(2, axis=0)
        left, right, near, far = _taps(width, columns, columns, within=True)
        near, far = near * (1 / 16), far * (1 / 16)
        bands = (rows + (BAND - 1)) / BAND
        above, below, high, low = _taps(height, rows, bands * BAND, within=False)

        def band(turn: Value, _: Sequence[Value]) -> tuple[None, list[Value], list[Value]]:
            begin = turn * BAND
            up, down, upper, lower = (tap.cut(begin, begin + BAND) for tap in (above, below, high, low))
            first, last = up.cut(0, 1), down.cut(BAND - 1, BAND) + 1
            # Transposing a matrix and picking its rows are cheap; moving three axes and picking single pixels are not.
            pixels = matrix(matrix(image.cut(first, last), last - first, width * 3).turned(1, 0), width, -1)
            across = writer.op("Floor", to_float(pixels.take(left)) * near + to_float(pixels.take(right)) * far)
            across = matrix(across, columns * 3, last - first).turned(1, 0)  # whole numbers below 2 ** 15

            def share(places: Value, weight: Value) -> Value:
                # floor(row * weight / 2 ** 16), of which float32 cannot hold the product: the weight in two parts.
                row, coarse = across.take(places - first), writer.op("Floor", weight * (1 / 64))
                fine = writer.op("Floor", row * ((weight - coarse * 64) * (1 / 64)))
                return writer.op("Floor", (row * coarse + fine) * (1 / 1024))

            return None, [], [writer.op("Floor", (share(up, upper) + share(down, lower)) * 0.25 + 0.5)]

        (levels,) = writer.repeat(bands, None, [], band)  # (bands, BAND, columns * 3)
        return matrix(levels, bands * BAND, columns, 3).cut(0, rows).turned(2, 0, 1).unsqueezed()


def _taps(size: Value, wanted: Value, number: Value, *, within: bool) -> tuple[Value, Value, Value, Value]:
    """Of each pixel of the result the two that it lies between, (n,), and what they count in 2048ths, (n, 1).

    Args:
        size: (1,) pixels.
        wanted: (1,) pixels of the result.
        number: (1,) for how many of them, n; those beyond the last one repeat the border.
        within: whether a pixel beyond the border counts as the one there alone; else as both of the two at its place.
    """
    writer = size.writer
    scale = to_double(size) / to_double(wanted)
    place = to_float((to_double(ascending(number)) + 0.5) * scale - 0.5)
    first, last = writer.op("Floor", place), to_float(size) - 1
    share = place - first
    if within:
        share = writer.where((first >= 0) & (first < last), share, 0)
    near, far = (writer.op("Round", part * 2048).reshaped(-1, 1) for part in (1 - share, share))
    begin, end = (to_whole(clipped(pixel, 0, last)) for pixel in (first, first + 1))
    return begin, end, near, far


def brought_to(image: Value, side: Value, times: Value) -> Value:
    """Brings a square image to a side, see `runtime.faces.brought_to`, as a plane.

    Args:
        image: the image.
        side: (1,).
        times: (1,) how often it is halved, see `halvings`.
    """
    writer = image.writer
    with writer.step("brought_to"):
        half, _ = halved(image, times)
        size, _ = sides(half)

        def area() -> list[Value]:
            shares = _shares(size, side)  # (side, size)
            rows = shares @ writer.op("Reshape", to_float(half), writer.whole(size, size * 3))  # (side, size * 3)
            columns = writer.op("Reshape", rows, writer.whole(side, size, 3)).turned(2, 0, 1)  # (3, side, size)
            square = columns @ shares.turned(1, 0)
            return [writer.op("Round", square).unsqueezed()]

        (square,) = writer.choose(size >= side, area, lambda: [bilinear(half, writer.joined([side, side]))])
        return square


def ascending(count: Value) -> Value:
    """0, 1, 2 … up to, and without, a number of shape (1,)."""
    writer = count.writer
    end = writer.op("Reshape", count, writer.constant(np.zeros(0, np.int64)))
    zero, one = (writer.constant(np.int64(number)) for number in (0, 1))
    return writer.op("Range", zero, end, one)


def _shares(size: Value, side: Value) -> Value:
    """(side, size): the share of each of so many pixels in the area of each of the result."""
    scale = to_double(size) / to_double(side)
    to, of = to_double(ascending(side)).reshaped(-1, 1), to_double(ascending(size)).reshaped(1, -1)
    first = to * scale
    return to_float(((first + scale).least(of + 1) - first.most(of)).most(0) / scale)


def framed(plane: Value, share: float) -> tuple[Value, Value, Value]:
    """Sets a plane into a frame of its own border, see `runtime.faces.framed`; gives its width and height, too."""
    writer = plane.writer
    with writer.step("framed"):
        down, across = (
            rounded(to_double(writer.op("Shape", plane, dtype=TensorProto.INT64, start=s, end=s + 1)) * share)
            for s in (2, 3)
        )
        none = writer.whole(0, 0)
        around = writer.joined([none, down, across, none, down, across])
        return writer.op("Pad", plane, around, mode="edge"), across, down
