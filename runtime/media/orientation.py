"""Which way up a frame is shown."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from runtime.media.pictures import RGBImage, opencv

if TYPE_CHECKING:
    from av.video.frame import VideoFrame


class Orientation(NamedTuple):
    """What is done to a frame, in this order, before it is shown."""

    exchanged: bool  # rows become columns
    upside_down: bool
    mirrored: bool

    @classmethod
    def of_matrix(cls, a: float, b: float, c: float, d: float) -> Self:
        """That of a display matrix (ISO/IEC 14496-12, 6.2.2), which sends a pixel (x, y) to (a x + c y, b x + d y).

        Of an angle that is no quarter turn the nearest quarter is taken.
        """
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(True, b < 0, c < 0)
        return cls(False, d < 0, a < 0)

    @classmethod
    def of_frame(cls, frame: VideoFrame) -> Self:
        """That of a frame's side data; upright where it has none."""
        try:
            matrix: Any = frame.side_data.get("DISPLAYMATRIX")
        except ValueError:  # PyAV does not know a kind of data beside it, and shows none; it has the angle by itself
            angle = math.radians(frame.rotation)
            return cls.of_matrix(math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle))
        if matrix is None:
            return cls(False, False, False)
        a, b, _, c, d = struct.unpack_from("=5i", matrix)
        return cls.of_matrix(a, b, c, d)

    def upright(self, image: RGBImage) -> RGBImage:
        """The picture (H, W, 3) as it is shown."""
        cv2 = opencv()
        if self.exchanged:
            image = cv2.transpose(image)
        if self.upside_down:
            image = cv2.flip(image, 0)
        return cv2.flip(image, 1) if self.mirrored else image
