"""Showing faces again, each enlarged in a square of its own, the squares side by side in one picture for one run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from runtime.faces import Detection, Pixels, brought_to, overlap, square

Detector = Callable[[Pixels], list[Detection]]


@dataclass(frozen=True, slots=True)
class Sheet:
    """How squares are cut and laid out.

    Attributes:
        share: a square's side is this times that of the face.
        side: pixels that a square is brought to.
        across: squares in a row, at most, and rows.
        agreed: overlap (IoU) from which a square is taken to show the face that it was cut for.
    """

    share: float
    side: int
    across: int
    agreed: float

    @property
    def most(self) -> int:
        """How many faces fit."""
        return self.across**2

    def shown(self, detect: Detector, image: Pixels, faces: Sequence[Detection]) -> list[Detection | None]:
        """What the squares show of some faces, at most as many as fit.

        Args:
            detect: a detector that sees a picture of the sheet's size as it is.
            image: the photo.
            faces: in pixels of it.

        Returns:
            For each face what its square shows in its place, in pixels of the photo; None if nothing.
        """
        if not faces:
            return []
        squares = [square(image, face, self.share) for face in faces]
        rows = -(-len(squares) // self.across)
        columns = -(-len(squares) // rows)
        sheet = np.zeros((rows * self.side, columns * self.side, 3), np.uint8)
        for index, (pixels, _, _) in enumerate(squares):
            row, column = divmod(index, columns)
            place = np.s_[row * self.side : (row + 1) * self.side, column * self.side : (column + 1) * self.side]
            sheet[place] = brought_to(pixels, self.side)
        shown: list[Detection | None] = [None] * len(faces)
        seen = detect(sheet)
        if not seen:
            return shown
        middles = np.stack([found.middle for found in seen])
        places: list[list[int]] = (middles // self.side).clip(0, [columns - 1, rows - 1]).astype(int).tolist()
        moved: list[tuple[int, Detection]] = []
        for (column, row), found in zip(places, seen, strict=True):
            index = row * columns + column
            if index < len(squares):
                pixels, left, top = squares[index]
                zoom = pixels.shape[0] / self.side
                x, y = left - column * self.side * zoom, top - row * self.side * zoom
                moved.append((index, found.moved(x, y, zoom)))
        if not moved:
            return shown
        asked = np.stack([faces[index].box for index, _ in moved])
        overlaps: list[float] = overlap(asked, np.stack([found.box for _, found in moved])).tolist()
        best = [self.agreed] * len(faces)
        for (index, found), agreement in zip(moved, overlaps, strict=True):
            if agreement > best[index] or (agreement == best[index] and shown[index] is None):
                shown[index], best[index] = found, agreement
        return shown
