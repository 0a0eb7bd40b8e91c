"""Pictures of other libraries are read as the same picture from a file is; Pillow and numpy are the oracles."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runtime.errors import InputError, MediaError, TooLargeError
from runtime.media.clips import read_frames
from runtime.media.frames import FrameSampling
from runtime.media.pictures import read_image, read_picture
from tests.pictures import ALPHA, RGB, encode

PIXELS = np.asarray(RGB.convert("RGB"))
ALL = FrameSampling.even(8)


class Tensor:
    """As torch's: numpy may look at it, or may not."""

    def __init__(self, array: np.ndarray, error: Exception | None = None) -> None:
        self.array, self.error = array, error

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self.error is not None:
            raise self.error
        return self.array


def on_white(image: Image.Image) -> np.ndarray:
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return np.asarray(white.convert("RGB"))


def turned(orientation: int) -> Image.Image:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return Image.open(io.BytesIO(encode(RGB, exif=exif.tobytes())))


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "YCbCr", "LAB", "HSV", "RGBX"])
def test_an_image_of_pillow_is_what_pillow_makes_of_it(mode: str) -> None:
    start = RGB if mode != "LAB" else Image.merge("LAB", RGB.split())
    image = start.convert(mode) if mode != "LAB" else start
    assert np.array_equal(read_image(image), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa", "La"])
def test_what_is_transparent_is_laid_over_white(mode: str) -> None:
    image = ALPHA.convert(mode) if mode not in ("RGBa", "La") else ALPHA.convert({"RGBa": "RGBA", "La": "LA"}[mode])
    expected = on_white(image)
    given = image.convert(mode)
    assert np.abs(read_image(given).astype(int) - expected).max() <= (2 if mode in ("RGBa", "La") else 1)


def test_transparency_of_a_palette_and_of_a_colour() -> None:
    png = Image.open(io.BytesIO(encode(RGB.convert("P"), "PNG", transparency=3)))
    assert "transparency" in png.info
    assert np.abs(read_image(png).astype(int) - on_white(png)).max() <= 1
    assert np.array_equal(read_image(png), read_image(encode(RGB.convert("P"), "PNG", transparency=3)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_of_pillow_is_turned_upright_as_its_file_is(orientation: int) -> None:
    image = turned(orientation)
    file = io.BytesIO()
    image.save(file, "PNG", exif=image.getexif().tobytes())
    assert np.array_equal(read_image(image), read_image(file.getvalue()))


def test_sixteen_bits_of_grey() -> None:
    levels = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    assert np.array_equal(read_image(Image.fromarray(levels))[..., 0].ravel(), np.arange(256))


@pytest.mark.parametrize("mode", ["F", "I"])
def test_levels_without_a_range_are_refused(mode: str) -> None:
    with pytest.raises(InputError, match=f"of mode {mode} have no fixed range; convert it to RGB"):
        read_picture(RGB.convert("L").convert(mode))


def test_an_image_of_pillow_whose_file_breaks_off() -> None:
    data = encode(RGB.resize((400, 300)))
    with pytest.raises(MediaError, match="Pillow cannot decode its image"):
        read_picture(Image.open(io.BytesIO(data[: len(data) // 2])))


@pytest.mark.parametrize(
    "array",
    [
        PIXELS,
        PIXELS.transpose(2, 0, 1),
        PIXELS.transpose(2, 0, 1).astype(np.float32) / 255,
        PIXELS.transpose(2, 0, 1) / 255,
        PIXELS / np.float32(255),
    ],
    ids=["H W C", "C H W", "C H W of float32", "C H W of float64", "H W C of float32"],
)
def test_a_tensor(array: np.ndarray) -> None:
    assert np.array_equal(read_image(Tensor(array)), PIXELS)


def test_grey_tensors() -> None:
    grey = PIXELS[..., 0]
    for array in (grey, grey[None], grey[..., None], grey / 255):
        assert np.array_equal(read_image(Tensor(array)), np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (Tensor(np.full((3, 8, 8), 255.0)), "levels from 0 to 1, this one has 255 to 255; undo its normalisation"),
        (Tensor(np.full((3, 8, 8), -0.5)), "this one has -0.5 to -0.5"),
        (Tensor(np.full((3, 8, 8), np.nan)), "levels from 0 to 1"),
        (Tensor(PIXELS, RuntimeError("Can't call numpy() on Tensor that requires grad.")), "requires grad"),
        (Tensor(PIXELS, TypeError("can't convert cuda:0 device type tensor to numpy.")), r"detach\(\)\.cpu\(\)"),
        (Tensor(np.zeros((2, 3, 8, 8), np.uint8)), "a picture is"),
    ],
    ids=["255", "below 0", "NaN", "grad", "cuda", "several"],
)
def test_a_tensor_that_is_no_picture(tensor: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_picture(tensor)


def test_tensors_of_torch() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(PIXELS.copy()).permute(2, 0, 1)
    assert np.array_equal(read_image(tensor), PIXELS)
    assert np.array_equal(read_image(tensor / 255), PIXELS)
    with pytest.raises(InputError, match="requires grad"):
        read_picture((tensor / 255).requires_grad_())
    with pytest.raises(InputError, match="no array can be made of this Tensor"):
        read_picture((tensor / 255).bfloat16())


def test_a_file_object(tmp_path: Path) -> None:
    data = encode(RGB, "PNG")
    (tmp_path / "a.png").write_bytes(data)
    assert np.array_equal(read_image(io.BytesIO(data)), PIXELS)
    with (tmp_path / "a.png").open("rb") as file:
        assert np.array_equal(read_image(file), PIXELS)
        assert file.read() == b"", "it was read to its end"
    with pytest.raises(InputError, match=r"the file object cannot be read: .*closed"):
        read_picture(file)
    with pytest.raises(InputError, match="gives str, expected bytes; open the file with mode 'rb'"):
        read_picture(io.StringIO("text"))
    with pytest.raises(TooLargeError, match="more than 10 bytes"):
        read_picture(io.BytesIO(data), max_bytes=10)


def test_a_clip_of_them() -> None:
    frames = np.stack([PIXELS, PIXELS // 2])
    for source in (
        Tensor(frames),
        Tensor(frames.transpose(0, 3, 1, 2)),
        [Image.fromarray(frame) for frame in frames],
        [Tensor(frame.transpose(2, 0, 1)) for frame in frames],
        (io.BytesIO(encode(Image.fromarray(frames[0]), "PNG")), read_picture(frames[1])),
    ):
        assert np.array_equal(read_frames(source, ALL).pixels, frames)
    for one in (RGB, io.BytesIO(encode(RGB, "PNG")), read_picture(PIXELS)):
        assert np.array_equal(read_frames(one, ALL).pixels, PIXELS[None])
    with pytest.raises(InputError, match="or several pictures, got int"):
        read_frames(7, ALL)
