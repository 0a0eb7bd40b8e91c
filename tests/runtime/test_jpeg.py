"""JPEG files that are cut, strange, or very large."""

from __future__ import annotations

import base64
import contextlib
import io
import re
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from runtime.errors import MediaError, TooLargeError
from runtime.media.jpeg import MOST_SEGMENTS, MOST_VALUES
from runtime.media.pictures import MAX_PIXELS, read_image, read_picture
from tests.pictures import RGB, as_pillow_shows_it, encode, with_orientation, with_segment

END = b"\xff\xd9"
NO_END = "the JPEG has no end marker; nothing of the picture is missing"
CHANCE = np.random.default_rng(3)
SOFT = Image.fromarray(CHANCE.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((256, 192), Image.BICUBIC)
KINDS = {
    "4:2:0": {"quality": 90},
    "4:4:4": {"quality": 95, "subsampling": 0},
    "4:2:2, own tables": {"quality": 60, "subsampling": 1, "optimize": True},
    "restarts": {"quality": 80, "restart_marker_rows": 1},
}

# The picture of 16×16 pixels that Pillow writes with quality 60, as jpegtran changes it without loss.
ARITHMETIC = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxOUlNSMj5aYVpQ"
    "YEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT0//yQARCAAQ"
    "ABADASIAAhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPwD/AHhxVHHnZPP231HEzUFdsxfJVk6yq5x9tXP/2Q=="
)
ARITHMETIC_PROGRESSIVE = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxOUlNSMj5aYVpQ"
    "YEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT0//ygARCAAQ"
    "ABADASIAAhEBAxEB/8wABgAQARD/2gAMAwEAAhADEAAAAf7wwCCg/8wABBAF/9oACAEBAAEFAh6otu1J/8wABBEF/9oACAEDAQE/ARVr/8wABBEF"
    "/9oACAECAQE/AQ//zAAEEAX/2gAIAQEABj8CwP/MAAQQBf/aAAgBAQABPyHTSVMY/9oADAMBAAIAAwAAABBQ/8wABBEF/9oACAEDAQE/ENUe/8wA"
    "BBEF/9oACAECAQE/EPD/zAAEEAX/2gAIAQEAAT8Q11P+CP/Z"
)
ONE_COLOUR_A_PASS = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxOUlNSMj5aYVpQ"
    "YEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT0//wAARCAAQ"
    "ABADASIAAhEBAxEB/8QAHwAAAQUBAQEBAQEAAAAAAAAAAAECAwQFBgcICQoL/8QAtRAAAgEDAwIEAwUFBAQAAAF9AQIDAAQRBRIhMUEGE1FhByJx"
    "FDKBkaEII0KxwRVS0fAkM2JyggkKFhcYGRolJicoKSo0NTY3ODk6Q0RFRkdISUpTVFVWV1hZWmNkZWZnaGlqc3R1dnd4eXqDhIWGh4iJipKTlJWW"
    "l5iZmqKjpKWmp6ipqrKztLW2t7i5usLDxMXGx8jJytLT1NXW19jZ2uHi4+Tl5ufo6erx8vP09fb3+Pn6/9oACAEBAAA/AOTtNM6fLW5Z6Z0+Wtaz"
    "0zp8tblppnT5a//EAB8BAAMBAQEBAQEBAQEAAAAAAAABAgMEBQYHCAkKC//EALURAAIBAgQEAwQHBQQEAAECdwABAgMRBAUhMQYSQVEHYXETIjKB"
    "CBRCkaGxwQkjM1LwFWJy0QoWJDThJfEXGBkaJicoKSo1Njc4OTpDREVGR0hJSlNUVVZXWFlaY2RlZmdoaWpzdHV2d3h5eoKDhIWGh4iJipKTlJWW"
    "l5iZmqKjpKWmp6ipqrKztLW2t7i5usLDxMXGx8jJytLT1NXW19jZ2uLj5OXm5+jp6vLz9PX29/j5+v/aAAgBAhEAPwAhM//aAAgBAxEAPwAyzM9t"
    "T//Z"
)


def ends_of_passes(data: bytes) -> list[int]:
    """Where the entropy-coded data of each pass end."""
    marker = re.compile(rb"\xff[^\0\xd0-\xd7]")
    starts = [found.end() for found in re.finditer(rb"\xff\xda", data)]
    return [
        marker.search(data, start + int.from_bytes(data[start : start + 2], "big")).start()  # type: ignore[union-attr]
        for start in starts
    ]


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.97])
@pytest.mark.parametrize("grey", [False, True], ids=["colour", "grey"])
@pytest.mark.parametrize("kind", KINDS)
def test_half_a_picture_with_an_end_marker_is_damaged(kind: str, grey: bool, share: float) -> None:
    data = encode(SOFT.convert("L") if grey else SOFT, **KINDS[kind])
    np.testing.assert_array_equal(read_image(data), as_pillow_shows_it(data))
    start = data.index(b"\xff\xda") + 14
    cut = start + int(share * (len(data) - 2 - start))
    for end in (END, b"", b"\xff", bytes(len(data) - cut)):
        with pytest.raises(MediaError, match=r"the JPEG is (damaged or )?truncated"):
            read_image(data[:cut] + end)


@settings(max_examples=60)
@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    level=st.sampled_from([0, 1, 127, 128, 129, 254, 255]),
    rough=st.sampled_from([0, 0, 1, 40]),
    options=st.sampled_from(
        [*KINDS.values(), {"progressive": True}, {"progressive": True, "restart_marker_blocks": 3}]
    ),
    grey=st.booleans(),
)
def test_no_whole_picture_is_called_damaged(width, height, level, rough, options, grey) -> None:
    """Flat pictures end in long runs of nothing, and mid-grey is what a decoder fills the missing rest with."""
    values = np.full((height, width, 3), level, np.uint8)
    values[: height // 2] += CHANCE.integers(0, 1 + rough, (height // 2, width, 3), dtype=np.uint8)
    image = Image.fromarray(values)
    data = encode(image.convert("L") if grey else image, **options)
    endings = [(END, None), (END + b"rubbish", None), (b"\xff", NO_END)]
    if not data[:-2].endswith(bytes(3)):  # zeros at the end may be data or filled up; the picture is refused
        endings.append((b"", NO_END))
    for ending, note in endings:
        picture = read_picture(data[:-2] + ending)
        np.testing.assert_array_equal(picture.pixels, as_pillow_shows_it(data))
        assert picture.note == note


@pytest.mark.parametrize("kind", [*KINDS, "progressive"])
def test_a_picture_without_its_end_marker_is_read_with_a_note(kind: str) -> None:
    data = encode(SOFT, exif=with_orientation(6), **KINDS.get(kind, {"progressive": True}))
    for ending in (b"", b"\xff", bytes(600)):  # half of the marker; what a file system fills up with
        picture = read_picture(data[:-2] + ending)
        assert picture.note == NO_END
        assert (picture.width, picture.height) == (192, 256)
        np.testing.assert_array_equal(picture.pixels, as_pillow_shows_it(data))
    for missing in (4, 8, 20):
        with pytest.raises(MediaError, match="truncated"):
            read_picture(data[: -2 - missing])


def test_a_progressive_picture_that_breaks_off_is_read_with_a_note_while_all_of_it_is_there() -> None:
    data = encode(SOFT, quality=90, progressive=True)
    first, *others, last = ends_of_passes(data)
    assert len(others) >= 6
    for end in (*others, others[0] + 40, (others[-1] + last) // 2):
        if data[end : end + 2] == b"\xff\xda" or end == (others[-1] + last) // 2:
            continue
        shown = read_picture(data[:end] + END)
        assert shown.note == "the JPEG breaks off: passes that refine the picture are missing"
        np.testing.assert_array_equal(shown.pixels, as_pillow_shows_it(data[:end] + END))
        with pytest.raises(MediaError, match="truncated"):
            read_picture(data[:end])
    for end in (first, first // 2 + 300):
        with pytest.raises(MediaError, match="truncated"):
            read_picture(data[:end] + END)


def test_colours_that_are_missing_are_damage() -> None:
    whole = as_pillow_shows_it(ONE_COLOUR_A_PASS)
    np.testing.assert_array_equal(read_image(ONE_COLOUR_A_PASS), whole)
    for end in ends_of_passes(ONE_COLOUR_A_PASS)[:2]:
        with pytest.raises(MediaError, match="the JPEG is truncated: its data end before the picture does"):
            read_image(ONE_COLOUR_A_PASS[:end] + END)


@pytest.mark.parametrize("data", [ARITHMETIC, ARITHMETIC_PROGRESSIVE], ids=["sequential", "progressive"])
def test_arithmetic_coding_is_read(data: bytes) -> None:
    np.testing.assert_array_equal(read_image(data), as_pillow_shows_it(data))


@pytest.mark.parametrize(
    ("marker", "change", "words"),
    [
        (0xC3, {}, "of the kind lossless"),
        (0xF7, {}, "of the kind LS"),
        (0xC5, {}, "of the kind hierarchical"),
        (0xC0, {4: 12}, "12 bits a value, 8 are decoded"),
        (0xC0, {9: 2}, "2 colours"),
        (0xC0, {11: 0x51}, "sampling factors"),
        (0xC0, {10: 7}, r"data of the colours \[1\]"),
        (0xC0, {5: 0, 6: 0}, "a size of 64×0"),
    ],
    ids=["lossless", "LS", "hierarchical", "12 bits", "two colours", "sampling", "identifier", "no height"],
)
def test_kinds_that_are_not_decoded_are_named(marker: int, change: dict[int, int], words: str) -> None:
    data = bytearray(encode(RGB))
    place = data.index(b"\xff\xc0")
    data[place + 1] = marker
    for offset, value in change.items():
        data[place + offset] = value
    with pytest.raises(MediaError, match=words):
        read_image(bytes(data))


def test_two_pictures_in_one_and_none() -> None:
    data = encode(RGB)
    frame = data[(place := data.index(b"\xff\xc0")) : place + 19]
    with pytest.raises(MediaError, match="two pictures in one"):
        read_image(data[:place] + frame + data[place:])
    for rest in (b"", b"\xff\xfe\0\2" * 5):
        with pytest.raises(MediaError, match="it ends before its picture"):
            read_image(data[:place] + rest + END)


def test_thousands_of_passes_are_refused_before_the_first() -> None:
    """Each is a few bytes that say "nothing new in these 32,767 blocks"; OpenCV would go over the picture each time."""
    data = encode(Image.new("L", (4000, 3000), 90), progressive=True)
    first = ends_of_passes(data)[0]
    table = b"\xff\xc4" + struct.pack(">H", 20) + b"\x10\1" + bytes(15) + b"\xe0"
    scan = b"\xff\xda" + struct.pack(">HBBB", 8, 1, 1, 0) + b"\1\x3f\0" + bytes(30)
    many = data[:first] + table + scan * 300 + data[first:]
    assert MOST_VALUES < 300 * 4000 * 3000
    with pytest.raises(TooLargeError, match="passes over 12000000 values"):
        read_image(many)


def test_a_flood_of_segments_is_refused() -> None:
    with pytest.raises(MediaError, match=f"more than {MOST_SEGMENTS} segments"):
        read_image(with_segment(encode(RGB), b"")[:6] * 2 + b"\xff\xfe\0\2" * (MOST_SEGMENTS + 1) + encode(RGB)[2:])
    start = encode(RGB).index(b"\xff\xda") + 14
    with contextlib.suppress(MediaError):  # for minutes, if each of these bytes were looked at for itself
        read_image(encode(RGB)[:start] + b"\xff\0" * 200_000 + b"\xff" * 400_000)


@pytest.mark.parametrize("size", [(65535, 65535), (65500, 50000)])
def test_a_header_that_claims_gigapixels(size: tuple[int, int]) -> None:
    data = bytearray(encode(RGB))
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", size[1], size[0])
    with pytest.raises(TooLargeError, match="pixels, and read at 1/8 of its size, at most 50000000 are read"):
        read_picture(bytes(data))


def drafted(data: bytes, scale: int) -> np.ndarray:
    """What Pillow makes of libjpeg's own reduction."""
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", (image.width // scale, image.height // scale))
    return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize(
    "options", [{}, {"subsampling": 0}, {"restart_marker_rows": 1}], ids=["4:2:0", "4:4:4", "restarts"]
)
@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_a_large_photo_is_read_at_a_fraction_of_its_size(scale: int, options: dict[str, object]) -> None:
    data = encode(SOFT.resize((301, 203)), quality=92, **options)
    most = -(-301 // scale) * -(-203 // scale)
    picture = read_picture(data, max_pixels=most)
    assert (picture.scale, picture.width, picture.height) == (scale, 301, 203)
    np.testing.assert_array_equal(picture.pixels, drafted(data, scale))
    if scale < 8:
        assert read_picture(data, max_pixels=most - 1).scale == 2 * scale
    with pytest.raises(TooLargeError, match="at most 200 are read"):
        read_picture(data, max_pixels=200)
    with pytest.raises(TooLargeError, match=r"301×203 pixels, at most 61102 are read; scale it down first"):
        read_image(data, max_pixels=301 * 203 - 1)


def test_passes_need_memory_for_the_whole_picture_at_any_scale() -> None:
    """4:4:4 in several passes is six bytes a pixel beside the picture; nine for each allowed pixel may be used."""
    data = encode(SOFT.resize((400, 400)), subsampling=0, progressive=True)
    assert read_picture(data, max_pixels=160_000).scale == 1
    assert read_picture(data, max_pixels=130_000).scale == 2
    with pytest.raises(TooLargeError, match=r"takes \d+ bytes of memory to decode, at most 900000 are used"):
        read_picture(data, max_pixels=100_000)
    assert read_picture(encode(SOFT.resize((400, 400)), subsampling=0), max_pixels=100_000).scale == 2


@pytest.mark.parametrize("turned", range(1, 9))
def test_a_reduced_photo_is_upright_and_knows_its_size(turned: int) -> None:
    data = encode(SOFT, exif=with_orientation(turned))
    picture = read_picture(data, max_pixels=20_000)
    whole = as_pillow_shows_it(data)
    assert picture.scale == 2
    assert (picture.height, picture.width) == whole.shape[:2]
    halves = np.asarray(Image.fromarray(whole).resize((picture.width // 2, picture.height // 2), Image.BOX))
    assert np.abs(picture.pixels.astype(int) - halves).mean() < 4


def test_fifty_megapixels_of_a_phone_are_read_at_a_half() -> None:
    picture = read_picture(encode(Image.new("RGB", (8160, 6144), (200, 30, 60)), quality=30))
    assert MAX_PIXELS < 8160 * 6144
    assert (picture.scale, picture.width, picture.height) == (2, 8160, 6144)
    assert picture.pixels.shape == (3072, 4080, 3)
    assert np.abs(picture.pixels[::100, ::100].astype(int) - (200, 30, 60)).max() <= 3
