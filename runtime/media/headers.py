"""What the header of a picture says, before anything is decoded: its format, size, orientation and cost.

A decoder takes memory for the size that the header claims, and some fill with grey what a truncated file lacks. Both
are found here by walking the file's own structure: JPEG segments, PNG chunks, RIFF chunks, GIF blocks.
"""

from __future__ import annotations

import re
import struct

from runtime.errors import MediaError
from runtime.media.bmp import read_bmp
from runtime.media.gif import read_gif
from runtime.media.image_header import ImageHeader
from runtime.media.jpeg import read_jpeg
from runtime.media.png import read_png
from runtime.media.webp import read_webp

NPY = b"\x93NUMPY"

_READERS = {
    "image/jpeg": (re.compile(rb"\xff\xd8\xff"), read_jpeg),
    "image/png": (re.compile(rb"\x89PNG\r\n\x1a\n"), read_png),
    "image/webp": (re.compile(rb"RIFF....WEBP", re.DOTALL), read_webp),
    "image/gif": (re.compile(rb"GIF8[79]a"), read_gif),
    "image/bmp": (re.compile(rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL), read_bmp),
}

PICTURE_TYPES = (*_READERS, "application/x-npy")
"""The media types of what is read as a picture."""


def picture_type(data: bytes) -> str | None:
    """The media type that the first bytes show, one of `PICTURE_TYPES`; None if this is no picture that is read."""
    if data.startswith(NPY):
        return "application/x-npy"
    return next((kind for kind, (magic, _) in _READERS.items() if magic.match(data)), None)


def read_header(data: bytes) -> ImageHeader:
    """Reads the header of a picture that lies in memory.

    Raises:
        MediaError: not a picture of a known format, damaged, or truncated.
    """
    kind = picture_type(data)
    if kind not in _READERS:
        from runtime.media.foreign import name_of  # here, because it knows many kinds that are not read

        raise MediaError(f"{name_of(data)}; JPEG, PNG, WebP, BMP, GIF and npy files are read")
    try:
        header = _READERS[kind][1](data)
    except (struct.error, IndexError):
        raise MediaError("the picture is truncated: it ends inside its header") from None
    if header.width < 1 or header.height < 1:
        raise MediaError(f"the {header.format} header gives a size of {header.width}×{header.height}")
    return header
