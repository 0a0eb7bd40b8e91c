"""The header of a BMP file."""

from __future__ import annotations

import struct

from runtime.errors import MediaError
from runtime.media.image_header import ImageHeader

_RUN_LENGTH = (1, 2)
_HOLDS = {4: "JPEG", 5: "PNG"}


def read_bmp(data: bytes) -> ImageHeader:
    """Reads the header of a BMP. A fourth channel is padding that is mostly zero: it is read as plain colour.

    Raises:
        MediaError: truncated, or a JPEG or PNG in a BMP's clothes.
    """
    size, offset = struct.unpack_from("<I4xI", data, 2)
    (header_size,) = struct.unpack_from("<I", data, 14)
    if header_size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    if compression in _HOLDS:
        raise MediaError(f"the BMP holds a {_HOLDS[compression]}, which is not decoded; save it as PNG first")
    height = abs(height)  # negative: rows from the top
    # Run-length forms have no fixed length; their file says how long it is.
    needed = size if compression in _RUN_LENGTH else offset + (width * bits + 31) // 32 * 4 * height
    if len(data) < needed:
        raise MediaError(f"the BMP is truncated: {len(data)} bytes of {needed}")
    return ImageHeader("BMP", width, height, (data,))
