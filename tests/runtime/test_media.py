"""Pictures of every kind against Pillow, and everything broken refused by a child of InputError."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from runtime.child import run_python
from runtime.errors import InputError, MediaError, MissingExtraError, TooLargeError
from runtime.media.headers import exif_orientation, read_header
from runtime.media.pictures import opencv, read_image, write_jpeg, write_png

OPENCV = tuple(map(int, opencv().__version__.split(".")[:2]))
BLOCKS = np.random.default_rng(0).integers(0, 256, (6, 8, 3))
PIXELS = np.kron(BLOCKS, np.ones((8, 8, 1))).astype(np.uint8)  # (48, 64, 3)
RGB = Image.fromarray(PIXELS)
ALPHA = RGB.copy()
ALPHA.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))))
TURNED = RGB.rotate(90, expand=False)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def with_orientation(value: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif.tobytes()


PICTURES = {
    "jpeg": encode(RGB, "JPEG", quality=95),
    "jpeg progressive": encode(RGB, "JPEG", quality=95, progressive=True),
    "jpeg grey": encode(RGB.convert("L"), "JPEG"),
    "png": encode(RGB, "PNG"),
    "png alpha": encode(ALPHA, "PNG"),
    "png grey": encode(RGB.convert("L"), "PNG"),
    "png grey alpha": encode(ALPHA.convert("LA"), "PNG"),
    "png 1 bit": encode(RGB.convert("1"), "PNG"),
    "png palette": encode(RGB.quantize(32), "PNG"),
    "png palette transparent": encode(RGB.quantize(32), "PNG", transparency=3),
    "png grey transparent": encode(RGB.convert("L"), "PNG", transparency=int(np.asarray(RGB.convert("L"))[0, 0])),
    "png colour transparent": encode(RGB, "PNG", transparency=tuple(map(int, PIXELS[0, 0]))),
    "png 1 bit transparent": encode(RGB.convert("1"), "PNG", transparency=1),
    "webp": encode(RGB, "WEBP", quality=90),
    "webp lossless": encode(RGB, "WEBP", lossless=True),
    "webp alpha": encode(ALPHA, "WEBP", lossless=True, exact=True),
    "webp animated": encode(RGB, "WEBP", save_all=True, append_images=[TURNED], lossless=True),
    "bmp": encode(RGB, "BMP"),
    "bmp 32 bit": encode(ALPHA, "BMP"),
    "bmp palette": encode(RGB.quantize(16), "BMP"),
    "bmp 1 bit": encode(RGB.convert("1"), "BMP"),
    "gif": encode(RGB.quantize(64), "GIF"),
    "gif transparent": encode(RGB.quantize(32), "GIF", transparency=3),
    "gif animated": encode(RGB.quantize(64), "GIF", save_all=True, append_images=[TURNED.quantize(64)]),
    **{f"jpeg turned {n}": encode(RGB, "JPEG", quality=95, exif=with_orientation(n)) for n in range(1, 9)},
    **{f"png turned {n}": encode(RGB, "PNG", exif=with_orientation(n)) for n in (3, 6)},
    **{f"webp turned {n}": encode(RGB, "WEBP", lossless=True, exif=with_orientation(n)) for n in (5, 8)},
}


def as_pillow_shows_it(data: bytes) -> np.ndarray:
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        image = white
    return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("name", PICTURES)
def test_every_kind_of_picture_as_pillow_shows_it(name: str) -> None:
    if OPENCV < (4, 12) and name.startswith(("gif", "webp animated")):
        with pytest.raises(MediaError, match=r"this OpenCV \(4.* has no decoder for"):
            read_image(PICTURES[name])
        return
    image = read_image(PICTURES[name])
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image, as_pillow_shows_it(PICTURES[name]))


def test_cmyk_jpeg_within_one_level_of_pillow() -> None:
    data = encode(RGB.convert("CMYK"), "JPEG", quality=95)
    difference = read_image(data).astype(int) - as_pillow_shows_it(data)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("name", PICTURES)
def test_truncated_pictures_are_refused_wherever_they_are_cut(name: str) -> None:
    data = PICTURES[name]
    ends = {*range(0, len(data) - 1, max(1, len(data) // 50)), *(len(data) - k for k in (1, 2, 3, 5, 8, 13))}
    if name.startswith("gif animated"):
        ends = {end for end in ends if end < len(PICTURES["gif"])}  # later frames are not needed
    for end in sorted(ends):
        with pytest.raises(MediaError):
            read_image(data[:end])


def test_half_a_jpeg_is_refused_by_its_structure(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV before 5 decodes it and paints the missing half grey."""
    import cv2

    half = PICTURES["jpeg"][: len(PICTURES["jpeg"]) // 2]
    monkeypatch.setattr(cv2, "imdecode", lambda *_: PIXELS[:, :, ::-1])
    with pytest.raises(MediaError, match="the JPEG is truncated"):
        read_image(half)


def test_rubbish_after_a_jpeg_is_no_damage() -> None:
    np.testing.assert_array_equal(read_image(PICTURES["jpeg"] + b"MPF and motion photos"), read_image(PICTURES["jpeg"]))


def png16(values: np.ndarray) -> bytes:
    """A 16-bit PNG (grey or RGB), written by hand: Pillow has no 16-bit RGB."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 16, 2 if values.ndim == 3 else 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_16_bits_become_8_rounded() -> None:
    values = np.arange(0, 65536, 97)[:675].reshape(25, 9, 3).astype(np.uint16)
    values[0, 0] = (65535, 0, 128 * 257)
    expected = np.rint(values / 257.0).astype(np.uint8)
    np.testing.assert_array_equal(read_image(png16(values)), expected)
    np.testing.assert_array_equal(read_image(png16(values[:, :, 0])), np.repeat(expected[:, :, :1], 3, axis=2))


def test_a_transparent_grey_of_16_bits_lies_over_white() -> None:
    plain = png16(np.array([[100 * 257, 7]], np.uint16))
    body = b"tRNS" + struct.pack(">H", 7)
    data = plain[:33] + struct.pack(">I", 2) + body + struct.pack(">I", zlib.crc32(body)) + plain[33:]
    np.testing.assert_array_equal(read_image(data)[0, :, 0], [100, 255])


def test_transparency_lies_over_white() -> None:
    rgba = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 128]]], np.uint8)
    np.testing.assert_array_equal(read_image(rgba), [[[200, 100, 0], [255, 255, 255], [227, 177, 127]]])


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
    with pytest.raises(InputError, match="a path, bytes or an array, got int"):
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


def test_a_decompression_bomb() -> None:
    bomb = png16(np.zeros((2, 2), np.uint16))
    header = struct.pack(">II", 60_000, 60_000) + bomb[24:29]
    bomb = bomb[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + bomb[33:]
    with pytest.raises(TooLargeError, match="60000×60000 pixels"):
        read_image(bomb)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the input is empty"),
        (b"hello, world", "not an image .it begins with b'hello, w'"),
        (b"\0\0\0\x18ftypheic", "HEIC image, save it as JPEG first"),
        (b"\0\0\0\x18ftypavif", "AVIF image"),
        (b"\0\0\0\x18ftypisom", "a video"),
        (b"II*\0....", "TIFF image, save it as PNG first"),
        (b"%PDF-1.7", "a PDF"),
        (b"\x93NUMPY\x01\x00v\x00{'descr': '|O'", "npy file cannot be read"),
        (b"GIF89a" + struct.pack("<HHBBB", 0, 0, 0, 0, 0) + b";", "holds no picture"),
    ],
    ids=["empty", "text", "heic", "avif", "mp4", "tiff", "pdf", "npy", "gif"],
)
def test_what_is_no_picture_is_called_by_its_name(data: bytes, words: str) -> None:
    with pytest.raises(MediaError, match=words):
        read_image(data)


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


@pytest.mark.parametrize(
    "tiff",
    [
        b"",
        b"II*\0",
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff",
        b"XX*\0\x08\0\0\0\x01\0",
        b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0",
        b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\0\0\0\0",
    ],
    ids=["empty", "short", "far away", "too many", "no tiff", "nine", "zero"],
)
def test_a_damaged_orientation_counts_as_none(tiff: bytes) -> None:
    assert exif_orientation(tiff) == 1


def test_a_big_endian_orientation() -> None:
    assert exif_orientation(b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0") == 6


SMALL = [PICTURES[name] for name in ("jpeg", "jpeg progressive", "jpeg turned 6", "png palette transparent",
                                      "webp", "webp alpha", "webp animated", "bmp", "gif animated")]  # fmt: skip


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
        image = read_image(bytes(damaged), max_pixels=1_000_000)
    except InputError:
        return
    assert image.ndim == 3


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
