"""What the header of an image file says, before anything is decoded: its format, size and orientation.

A decoder takes memory for the size that the header claims, and some (OpenCV before 5) fill with grey what a truncated
file lacks. Both are found here by walking the file's own structure: JPEG segments, PNG chunks, RIFF chunks, GIF blocks.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

from runtime.errors import MediaError

_SUPPORTED = "JPEG, PNG, WebP, BMP, GIF and npy files are read"

# ISO/IEC 10918-1 table B.1: start of frame, all kinds but DHT (C4), JPG (C8) and DAC (CC).
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN, _END_OF_IMAGE, _APP1 = 0xDA, 0xD9, 0xE1
_STANDALONE = frozenset((0x01, *range(0xD0, 0xD9)))  # TEM, RST0–7, SOI carry no length
# In entropy-coded data FF 00 is a byte of data, FF D0–D7 a restart and FF FF padding; any other marker ends the scan.
_NO_MARKER = frozenset((0x00, 0xFF, *range(0xD0, 0xD8)))
_ORIENTATION_TAG = 0x0112


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Format, size as stored (before the orientation is applied) and EXIF orientation (1 to 8).

    ``transparent_grey`` is the value that a grey PNG calls transparent, in 8 bits (16 where the image has 16).
    """

    format: str
    width: int
    height: int
    orientation: int = 1
    transparent_grey: int | None = None


def read_header(data: bytes) -> ImageHeader:
    """Reads the header of an image that lies in memory.

    Raises:
        MediaError: not an image of a known format, damaged, or truncated.
    """
    for magic, reader in _READERS:
        if magic.match(data):
            try:
                header = reader(data)
            except (struct.error, IndexError):
                raise MediaError("the image is truncated: it ends inside its header") from None
            if header.width < 1 or header.height < 1:
                raise MediaError(f"the {header.format} header gives a size of {header.width}×{header.height}")
            return header
    raise MediaError(f"{_guess(data)}; {_SUPPORTED}")


def _jpeg(data: bytes) -> ImageHeader:
    width = height = 0
    orientation = 1
    position = 2
    while True:
        while data[position] != 0xFF:  # garbage between segments is allowed by every decoder
            position += 1
        while data[position] == 0xFF:
            position += 1
        marker = data[position]
        position += 1
        if marker == _END_OF_IMAGE:
            break
        if marker in _STANDALONE:
            continue
        (length,) = struct.unpack_from(">H", data, position)
        if marker in _START_OF_FRAME:
            frame_height, frame_width = struct.unpack_from(">HH", data, position + 3)
            width, height = max(width, frame_width), max(height, frame_height)
        elif marker == _APP1 and data.startswith(b"Exif\0\0", position + 2):
            orientation = exif_orientation(data[position + 8 : position + length])
        position += length
        if marker == _START_OF_SCAN:
            position = _end_of_scan(data, position)
    return ImageHeader("JPEG", width, height, orientation)


def _end_of_scan(data: bytes, position: int) -> int:
    last = len(data) - 1
    while True:
        position = data.find(0xFF, position)
        if position < 0 or position == last:
            raise MediaError("the JPEG is truncated: its end marker is missing")
        if data[position + 1] not in _NO_MARKER:
            return position
        position += 1


def _png(data: bytes) -> ImageHeader:
    width = height = 0
    orientation = 1
    position = 8
    kind = b""
    depth = colour_type = 0
    transparent_grey = None
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, position)
        body = memoryview(data)[position + 8 : position + 8 + length]
        if len(data) < position + 12 + length:
            raise MediaError("the PNG is truncated: its end chunk is missing")
        (crc,) = struct.unpack_from(">I", data, position + 8 + length)
        # An upper-case first letter means that the image cannot be shown without the chunk.
        if kind[:1].isupper() and zlib.crc32(body, zlib.crc32(kind)) != crc:
            raise MediaError(f"the PNG is damaged: the checksum of its {kind.decode('latin-1')} chunk is wrong")
        if (kind == b"IHDR") != (position == 8):
            raise MediaError("the PNG is damaged: its header chunk is not the first one")
        if kind == b"IHDR":
            width, height, depth, colour_type = struct.unpack_from(">IIBB", body)
        elif kind == b"tRNS" and colour_type == 0:  # PNG 11.3.1.1: a decoder must be told, OpenCV passes it over
            (value,) = struct.unpack_from(">H", body)
            transparent_grey = value if depth >= 8 else value * 255 // max(1, (1 << depth) - 1)
        elif kind == b"eXIf":
            orientation = exif_orientation(bytes(body))
        position += 12 + length
    return ImageHeader("PNG", width, height, orientation, transparent_grey)


def _webp(data: bytes) -> ImageHeader:
    (size,) = struct.unpack_from("<I", data, 4)
    if len(data) < size + 8:
        raise MediaError(f"the WebP is truncated: {len(data)} bytes of {size + 8}")
    width = height = 0
    orientation = 1
    position = 12
    while position + 8 <= size + 8:
        kind, length = struct.unpack_from("<4sI", data, position)
        body = position + 8
        found = (0, 0)
        if kind == b"VP8X":  # canvas: 24 bits each, one less than the size
            found = (1 + int.from_bytes(data[body + 4 : body + 7], "little"),
                     1 + int.from_bytes(data[body + 7 : body + 10], "little"))  # fmt: skip
        elif kind == b"VP8 ":  # RFC 6386 section 9.1: 14 bits each, after a frame tag and a start code
            found_width, found_height = struct.unpack_from("<HH", data, body + 6)
            found = (found_width & 0x3FFF, found_height & 0x3FFF)
        elif kind == b"VP8L":
            (bits,) = struct.unpack_from("<I", data, body + 1)
            found = (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
        elif kind == b"ANMF":
            found = (1 + int.from_bytes(data[body + 6 : body + 9], "little"),
                     1 + int.from_bytes(data[body + 9 : body + 12], "little"))  # fmt: skip
        elif kind == b"EXIF":
            orientation = exif_orientation(data[body : body + length].removeprefix(b"Exif\0\0"))
        width, height = max(width, found[0]), max(height, found[1])
        position = body + length + (length & 1)
    return ImageHeader("WebP", width, height, orientation)


def _gif(data: bytes) -> ImageHeader:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    while data[position] == 0x21:  # extensions before the first frame
        position = _skip_sub_blocks(data, position + 2)
    if data[position] != 0x2C:
        raise MediaError("the GIF holds no picture")
    left, top, frame_width, frame_height, flags = struct.unpack_from("<4HB", data, position + 1)
    position += 10 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    try:
        _skip_sub_blocks(data, position + 1)
    except IndexError:
        raise MediaError("the GIF is truncated inside its first picture") from None
    return ImageHeader("GIF", max(width, left + frame_width), max(height, top + frame_height))


def _skip_sub_blocks(data: bytes, position: int) -> int:
    while data[position]:
        position += 1 + data[position]
    return position + 1


def _bmp(data: bytes) -> ImageHeader:
    size, offset = struct.unpack_from("<I4xI", data, 2)
    (header_size,) = struct.unpack_from("<I", data, 14)
    if header_size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    height = abs(height)  # negative: rows from the top
    # Run-length forms (1, 2) have no fixed length; their file says how long it is.
    needed = size if compression in (1, 2) else offset + (width * bits + 31) // 32 * 4 * height
    if len(data) < needed:
        raise MediaError(f"the BMP is truncated: {len(data)} bytes of {needed}")
    return ImageHeader("BMP", width, height)


def exif_orientation(tiff: bytes) -> int:
    """The orientation (1 to 8) in a TIFF header as EXIF carries it; 1 where there is none or it is damaged.

    A damaged tag is not an error: the picture itself is whole, and every viewer shows it.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, start)
        for index in range(count):
            tag, _kind, _values, value = struct.unpack_from(order + "HHIH", tiff, start + 2 + 12 * index)
            if tag == _ORIENTATION_TAG:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1


def _guess(data: bytes) -> str:
    if not data:
        return "the input is empty"
    if data[4:8] == b"ftyp":
        brand = data[8:12].decode("latin-1").strip()
        if brand in ("heic", "heix", "mif1", "msf1", "avif"):
            return f"the input is a {'AVIF' if brand == 'avif' else 'HEIC'} image, save it as JPEG first"
        return "the input is a video (MP4 family), not an image"
    if data[:4] in (b"II*\0", b"MM\0*"):
        return "the input is a TIFF image, save it as PNG first"
    if data[:5] == b"%PDF-":
        return "the input is a PDF, not an image"
    return f"the input is not an image (it begins with {data[:8]!r})"


_READERS = (
    (re.compile(rb"\xff\xd8\xff"), _jpeg),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), _png),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), _webp),
    (re.compile(rb"GIF8[79]a"), _gif),
    (re.compile(rb"BM"), _bmp),
)
