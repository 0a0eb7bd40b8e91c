"""Finding the faces of a photo with a detector that sees few pixels: the first look, the frame, the crowd, close-ups.

Coordinates are pixels of the photo, as in `runtime.faces`. What each look is for, and what it costs, is in
``docs/decisions/0008-face-pipeline.md`` and ``0050-faces-in-groups.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np

from runtime.crowds import AS_THE_BUNDLE_SAYS, Crowd, with_crowd
from runtime.engine import Engine
from runtime.errors import InputError
from runtime.faces import Detection, Pixels, framed, halved, shrunk, square

SAME_FACE = 0.3
"""Overlap (IoU) from which two boxes are taken to be of one face."""


@dataclass(frozen=True, slots=True)
class Looks:
    """How a photo is looked at. 0 leaves a step out: what an older bundle does not say is not done.

    Attributes:
        look_again: the detector looks once more at each face, in a square of this times the box: the keypoints of a
            small face in a big photo are only as fine as the detector's 192 pixels.
        frame: a photo in which no face is found is looked at once more inside a frame of this share of its sides,
            because the detector misses faces that fill the picture.
        overview: a photo is halved, 2×2 pixels to their mean, as often as its longest side stays at least this before
            the detector looks at the whole of it: ten pixels to one inside the graph cost ten times as much. 0 leaves
            it to the graph.
        close_up: side in pixels that the second look's square is shrunk to, where the bundle has the model
            ``closeup``. 0 leaves it to the graph.
        close_enough: a face whose box takes this share of the longest side of what the detector looked at is not
            looked at again: the second look would show it no larger. 0 looks at every face again.
        crowd: how small faces are looked for, where the bundle has the model ``crowd``. None does not.
    """

    look_again: float = 0.0
    frame: float = 0.0
    overview: int = 0
    close_up: int = 0
    close_enough: float = 0.0
    crowd: Crowd | None = None

    @classmethod
    def taken_from(cls, data: dict[str, Any]) -> Self:
        """Takes its keys out of the manifest's `pipeline`.

        Raises:
            TypeError: a value is not a number.
            ValueError: a value is not a number.
        """
        return cls(
            look_again=float(data.pop("look_again", 0)),
            frame=float(data.pop("frame", 0)),
            overview=int(data.pop("overview", 0)),
            close_up=int(data.pop("close_up", 0)),
            close_enough=float(data.pop("close_enough", 0)),
            crowd=Crowd.from_json(data.pop("crowd")) if "crowd" in data else None,
        )


class Finder:
    """Finds the faces of photos. Safe to use from several threads.

    Args:
        engines: ``faces``, the detector of a whole photo, and perhaps ``closeup``, the same for a smaller picture, and
            ``crowd``, the same for one of any size. Bundles made before there was a ``closeup`` look again with the
            detector of a whole photo.
        looks: how a photo is looked at.
    """

    def __init__(self, engines: Mapping[str, Engine], looks: Looks) -> None:
        self.engines = engines
        self.looks = looks
        self.closeup = "closeup" if "closeup" in engines and looks.close_up > 0 else "faces"
        self.crowd = looks.crowd if "crowd" in engines else None

    def find(self, image: Pixels, smallest: float = AS_THE_BUNDLE_SAYS) -> list[Detection]:
        """Finds the faces of uint8 RGB pixels (H, W, 3), the surest first, in pixels of the image.

        Args:
            image: the photo.
            smallest: side of the smallest face to look for, as a share of the longest side, at least `FINEST_SHARE`;
                0 leaves it at the first look. `AS_THE_BUNDLE_SAYS` takes the bundle's own, and only where the first
                look gives reason to.

        Raises:
            InputError: `smallest` is none of these, or the bundle cannot look for small faces.
        """
        side = max(image.shape[:2])
        crowd = self.crowd
        if crowd is None and smallest > 0:
            raise InputError(
                f"smallest is {smallest:g}, and this bundle has no model 'crowd' to look for small faces with; "
                "make the bundle again with this version of edgedl, or leave the option out"
            )
        share = None if crowd is None else crowd.share(smallest, side)
        wanted = 0 if crowd is None or share is None else crowd.side(share, side)
        # The photo is halved once for both looks: the crowd's picture lies on the way to the first look's.
        picture, factor = halved(image, side / wanted) if wanted > self.looks.overview else (image, 1)
        first, close = self._first_look(picture, factor)
        found = [
            face if self.looks.look_again <= 0 or (0 < close <= face.side) else self._look_again(image, face)
            for face in first
        ]
        # A picture no larger than the first look's would show no more than that did.
        if crowd is None or wanted <= self.looks.overview:
            return found
        if smallest == AS_THE_BUNDLE_SAYS and not crowd.missed(first, side):
            return found
        return with_crowd(partial(self.detect, model="crowd"), image, shrunk(picture, wanted), found, crowd)

    def find_turned(self, image: Pixels, smallest: float = AS_THE_BUNDLE_SAYS) -> tuple[int, list[Detection]]:
        """Finds faces in a photo that may lie on its side or stand on its head: looks at it in all four positions.

        Args:
            image: as in `find`.
            smallest: as in `find`.

        Returns:
            The quarter turns to the left, 0 to 3, at which most upright faces are found, counted by score, and those
            faces, in pixels of ``np.rot90(image, turns)``. Of equals the fewest turns count.
        """
        looks = [self.find(np.ascontiguousarray(np.rot90(image, quarters)), smallest) for quarters in range(4)]
        counts = [sum(face.score for face in faces if _upright(face)) for faces in looks]
        best = int(np.argmax(counts))
        return best, looks[best]

    def detect(self, image: Pixels, model: str = "faces") -> list[Detection]:
        """What one run of a detector finds in uint8 RGB pixels (H, W, 3), the surest first."""
        found = self.engines[model].run({"image": np.ascontiguousarray(image)})
        return [
            Detection(box, float(score), keypoints)
            for box, score, keypoints in zip(found["boxes"], found["scores"], found["keypoints"], strict=True)
        ]

    def _first_look(self, image: Pixels, factor: int) -> tuple[list[Detection], float]:
        """The faces that show in the whole photo, and the side from which one needs no close-up.

        Args:
            image: the photo, shrunk.
            factor: by how much; what is returned is in pixels of the photo itself.
        """
        overview, times = self._overview(image)
        seen = overview
        first = self.detect(overview)
        if not first and self.looks.frame > 0:
            seen, across, down = framed(overview, self.looks.frame)
            height, width = overview.shape[:2]
            first = [
                face
                for face in (face.moved(-across, -down) for face in self.detect(seen))
                if 0 <= face.middle[0] < width and 0 <= face.middle[1] < height
            ]
        factor *= times
        return [face.moved(0, 0, factor) for face in first], self.looks.close_enough * max(seen.shape[:2]) * factor

    def _overview(self, image: Pixels) -> tuple[Pixels, int]:
        """The photo with fewer pixels for the first look, and the factor to its own ones."""
        if self.looks.overview <= 0:
            return image, 1
        return halved(image, max(image.shape[:2]) / self.looks.overview)

    def _look_again(self, image: Pixels, face: Detection) -> Detection:
        """The same face, measured in a close-up; as it was if the close-up does not show it."""
        # Of a strip the square would be border for the most part, and of a long one too large for the memory.
        if face.side > 2 * min(image.shape[:2]):
            return face
        picture, left, top = square(image, face, self.looks.look_again)
        shown = shrunk(picture, self.looks.close_up) if self.closeup == "closeup" else picture
        zoom = picture.shape[0] / shown.shape[0]
        close = face.among([f.moved(0, 0, zoom).moved(left, top) for f in self.detect(shown, self.closeup)], SAME_FACE)
        return face if close is None else Detection(close.box, face.score, close.keypoints)


def _upright(face: Detection) -> bool:
    """Whether the mouth lies below the eyes, and more below than beside them."""
    right_eye, left_eye, _, mouth = face.keypoints[:4]
    across, down = mouth - (right_eye + left_eye) / 2
    return bool(down > abs(across))
