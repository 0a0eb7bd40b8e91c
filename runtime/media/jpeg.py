"""The structure of a JPEG file (ITU-T T.81): its segments, without the entropy-coded data between them."""

from __future__ import annotations

import re
import struct
from functools import partial
from typing import NamedTuple

from runtime.errors import MediaError, TooLargeError
from runtime.media.exif import orientation
from runtime.media.image_header import ImageHeader, Pieces

MOST_VALUES = 2_000_000_000
"""Values (of one colour, at one pixel) that all passes over a picture visit together: two to three seconds of work.
An ordinary progressive file has ten passes; one of a few kilobytes can have thousands."""

MOST_SEGMENTS = 20_000

# Table B.1. A frame begins with C0 to CF but for DHT (C4), JPG (C8) and DAC (CC); F7 is that of JPEG-LS.
_FRAMES = frozenset((*range(0xC0, 0xD0), 0xF7)) - {0xC4, 0xC8, 0xCC}
_DECODED = frozenset((0xC0, 0xC1, 0xC2, 0xC9, 0xCA))  # sequential and progressive, Huffman and arithmetic coding
_PROGRESSIVE, _ARITHMETIC = frozenset((0xC2, 0xCA)), frozenset((0xC9, 0xCA))
_LOSSLESS, _LS, _HIERARCHICAL = frozenset((0xC3, 0xCB)), 0xF7, 0xDE
_SCAN, _END, _APP1 = 0xDA, 0xD9, 0xE1
_STANDALONE = frozenset((0x01, *range(0xD0, 0xD9)))  # TEM, RST0–7 and SOI carry no length

_MARKER = re.compile(rb"\xff([^\x00\xff])")
# In entropy-coded data FF 00 is a byte of data, FF D0–D7 a restart and FF FF padding; any other marker ends the scan.
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_XMP = b"http://ns.adobe.com/xap/1.0/\0"


class _Frame(NamedTuple):
    """A start of frame (B.2.2). `sampling` is horizontal and vertical, by the component's identifier."""

    marker: int
    precision: int
    width: int
    height: int
    sampling: dict[int, tuple[int, int]]

    def values(self, component: int) -> int:
        """How many values a component has, in whole blocks of 8×8."""
        across, down = self.sampling[component]
        most_across = max(h for h, _ in self.sampling.values())
        most_down = max(v for _, v in self.sampling.values())
        columns, rows = (-(-self.width * across // (8 * most_across)), -(-self.height * down // (8 * most_down)))
        return 64 * columns * rows


class _Scan(NamedTuple):
    """A start of scan (B.2.3): its components, and from and to which coefficient, down to which bit, it goes."""

    components: tuple[int, ...]
    first: int
    last: int
    bit: int


def read_jpeg(data: bytes) -> ImageHeader:
    """Reads the segments of a JPEG.

    Raises:
        MediaError: damaged, truncated, or of a kind that is not decoded.
    """
    frame: _Frame | None = None
    scans: list[_Scan] = []
    exif: list[bytes] = []
    xmp = None
    position = 2
    for _ in range(MOST_SEGMENTS):
        found = _MARKER.search(data, position)
        if found is None:
            raise MediaError("the JPEG is truncated: its end marker is missing")
        marker, position = found[1][0], found.end()
        if marker == _END:
            return _header(frame, scans, memoryview(data)[: found.start()], _upright(exif, xmp))
        if marker in _STANDALONE:
            continue
        (length,) = struct.unpack_from(">H", data, position)
        body = data[position + 2 : position + length]
        if marker in _FRAMES or marker == _HIERARCHICAL:
            frame = _frame(marker, body, frame)
        elif marker == _APP1 and not scans:
            if body.startswith(b"Exif\0\0"):
                exif.append(body[6:])  # one that is too long for a segment goes on in the next
            elif body.startswith(_XMP):
                xmp = body[len(_XMP) :]
        position += length
        if marker == _SCAN:
            scans.append(_scan(body))
            end = _END_OF_SCAN.search(data, position)
            if end is None:
                return _header(frame, scans, data, _upright(exif, xmp), ended=False)
            position = end.start()
    raise MediaError(f"the JPEG has more than {MOST_SEGMENTS} segments")


def _upright(exif: list[bytes], xmp: bytes | None) -> int:
    return orientation(b"".join(exif) if exif else None, xmp)


def _frame(marker: int, body: bytes, before: _Frame | None) -> _Frame:
    if before is not None:
        raise MediaError("the JPEG is damaged: it holds two pictures in one")
    if marker not in _DECODED:
        kind = "lossless" if marker in _LOSSLESS else "LS" if marker == _LS else "hierarchical"
        raise MediaError(
            f"the JPEG is of the kind {kind}, which is not decoded; save it as an ordinary JPEG or PNG first"
        )
    precision, height, width, count = struct.unpack_from(">BHHB", body)
    if precision != 8:
        raise MediaError(
            f"the JPEG has {precision} bits a value, 8 are decoded; save it as an ordinary JPEG or PNG first"
        )
    components = (struct.unpack_from("BBx", body, 6 + 3 * index) for index in range(count))
    sampling = {name: (factors >> 4, factors & 15) for name, factors in components}
    if len(sampling) not in (1, 3, 4) or any(not (1 <= h <= 4 and 1 <= v <= 4) for h, v in sampling.values()):
        raise MediaError(f"the JPEG has {count} colours with the sampling factors {list(sampling.values())}")
    return _Frame(marker, precision, width, height, sampling)


def _scan(body: bytes) -> _Scan:
    count = body[0]
    first, last, bits = struct.unpack_from("BBB", body, 1 + 2 * count)
    return _Scan(tuple(body[1 + 2 * index] for index in range(count)), first, last, bits & 15)


def _header(
    frame: _Frame | None, scans: list[_Scan], data: bytes | memoryview, turned: int, *, ended: bool = True
) -> ImageHeader:
    """The header of a file whose data, without the end marker, are `data`."""
    if frame is None or not scans:
        raise MediaError("the JPEG is truncated: it ends before its picture")
    if unknown := {name for scan in scans for name in scan.components} - frame.sampling.keys():
        raise MediaError(
            f"the JPEG is damaged: it has data of the colours {sorted(unknown)}, which it does not declare"
        )
    note = _missing(frame, scans)
    if not ended:
        if note is not None:
            raise MediaError("the JPEG is truncated: its end marker is missing")
        data = re.sub(rb"(?:\xff+|\0{3,})\Z", b"", data)  # half of the marker, or what a file system fills up with
        note = "the JPEG has no end marker; nothing of the picture is missing"
    interleaved = len(scans) == 1 and len(scans[0].components) == len(frame.sampling)
    several = frame.marker in _PROGRESSIVE or not interleaved
    values = sum(frame.values(name) for scan in scans for name in scan.components)
    encoded, other_end = _ends(data, several=several, arithmetic=frame.marker in _ARITHMETIC)
    return ImageHeader(
        "JPEG",
        frame.width,
        frame.height,
        encoded,
        turned,
        # The coefficients of all blocks, 16 bits each, lie in memory until the last pass has refined them.
        other_bytes=2 * sum(map(frame.values, frame.sampling)) if several else 0,
        reducible=True,
        check=partial(_check_passes, len(scans), values),
        other_end=None if ended else other_end,
        note=note,
    )


def _missing(frame: _Frame, scans: list[_Scan]) -> str | None:
    """What a file that ends between two passes lacks; None where it is complete.

    Raises:
        MediaError: a part of the picture.
    """
    # Annex G: each coefficient of a block is sent from its upper bits down to bit 0.
    left = {name: [16] * 64 for name in frame.sampling}
    for scan in scans:
        first, last, bit = (scan.first, scan.last, scan.bit) if frame.marker in _PROGRESSIVE else (0, 63, 0)
        for name in scan.components:
            left[name][first : last + 1] = [bit] * len(left[name][first : last + 1])
    if not any(map(any, left.values())):
        return None
    # Where no other has begun, the pass that breaks off is the one that holds the means of the blocks.
    if any(bits[0] == 16 for bits in left.values()) or all(scan.first == 0 for scan in scans):
        raise MediaError("the JPEG is truncated: its data end before the picture does")
    return "the JPEG breaks off: passes that refine the picture are missing"


def _ends(data: bytes | memoryview, *, several: bool, arithmetic: bool) -> tuple[Pieces, Pieces]:
    """The data with two ends.

    At an end marker the decoder fills the rest of a picture with grey, in silence. Without one OpenCV fails if it needs
    more data than there are, which only works if there is one pass: of several, all are read before the first line is
    given out. A decoder reads some bytes ahead; an arithmetic coder leaves out the zeros at its end.
    """
    if several:
        return (data, b"\xff\xd9"), (data, bytes(range(64)), b"\xff\xd9")
    ahead = 64 if arithmetic else 8
    return (data, bytes(ahead)), (data, b"\x55" * ahead)


def _check_passes(passes: int, values: int) -> None:
    if values > MOST_VALUES:
        raise TooLargeError(
            f"the JPEG is decoded in {passes} passes over {values // passes} values, at most {MOST_VALUES} are "
            "visited; save it as an ordinary JPEG, or scale it down first"
        )
