"""The chunks of a PNG file (W3C PNG, third edition)."""

from __future__ import annotations

import struct
import zlib
from functools import partial

from runtime.errors import MediaError
from runtime.media.exif import orientation
from runtime.media.image_header import ImageHeader, Pieces

MOST_CHUNKS = 200_000
MOST_TEXT = 1 << 20

UNCHECKED = 1 << 19
"""So many bytes of compressed data are at most 1,032 times as long when inflated, half a gigabyte: about a second."""

_STEP = 1 << 16
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_GREY, _PALETTE, _ALPHA = 0, 3, 4  # the last one is a bit of the colour type
# Section 8.2: first column and row of each pass, and the steps.
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_CRITICAL = frozenset((b"IHDR", b"PLTE", b"IDAT", b"IEND"))


def read_png(data: bytes) -> ImageHeader:
    """Reads the chunks of a PNG. Of an animation the picture is read that a program sees which knows no animations.

    The decoder gets the chunks alone without which the picture cannot be shown: no text, no profile, no animation.

    Raises:
        MediaError: damaged, truncated, or of a kind that is not decoded.
    """
    view = memoryview(data)
    position, begin = 8, 0
    pieces: list[memoryview] = []
    compressed: list[memoryview] = []
    header: tuple[int, ...] = ()
    exif = profile = xmp = transparency = None
    for _ in range(MOST_CHUNKS):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if len(data) < end:
            raise MediaError("the PNG is truncated: its end chunk is missing")
        body = view[position + 8 : end - 4]
        needed = kind in _CRITICAL or (kind == b"tRNS" and not compressed)
        if needed and zlib.crc32(view[position + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise MediaError(f"the PNG is damaged: the checksum of its {kind.decode()} chunk is wrong")
        if kind == b"CgBI":
            raise MediaError("the PNG is one of an iPhone's program (CgBI), which is not decoded; save it as PNG first")
        if (kind == b"IHDR") != (position == 8):
            raise MediaError("the PNG is damaged: its header chunk is not the first one")
        if kind == b"IHDR":
            header = struct.unpack(">IIBBBBB", body)
        elif kind == b"IDAT":
            compressed.append(body)
        elif kind == b"tRNS" and needed:
            transparency = bytes(body)
        elif kind == b"eXIf":
            exif = bytes(body)
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            keyword, text = _text(kind, bytes(body))
            profile = text if keyword == b"Raw profile type exif" else profile
            xmp = text if keyword == b"XML:com.adobe.xmp" else xmp
        elif kind not in _CRITICAL and kind[:1].isupper():
            raise MediaError(f"the PNG has a chunk {kind!r}, which is not known and without which it cannot be shown")
        if not needed:
            pieces.append(view[begin:position])
            begin = end
        position = end
        if kind == b"IEND":
            pieces.append(view[begin:position])
            turned = orientation(_raw_profile(profile) if exif is None else exif, xmp)
            return _header(header, tuple(piece for piece in pieces if piece), compressed, transparency, turned)
    raise MediaError(f"the PNG has more than {MOST_CHUNKS} chunks")


def _header(
    header: tuple[int, ...], pieces: Pieces, compressed: list[memoryview], transparency: bytes | None, turned: int
) -> ImageHeader:
    width, height, depth, colour, _, _, interlaced = header
    if depth not in _DEPTHS.get(colour, ()):
        raise MediaError(f"the PNG is damaged: its header gives colour type {colour} with {depth} bits a value")
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    bits = depth * _CHANNELS[colour]
    inflated = 0
    for left, top, across, down in passes:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            inflated += rows * (1 + -(-columns * bits // 8))  # each row begins with the number of its filter
    transparent_grey = None
    if colour == _GREY and transparency is not None:  # section 11.3.1.1: a decoder must be told, OpenCV passes it over
        (value,) = struct.unpack_from(">H", transparency)
        transparent_grey = value if depth >= 8 else value * 255 // ((1 << depth) - 1)
    alpha = bool(colour & _ALPHA) or (transparency is not None and colour != _GREY)
    # OpenCV gives grey as one channel and everything with alpha as four.
    decoded = (1 if colour == _GREY else 4 if alpha else 3) * (2 if depth == 16 else 1)
    return ImageHeader(
        "PNG",
        width,
        height,
        pieces,
        turned,
        rgb=colour != _GREY and not alpha and depth < 16,
        pixel_bytes=max(2 * decoded, decoded + 3),
        transparent_grey=transparent_grey,
        check=partial(_check_inflated, tuple(compressed), inflated),
    )


def _text(kind: bytes, body: bytes) -> tuple[bytes, bytes]:
    """Keyword and text of a text chunk; no text where it is damaged, or longer than a megabyte."""
    keyword, _, text = body.partition(b"\0")
    packed = kind == b"zTXt"
    if kind == b"iTXt":
        packed, text = text[:1] == b"\1", text[2:].partition(b"\0")[2].partition(b"\0")[2]
    elif packed:
        text = text[1:]
    if not packed:
        return keyword, text
    try:
        return keyword, zlib.decompressobj().decompress(text, MOST_TEXT)
    except zlib.error:
        return keyword, b""


def _raw_profile(text: bytes | None) -> bytes | None:
    """EXIF as ImageMagick writes it: a line that is empty, the name, the length, and hexadecimal digits."""
    try:
        return None if text is None else bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
    except ValueError:
        return None


def _check_inflated(compressed: tuple[memoryview, ...], expected: int) -> None:
    """Inflates the data, which the decoder will do to their very end, and looks at nothing but their length."""
    if sum(map(len, compressed)) <= UNCHECKED:
        return
    inflate, inflated = zlib.decompressobj(), 0
    for piece in compressed:
        for start in range(0, len(piece), _STEP):
            waiting: bytes | memoryview = piece[start : start + _STEP]
            while waiting and not inflate.eof:
                try:
                    inflated += len(inflate.decompress(waiting, 16 * _STEP))
                except zlib.error as error:
                    raise MediaError(f"the PNG is damaged: {error}") from error
                if inflated > expected + _STEP:
                    raise MediaError("the PNG is damaged: its data go on after the picture is complete")
                waiting = inflate.unconsumed_tail
