"""Small pictures of every kind that is read, and what Pillow makes of them."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps

from runtime.media.pictures import opencv

DECODES_GIF = tuple(map(int, opencv().__version__.split(".")[:2])) >= (4, 12)
"""OpenCV before 4.12 does not."""

BLOCKS = np.random.default_rng(0).integers(0, 256, (6, 8, 3))
PIXELS = np.kron(BLOCKS, np.ones((8, 8, 1))).astype(np.uint8)  # (48, 64, 3)
RGB = Image.fromarray(PIXELS)
ALPHA = RGB.copy()
ALPHA.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))))
TURNED = RGB.rotate(90, expand=False)


def encode(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def with_orientation(value: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif.tobytes()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    width: int, height: int, rows: bytes, *, depth: int = 8, colour: int = 2, packed: bytes | None = None,
    before: bytes = b"",
) -> bytes:  # fmt: skip
    """A PNG written by hand, its rows with their filters; `packed` is what stands in place of the compressed rows."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(rows) if packed is None else packed
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def png16(values: np.ndarray) -> bytes:
    """A 16-bit PNG (grey or RGB): Pillow writes no 16-bit RGB."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(width, height, rows, depth=16, colour=2 if values.ndim == 3 else 0)


def with_segment(jpeg: bytes, body: bytes, marker: int = 0xE1) -> bytes:
    """The JPEG with a segment right after its start."""
    return jpeg[:2] + bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


PICTURES = {
    "jpeg": encode(RGB, quality=95),
    "jpeg progressive": encode(RGB, quality=95, progressive=True),
    "jpeg grey": encode(RGB.convert("L")),
    "jpeg restarts": encode(RGB, quality=95, restart_marker_blocks=1),
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
    "png animated": encode(RGB, "PNG", save_all=True, append_images=[TURNED]),
    "png animated beside its picture": encode(RGB, "PNG", save_all=True, append_images=[TURNED], default_image=True),
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
    **{f"jpeg turned {n}": encode(RGB, quality=95, exif=with_orientation(n)) for n in range(1, 9)},
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
