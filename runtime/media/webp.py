"""The chunks of a WebP file (RFC 9649)."""

from __future__ import annotations

import struct
from functools import partial

from runtime.errors import MediaError, TooLargeError
from runtime.media.exif import orientation
from runtime.media.image_header import ImageHeader

MOST_CHUNKS = 100_000

MOST_LOSSLESS_BYTES = 160_000_000
"""Memory of the pixels of a picture with a lossless part. Its 65,536 tables of codes may take another 400 MB, whatever
the size of the picture, and how many there are is known only once they are decoded."""

_ALPHA = 0x10


def read_webp(data: bytes) -> ImageHeader:
    """Reads the chunks of a WebP. Of an animation the first picture is decoded, on its canvas.

    Raises:
        MediaError: damaged or truncated.
    """
    (size,) = struct.unpack_from("<I", data, 4)
    if len(data) < size + 8:
        raise MediaError(f"the WebP is truncated: {len(data)} bytes of {size + 8}")
    width = height = 0
    alpha = lossless = animated = False
    exif = xmp = None
    position = 12
    for _ in range(MOST_CHUNKS):
        if position + 8 > size + 8:
            break
        kind, length = struct.unpack_from("<4sI", data, position)
        body = position + 8
        found = (0, 0)
        if kind == b"VP8X":  # canvas: 24 bits each, one less than the size
            alpha = bool(data[body] & _ALPHA)
            found = (1 + int.from_bytes(data[body + 4 : body + 7], "little"),
                     1 + int.from_bytes(data[body + 7 : body + 10], "little"))  # fmt: skip
        elif kind == b"VP8 ":  # RFC 6386 section 9.1: 14 bits each, after a frame tag and a start code
            found_width, found_height = struct.unpack_from("<HH", data, body + 6)
            found = (found_width & 0x3FFF, found_height & 0x3FFF)
        elif kind == b"VP8L":
            (bits,) = struct.unpack_from("<I", data, body + 1)
            found = (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
            lossless, alpha = True, alpha or bool(bits >> 28 & 1)
        elif kind == b"ALPH":
            lossless = lossless or bool(data[body] & 3)
        elif kind == b"ANMF":
            animated = True
            found = (1 + int.from_bytes(data[body + 6 : body + 9], "little"),
                     1 + int.from_bytes(data[body + 9 : body + 12], "little"))  # fmt: skip
        elif kind == b"EXIF" and exif is None:
            exif = data[body : body + length]
        elif kind == b"XMP " and xmp is None:
            xmp = data[body : body + length]
        width, height = max(width, found[0]), max(height, found[1])
        position = body + length + (length & 1)
    # The lossless decoder holds four channels of its own; an animation's a canvas and a picture of four each.
    pixel_bytes = 12 if animated else 8 if alpha else 7 if lossless else 6
    return ImageHeader(
        "WebP",
        width,
        height,
        (memoryview(data)[: size + 8],),
        orientation(exif, xmp),
        rgb=not alpha and not animated,
        pixel_bytes=pixel_bytes,
        check=partial(_check_lossless, width, height, pixel_bytes if lossless or animated else 0),
    )


def _check_lossless(width: int, height: int, pixel_bytes: int) -> None:
    if width * height * pixel_bytes > MOST_LOSSLESS_BYTES:
        raise TooLargeError(
            f"the WebP is {width}×{height} pixels with a lossless part, at most {MOST_LOSSLESS_BYTES // pixel_bytes} "
            "are read of that kind; save it as PNG or JPEG first"
        )
