"""Animated pictures: GIF, APNG and WebP as clips, against Pillow and the specification of APNG."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence

from runtime.errors import MediaError, TooLargeError
from runtime.media.animations import animation
from runtime.media.clips import VideoLimits, read_frames
from runtime.media.frames import FrameSampling
from runtime.media.pictures import read_image

ALL = FrameSampling.every(1, most=64)
MILLISECONDS = [100, 200, 50, 20, 30, 1000, 70]


def pictures(alpha: int | None) -> list[Image.Image]:
    """Seven pictures 60×40, with a part of the given alpha that moves; None: random alpha in it."""
    rng = np.random.default_rng(2)
    found = []
    for number in range(len(MILLISECONDS)):
        pixels = np.full((40, 60, 4), 255, np.uint8)
        pixels[..., :3] = rng.integers(0, 256, (5, 6, 3)).repeat(8, 0).repeat(10, 1)
        pixels[5 + number : 20 + number, 10:40, 3] = rng.integers(256) if alpha is None else alpha
        found.append(Image.fromarray(pixels))
    return found


def saved(kind: str, images: list[Image.Image], **options: Any) -> bytes:
    file = io.BytesIO()
    images[0].save(file, kind, save_all=True, append_images=images[1:], duration=MILLISECONDS[: len(images)], **options)
    return file.getvalue()


def over_white(image: Image.Image) -> np.ndarray:
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    white.alpha_composite(image.convert("RGBA"))
    return np.asarray(white.convert("RGB"))


def check(data: bytes, expected: list[np.ndarray], tolerance: int = 0) -> None:
    frames = read_frames(data, ALL)
    assert frames.pixels.shape == (len(expected), *expected[0].shape)
    assert np.abs(frames.pixels.astype(int) - expected).max() <= tolerance
    np.testing.assert_allclose(frames.seconds, np.cumsum([0, *MILLISECONDS[:-1]]) / 1000, atol=1e-6)
    assert frames.note is None
    even = FrameSampling.even(3)
    assert read_frames(data, even).indices == tuple(even.indices(len(expected)))


def by_pillow(data: bytes) -> list[np.ndarray]:
    return [over_white(frame) for frame in ImageSequence.Iterator(Image.open(io.BytesIO(data)))]


@pytest.mark.parametrize("disposal", [0, 1, 2, 3])
@pytest.mark.parametrize("alpha", [255, 0], ids=["opaque", "with holes"])
def test_gif(disposal: int, alpha: int) -> None:
    data = saved("GIF", pictures(alpha), disposal=disposal, loop=0)
    check(data, by_pillow(data))


@pytest.mark.parametrize("lossless", [True, False], ids=["lossless", "lossy"])
@pytest.mark.parametrize("alpha", [255, 0, None], ids=["opaque", "with holes", "with glass"])
@pytest.mark.parametrize("small", [False, True], ids=["whole", "differences only"])
def test_webp(lossless: bool, alpha: int | None, small: bool) -> None:
    data = saved("WEBP", pictures(alpha), lossless=lossless, background=(0, 0, 0, 0), minimize_size=small)
    check(data, by_pillow(data), tolerance=1)


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 8
    while place < len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        yield kind, data[place + 8 : place + 8 + length]
        place += 12 + length


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def by_specification(data: bytes) -> list[np.ndarray]:
    """APNG 1.0, "The fcTL chunk": the pictures decoded one by one, laid over each other, and the whole over white."""
    header, parts = b"", []
    for kind, body in chunks(data):
        if kind == b"IHDR":
            header = body
        elif kind == b"fcTL":
            parts.append((body, bytearray()))
        elif kind in (b"IDAT", b"fdAT") and parts:
            parts[-1][1].extend(body if kind == b"IDAT" else body[4:])
    width, height = struct.unpack(">II", header[:8])
    canvas, shown = np.zeros((height, width, 4)), []
    for number, (control, packed) in enumerate(parts):
        _, wide, high, left, top, _, _, dispose, blend = struct.unpack(">IIIIIHHBB", control)
        still = [
            chunk(b"IHDR", struct.pack(">II", wide, high) + header[8:]),
            chunk(b"IDAT", packed),
            chunk(b"IEND", b""),
        ]
        png = Image.open(io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(still)))
        image, before = np.asarray(png.convert("RGBA")).astype(float), canvas.copy()
        place = np.s_[top : top + high, left : left + wide]
        if blend == 0:
            canvas[place] = image
        else:
            above, below = image[..., 3:] / 255, canvas[place][..., 3:] / 255 * (1 - image[..., 3:] / 255)
            colour = (image[..., :3] * above + canvas[place][..., :3] * below) / np.maximum(above + below, 1e-9)
            canvas[place] = np.concatenate([colour, (above + below) * 255], axis=2)
        opacity = canvas[..., 3:] / 255
        shown.append(np.round(canvas[..., :3] * opacity + 255 * (1 - opacity)).astype(np.uint8))
        if dispose == 1 or (dispose == 2 and number == 0):
            canvas[place] = 0
        elif dispose == 2:
            canvas = before
    return shown


@pytest.mark.parametrize("dispose", [0, 1, 2])
@pytest.mark.parametrize("blend", [0, 1])
@pytest.mark.parametrize("alpha", [255, 0, None], ids=["opaque", "with holes", "with glass"])
def test_apng(dispose: int, blend: int, alpha: int | None) -> None:
    data = saved("PNG", pictures(alpha), disposal=dispose, blend=blend)
    check(data, by_specification(data), tolerance=2)


@pytest.mark.parametrize(("kind", "name"), [("GIF", "GIF"), ("PNG", "APNG"), ("WEBP", "WebP")])
@pytest.mark.parametrize("share", [0.45, 0.7, 0.9])
def test_an_animation_that_breaks_off(kind: str, name: str, share: float, tmp_path: Path) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(kind, pictures(255), **options)
    whole = read_frames(data, ALL).pixels
    (tmp_path / "cut").write_bytes(data[: int(len(data) * share)])
    frames = read_frames(tmp_path / "cut", ALL)
    count = len(frames.indices)
    assert 1 <= count < len(MILLISECONDS)
    np.testing.assert_array_equal(frames.pixels, whole[:count])
    stated = len(MILLISECONDS) if name == "APNG" else count + 1
    assert f"it breaks off: {count} of at least {stated} pictures could be decoded" in str(frames.note)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_one_picture_is_a_photo(kind: str) -> None:
    data = saved(kind, pictures(255)[:1])
    assert animation(data) is None
    frames = read_frames(data, ALL)
    assert (frames.indices, frames.seconds, frames.note) == ((0,), (0.0,), None)
    np.testing.assert_array_equal(frames.pixels[0], read_image(data))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_limits(kind: str) -> None:
    data = saved(kind, pictures(255))
    with pytest.raises(TooLargeError, match="has more than 6 frames"):
        read_frames(data, ALL, limits=VideoLimits(frames=6))
    with pytest.raises(TooLargeError, match="60×40 pixels, at most 2399 are read"):
        read_frames(data, ALL, limits=VideoLimits(pixels=2399))
    with pytest.raises(TooLargeError, match="is not decoded after 0 seconds"):
        read_frames(data, ALL, limits=VideoLimits(seconds=0))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_damage_raises_nothing_but_media_errors(kind: str) -> None:
    data = saved(kind, pictures(None))
    rng = np.random.default_rng(4)
    outcomes = set()
    for _ in range(150):
        damaged = bytearray(data[: rng.integers(13, len(data) + 1)] if rng.random() < 0.3 else data)
        for place in rng.integers(0, len(damaged), rng.integers(1, 6)):
            damaged[place] = rng.choice([0, 1, 0x7F, 0xFF, rng.integers(256)])
        try:
            read_frames(bytes(damaged), FrameSampling.even(3), limits=VideoLimits(seconds=10))
        except (MediaError, TooLargeError):
            outcomes.add("refused")
        else:
            outcomes.add("read")
    assert outcomes == {"refused", "read"}
