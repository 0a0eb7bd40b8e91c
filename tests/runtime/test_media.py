"""Pictures of every kind against Pillow, and everything broken refused by a child of InputError."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from runtime.child import run_python
from runtime.errors import InputError, MediaError, MissingExtraError, TooLargeError
from runtime.media.headers import PICTURE_TYPES, picture_type, read_header
from runtime.media.pictures import Picture, read_image, read_picture, write_jpeg, write_png
from tests.pictures import DECODES_GIF, PICTURES, PIXELS, RGB, as_pillow_shows_it, chunk, encode, png, png16


@pytest.mark.parametrize("name", PICTURES)
def test_every_kind_of_picture_as_pillow_shows_it(name: str) -> None:
    if not DECODES_GIF and name.startswith("gif"):
        with pytest.raises(MediaError, match=r"this OpenCV \(4.* has no decoder for"):
            read_image(PICTURES[name])
        return
    image = read_image(PICTURES[name])
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image, as_pillow_shows_it(PICTURES[name]))


@pytest.mark.parametrize("kind", ["CMYK", "CMYK without Adobe's segment", "YCCK"])
def test_cmyk_jpeg_within_one_level_of_pillow(kind: str) -> None:
    data = encode(RGB.convert("CMYK"), quality=95)
    adobe = data.index(b"\xff\xeeAdobe"[:2])
    assert data[adobe + 4 : adobe + 9] == b"Adobe"
    if kind == "YCCK":
        data = data[: adobe + 15] + b"\2" + data[adobe + 16 :]  # the same numbers, called luminance and chroma
    elif kind != "CMYK":
        data = data[:adobe] + data[adobe + 16 :]
    difference = read_image(data).astype(int) - as_pillow_shows_it(data)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("name", PICTURES)
def test_truncated_pictures_are_refused_wherever_they_are_cut(name: str) -> None:
    """A JPEG may lack its end marker and a GIF what follows its first picture, but never a part of the picture."""
    data = PICTURES[name]
    needed = len(data)
    if name.startswith("gif"):
        needed = len(data) - 1 if "animated" not in name else len(PICTURES["gif"]) - 1
    ends = {*range(0, needed - 1, max(1, needed // 50)), *(needed - k for k in (1, 2, 3, 5, 8, 13))}
    for end in sorted(ends):
        try:
            picture = read_picture(data[:end])
        except MediaError:
            continue
        assert name.startswith("jpeg")
        assert end >= len(data) - 3, "the end marker, and a byte that may hold no more than padding"
        assert "no end marker" in str(picture.note)
        np.testing.assert_array_equal(picture.pixels, read_image(data))


def test_rubbish_after_a_jpeg_is_no_damage() -> None:
    np.testing.assert_array_equal(read_image(PICTURES["jpeg"] + b"MPF and motion photos"), read_image(PICTURES["jpeg"]))


def test_16_bits_become_8_rounded() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.rint(values / 257).astype(np.uint8)
    np.testing.assert_array_equal(read_image(png16(values)), np.repeat(expected[..., None], 3, axis=2))
    colours = np.stack([values, values[::-1], values.T], axis=2)
    np.testing.assert_array_equal(read_image(png16(colours)), np.stack([expected, expected[::-1], expected.T], axis=2))


def test_a_transparent_grey_of_16_bits_lies_over_white() -> None:
    rows = b"\0" + struct.pack(">HH", 100 * 257, 7)
    data = png(2, 1, rows, depth=16, colour=0, before=chunk(b"tRNS", struct.pack(">H", 7)))
    np.testing.assert_array_equal(read_image(data)[0, :, 0], [100, 255])


def test_transparency_lies_over_white() -> None:
    value, alpha = np.meshgrid(np.arange(256), np.arange(256))
    rgba = np.stack([value, value, 255 - value, alpha], axis=2).astype(np.uint8)
    over = np.stack([np.rint((v * alpha + 255 * (255 - alpha)) / 255) for v in (value, value, 255 - value)], axis=2)
    np.testing.assert_array_equal(read_image(rgba), over)
    np.testing.assert_array_equal(read_image(encode(Image.fromarray(rgba), "PNG")), over)
    wide = rgba.astype(np.uint16) * 257
    np.testing.assert_array_equal(read_image(wide), over)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in wide)
    np.testing.assert_array_equal(read_image(png(256, 256, rows, depth=16, colour=6)), over)


@pytest.mark.parametrize(
    "array", [PIXELS, PIXELS[::-1], np.asfortranarray(PIXELS), PIXELS[:, :, 0], PIXELS[:, :, :1]], ids=range(5)
)
def test_arrays(array: np.ndarray) -> None:
    image = read_image(array)
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image, np.broadcast_to(array.reshape(*array.shape[:2], -1), image.shape))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (PIXELS.astype(np.float32) / 255, "got float32; scale and convert them first"),
        (PIXELS.astype(np.int64), "got int64"),
        (PIXELS[None], r"got \(1, 48, 64, 3\)"),
        (PIXELS[0, 0], r"got \(3,\)"),
        (PIXELS[:, :, :2], r"got \(48, 64, 2\)"),
        (PIXELS[:0], r"got \(0, 64, 3\)"),
    ],
    ids=["float", "int64", "batch", "vector", "two channels", "no rows"],
)
def test_arrays_that_are_no_pictures(array: np.ndarray, words: str) -> None:
    with pytest.raises(MediaError, match=words):
        read_image(array)


def test_files_and_npy(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", PIXELS)
    np.save(tmp_path / "a.npy", PIXELS)
    (tmp_path / "wrong-suffix.txt").write_bytes(PICTURES["png"])
    for name in ("a.png", "a.npy", "wrong-suffix.txt"):
        np.testing.assert_array_equal(read_image(tmp_path / name), PIXELS)
        np.testing.assert_array_equal(read_image(str(tmp_path / name)), PIXELS)
    np.testing.assert_array_equal(read_image(memoryview(PICTURES["png"])), PIXELS)
    write_png(tmp_path / "flipped.png", PIXELS[:, ::-1])
    np.testing.assert_array_equal(read_image(tmp_path / "flipped.png"), PIXELS[:, ::-1])
    write_jpeg(tmp_path / "a.jpg", PIXELS)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - PIXELS).mean() < 12
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.size == (64, 48)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"none\.png: No such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(MediaError, match="not a file"):
        read_image(tmp_path)
    with pytest.raises(MediaError):
        read_image("a\0b")
    with pytest.raises(InputError, match="or an image of Pillow, got int"):
        read_image(7)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="No such file"):
        write_png(tmp_path / "no" / "a.png", PIXELS)
    with pytest.raises(InputError, match="uint8"):
        write_png(tmp_path / "a.png", PIXELS.astype(np.float32))  # type: ignore[arg-type]


def test_limits_hold_before_anything_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    def decoded(*_: object) -> None:
        raise AssertionError("the picture was decoded")

    monkeypatch.setattr(cv2, "imdecode", decoded)
    for name, data in PICTURES.items():
        with pytest.raises(TooLargeError, match=r"pixels, at most 3071 are read"):
            read_image(data, max_pixels=48 * 64 - 1)
        with pytest.raises(TooLargeError, match="bytes"):
            read_image(data, max_bytes=len(data) - 1)
        (tmp_path / name).write_bytes(data)
        with pytest.raises(TooLargeError, match="more than 20 bytes"):
            read_image(tmp_path / name, max_bytes=20)
    with pytest.raises(TooLargeError, match="64×48 pixels"):
        read_image(PIXELS, max_pixels=100)


def test_the_types_that_are_read_are_known_by_their_first_bytes() -> None:
    kinds = {"jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp", "gif": "image/gif", "bmp": "image/bmp"}
    assert {picture_type(data[:18]) for data in PICTURES.values()} == set(kinds.values()) < set(PICTURE_TYPES)
    for name, data in PICTURES.items():
        assert picture_type(data[:18]) == kinds[name.split()[0]]
    for data in (b"", b"BMW is a car, not a picture", b"RIFF....WAVE", b"GIF88a", b"\x89PNG\n"):
        assert picture_type(data) is None


def test_a_picture_knows_its_size_and_stays_as_it_is() -> None:
    picture = read_picture(PICTURES["jpeg turned 6"])
    assert (picture.width, picture.height, picture.scale, picture.note) == (48, 64, 1, None)
    assert picture.pixels.shape == (64, 48, 3)
    assert read_picture(picture) is picture
    array = read_picture(PIXELS)
    assert isinstance(array, Picture)
    assert (array.width, array.height) == (64, 48)


def test_a_damaged_png_is_refused() -> None:
    data = bytearray(PICTURES["png"])
    data[data.index(b"IDAT") + 20] ^= 1
    with pytest.raises(MediaError, match="checksum of its IDAT chunk"):
        read_image(bytes(data))


def test_a_header_that_does_not_fit_its_content() -> None:
    data = bytearray(PICTURES["webp lossless"])
    assert read_header(bytes(data)).width == 64
    frame = bytearray(PICTURES["jpeg"])
    place = frame.index(b"\xff\xc0")
    frame[place + 5 : place + 7] = struct.pack(">H", 40)
    assert read_image(bytes(frame)).shape == (40, 64, 3)  # JPEG: the frame header is the only authority


@pytest.mark.skipif(not DECODES_GIF, reason="this OpenCV has no decoder for GIF")
def test_a_gif_is_shown_as_pillow_shows_it_whatever_its_screen_says() -> None:
    data = PICTURES["gif"]
    for screen in ((0, 0), (64, 48), (100, 70), (10, 10)):
        changed = data[:6] + struct.pack("<HH", *screen) + data[10:]
        np.testing.assert_array_equal(read_image(changed), as_pillow_shows_it(changed))
    strange = data[:11] + b"\xff" + data[12:]  # a background that is none of its colours
    np.testing.assert_array_equal(read_image(strange), read_image(data))


SMALL = [PICTURES[name] for name in ("jpeg", "jpeg progressive", "jpeg turned 6", "jpeg restarts", "png animated",
                                      "png palette transparent", "webp", "webp alpha", "webp animated", "bmp",
                                      "gif animated", "gif transparent")]  # fmt: skip
SMALL += [
    encode(RGB.quantize(16), "BMP"),
    encode(RGB, "PNG", exif=b"Exif\0\0" + bytes(40)),
    png16(PIXELS[..., 0].astype(np.uint16)),
]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(SMALL),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), max_size=8),
    st.integers(0, 200),
)
def test_damaged_pictures_raise_nothing_but_input_errors(data: bytes, flips: list[tuple[int, int]], near: int) -> None:
    damaged = bytearray(data)
    for index, (place, mask) in enumerate(flips):
        # Every other one hits the header, where the structure is.
        damaged[place % (len(damaged) if index % 2 else near + 1) % len(damaged)] ^= mask
    try:
        picture = read_picture(bytes(damaged), max_pixels=1_000_000)
    except InputError:
        return
    assert picture.pixels.shape[2] == 3


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(
        [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\1\0\0WEBP", b"GIF89a", b"BM", b"\x93NUMPY\1\0"]
    ),
    st.binary(max_size=200),
)
def test_random_bytes_raise_nothing_but_input_errors(magic: bytes, data: bytes) -> None:
    try:
        image = read_image(magic + data, max_pixels=1_000_000)
    except InputError:
        return
    assert image.ndim == 3


def test_opencv_is_not_needed_for_arrays_and_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", PIXELS)
    (tmp_path / "a.png").write_bytes(PICTURES["png"])
    code = """
import sys
sys.modules["cv2"] = None
import numpy as np
from runtime.media.pictures import opencv, read_image
print(read_image(sys.argv[1] + "/a.npy").shape, read_image(np.zeros((2, 2), np.uint8)).shape)
try:
    read_image(sys.argv[1] + "/a.png")
except Exception as error:
    print(type(error).__name__, error)
"""
    done = run_python(code, str(tmp_path))
    assert done.stdout.splitlines() == [
        "(48, 64, 3) (2, 2, 3)",
        f"MissingExtraError {MissingExtraError('opencv-python-headless', 'media')}",
    ], done.stderr


@pytest.mark.data
def test_real_photos_as_pillow_shows_them(shared_data: Path) -> None:
    photos = sorted((shared_data / "photos").glob("*.*"))
    pictures = [path for path in photos if path.suffix in (".jpg", ".png")]
    assert pictures
    for path in pictures:
        difference = np.abs(read_image(path).astype(int) - as_pillow_shows_it(path.read_bytes()))
        assert difference.max() <= 2, path
