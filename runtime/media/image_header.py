"""What is known of an encoded picture before it is decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Pieces = tuple[bytes | memoryview, ...]
"""Parts of a file; joined they are one again."""


def _nothing() -> None:
    """There is nothing to check."""


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """An encoded picture: its size, what decoding it takes, and what of the file the decoder gets.

    Attributes:
        format: "JPEG", "PNG", "WebP", "GIF" or "BMP".
        width: as stored, before the orientation is applied.
        height: as stored.
        encoded: what the decoder gets: the picture without what it does not need.
        orientation: of EXIF, 1 to 8.
        rgb: whether the decoder gives uint8 RGB by itself; else its values need conversion (alpha, grey, 16 bits).
        pixel_bytes: memory that decoding takes for each decoded pixel, conversion included.
        other_bytes: memory that the decoder holds beside the decoded picture, whatever the scale it is read at.
        reducible: whether it can be decoded at 1/2, 1/4 and 1/8 of its size.
        transparent_grey: the value that a grey PNG calls transparent, in 8 bits (16 where the picture has 16).
        check: raises a MediaError or TooLargeError where decoding would take too long. It may take a while itself, so
            the limits of size are looked at first.
        other_end: `encoded` with other bytes after the last ones, where the file has no end: if the two decode alike,
            nothing is missing.
        note: what the reader of the picture should know.
    """

    format: str
    width: int
    height: int
    encoded: Pieces
    orientation: int = 1
    rgb: bool = True
    pixel_bytes: int = 6
    other_bytes: int = 0
    reducible: bool = False
    transparent_grey: int | None = None
    check: Callable[[], None] = _nothing
    other_end: Pieces | None = None
    note: str | None = None

    def memory(self, pixels: int) -> int:
        """Bytes of memory that decoding takes at its peak, if `pixels` are decoded.

        OpenCV's decoder fills a matrix, then copies it into an array: `pixel_bytes` holds both. What has `other_end` is
        decoded twice and compared.
        """
        once = max(self.pixel_bytes * pixels, self.other_bytes + 3 * pixels)
        return once if self.other_end is None else once + 3 * pixels
