"""Animated pictures, GIF, APNG and WebP: found by their structure, and the pictures of a WebP put together.

FFmpeg shows GIF and APNG. Animated WebP is newer than the FFmpeg that most people have, so OpenCV decodes its pictures
one by one here, and they are laid over each other as the container says.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from runtime.errors import MediaError, TooLargeError
from runtime.media.frames import VideoLimits, reduced
from runtime.media.pictures import RGBImage, opencv
from runtime.media.video import breaks_off

ANIMATED = (b"GIF8", b"\x89PNG\r\n\x1a\n", b"RIFF")
"""How files begin that may be animated pictures."""

_ANIMATED, _ALPHA = 0x02, 0x10  # flags of VP8X
_OVERWRITE, _CLEAR = 0x02, 0x01  # flags of ANMF: not blended with what is there, cleared afterwards


@dataclass(frozen=True, slots=True)
class Animation:
    """An animated picture.

    Attributes:
        kind: "GIF", "APNG" or "WebP".
        data: the file as far as its pictures are whole.
        pictures: how many it has, or says that it has; at least 2.
    """

    kind: str
    data: bytes
    pictures: int


def animation(data: bytes) -> Animation | None:
    """The animation in a file; None where it holds one picture, or is no GIF, PNG or WebP."""
    if data[:6] in (b"GIF87a", b"GIF89a"):
        ends, broken = _gif_images(data)
        found = Animation("GIF", data[: ends[-1]] + b";" if ends else b"", len(ends) + broken)
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        place = data.find(b"acTL", 0, data.find(b"IDAT"))
        found = Animation("APNG", data, int.from_bytes(data[place + 4 : place + 8]) if place > 0 else 0)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        whole = len(_webp_pictures(data))
        found = Animation("WebP", data, whole + (len(data) < int.from_bytes(data[4:8], "little") + 8))
    else:
        return None
    return found if found.pictures > 1 and found.data else None


def _gif_images(data: bytes) -> tuple[list[int], bool]:
    """Where each whole picture of a GIF ends, and whether the file is cut in another one."""
    ends: list[int] = []
    place = 13 + _table(data[10:11])
    while True:
        kind, start = data[place : place + 1], place + 2
        if kind == b",":
            start = place + 11 + _table(data[place + 9 : place + 10])
        elif kind != b"!":
            return ends, False
        place = _after_blocks(data, start)
        if place > len(data):
            return ends, True
        if kind == b",":
            ends.append(place)


def _table(flags: bytes) -> int:
    """Bytes of the colour table that follows its flags."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _after_blocks(data: bytes, place: int) -> int:
    """The place behind a chain of blocks, each with its length before it; behind the end where the chain is cut."""
    while place < len(data) and data[place]:
        place += 1 + data[place]
    return place + 1


@dataclass(frozen=True, slots=True)
class _Part:
    """A picture of an animated WebP, and the rectangle of the canvas that it goes to."""

    left: int
    top: int
    width: int
    height: int
    seconds: float
    flags: int
    chunks: bytes


def _webp_pictures(data: bytes) -> list[_Part]:
    """The whole pictures of an animated WebP; none where it is not animated."""
    parts: list[_Part] = []
    if data[12:16] != b"VP8X" or not data[20] & _ANIMATED:
        return parts
    place = 12
    while place + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, place)
        body, place = place + 8, place + 8 + length + (length & 1)
        if kind == b"ANMF" and body + length <= len(data) and length > 16:
            left, top, width, height, duration = (
                int.from_bytes(data[body + k : body + k + 3], "little") for k in range(0, 15, 3)
            )
            chunks = data[body + 16 : body + length]
            parts.append(_Part(2 * left, 2 * top, width + 1, height + 1, duration / 1000, data[body + 15], chunks))
    return parts


class AnimatedWebP:
    """An animated WebP, read as `runtime.media.video.Video` reads a video.

    Raises:
        TooLargeError: it has more pixels or pictures than allowed.
    """

    def __init__(self, found: Animation, limits: VideoLimits, deadline: float, name: str) -> None:
        self._parts, self._stated = _webp_pictures(found.data), found.pictures
        self._limits, self._deadline, self._name = limits, deadline, name
        width, height = (1 + int.from_bytes(found.data[k : k + 3], "little") for k in (24, 27))
        if width * height > limits.pixels:
            raise TooLargeError(f"{name} is {width}×{height} pixels, at most {limits.pixels} are read")
        if len(self._parts) > limits.frames:
            raise TooLargeError(f"{name} has more than {limits.frames} frames; cut a piece out of it first")
        self._canvas: RGBImage = np.full((height, width, 3), 255, np.uint8)  # what is transparent is laid over white
        self._count = 0

    @property
    def promised(self) -> int:
        """The number of pictures."""
        return len(self._parts)

    def frames(self) -> Iterator[tuple[int, float]]:
        """Goes through the pictures: the number of each and its time in seconds after the first; ends at damage.

        Raises:
            TooLargeError: the time is over.
        """
        seconds, self._count = 0.0, 0
        for index, part in enumerate(self._parts):
            if time.monotonic() > self._deadline:
                raise TooLargeError(f"{self._name} is not decoded after {self._limits.seconds:g} seconds")
            place = np.s_[part.top : part.top + part.height, part.left : part.left + part.width]
            image = _decoded(part)
            if image is None or self._canvas[place].shape[:2] != image.shape[:2]:
                return
            _laid(image, self._canvas[place], overwrite=bool(part.flags & _OVERWRITE))
            self._count = index + 1
            yield index, seconds
            seconds += part.seconds
            if part.flags & _CLEAR:
                self._canvas[place] = 255

    def picture(self, shorter: int | None) -> RGBImage:
        """What is seen now, made smaller as `reduced` does it: uint8 RGB (H, W, 3)."""
        return reduced(self._canvas, shorter).copy()

    def note(self) -> str | None:
        """Whether pictures were missing, once `frames` has gone through them."""
        return breaks_off(self._count, self._stated)

    def failure(self) -> MediaError:
        """Why `frames` gave none."""
        return MediaError(f"{self._name} is damaged: its first picture cannot be decoded")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def _decoded(part: _Part) -> NDArray[np.uint8] | None:
    """The picture of a part, BGR or BGRA (H, W, 3 or 4); None if it is damaged."""
    cv2 = opencv()
    size = (part.width - 1).to_bytes(3, "little") + (part.height - 1).to_bytes(3, "little")
    extended = b"VP8X" + struct.pack("<IB3x", 10, _ALPHA) + size if part.chunks.startswith(b"ALPH") else b""
    body = b"WEBP" + extended + part.chunks
    try:
        image = cv2.imdecode(
            np.frombuffer(b"RIFF" + struct.pack("<I", len(body)) + body, np.uint8), cv2.IMREAD_UNCHANGED
        )
    except cv2.error:
        return None
    fits = image is not None and image.ndim == 3 and image.shape[:2] == (part.height, part.width)
    return image if fits else None


def _laid(image: NDArray[np.uint8], below: RGBImage, *, overwrite: bool) -> None:
    """Lays a picture, BGR or BGRA, over a part of an RGB canvas; over white in its stead with `overwrite`."""
    alpha = image[:, :, 3].astype(np.uint16) if image.shape[2] == 4 else None
    for channel in range(3):
        plane = image[:, :, 2 - channel]
        if alpha is not None:
            shade = plane * alpha + (255 if overwrite else below[:, :, channel]) * (255 - alpha) + 127
            plane = shade + 1 + (shade >> 8) >> 8  # the quotient by 255, exactly
        below[:, :, channel] = plane
