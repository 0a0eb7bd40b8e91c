"""Faces too small for a detector that sees 192 pixels of a photo: one look at more pixels, and two that confirm it.

The network is fully convolutional, so the model ``crowd`` looks at a picture of any size, and time grows with its
pixels. It doubts faces of 14 pixels, with scores down to 0.04, and other things have such scores, too. Whatever it
doubts is therefore enlarged and shown to it again, all of it in one run, on a sheet of squares side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError
from runtime.faces import Detection, Pixels, overlap
from runtime.sheets import Detector, Sheet

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
        square: side of the square in which a candidate is shown again, in sides of the candidate.
        square_side: pixels that such a square is brought to.
        across: squares in a row of a sheet, at most, and rows.
        certain: score on a sheet from which a face needs no further look.
    """

    smallest: float
    least: float
    shown: float
    below: float
    doubt: float
    sure: float
    square: float = 2.0
    square_side: int = 64
    across: int = 5
    certain: float = 0.7

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Reads the manifest's `pipeline.crowd`.

        Raises:
            TypeError: a key is missing or unknown, or a value is not a number.
            ValueError: a value is not a number, or one that has to be whole is not.
        """
        numbers: dict[str, Any] = {name: float(value) for name, value in dict(data).items()}
        for name in numbers.keys() & {"square_side", "across"}:
            if numbers[name] < 1 or numbers[name] % 1:
                raise ValueError(f"{name} is {numbers[name]:g}, expected a whole number from 1 on")
            numbers[name] = int(numbers[name])
        return cls(**numbers)

    @property
    def sheet(self) -> Sheet:
        """How candidates are shown again, the surest first: after a sheet without a face there is no further one."""
        return Sheet(self.square, self.square_side, self.across, AGREED)

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
        sides = sorted(face.side for face in found)
        return (
            not found
            or (sides[(len(sides) - 1) // 2] + sides[len(sides) // 2]) / 2 < self.below * side
            or min(face.score for face in found) < self.doubt
        )


SAME_FACE = 0.3
"""Overlap (IoU) from which two candidates are one face."""

AGREED = 0.4
"""Overlap (IoU) from which a square is taken to show the candidate that it was cut for."""

ALONE = Sheet(share=1.5, side=56, across=1, agreed=AGREED)
"""What is shown once more, without neighbours, which make the detector doubt."""

POSSIBLE = 0.15
"""Score on the sheet from which a candidate gets one."""


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
    candidates = detect(picture)
    faces = [candidate.moved(0, 0, zoom) for candidate in candidates]
    added: list[Detection] = []
    doubted: list[Detection] = []
    for candidate, face, known in zip(candidates, faces, _are_among(faces, found), strict=True):
        # Of a strip the square would be border for the most part, and of a long one too large for the memory.
        if face.side <= 2 * min(image.shape[:2]) and not known:
            # What a sheet shows no larger is believed, or not, as it is.
            if candidate.side * crowd.square < crowd.square_side:
                doubted.append(face)
            elif face.score >= crowd.sure:
                added.append(face)
    added += _confirmed(detect, image, doubted, crowd)
    return sorted([*found, *_others(added, found)], key=lambda face: -face.score)


def _are_among(faces: Sequence[Detection], others: Sequence[Detection]) -> list[bool]:
    """For each face whether it is one of the others."""
    if not faces or not others:
        return [False] * len(faces)
    return [any(row) for row in _same(faces, others).tolist()]


def _others(faces: Sequence[Detection], known: Sequence[Detection]) -> list[Detection]:
    """The faces that are not known, and of those that are one face the surest."""
    waiting = ~np.array(_are_among(faces, known), dtype=bool)
    order = sorted(range(len(faces)), key=lambda index: -faces[index].score)
    same = _same(faces, faces) if faces else None
    others = []
    for index in order:
        if waiting[index] and same is not None:
            others.append(faces[index])
            waiting &= ~same[index]
    return others


def _same(faces: Sequence[Detection], others: Sequence[Detection]) -> NDArray[np.bool_]:
    """(F, O): whether two faces, neither list empty, are one."""
    boxes, more = (np.stack([face.box for face in several]) for several in (faces, others))
    return np.asarray(overlap(boxes[:, None], more) >= SAME_FACE)


def _confirmed(detect: Detector, image: Pixels, faces: Sequence[Detection], crowd: Crowd) -> list[Detection]:
    """Those of the candidates that are faces when they are enlarged, as they show then."""
    sheet, confirmed = crowd.sheet, []
    for begin in range(0, len(faces), sheet.most):
        seen = [face for face in sheet.shown(detect, image, faces[begin : begin + sheet.most]) if face]
        doubted = [face for face in seen if POSSIBLE <= face.score < crowd.certain]
        alone = [ALONE.shown(detect, image, [face])[0] for face in doubted]
        found = [face for face in seen if face.score >= crowd.certain]
        found += [face for face in alone if face is not None and face.score >= crowd.sure]
        if not found:
            break
        confirmed += found
    return confirmed
