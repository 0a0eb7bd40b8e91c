"""What a picture may cost: memory and time are known before it is decoded, and hold."""

from __future__ import annotations

import struct
import sys
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.child import run_python
from runtime.errors import MediaError, TooLargeError
from runtime.media import gif, png, webp
from runtime.media.headers import read_header
from runtime.media.pictures import MEMORY_PER_PIXEL, read_image, read_picture
from tests.pictures import DECODES_GIF, PICTURES, RGB, as_pillow_shows_it, chunk, encode, png16, with_orientation
from tests.pictures import png as png_file

SIDE = 1600
MEGABYTE = 1 << 20


def test_a_decompression_bomb_by_its_header() -> None:
    with pytest.raises(TooLargeError, match="60000×60000 pixels, at most 50000000 are read"):
        read_image(png_file(60_000, 60_000, b"\0\0\0\0", depth=16, colour=0))


def test_data_that_go_on_after_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder inflates them to their very end: 32 MB of them are 33 GB."""
    rows = b"".join(b"\0" + row.tobytes() for row in np.asarray(RGB))
    packer = zlib.compressobj(9)
    packed = packer.compress(rows) + packer.flush(zlib.Z_FULL_FLUSH)
    packed += (packer.compress(bytes(MEGABYTE)) + packer.flush(zlib.Z_FULL_FLUSH)) * 600
    assert len(packed) > png.UNCHECKED
    bomb = png_file(64, 48, b"", packed=packed)
    calls = []
    monkeypatch.setattr("cv2.imdecode", lambda *_: calls.append(1))
    with pytest.raises(MediaError, match="the PNG is damaged: its data go on after the picture is complete"):
        read_image(bomb)
    assert not calls
    with pytest.raises(MediaError, match="the PNG is damaged: Error -3"):
        read_image(png_file(64, 48, b"", packed=rows * 100))


@pytest.mark.parametrize(("depth", "colour"), [(1, 0), (2, 3), (4, 0), (8, 2), (8, 4), (16, 0), (16, 2), (16, 6)])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (33, 20)])
def test_the_length_of_the_rows_is_known(
    size: tuple[int, int], depth: int, colour: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Just as many bytes as the rows have, interlaced or not, pass; a row more does not."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    width, height = size
    plain = height * (1 + (width * depth * channels + 7) // 8)
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    columns_and_rows = [(len(range(x, width, dx)), len(range(y, height, dy))) for x, y, dx, dy in passes]
    interlaced = sum(r * (1 + (c * depth * channels + 7) // 8) for c, r in columns_and_rows if c and r)
    monkeypatch.setattr(png, "UNCHECKED", 0)
    monkeypatch.setattr(png, "_STEP", 1)
    palette = chunk(b"PLTE", bytes(3 * 4)) if colour == 3 else b""
    for length, method in ((plain, 0), (interlaced, 1)):
        data = bytearray(png_file(width, height, bytes(length), depth=depth, colour=colour, before=palette))
        data[28] = method
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
        assert read_image(bytes(data)).shape == (height, width, 3)
        more = png_file(width, height, bytes(length + 2), depth=depth, colour=colour, before=palette)
        more = more[:28] + bytes(data[28:33]) + more[33:]
        with pytest.raises(MediaError, match="go on after the picture"):
            read_image(more)


def test_only_what_a_png_needs_reaches_the_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    given = []
    decode = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda data, flags: given.append(bytes(data)) or decode(data, flags))
    plain = PICTURES["png"]
    extra = (
        chunk(b"tEXt", b"Comment\0hello") + chunk(b"iCCP", b"x\0\0rubbish") + chunk(b"acTL", struct.pack(">II", 9, 0))
    )
    data = plain[:33] + extra + plain[33:-12] + chunk(b"zTXt", b"x\0\0rubbish") + plain[-12:]
    np.testing.assert_array_equal(read_image(data), as_pillow_shows_it(plain))
    assert given == [plain]
    with pytest.raises(MediaError, match="a chunk b'WHAT'"):
        read_image(plain[:33] + chunk(b"WHAT", b"") + plain[33:])


def test_a_flood_of_chunks_is_refused() -> None:
    plain = PICTURES["png"]
    with pytest.raises(MediaError, match=f"more than {png.MOST_CHUNKS} chunks"):
        read_image(plain[:33] + chunk(b"teSt", b"") * png.MOST_CHUNKS + plain[33:])


@pytest.mark.parametrize(("depth", "colour"), [(3, 0), (16, 3), (1, 2), (8, 5), (0, 0)])
def test_a_depth_that_no_png_has(depth: int, colour: int) -> None:
    with pytest.raises(MediaError, match=f"colour type {colour} with {depth} bits"):
        read_image(png_file(8, 8, bytes(1000), depth=depth, colour=colour))


def gif_file(width: int, height: int, codes: bytes, smallest: int = 2, before: bytes = b"") -> bytes:
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80 | smallest - 1, 0, 0) + bytes(3 << smallest)
    blocks = b"".join(bytes((len(codes[i : i + 255]),)) + codes[i : i + 255] for i in range(0, len(codes), 255))
    return screen + before + b"," + struct.pack("<HHHHBB", 0, 0, width, height, 0, smallest) + blocks + b"\0;"


def test_codes_that_empty_the_table_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV sets up 4,096 entries for each: a megabyte of three-bit codes would take it twenty seconds."""
    reset = int("100" * 8, 2).to_bytes(3, "little")  # the code 4, eight times
    monkeypatch.setattr(gif, "MOST_RESETS", 2000)
    with pytest.raises(TooLargeError, match="empties its table more than 2000 times"):
        read_image(gif_file(100, 100, reset * 60_000))


def resets_one_by_one(stream: bytes, smallest: int) -> int:
    """The codes that empty the table or end the data, read a bit at a time."""
    empty = 1 << smallest
    length, table, waiting, bits, count = smallest + 1, empty + 1, 0, 0, 0
    for byte in stream:
        waiting |= byte << bits
        bits += 8
        while bits >= length:
            code, waiting, bits = waiting & (1 << length) - 1, waiting >> length, bits - length
            if code in (empty, empty + 1):
                length, table, count = smallest + 1, empty + 1, count + 1
                continue
            table += table < 4096
            length += table == 1 << length and length < 12
    return count


@pytest.mark.parametrize("smallest", [2, 3, 5, 8, 11])
def test_resets_are_counted_as_if_one_by_one(smallest: int) -> None:
    chance = np.random.default_rng(smallest)
    for stream in (
        chance.integers(0, 256, 20_000, dtype=np.uint8),
        np.zeros(30_000, np.uint8),
        chance.choice([0, 0, 0, 36, 146], 3000).astype(np.uint8),
        np.zeros(0, np.uint8),
    ):
        assert gif._count_resets(stream, smallest) == resets_one_by_one(stream.tobytes(), smallest)


@pytest.mark.skipif(not DECODES_GIF, reason="this OpenCV has no decoder for GIF")
def test_ordinary_gifs_pass_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gif, "UNCHECKED", 0)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400), dtype=np.uint8))
    for data in (encode(noise, "GIF"), PICTURES["gif"], encode(Image.new("L", (700, 500)), "GIF", interlace=0)):
        np.testing.assert_array_equal(read_image(data), as_pillow_shows_it(data))


def test_floods_of_blocks_and_extensions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gif, "MOST_BLOCKS", 1000)
    data = gif_file(10, 10, b"")
    with pytest.raises(MediaError, match="more than 1000 blocks"):
        read_image(data[:-2] + b"\1\0" * 1001 + data[-2:])
    with pytest.raises(MediaError, match="holds no picture"):
        read_image(gif_file(10, 10, b"", before=b"\x21\xfe\0" * (gif.MOST_EXTENSIONS + 1)))


def webp_file(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"WEBP" + b"".join(kind + struct.pack("<I", len(data)) + data for kind, data in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    ("alpha", "pixel_bytes", "chunks"),
    [
        (False, 7, lambda w, h: [(b"VP8L", b"/" + struct.pack("<I", w - 1 | h - 1 << 14))]),
        (True, 8, lambda w, h: [(b"VP8L", b"/" + struct.pack("<I", w - 1 | h - 1 << 14 | 1 << 28))]),
        (True, 8, lambda w, h: [(b"ALPH", b"\1\0"), (b"VP8 ", bytes(6) + struct.pack("<HH", w, h))]),
        (True, 12, lambda w, h: [(b"ANMF", bytes(16))]),
    ],
    ids=["lossless", "lossless with alpha", "lossy, its alpha lossless", "animated"],
)
def test_a_lossless_webp_is_bounded_by_its_tables(alpha: bool, pixel_bytes: int, chunks) -> None:
    """65,536 tables of codes, whatever the size of the picture, take 400 MB; they come in half a megabyte."""
    width = 5000
    for height, refused in ((webp.MOST_LOSSLESS_BYTES // pixel_bytes // width, False), (4700, True)):
        size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        header = read_header(webp_file((b"VP8X", bytes((0x10 * alpha, 0, 0, 0)) + size), *chunks(width, height)))
        assert (header.width, header.height, header.pixel_bytes) == (width, height, pixel_bytes)
        if refused:
            with pytest.raises(TooLargeError, match="5000×4700 pixels with a lossless part, at most"):
                header.check()
        else:
            header.check()


@cache
def heavy(name: str) -> bytes:
    """A picture of 2.6 megapixels of a kind that takes much to decode."""
    shades = np.add.outer(np.arange(SIDE), np.arange(SIDE)) % 200
    image = Image.fromarray(np.stack([shades, shades // 2, 255 - shades], axis=2).astype(np.uint8))
    transparent = image.copy()
    transparent.putalpha(77)
    if name == "16 bits and alpha":
        return png_file(SIDE, SIDE, (b"\4" + bytes(8 * SIDE)) * SIDE, depth=16, colour=6)
    if name == "16 bits":
        return png_file(SIDE, SIDE, (b"\4" + bytes(6 * SIDE)) * SIDE, depth=16, colour=2)
    if name == "animated WebP":
        return encode(transparent, "WEBP", save_all=True, append_images=[transparent.rotate(90)], method=0)
    turned = with_orientation(7)
    return {
        "progressive": lambda: encode(image, subsampling=0, progressive=True, exif=turned),
        "progressive without its end": lambda: encode(image, subsampling=0, progressive=True)[:-2],
        "baseline, turned": lambda: encode(image, exif=turned),
        "CMYK": lambda: encode(image.convert("CMYK"), progressive=True),
        "PNG with alpha": lambda: encode(transparent, "PNG", compress_level=1, exif=turned),
        "PNG": lambda: encode(image, "PNG", compress_level=1, exif=turned),
        "grey PNG": lambda: encode(image.convert("L"), "PNG", compress_level=1),
        "lossless WebP": lambda: encode(transparent, "WEBP", lossless=True, method=0),
        "GIF": lambda: encode(image.quantize(64, dither=0), "GIF", transparency=3, disposal=3),
        "BMP": lambda: encode(image, "BMP"),
    }[name]()


HEAVY = {
    "16 bits and alpha": 16, "16 bits": 12, "progressive": 9, "progressive without its end": 12, "baseline, turned": 6,
    "CMYK": 11, "PNG with alpha": 8, "PNG": 6, "grey PNG": 4, "lossless WebP": 8, "animated WebP": 12, "GIF": 13,
    "BMP": 6,
}  # fmt: skip
"""Bytes of memory for each pixel."""
if not DECODES_GIF:
    del HEAVY["GIF"]

MEASURE = """
import ctypes
import sys
from contextlib import suppress
from pathlib import Path
from runtime.errors import MediaError
from runtime.media.headers import read_header
from runtime.media.pictures import opencv, read_picture

def memory(name):
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith(name))

opencv().setNumThreads(1)
with suppress(OSError, AttributeError):
    ctypes.CDLL(None).mallopt(-3, 1 << 20)  # glibc: what is freed is given back, as it is of pictures of any real size
for path in Path(sys.argv[1]).glob("*.light"):  # the decoders' own code and tables
    with suppress(MediaError):
        read_picture(path.read_bytes())
for path in sorted(Path(sys.argv[1]).glob("*.heavy")):
    data = path.read_bytes()
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    pixels = read_picture(data).pixels
    peak = memory("VmHWM") - before
    del pixels
    print(path.stem, peak, memory("VmRSS") - before, read_header(data).memory(1600 * 1600), len(data), sep=",")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are measured through /proc")
def test_no_picture_takes_more_memory_than_its_header_says(tmp_path: Path) -> None:
    for name, data in {**PICTURES, "png 16 bits": png16(np.asarray(RGB).astype(np.uint16))}.items():
        (tmp_path / f"{name}.light").write_bytes(data)
    for name in HEAVY:
        (tmp_path / f"{name}.heavy").write_bytes(heavy(name))
    done = run_python(MEASURE, str(tmp_path))
    rows = [line.split(",") for line in done.stdout.replace("baseline, ", "baseline ").splitlines()]
    rows = [(row[0], *map(int, row[1:])) for row in rows if len(row) == 5]
    assert len(rows) == len(HEAVY), done.stderr
    for name, peak, kept, promised, length in rows:
        # The file is joined once more from the parts that the decoder gets.
        assert peak <= promised + 2 * length + 3 * MEGABYTE, f"{name}: {peak / MEGABYTE:.0f} MB"
        assert promised <= 4 * peak, f"{name}: far less than promised, so pictures are refused for nothing"
        assert kept <= 8 * MEGABYTE, f"{name} leaves {kept / MEGABYTE:.0f} MB behind"


@pytest.mark.parametrize(("name", "pixel_bytes"), HEAVY.items())
def test_what_takes_more_memory_is_refused(name: str, pixel_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is in pixels, at nine bytes each; of a kind that takes more, fewer pixels are read."""
    data, pixels = heavy(name), SIDE * SIDE
    assert read_header(data).memory(pixels) == pixel_bytes * pixels
    if pixel_bytes <= MEMORY_PER_PIXEL:
        assert read_picture(data, max_pixels=pixels).scale == 1
    elif name in ("CMYK", "progressive without its end"):
        assert read_picture(data, max_pixels=pixels).scale == 2
    else:
        monkeypatch.setattr("cv2.imdecode", lambda *_: pytest.fail("it was decoded"))
        with pytest.raises(TooLargeError, match=rf"takes {pixel_bytes * pixels} bytes of memory to decode, at most"):
            read_picture(data, max_pixels=pixels)
