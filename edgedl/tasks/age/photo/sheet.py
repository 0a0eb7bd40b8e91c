"""Sheets of squares inside a graph, as `runtime.sheets` lays them out; every look has a layout of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgedl.tasks.age.photo.pixels import ascending, brought_to, clipped, cut, halvings, regions, to_float, to_whole
from edgedl.tasks.age.photo.rows import column, count, middle_of, moved, overlaps, side_of, with_nothing
from exporters.writer import Value

Layout = tuple[float, int, int, float]
"""As the fields of `runtime.sheets.Sheet`."""


class Squares(NamedTuple):
    """Where the squares of some faces lie in the photo and on the sheet.

    Attributes:
        asked: (n, 17) the faces.
        corners: (n, 2) x and y of each square's first pixel, float32.
        whole: (n,) pixels of each square's side, int64.
        zoom: (n, 1) pixels of the photo to one on the sheet.
        side: (1,) of a square on the sheet.
        rows: (1,).
        columns: (1,).
        agreed: (1,) overlap from which a square shows its face.
    """

    asked: Value
    corners: Value
    whole: Value
    zoom: Value
    side: Value
    rows: Value
    columns: Value
    agreed: Value


class Sheet:
    """The sheets of several looks.

    Args:
        image: the photo.
        layouts: of the looks that show sheets.
        bounds: threshold and most faces of every look.
        centred: looks whose picture lies in the middle of whole cells.
    """

    def __init__(
        self,
        image: Value,
        layouts: Mapping[int, Layout],
        bounds: Mapping[int, tuple[float, int]],
        centred: Sequence[int],
    ) -> None:
        self.image, self.writer = image, image.writer
        looks = range(len(bounds))
        layout = [layouts.get(look, (1.0, 1, 1, 1.0)) for look in looks]
        self._shares = np.array([share for share, *_ in layout], np.float32)
        self._sides = np.array([side for _, side, _, _ in layout], np.int64)
        self._across = np.array([across for _, _, across, _ in layout], np.int64)
        self._agreed = np.array([agreed for *_, agreed in layout], np.float32)
        self._thresholds = np.array([bounds[look][0] for look in looks], np.float32)
        self._most = np.array([bounds[look][1] for look in looks], np.int64)
        self._centred = np.array([look in centred for look in looks], np.int64)

    def _of(self, table: NDArray[Any], look: Value) -> Value:
        return self.writer.constant(table).take(look)

    def most(self, look: Value) -> Value:
        """How many faces a look shows at once."""
        return self._of(self._across**2, look)

    def centred(self, look: Value) -> Value:
        """1 where the picture of a look lies in the middle of whole cells."""
        return self._of(self._centred, look)

    def bounds(self, look: Value) -> tuple[Value, Value]:
        """Threshold and most faces of a look."""
        return self._of(self._thresholds, look), self._of(self._most, look)

    def squares(self, asked: Value, look: Value) -> Squares:
        """Where the squares of some faces lie, see `runtime.faces.square` and `runtime.sheets.Sheet`."""
        writer = self.writer
        side, across = self._of(self._sides, look), self._of(self._across, look)
        middle, half = middle_of(asked), (side_of(asked) * self._of(self._shares, look) / 2).reshaped(-1, 1)
        first, last = writer.op("Floor", middle - half), writer.op("Ceil", middle + half)
        # A square but for the rounding, and its last pixel is counted in.
        whole = to_whole((last - first).over("ReduceMax", 1)) + 1
        number = count(asked)
        rows = ((number + across - 1) / across).most(1)
        columns = (number + rows - 1) / rows
        zoom = column(whole) / column(side)
        return Squares(asked, first, whole, zoom, side, rows, columns, self._of(self._agreed, look))

    def picture(self, squares: Squares) -> Value:
        """The sheet as a plane: black where no square lies."""
        writer, side = self.writer, squares.side
        first = to_whole(squares.corners)
        region = regions(self.image, first, first + squares.whole.reshaped(-1, 1) - 1)
        times = halvings(squares.whole, side)

        def one(place: Value, _: Sequence[Value]) -> tuple[None, list[Value], list[Value]]:
            return None, [], [brought_to(cut(self.image, region, place), side, times.take(place))]

        number = count(squares.asked)
        (shown,) = writer.repeat(number, None, [], one)  # (n, 1, 3, side, side)
        cells = squares.rows * squares.columns
        around = writer.joined([writer.whole(0, 0, 0, 0, 0), cells - number, writer.whole(0, 0, 0, 0)])
        filled = writer.op("Pad", shown, around)
        grid = writer.op("Reshape", filled, writer.whole(squares.rows, squares.columns, 3, side, side))
        sheet = grid.turned(2, 0, 3, 1, 4)  # (3, rows, side, columns, side)
        return writer.op("Reshape", sheet, writer.whole(1, 3, squares.rows * side, squares.columns * side))

    def shown(self, squares: Squares, seen: Value) -> tuple[Value, Value]:
        """What the squares show of their faces.

        Returns:
            Rows (n, 17) in pixels of the photo, and whether each is the face that was asked for.
        """
        writer = self.writer
        number, side = count(squares.asked), to_float(squares.side)
        seen = with_nothing(seen)
        cell = writer.op("Floor", middle_of(seen) / side)
        cell = clipped(cell, 0, to_float(writer.joined([squares.columns, squares.rows])).reshaped(1, 2) - 1)
        place = to_whole(cell.take(1, axis=1)) * squares.columns + to_whole(cell.take(0, axis=1))
        at = place.least(number - 1)
        zoom = squares.zoom.take(at)
        rows = moved(seen, squares.corners.take(at) - cell * side * zoom, zoom)
        own = ascending(number).reshaped(-1, 1).equals(place.reshaped(1, -1))
        agreement = writer.where(own, overlaps(squares.asked, rows), 0)
        best = writer.op("ArgMax", agreement, axis=1, keepdims=0)
        return rows.take(best), agreement.over("ReduceMax", 1) >= squares.agreed
