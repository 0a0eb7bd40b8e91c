"""Faces too small for a detector that sees 192 pixels of a photo: one look at more pixels, and two that confirm it.

The network is fully convolutional, so the model ``crowd`` looks at a picture of any size, and time grows with its
pixels. It doubts faces of 14 pixels, with scores down to 0.04, and other things have such scores, too. Whatever it
doubts is therefore enlarged and shown to it again, all of it in one run, on a sheet of squares side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from runtime.errors import InputError
from runtime.faces import Detection, Pixels
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

ON_A_SHEET = Sheet(share=2.0, side=64, across=5, agreed=AGREED)
"""The surest candidates come first: after a sheet without a face there is no further one."""

ALONE = Sheet(share=1.5, side=56, across=1, agreed=AGREED)
"""What is shown once more, without neighbours, which make the detector doubt."""

CERTAIN = 0.7
"""Score on the sheet from which a face needs no further look."""

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
    added: list[Detection] = []
    doubted: list[Detection] = []
    for candidate in detect(picture):
        face = candidate.moved(0, 0, zoom)
        # Of a strip the square would be border for the most part, and of a long one too large for the memory.
        if face.side <= 2 * min(image.shape[:2]) and face.among(found, SAME_FACE) is None:
            # What a sheet shows no larger is believed, or not, as it is.
            if candidate.side * ON_A_SHEET.share < ON_A_SHEET.side:
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
    for begin in range(0, len(faces), ON_A_SHEET.most):
        seen = [face for face in ON_A_SHEET.shown(detect, image, faces[begin : begin + ON_A_SHEET.most]) if face]
        doubted = [face for face in seen if POSSIBLE <= face.score < CERTAIN]
        alone = [ALONE.shown(detect, image, [face])[0] for face in doubted]
        found = [face for face in seen if face.score >= CERTAIN]
        found += [face for face in alone if face is not None and face.score >= sure]
        if not found:
            break
        confirmed += found
    return confirmed
