"""Finding the faces of a photo with a detector that sees few pixels: the first look, the frame and the close-ups.

Coordinates are pixels of the photo, as in `runtime.faces`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from runtime.engine import Engine
from runtime.faces import Detection, Pixels, cut, framed, halved, overlap, shrunk

SAME_FACE = 0.3
"""Overlap (IoU) from which the second look is taken to have found the face of the first."""


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
    """

    look_again: float = 0.0
    frame: float = 0.0
    overview: int = 0
    close_up: int = 0
    close_enough: float = 0.0

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
        )


class Finder:
    """Finds the faces of photos. Safe to use from several threads.

    Args:
        engines: ``faces``, the detector of a whole photo, and perhaps ``closeup``, the same for a smaller picture.
            Bundles made before there was one look again with the large one.
        looks: how a photo is looked at.
    """

    def __init__(self, engines: Mapping[str, Engine], looks: Looks) -> None:
        self.engines = engines
        self.looks = looks
        self.closeup = "closeup" if "closeup" in engines and looks.close_up > 0 else None

    def find(self, image: Pixels) -> list[Detection]:
        """Finds the faces of uint8 RGB pixels (H, W, 3), the surest first, in pixels of the image."""
        overview, factor = self._overview(image)
        seen = overview
        first = self.detect(overview)
        if not first and self.looks.frame > 0:
            seen, across, down = framed(overview, self.looks.frame)
            height, width = overview.shape[:2]
            first = [
                face
                for face in (_moved(face, -across, -down) for face in self.detect(seen))
                if _inside((face.box[:2] + face.box[2:]) / 2, width, height)
            ]
        close = self.looks.close_enough * max(seen.shape[:2])
        return [
            _moved(face, 0, 0, factor)
            if self.looks.look_again <= 0 or (0 < close <= _side(face))
            else self._look_again(image, _moved(face, 0, 0, factor))
            for face in first
        ]

    def detect(self, image: Pixels, model: str = "faces") -> list[Detection]:
        """What one run of a detector finds in uint8 RGB pixels (H, W, 3), the surest first."""
        found = self.engines[model].run({"image": np.ascontiguousarray(image)})
        return [
            Detection(box, float(score), keypoints)
            for box, score, keypoints in zip(found["boxes"], found["scores"], found["keypoints"], strict=True)
        ]

    def _overview(self, image: Pixels) -> tuple[Pixels, int]:
        """The photo with fewer pixels for the first look, and the factor to its own ones."""
        if self.looks.overview <= 0:
            return image, 1
        return halved(image, max(image.shape[:2]) / self.looks.overview)

    def _look_again(self, image: Pixels, face: Detection) -> Detection:
        """The same face, measured in a close-up; as it was if the close-up does not show it."""
        # Of a strip the square would be border for the most part, and of a long one too large for the memory.
        if _side(face) > 2 * min(image.shape[:2]):
            return face
        middle = (face.box[:2] + face.box[2:]) / 2
        half = self.looks.look_again * _side(face) / 2
        left, top = (int(v) for v in np.floor(middle - half))
        right, bottom = (int(v) for v in np.ceil(middle + half))
        side = max(right - left, bottom - top)  # a square but for the rounding
        picture = cut(image, left, top, left + side, top + side)
        if self.closeup is None:
            found = self.detect(picture)
        else:
            shown = shrunk(picture, self.looks.close_up)
            zoom = picture.shape[0] / shown.shape[0]
            found = [_moved(f, 0, 0, zoom) for f in self.detect(shown, self.closeup)]
        close = [_moved(f, left, top) for f in found]
        if not close:
            return face
        overlaps = overlap(face.box, np.stack([f.box for f in close]))
        best = int(overlaps.argmax())
        if overlaps[best] < SAME_FACE:
            return face
        return Detection(close[best].box, face.score, close[best].keypoints)


def _side(face: Detection) -> float:
    return float((face.box[2:] - face.box[:2]).max())


def _moved(face: Detection, x: int, y: int, scale: float = 1) -> Detection:
    """Scaled about the first pixel's corner, then shifted."""
    shift = np.array([x, y], dtype=np.float32)
    factor = np.float32(scale)
    return Detection(face.box * factor + np.tile(shift, 2), face.score, face.keypoints * factor + shift)


def _inside(point: NDArray[Any], width: int, height: int) -> bool:
    return bool(0 <= point[0] < width and 0 <= point[1] < height)
