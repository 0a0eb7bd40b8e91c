"""What the header of a picture says, before anything is decoded: its format, size, orientation and cost.

A decoder takes memory for the size that the header claims, and some fill with grey what a truncated file lacks. Both
are found here by walking the file's own structure: JPEG segments, PNG chunks, RIFF chunks, GIF blocks.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from runtime.errors import MediaError
from runtime.media.image_header import ImageHeader

NPY = b"\x93NUMPY"

_MAGIC = {
    "image/jpeg": rb"\xff\xd8\xff",
    "image/png": rb"\x89PNG\r\n\x1a\n",
    "image/webp": rb"RIFF....WEBP",
    "image/gif": rb"GIF8[79]a",
    "image/bmp": rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0",
}
"""Patterns of the first bytes. `re` compiles each the first time that it is looked for, and keeps it."""

PICTURE_TYPES = (*_MAGIC, "application/x-npy")
"""The media types of what is read as a picture."""


def picture_type(data: bytes) -> str | None:
    """The media type that the first bytes show, one of `PICTURE_TYPES`; None if this is no picture that is read."""
    if data.startswith(NPY):
        return "application/x-npy"
    return next((kind for kind, magic in _MAGIC.items() if re.match(magic, data, re.DOTALL)), None)


def read_header(data: bytes) -> ImageHeader:
    """Reads the header of a picture that lies in memory.

    Raises:
        MediaError: not a picture of a known format, damaged, or truncated.
    """
    kind = picture_type(data)
    if kind not in _MAGIC:
        from runtime.media.foreign import name_of  # here, because it knows many kinds that are not read

        raise MediaError(f"{name_of(data)}; JPEG, PNG, WebP, BMP, GIF and npy files are read")
    try:
        header = _reader(kind)(data)
    except (struct.error, IndexError):
        raise MediaError("the picture is truncated: it ends inside its header") from None
    if header.width < 1 or header.height < 1:
        raise MediaError(f"the {header.format} header gives a size of {header.width}×{header.height}")
    return header


def _reader(kind: str) -> Callable[[bytes], ImageHeader]:
    """The reader of a format, imported when a picture of it comes: a first answer begins quicker without the others."""
    match kind:
        case "image/jpeg":
            from runtime.media.jpeg import read_jpeg

            return read_jpeg
        case "image/png":
            from runtime.media.png import read_png

            return read_png
        case "image/webp":
            from runtime.media.webp import read_webp

            return read_webp
        case "image/gif":
            from runtime.media.gif import read_gif

            return read_gif
        case _:
            from runtime.media.bmp import read_bmp

            return read_bmp
