"""Finding the faces of a photo with a detector that sees few pixels: the first look, the frame, the crowd, close-ups.

Coordinates are pixels of the photo, as in `runtime.faces`. What each look is for, and what it costs, is in
``docs/decisions/0008-face-pipeline.md`` and ``0050-faces-in-groups.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np

from runtime.crowds import AS_THE_BUNDLE_SAYS, Crowd, with_crowd
from runtime.engine import Engine
from runtime.errors import InputError
from runtime.faces import Detection, Pixels, fitted, framed, halved, shrunk, square
from runtime.sheets import Sheet

STEP = 32
"""Pixels in one cell of the deepest map: a detector pads its picture to whole ones."""

MOST_BEYOND = 15
"""The first look is made smaller by a share of one in so many, at most, if that saves a row of cells."""

SAME_FACE = 0.3
"""Overlap (IoU) from which the second look is taken to have found the face of the first."""


@dataclass(frozen=True, slots=True)
class Looks:
    """How a photo is looked at. 0 leaves a step out: what an older bundle does not say is not done.

    Attributes:
        read: a JPEG is read at the smallest fraction of its size at which its longest side has this many pixels; for a
            face that the network would then get with too few, it is read again. 0 reads it whole.
        look_again: the detector looks once more at each face, in a square of this times the box: the keypoints of a
            small face in a big photo are only as fine as the detector's 192 pixels.
        frame: a photo in which no face is found is looked at once more inside a frame of this share of its sides,
            because the detector misses faces that fill the picture.
        overview: a photo is halved, 2×2 pixels to their mean, as often as its longest side stays at least this before
            the detector looks at the whole of it: ten pixels to one inside the graph cost ten times as much. 0 leaves
            it to the graph.
        fitted: the photo is brought to `overview` itself, see `first_side`, for a detector that sees a picture of at
            most this size as it is.
        close_up: side in pixels that the second look's square is brought to. 0 leaves it to the graph.
        sheet: side in pixels of a picture on which the close-ups of several faces lie beside each other, so that the
            detector runs once for all of them. The detector must see a picture of at most this size as it is. 0 runs
            it for each face alone, with the model ``closeup`` where the bundle has one.
        close_enough: a face whose box takes this share of the longest side of what the detector looked at, or of
            `overview` where it sees that at its own size, is not looked at again: the second look would show it no
            larger. 0 looks at every face again.
        crowd: how small faces are looked for, where the bundle has the model ``crowd``. None does not.
    """

    look_again: float = 0.0
    frame: float = 0.0
    overview: int = 0
    close_up: int = 0
    close_enough: float = 0.0
    sheet: int = 0
    read: int = 0
    fitted: bool = False
    crowd: Crowd | None = None

    @classmethod
    def taken_from(cls, data: dict[str, Any]) -> Self:
        """Takes its keys out of the manifest's `pipeline`.

        Raises:
            TypeError: a value is not a number.
            ValueError: a value is not a number, or no close-up fits on the sheet.
        """
        looks = cls(
            look_again=float(data.pop("look_again", 0)),
            frame=float(data.pop("frame", 0)),
            overview=int(data.pop("overview", 0)),
            close_up=int(data.pop("close_up", 0)),
            close_enough=float(data.pop("close_enough", 0)),
            sheet=int(data.pop("sheet", 0)),
            read=int(data.pop("read", 0)),
            fitted=_truth(data.pop("fitted", False)),
            crowd=Crowd.from_json(data.pop("crowd")) if "crowd" in data else None,
        )
        if looks.sheet > 0 and not 0 < looks.close_up <= looks.sheet:
            raise ValueError(f"a close-up of {looks.close_up} pixels on a sheet of {looks.sheet}")
        return looks

    def first_side(self, height: int, width: int) -> int:
        """The longest side of the picture that the first look gets of a photo, where it is `fitted`."""
        longest, side = max(height, width), self.overview
        # A few rows beyond a whole cell of the deepest map would cost another row of cells.
        short = round(side * min(height, width) / longest)
        beyond = short % STEP
        return side * (short - beyond) // short if 0 < MOST_BEYOND * beyond <= short else side

    @property
    def together(self) -> int:
        """How many faces are looked at again in one run of the detector, at most."""
        return (self.sheet // self.close_up) ** 2 if self.sheet > 0 else 1


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
        self.closeup = "closeup" if "closeup" in engines and looks.close_up > 0 else None
        self.crowd = looks.crowd if "crowd" in engines else None

    def find(self, image: Pixels, smallest: float = AS_THE_BUNDLE_SAYS, scale: int = 1) -> list[Detection]:
        """Finds the faces of uint8 RGB pixels (H, W, 3), the surest first, in pixels of the image.

        Args:
            image: the photo.
            smallest: side of the smallest face to look for, as a share of the longest side, at least `FINEST_SHARE`;
                0 leaves it at the first look. `AS_THE_BUNDLE_SAYS` takes the bundle's own, and only where the first
                look gives reason to.
            scale: pixels of the photo to one of the image, along each side.

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
        share = None if crowd is None else crowd.share(smallest, side * scale)
        found = self._first_look(image)
        wanted = 0 if crowd is None or share is None else crowd.side(share, side)
        # A picture no larger than the first look's would show no more than that did.
        if crowd is None or wanted <= self.looks.overview:
            return found
        if smallest == AS_THE_BUNDLE_SAYS and not crowd.missed(found, side):
            return found
        return with_crowd(partial(self.detect, model="crowd"), image, fitted(image, wanted), found, crowd)

    def shown(self, smallest: float, side: int) -> int:
        """Pixels along a photo's longest side that show a smallest face which is asked for; 0 if none is.

        Args:
            smallest: as in `find`.
            side: the photo's longest side.
        """
        return self.crowd.side(smallest, side) if self.crowd is not None and smallest > 0 else 0

    def find_turned(
        self, image: Pixels, smallest: float = AS_THE_BUNDLE_SAYS, scale: int = 1
    ) -> tuple[int, list[Detection]]:
        """Finds faces in a photo that may lie on its side or stand on its head: looks at it in all four positions.

        Args:
            image: as in `find`.
            smallest: as in `find`.
            scale: as in `find`.

        Returns:
            The quarter turns to the left, 0 to 3, at which most upright faces are found, counted by score, and those
            faces, in pixels of ``np.rot90(image, turns)``. Of equals the fewest turns count.
        """
        looks = [self.find(np.ascontiguousarray(np.rot90(image, quarters)), smallest, scale) for quarters in range(4)]
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

    def _first_look(self, image: Pixels) -> list[Detection]:
        """The faces that show in the whole photo, small ones measured in close-ups."""
        overview, factor = self._overview(image)
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
        # A detector that sees small pictures as they are does not enlarge them to its own size.
        close = self.looks.close_enough * max(*seen.shape[:2], self.looks.overview if self.looks.fitted else 0)
        faces = [face.moved(0, 0, factor) for face in first]
        small = [
            index
            for index, face in enumerate(first)
            if self.looks.look_again > 0
            and not 0 < close <= face.side
            # Of a strip the square would be border for the most part, and of a long one too large for the memory.
            and faces[index].side <= 2 * min(image.shape[:2])
        ]
        for begin in range(0, len(small), self.looks.together):
            part = small[begin : begin + self.looks.together]
            for index, face in zip(part, self._look_again(image, [faces[i] for i in part]), strict=True):
                faces[index] = face
        return faces

    def _overview(self, image: Pixels) -> tuple[Pixels, float]:
        """The photo with about as many pixels as the first look sees, and the factor from them to its own ones."""
        if self.looks.overview <= 0:
            return image, 1
        height, width = image.shape[:2]
        if not self.looks.fitted:
            return halved(image, max(height, width) / self.looks.overview)
        side = self.looks.first_side(height, width)
        return fitted(image, side), max(height, width) / side

    def _look_again(self, image: Pixels, faces: Sequence[Detection]) -> list[Detection]:
        """The same faces, measured in close-ups; as they were where the close-up does not show them."""
        if self.looks.sheet > 0:
            across = self.looks.sheet // self.looks.close_up
            sheet = Sheet(self.looks.look_again, self.looks.close_up, across, SAME_FACE)
            shown = sheet.shown(self.detect, image, faces)
        else:
            shown = [self._close_up(image, face) for face in faces]
        return [
            face if seen is None else Detection(seen.box, face.score, seen.keypoints)
            for face, seen in zip(faces, shown, strict=True)
        ]

    def _close_up(self, image: Pixels, face: Detection) -> Detection | None:
        """The same face in a picture of its own; None if that does not show it."""
        picture, left, top = square(image, face, self.looks.look_again)
        seen = picture if self.closeup is None else shrunk(picture, self.looks.close_up)
        zoom = picture.shape[0] / seen.shape[0]
        close = [f.moved(left, top, zoom) for f in self.detect(seen, self.closeup or "faces")]
        return face.among(close, SAME_FACE)


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def _upright(face: Detection) -> bool:
    """Whether the mouth lies below the eyes, and more below than beside them."""
    right_eye, left_eye, _, mouth = face.keypoints[:4]
    across, down = mouth - (right_eye + left_eye) / 2
    return bool(down > abs(across))
