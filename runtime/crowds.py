"""Faces too small for a detector that sees 192 pixels of a photo: one look at more pixels, and two that confirm it.

The network is fully convolutional, so the model ``crowd`` looks at a picture of any size, and time grows with its
pixels. It doubts faces of 14 pixels, with scores down to 0.04, and other things have such scores, too. Whatever it
doubts is therefore enlarged and shown to it again, all of it in one run, on a sheet of squares side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from runtime.errors import InputError
from runtime.faces import Detection, Pixels, brought_to, square

AS_THE_BUNDLE_SAYS = -1.0
"""In place of a smallest face: the bundle's own, looked for where the first look gives reason to."""

FINEST_SHARE = 0.01
"""The smallest face that can be asked for, as a share of the photo's longest side: a bound on what a photo costs."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """When and how a photo is looked through for faces too small for the first look.

    Attributes:
        smallest: side of the smallest face that is looked for, as a share of the photo's longest side.
        least: the same in pixels of the photo; of a smaller face nobody can tell the age.
        shown: side in pixels that such a face has in the picture that the model ``crowd`` looks at.
        below: the crowd is looked for where the first look finds no face, or where half of those that it finds take
            less than this share of the longest side: then it has missed others.
        doubt: the same where it finds a face with a score below this.
        sure: score from which a face is believed that is shown large.
    """

    smallest: float
    least: float
    shown: float
    below: float
    doubt: float
    sure: float

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Reads the manifest's `pipeline.crowd`.

        Raises:
            TypeError: a key is missing or unknown, or a value is not a number.
            ValueError: a value is not a number.
        """
        return cls(**{name: float(value) for name, value in dict(data).items()})

    def share(self, smallest: float, side: int) -> float | None:
        """The share of a photo's longest side that the smallest face to look for takes; None where no look is due.

        Args:
            smallest: see `Finder.find`.
            side: the photo's longest side.

        Raises:
            InputError: `smallest` is out of range.
        """
        if smallest == AS_THE_BUNDLE_SAYS:
            smallest = max(self.smallest, self.least / max(side, 1))
        elif smallest != 0 and not FINEST_SHARE <= smallest <= 1:
            raise InputError(
                f"smallest is {smallest:g}; expected the share of the photo's longest side that the smallest face to "
                f"look for takes, {FINEST_SHARE:g} to 1, or 0 to look once"
            )
        return smallest if smallest > 0 else None

    def side(self, share: float, side: int) -> int:
        """Longest side of the picture that shows the smallest face large enough, and is no larger than the photo."""
        return min(side, round(self.shown / share))

    def missed(self, found: Sequence[Detection], side: int) -> bool:
        """Whether the first look found nothing, or faces so small or so doubtful that it must have missed others."""
        return (
            not found
            or float(np.median([face.side for face in found])) < self.below * side
            or min(face.score for face in found) < self.doubt
        )


SAME_FACE = 0.3
"""Overlap (IoU) from which two candidates are one face."""

AGREED = 0.4
"""Overlap (IoU) from which a square on a sheet is taken to show the candidate that it was cut for."""

ON_A_SHEET = (2.0, 64)
"""A sheet's squares: how many times the candidate's side, and the pixels that they are brought to."""

ALONE = (1.5, 56)
"""The same of what is shown once more, without neighbours, which make the detector doubt."""

TOGETHER = 25
"""Squares of a sheet. The surest candidates come first: after a sheet without a face there is no further one."""

CERTAIN = 0.7
"""Score on the sheet from which a face needs no further look."""

POSSIBLE = 0.15
"""Score on the sheet from which a candidate gets one."""

Detector = Callable[[Pixels], list[Detection]]


def with_crowd(
    detect: Detector, image: Pixels, picture: Pixels, found: Sequence[Detection], crowd: Crowd
) -> list[Detection]:
    """The faces of the first look and those that the crowd's look adds, the surest first, in pixels of the image.

    Args:
        detect: the model ``crowd``.
        image: the photo, uint8 (H, W, 3).
        picture: the same, as large as the crowd's look needs it.
        found: the faces of the first look.
        crowd: see `Crowd`.
    """
    zoom = max(image.shape[:2]) / max(picture.shape[:2])
    added: list[Detection] = []
    doubted: list[Detection] = []
    for candidate in detect(picture):
        face = candidate.moved(0, 0, zoom)
        # Of a strip the square would be border for the most part, and of a long one too large for the memory.
        if face.side <= 2 * min(image.shape[:2]) and face.among(found, SAME_FACE) is None:
            # What a sheet shows no larger is believed, or not, as it is.
            if candidate.side * ON_A_SHEET[0] < ON_A_SHEET[1]:
                doubted.append(face)
            elif face.score >= crowd.sure:
                added.append(face)
    added += _confirmed(detect, image, doubted, crowd.sure)
    kept = list(found)
    for face in sorted(added, key=lambda face: -face.score):
        if face.among(kept, SAME_FACE) is None:
            kept.append(face)
    return sorted(kept, key=lambda face: -face.score)


def _confirmed(detect: Detector, image: Pixels, faces: Sequence[Detection], sure: float) -> list[Detection]:
    """Those of the candidates that are faces when they are enlarged, as they show then."""
    confirmed: list[Detection] = []
    for begin in range(0, len(faces), TOGETHER):
        seen = [face for face in on_a_sheet(detect, image, faces[begin : begin + TOGETHER], *ON_A_SHEET) if face]
        doubted = [face for face in seen if POSSIBLE <= face.score < CERTAIN]
        alone = [on_a_sheet(detect, image, [face], *ALONE)[0] for face in doubted]
        found = [face for face in seen if face.score >= CERTAIN]
        found += [face for face in alone if face is not None and face.score >= sure]
        if not found:
            break
        confirmed += found
    return confirmed


def on_a_sheet(
    detect: Detector, image: Pixels, faces: Sequence[Detection], share: float, side: int
) -> list[Detection | None]:
    """Shows candidates again, each enlarged in a square of its own, all squares side by side in one picture.

    Args:
        detect: a detector that looks at a picture of any size as it is.
        image: the photo.
        faces: the candidates.
        share: the square's side is this times the candidate's.
        side: pixels that a square is brought to.

    Returns:
        For each candidate what its square shows in its place, in pixels of the photo; None if nothing.
    """
    if not faces:
        return []
    squares = [square(image, face, share) for face in faces]
    columns = int(np.ceil(np.sqrt(len(squares))))
    rows = -(-len(squares) // columns)
    sheet = np.zeros((rows * side, columns * side, 3), np.uint8)
    for index, (pixels, _, _) in enumerate(squares):
        row, column = divmod(index, columns)
        sheet[row * side : (row + 1) * side, column * side : (column + 1) * side] = brought_to(pixels, side)
    shown: list[list[Detection]] = [[] for _ in range(rows * columns)]
    for seen in detect(sheet):
        column, row = (int(v) for v in (seen.middle // side).clip(0, [columns - 1, rows - 1]))
        shown[row * columns + column].append(seen.moved(-column * side, -row * side))
    placed = zip(squares, shown, strict=False)
    moved = [[s.moved(0, 0, p.shape[0] / side).moved(left, top) for s in seen] for (p, left, top), seen in placed]
    return [face.among(seen, AGREED) for face, seen in zip(faces, moved, strict=True)]
