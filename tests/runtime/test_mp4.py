"""Tables of an MP4 that promise more than its file could hold."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import pytest

from runtime.errors import MediaError, TooLargeError
from runtime.media.clips import read_frames
from runtime.media.frames import FrameSampling
from runtime.media.mp4 import MOST_SAMPLES, check_tables
from tests.videos import KINDS, Kind, film

PARENTS = frozenset((b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"moof", b"traf"))
GOOD = film(KINDS["H.264 in MP4"], 5)
FRAGMENTS = film(Kind("mp4", "mpeg4", options={"g": "2"}), 6, muxer={"movflags": "frag_keyframe+empty_moov"})
MANY = 100_000_000


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def changed(data: bytes, change: Callable[[bytes, bytes], bytes]) -> bytes:
    """The boxes of a file, the body of each that is no parent as `change` gives it."""
    result, place = b"", 0
    while place < len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        body = data[place + 8 : place + length]
        result += box(kind, changed(body, change) if kind in PARENTS else change(kind, body))
        place += length
    return result


def with_body(wanted: bytes, body: bytes) -> Callable[[bytes, bytes], bytes]:
    return lambda kind, found: body if kind == wanted else found


FORGED = {
    "one size for all": changed(GOOD, with_body(b"stsz", struct.pack(">III", 0, 1, MANY))),
    "samples of a fragment": changed(
        FRAGMENTS, lambda kind, body: body[:4] + struct.pack(">I", MANY) + body[8:] if kind == b"trun" else body
    ),
    "edits": changed(GOOD, with_body(b"elst", struct.pack(">II", 0, MANY) + bytes(12))),
    "in a box of 64 bits": struct.pack(">I4sQ", 1, b"skip", 36) + box(b"stsz", struct.pack(">III", 0, 1, MANY)) + GOOD,
    "behind an empty table": changed(
        GOOD, lambda kind, body: bytes(8) + box(b"stsz", struct.pack(">III", 0, 1, MANY)) if kind == b"stts" else body
    ),
    "in a strange place": changed(GOOD, with_body(b"stts", b"\0stts" + box(b"stsz", struct.pack(">III", 0, 1, MANY)))),
    "half a name before": changed(GOOD, with_body(b"stts", b"\0\0stt" + b"stsz" + struct.pack(">III", 0, 1, MANY))),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
def test_a_few_bytes_cannot_promise_millions_of_samples(name: str) -> None:
    for data in (GOOD, FRAGMENTS):
        check_tables(io.BytesIO(data), "it")
    with pytest.raises(TooLargeError, match=rf"it promises \d{{9,}} samples .* at most {MOST_SAMPLES} are read"):
        check_tables(io.BytesIO(FORGED[name]), "it")
    with pytest.raises(TooLargeError, match="promises"):
        read_frames(FORGED[name], FrameSampling.even(3))


def test_uncompressed_sound_has_a_sample_for_each_moment() -> None:
    def track(handler: bytes, step: int) -> bytes:
        tables = box(b"stts", struct.pack(">IIII", 0, 1, MANY, step)) + box(b"stsz", struct.pack(">III", 0, 2, MANY))
        media = box(b"hdlr", bytes(8) + handler + bytes(12)) + box(b"minf", box(b"stbl", tables))
        return box(b"moov", box(b"trak", box(b"mdia", media)))

    check_tables(io.BytesIO(track(b"soun", 1)), "it")
    for handler, step in ((b"soun", 1024), (b"vide", 1), (b"tmcd", 1)):
        with pytest.raises(TooLargeError, match="promises"):
            check_tables(io.BytesIO(track(handler, step)), "it")


def test_samples_are_not_taken_for_tables() -> None:
    noise = b"stsz" + bytes(8) + b"\xff" * 8 + b"trun" + b"\xff" * 20 + b"cmov"
    check_tables(io.BytesIO(box(b"mdat", noise) + GOOD), "it")
    check_tables(io.BytesIO(GOOD + struct.pack(">I4s", 0, b"mdat") + noise), "it")


def test_tables_across_the_parts_that_are_read_at_once() -> None:
    table = box(b"stsz", struct.pack(">III", 0, 1, MANY))
    for before in range((1 << 20) - 40, (1 << 20) + 8):
        with pytest.raises(TooLargeError):
            check_tables(io.BytesIO(box(b"udta", bytes(before) + table + bytes(100))), "it")


def test_what_is_not_read() -> None:
    with pytest.raises(MediaError, match="compressed header"):
        check_tables(io.BytesIO(box(b"moov", box(b"cmov", bytes(20)))), "it")
    with pytest.raises(MediaError, match="in more than 200000 boxes"):
        check_tables(io.BytesIO(box(b"mdat", b"") * 200_001), "it")
