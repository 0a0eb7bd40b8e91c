"""Which way up a picture is, against Pillow: over generated EXIF blocks, and wherever in a file they stand."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from runtime.media.exif import orientation
from runtime.media.pictures import read_image
from tests.pictures import PICTURES, RGB, as_pillow_shows_it, chunk, encode, with_segment

SIDEWAYS = encode(RGB, "PNG")
XMP = b"http://ns.adobe.com/xap/1.0/\0"


def exif(value: int, kind: int = 3, order: str = ">", count: int = 1, tag: int = 0x112) -> bytes:
    """EXIF with one tag, of the type SHORT unless another is given; bytes that do not fit follow the directory."""
    letters = {1: "B", 3: "H", 4: "L", 5: "LL", 6: "b", 8: "h", 9: "l", 10: "ll", 11: "f", 12: "d"}[kind]
    packed = struct.pack(order + letters, *((value, 1) if len(letters) == 2 else (value,))) * count
    place = packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack(order + "L", 8 + 2 + 12 + 4)
    tiff = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(order + "L", 8)
    directory = struct.pack(order + "HHHL", 1, tag, kind, count) + place + bytes(4)
    return b"Exif\0\0" + tiff + directory + (packed if len(packed) > 4 else b"")


def as_pillow_reads(block: bytes, xmp: bytes | None = None) -> int | None:
    """Pillow's orientation; None where it raises, which no picture may do."""
    image = Image.new("L", (2, 3))
    image.info = {"exif": block} | ({} if xmp is None else {"xmp": xmp})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            value = image.getexif().get(0x112, 1)
        except Exception:
            return None
    return {number: number for number in range(1, 9)}.get(value, 1)


ENTRIES = st.tuples(
    st.sampled_from([0x112, 0x112, 0x10F, 0x8769]),
    st.integers(0, 17),
    st.integers(0, 5),
    st.sampled_from([b"\0\6\0\0", b"\6\0\0\0", b"\0\0\0\6", b"\0\0\0\x20"]) | st.binary(min_size=4, max_size=4),
)  # fmt: skip
TAILS = [b"", bytes(4), b"\0\6" * 20, b"\6\0\0\0\1\0\0\0" * 6, b"\0\0\0\6\0\0\0\1" * 6, struct.pack(">f", 6) * 9]
PACKETS = [None, b"", b'<x tiff:Orientation="6"/>', b"<tiff:Orientation>8</tiff", b'tiff:Orientation="0"']


@settings(max_examples=500)
@given(
    magic=st.sampled_from([b"II*\0", b"MM\0*", b"II\0*", b"MM*\0", b"XX*\0"]),
    gap=st.integers(0, 4),
    entries=st.lists(ENTRIES, max_size=4),
    fewer=st.booleans(),
    tail=st.sampled_from(TAILS),
    prefix=st.sampled_from([b"", b"Exif\0\0", b"Exif\0\0Exif\0\0"]),
    xmp=st.sampled_from(PACKETS),
)
def test_generated_blocks_are_read_as_pillow_reads_them(magic, gap, entries, fewer, tail, prefix, xmp) -> None:
    order = "<" if magic[:1] == b"I" else ">"
    block = prefix + magic + struct.pack(order + "L", 8 + gap) + bytes(gap)
    block += struct.pack(order + "H", max(0, len(entries) - fewer))
    block += b"".join(struct.pack(order + "HHL", *entry[:3]) + entry[3] for entry in entries) + bytes(4) + tail
    expected = as_pillow_reads(block, xmp)
    assert orientation(block, xmp) in ({expected} if expected is not None else range(1, 9))


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_anything_else_is_no_orientation(block: bytes) -> None:
    assert orientation(block) == (as_pillow_reads(block) or 1)


@pytest.mark.parametrize("order", [">", "<"])
@pytest.mark.parametrize(
    ("kind", "count", "value", "expected"),
    [
        (3, 1, 6, 6),
        (4, 1, 6, 6),
        (1, 1, 6, 1),  # Pillow reads bytes, which are no number
        (8, 1, 6, 6),
        (11, 1, 6, 6),
        (5, 1, 6, 6),
        (3, 3, 6, 6),
        (3, 1, 0, 1),
        (3, 1, 9, 1),
        (9, 1, -6, 1),
    ],
    ids=["SHORT", "LONG", "BYTE", "SSHORT", "FLOAT", "RATIONAL", "three", "zero", "nine", "negative"],
)
def test_types_and_byte_orders(kind: int, count: int, value: int, expected: int, order: str) -> None:
    block = exif(value, kind, order, count)
    assert orientation(block) == as_pillow_reads(block) == expected


def test_a_tag_that_comes_again_is_passed_over_whatever_it_says() -> None:
    """Else the second maker's name, which lies outside of the block, would end the directory before the orientation."""
    entries = ((0x10F, 2, 2, b"A\0\0\0"), (0x10F, 2, 9, b"\0\0\0\x30"), (0x112, 3, 1, b"\0\6\0\0"))
    block = b"MM\0*\0\0\0\x08\0\3" + b"".join(struct.pack(">HHL", *entry[:3]) + entry[3] for entry in entries)
    assert orientation(block) == as_pillow_reads(block) == 6
    assert (
        orientation(block.replace(b"\1\x0f", b"\1\x10", 1))
        == as_pillow_reads(block.replace(b"\1\x0f", b"\1\x10", 1))
        == 1
    )


def jpeg(*bodies: bytes) -> bytes:
    """A JPEG with these APP1 segments, in this order."""
    data = encode(RGB, quality=95)
    for body in reversed(bodies):
        data = with_segment(data, body)
    return data


def after_the_picture(body: bytes) -> bytes:
    data = encode(RGB, quality=95)
    return data[:-2] + with_segment(b"\xff\xd8", body)[2:] + data[-2:]


def text(kind: bytes, keyword: bytes, value: bytes) -> bytes:
    packed = zlib.compress(value)
    return chunk(kind, keyword + b"\0" + {b"tEXt": value, b"zTXt": b"\0" + packed, b"iTXt": b"\1\0\0\0" + packed}[kind])


def raw_profile(block: bytes) -> bytes:
    digits = block.hex().encode()
    return b"\nexif\n%8d\n" % len(block) + b"\n".join(digits[i : i + 72] for i in range(0, len(digits), 72)) + b"\n"


def png(*chunks: bytes, at: int = 33) -> bytes:
    return SIDEWAYS[:at] + b"".join(chunks) + SIDEWAYS[at:]


def webp(*, xmp: bytes = b"", block: bytes = b"") -> bytes:
    return encode(RGB, "WEBP", lossless=True, exif=block, xmp=xmp)


SIX, THREE = exif(6), exif(3, 4, "<")
PACKET = b'<rdf tiff:Orientation="8"/>'
FILES = {
    "one": jpeg(SIX),
    "two": jpeg(SIX, exif(1, 3, "<")),
    "two, the first says nothing": jpeg(exif(6, tag=0x10F), SIX),
    "in two segments": jpeg(exif(6, 5)[:30], b"Exif\0\0" + exif(6, 5)[30:]),
    "XMP before": jpeg(XMP + b"<x/>", SIX),
    "XMP between": jpeg(SIX, XMP + PACKET, THREE),
    "XMP alone": jpeg(XMP + PACKET),
    "XMP twice": jpeg(XMP + PACKET, XMP + b"<tiff:Orientation>3</tiff:Orientation>"),
    "after the picture": after_the_picture(SIX),
    "of a long": jpeg(THREE),
    "of no sense": jpeg(exif(77)),
    "a segment of another kind": jpeg(b"Exif\0", SIX),
    "png": png(chunk(b"eXIf", SIX[6:])),
    "png with its prefix": png(chunk(b"eXIf", SIX)),
    "png twice": png(chunk(b"eXIf", SIX[6:]), chunk(b"eXIf", THREE[6:])),
    "png after its picture": png(chunk(b"eXIf", SIX[6:]), at=len(SIDEWAYS) - 12),
    "png raw profile": png(text(b"tEXt", b"Raw profile type exif", raw_profile(SIX))),
    "png raw profile, packed": png(text(b"zTXt", b"Raw profile type exif", raw_profile(SIX))),
    "png raw profile and eXIf": png(
        text(b"tEXt", b"Raw profile type exif", raw_profile(SIX)), chunk(b"eXIf", THREE[6:])
    ),
    "png XMP": png(text(b"iTXt", b"XML:com.adobe.xmp", PACKET)),
    "webp": webp(block=SIX),
    "webp XMP": webp(xmp=PACKET),
    "webp both": webp(block=THREE, xmp=PACKET),
}


@pytest.mark.parametrize("name", FILES)
def test_files_are_upright_as_pillow_shows_them(name: str) -> None:
    np.testing.assert_array_equal(read_image(FILES[name]), as_pillow_shows_it(FILES[name]))


def test_the_files_are_not_all_alike() -> None:
    turned = [Image.open(io.BytesIO(data)).getexif().get(0x112) for data in FILES.values()]
    assert {3, 6, 8, 77, None} <= set(turned)
    assert turned.count(6) > 8


@pytest.mark.parametrize("body", [b"\n\n\nnot hexadecimal", b"", b"\n\n\nab", b"\n\n\n\xff\xff"])
def test_a_damaged_profile_counts_as_none(body: bytes) -> None:
    data = png(text(b"tEXt", b"Raw profile type exif", body))
    np.testing.assert_array_equal(read_image(data), read_image(PICTURES["png"]))


def test_a_text_of_a_gigabyte_is_not_unpacked() -> None:
    bomb = zlib.compressobj(9)
    packed = b"".join(bomb.compress(bytes(1 << 20)) for _ in range(64)) + bomb.flush()
    data = png(chunk(b"zTXt", b"Raw profile type exif\0\0" + packed))
    np.testing.assert_array_equal(read_image(data), read_image(PICTURES["png"]))
