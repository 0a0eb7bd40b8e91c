"""The blocks of a GIF file (GIF89a) up to its first picture."""

from __future__ import annotations

import struct
from functools import partial

import numpy as np
from numpy.typing import NDArray

from runtime.errors import MediaError, TooLargeError
from runtime.media.image_header import ImageHeader

MOST_EXTENSIONS = 10_000
MOST_BLOCKS = 1_000_000

UNCHECKED = 1 << 17
"""So many bytes hold at most 350,000 codes that empty the table: two to three seconds of OpenCV's decoder."""

MOST_RESETS = 50_000
"""A table is full after 3,800 codes or more, so this is enough for 250 MB; encoders that do not compress need more."""

_TABLE, _EXTENSION, _PICTURE = 0x80, 0x21, 0x2C
_LONGEST_CODE = 12


def read_gif(data: bytes) -> ImageHeader:
    """Reads a GIF up to the end of its first picture, which is all that the decoder gets.

    Raises:
        MediaError: damaged, or truncated inside its first picture.
    """
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + _table(flags)
    for _ in range(MOST_EXTENSIONS):
        if data[position] != _EXTENSION:
            break
        position = _blocks(data, position + 2)[1]
    if data[position] != _PICTURE:
        raise MediaError("the GIF holds no picture")
    left, top, frame_width, frame_height, frame_flags = struct.unpack_from("<4HB", data, position + 1)
    start = position + 10 + _table(frame_flags)
    smallest = data[start]
    try:
        blocks, end = _blocks(data, start + 1)
    except IndexError:
        raise MediaError("the GIF is truncated inside its first picture") from None
    # The screen grows until it holds the picture. A background that is none of its colours is the first of them.
    width, height = max(width, left + frame_width), max(height, top + frame_height)
    background = data[11] if data[11] < _table(flags) // 3 else 0
    screen = data[:6] + struct.pack("<HHBB", width, height, flags, background)
    return ImageHeader(
        "GIF",
        width,
        height,
        (screen, memoryview(data)[12:end], b";"),
        rgb=False,
        # OpenCV holds numbers of colours, two screens of four channels and what lay under the picture.
        pixel_bytes=13,
        check=partial(_check_resets, data, blocks, smallest),
    )


def _table(flags: int) -> int:
    """Bytes of a colour table."""
    return 3 << (flags & 7) + 1 if flags & _TABLE else 0


def _blocks(data: bytes, position: int) -> tuple[list[tuple[int, int]], int]:
    """Begin and end of each data sub-block, and where they all end."""
    blocks: list[tuple[int, int]] = []
    while length := data[position]:
        if len(blocks) == MOST_BLOCKS:
            raise MediaError(f"the GIF has more than {MOST_BLOCKS} blocks of data in one picture")
        blocks.append((position + 1, position + 1 + length))
        position += 1 + length
    return blocks, position + 1


def _check_resets(data: bytes, blocks: list[tuple[int, int]], smallest: int) -> None:
    """Counts the codes that empty the decoder's table, which takes it a thousand times as long as any other code."""
    if sum(end - begin for begin, end in blocks) <= UNCHECKED or not 1 <= smallest < _LONGEST_CODE:
        return
    codes = np.frombuffer(b"".join(data[begin:end] for begin, end in blocks), np.uint8)
    resets = _count_resets(codes, smallest)
    if resets > MOST_RESETS:
        raise TooLargeError(
            f"the GIF empties its table more than {MOST_RESETS} times, which takes too long to decode; "
            "save it as PNG first"
        )


def _count_resets(stream: NDArray[np.uint8], smallest: int) -> int:
    """How many codes of an LZW stream empty the table or end the data, counted to `MOST_RESETS` + 1.

    After each of them the lengths of the codes are known: a bit more than `smallest`, and another bit whenever the
    table has outgrown it.
    """
    empty = 1 << smallest
    lengths = np.full(1 << _LONGEST_CODE, _LONGEST_CODE)
    begin = 0
    for length in range(smallest + 1, _LONGEST_CODE):
        end = (1 << length) - empty - 1
        lengths[begin:end] = length
        begin = end
    places = np.cumsum(lengths) - lengths
    full = np.full_like(lengths, _LONGEST_CODE), np.arange(len(lengths)) * _LONGEST_CODE
    stream = np.concatenate((stream, np.zeros(3, np.uint8)))
    place, resets, table = 0, 0, (lengths, places)
    while resets <= MOST_RESETS and place < 8 * (len(stream) - 3):
        for count in (64, len(lengths)):  # most tables fill up; those of an attack are emptied at once
            long, after = table[0][:count], table[1][:count] + place
            long, after = long[after < 8 * (len(stream) - 3)], after[after < 8 * (len(stream) - 3)]
            byte = after >> 3
            bits = stream[byte] | stream[byte + 1].astype(np.int64) << 8 | stream[byte + 2].astype(np.int64) << 16
            codes = bits >> (after & 7) & (1 << long) - 1
            found = np.flatnonzero((codes == empty) | (codes == empty + 1))
            if len(found):
                break
        last = found[0] if len(found) else len(long) - 1
        place = int(after[last] + long[last])
        resets += min(len(found), 1)
        table = (lengths, places) if len(found) else full
    return resets
