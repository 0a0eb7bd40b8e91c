"""The tables of an MP4 file (ISO/IEC 14496-12), looked at before a demuxer believes them.

FFmpeg makes an entry of 24 bytes or more for each sample that a table promises, and some tables promise any number of
them in a few bytes. A file of 5 kB took 3 GB of memory.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import BinaryIO

from runtime.errors import MediaError, TooLargeError

MOST_SAMPLES = 4_000_000
"""Of all tracks together: more than a day of video, and about 160 MB of entries."""

_MOST_BOXES = 200_000
_CHUNK = 1 << 20
_LONGEST = 24  # bytes of a box that are looked at
_OTHER_HANDLERS = frozenset((b"alis", b"url ", b"mdir", b"mdta"))  # of data and of metadata
_KINDS = re.compile(rb"(?=(cmov|elst|hdlr|stsz|stts|stz2|trak|trun))")


def check_tables(file: BinaryIO, name: str) -> None:
    """Refuses an MP4 whose tables promise too much.

    They are looked for everywhere but in the samples themselves, because FFmpeg finds them in strange places, too.

    Args:
        file: the whole file; it is left standing anywhere.
        name: of the file, for messages.

    Raises:
        TooLargeError: more than `MOST_SAMPLES`.
        MediaError: the header is compressed, or in too many boxes.
    """
    samples, track = 0, _Track()
    for kind, fields in _tables(file, name):
        # The first number is version and flags.
        _, first, second, third = (int.from_bytes(fields[k : k + 4]) for k in range(0, 16, 4))
        if kind == b"cmov":
            raise MediaError(f"{name} is MP4 with a compressed header, which is not read; convert it first")
        if kind == b"trak":
            samples += track.entries
            track = _Track()
        elif kind == b"trun":  # 8.8.8: samples of a fragment
            samples += first
        elif kind == b"elst":  # 8.6.6: edits, each of which may show all samples again
            track.edits = max(track.edits, first)
        elif kind == b"stts":  # 8.6.1.2: runs; samples and duration of the first
            track.steps.append((first, third))
        elif kind == b"hdlr":  # 8.4.3: reserved, then the kind of track
            track.handlers.append(fields[8:12])
        else:  # 8.7.3: one size for all or none, samples
            track.samples += second
    samples += track.entries
    if samples > MOST_SAMPLES:
        raise TooLargeError(
            f"{name} promises {samples} samples of video and sound, at most {MOST_SAMPLES} are read; "
            "cut a piece out of it first"
        )


class _Track:
    """What the tables of a track promise."""

    def __init__(self) -> None:
        self.samples = 0
        self.edits = 1
        self.steps: list[tuple[int, int]] = []
        self.handlers: list[bytes] = []

    @property
    def entries(self) -> int:
        """How many entries FFmpeg makes: of uncompressed sound, where every step is 1, none for each sample."""
        uncompressed = {*self.handlers} - _OTHER_HANDLERS == {b"soun"} and {*self.steps} == {(1, 1)}
        return 0 if uncompressed else self.samples * self.edits


def _tables(file: BinaryIO, name: str) -> Iterator[tuple[bytes, bytes]]:
    """Each of the boxes that matter, with its first bytes: everywhere but in ``mdat``, the samples themselves."""
    size = file.seek(0, io.SEEK_END)
    place = 0
    for _ in range(_MOST_BOXES):
        file.seek(place)
        head = file.read(16)
        if len(head) < 8:
            return
        length = int.from_bytes(head[:4])
        if length == 1:
            length = int.from_bytes(head[8:])
        end = min(place + length, size) if length >= 8 else size
        if head[4:8] != b"mdat":
            yield from _found(file, place, end)
        place = end
    raise MediaError(f"{name} is MP4 in more than {_MOST_BOXES} boxes, which is not read")


def _found(file: BinaryIO, place: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    file.seek(place)
    part = b""
    while place < end:
        part += file.read(min(_CHUNK, end - place))
        place = file.tell()
        done = len(part) - _LONGEST if place < end else len(part)
        for match in _KINDS.finditer(part):
            if match.start() >= done:
                break
            yield match[1], part[match.start() + 4 : match.start() + _LONGEST]
        part = part[max(0, done) :]
