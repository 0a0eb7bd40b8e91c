"""Pictures from files, bytes and arrays: always RGB, always uint8, always the right way up.

OpenCV is imported on first use, and only to decode; ``.npy`` files and arrays need numpy alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError, MediaError, MissingExtraError, TooLargeError
from runtime.media.headers import NPY, read_header
from runtime.media.image_header import ImageHeader, Pieces
from runtime.media.objects import Foreign, foreign_array, foreign_bytes
from runtime.media.pixels import RGBImage, to_rgb

__all__ = [
    "MAX_BYTES",
    "MAX_PIXELS",
    "Picture",
    "PictureSource",
    "RGBImage",
    "encode_jpeg",
    "encode_png",
    "opencv",
    "read_image",
    "read_picture",
    "write_jpeg",
    "write_png",
]

MAX_PIXELS = 50_000_000
"""50 megapixels: 150 MB of RGB, and at most 450 MB while they are decoded."""

MAX_BYTES = 128 << 20

MEMORY_PER_PIXEL = 9
"""Decoding takes at most so many bytes for each of the most pixels that are allowed. It is enough for that many pixels
of JPEG, WebP, BMP and 8-bit PNG; of kinds that take more to decode, fewer pixels are read."""

SCALES = (1, 2, 4, 8)
"""A JPEG is read at a half, a quarter or an eighth of its size, if that is what it takes to keep within the limits."""

PictureSource = str | os.PathLike[str] | bytes | bytearray | memoryview | NDArray[Any] | Foreign
"""What `read_picture` takes, beside a picture that was read before."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A picture as it was read.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, contiguous, the right way up.
        width: of the picture itself, the right way up.
        height: of the picture itself.
        scale: pixels of the picture to one of `pixels`, along each side: 1, or 2, 4 or 8 of a JPEG that was not read
            whole. A point (x, y) of `pixels` lies at (scale·x, scale·y).
        note: what the reader should know, e.g. that the end of the file is missing; None where all is well.
        again: reads the picture once more, at a scale or, where the limits forbid that, the next coarser one; None of
            a picture that has no more pixels.
    """

    pixels: RGBImage
    width: int
    height: int
    scale: int = 1
    note: str | None = None
    again: Callable[[int], Picture] | None = None

    def at(self, scale: float) -> Picture:
        """The same picture with at most `scale` of its pixels to one, along each side, as far as the limits allow."""
        return self if self.again is None or self.scale <= scale else self.again(int(max(1, scale)))


@cache
def opencv() -> ModuleType:
    """Imports OpenCV.

    Raises:
        MissingExtraError: it is not installed.
    """
    # Its log repeats on standard error what is raised here as one sentence.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET
    try:
        import cv2
    except ImportError as error:
        raise MissingExtraError("opencv-python-headless", "media") from error
    return cv2


def read_picture(
    source: PictureSource | Picture,
    *,
    longest: int = 0,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
) -> Picture:
    """Reads a picture, a very large JPEG at a fraction of its size.

    The EXIF orientation is applied. Grey becomes RGB; 16 bits become 8, rounded; what is transparent is laid over
    white; of an animation the first picture is taken. The size is read from the header before anything is decoded, and
    so is what decoding costs: memory in bytes a pixel, and time in passes over the picture.

    Args:
        source: a JPEG, PNG, WebP, BMP, GIF or npy file, its bytes, or an array (H, W), (H, W, 1), (H, W, 3) or
            (H, W, 4) of uint8 or uint16, channels in the order RGB(A); also an open file, an image of Pillow or a
            tensor, see `runtime.media.objects`. A picture that was read before stays as it is.
        longest: a JPEG is read at the smallest fraction of its size at which its longest side has this many pixels,
            which takes about half of the time; `Picture.at` reads more of it. 0: as much of it as the limits allow.
        max_pixels: width times height at most, as decoded; it also sets how much memory decoding may take, see
            `MEMORY_PER_PIXEL`.
        max_bytes: length of the file at most.

    Raises:
        MediaError: missing, not a picture, damaged or truncated.
        TooLargeError: more bytes or pixels than allowed, or more memory or time to decode.
        MissingExtraError: OpenCV is needed and not installed.
    """
    return source if isinstance(source, Picture) else _read(source, max_pixels, max_bytes, SCALES, longest)


def read_image(source: PictureSource, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> RGBImage:
    """Reads a picture in its own size, as `read_picture` does it; a JPEG with more than `max_pixels` is refused.

    Returns:
        uint8 RGB (H, W, 3), contiguous.
    """
    return _read(source, max_pixels, max_bytes, SCALES[:1]).pixels


def write_png(path: str | os.PathLike[str], image: RGBImage) -> None:
    """Writes uint8 RGB (H, W, 3) without loss."""
    _write(path, image, ".png", ())


def encode_png(image: RGBImage) -> bytes:
    """Encodes uint8 RGB (H, W, 3) without loss."""
    return _encode(image, ".png", ())


def write_jpeg(path: str | os.PathLike[str], image: RGBImage, *, quality: int = 92) -> None:
    """Writes uint8 RGB (H, W, 3) as JPEG."""
    _write(path, image, ".jpg", (opencv().IMWRITE_JPEG_QUALITY, quality))


def encode_jpeg(image: RGBImage, *, quality: int = 92) -> bytes:
    """Encodes uint8 RGB (H, W, 3) as JPEG."""
    return _encode(image, ".jpg", (opencv().IMWRITE_JPEG_QUALITY, quality))


def _read_bytes(source: Any, max_bytes: int) -> bytes:
    if isinstance(source, bytes | bytearray | memoryview):
        if len(source) > max_bytes:
            raise TooLargeError(f"the picture has {len(source)} bytes, at most {max_bytes} are read")
        return bytes(source)
    if not isinstance(source, str | os.PathLike):
        read = foreign_bytes(source, max_bytes)
        if read is None:
            raise InputError(
                "a picture is a path, bytes, an open file, an array, a tensor or an image of Pillow, got "
                f"{type(source).__name__}"
            )
        return read
    path = Path(source)
    try:
        if path.exists() and not path.is_file():
            raise MediaError(f"{path}: not a file")  # a folder, or a pipe that would block
        with path.open("rb") as stream:
            # Python takes memory for as much as it is asked for; what the file has gained since shows below.
            data = stream.read(min(os.fstat(stream.fileno()).st_size, max_bytes) + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise MediaError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > max_bytes:
        raise TooLargeError(f"{path}: more than {max_bytes} bytes")
    return data


def _read(source: PictureSource, max_pixels: int, max_bytes: int, scales: tuple[int, ...], longest: int = 0) -> Picture:
    array = source if isinstance(source, np.ndarray) else foreign_array(source)
    if array is not None:
        return _from_array(array, max_pixels)
    data = _read_bytes(source, max_bytes)
    if data.startswith(NPY):
        from runtime.npy import load_npy  # here, because a first answer begins quicker without

        try:
            return _from_array(load_npy(data), max_pixels)
        except ValueError as error:
            raise MediaError(f"the npy file cannot be read: {error}") from error
    header = read_header(data)
    allowed = _scale(header, max_pixels, scales)
    header.check()
    # Of a file without its end it shows at full size only whether something is missing.
    wanted = max(header.width, header.height) // longest if longest > 0 and header.other_end is None else 1
    return _read_at(header, allowed, wanted)


def _read_at(header: ImageHeader, allowed: int, wanted: int) -> Picture:
    """Decodes a picture at the coarsest scale up to the wanted one, but not below the one that the limits allow."""
    scale = max(allowed, *(s for s in SCALES if s <= max(wanted, 1))) if header.reducible else allowed
    pixels = _decode(header, header.encoded, scale)
    if header.other_end is not None:
        _check_the_end(header, pixels, scale)
    size = (header.width, header.height) if header.orientation < 5 else (header.height, header.width)
    again = partial(_read_at, header, allowed) if scale > allowed else None
    return Picture(_turn_upright(pixels, header.orientation), *size, scale, header.note, again)


def _from_array(array: NDArray[Any], max_pixels: int) -> Picture:
    if array.ndim >= 2 and array.shape[0] * array.shape[1] > max_pixels:
        raise TooLargeError(f"the array is {array.shape[1]}×{array.shape[0]} pixels, at most {max_pixels} are read")
    pixels = to_rgb(array)
    return Picture(pixels, pixels.shape[1], pixels.shape[0])


def _scale(header: ImageHeader, max_pixels: int, scales: tuple[int, ...]) -> int:
    """The least scale at which a picture keeps within the limits."""
    what = f"the {header.format} is {header.width}×{header.height} pixels"
    within = [
        scale
        for scale in (scales if header.reducible else scales[:1])
        if -(-header.width // scale) * -(-header.height // scale) <= max_pixels
    ]
    if not within:
        smaller = "" if not header.reducible or len(scales) == 1 else f", and read at 1/{scales[-1]} of its size"
        raise TooLargeError(f"{what}{smaller}, at most {max_pixels} are read; scale it down first")
    for scale in within:
        memory = header.memory(-(-header.width // scale) * -(-header.height // scale))
        if memory <= MEMORY_PER_PIXEL * max_pixels:
            return scale
    raise TooLargeError(
        f"{what} of a kind that takes {memory} bytes of memory to decode, at most {MEMORY_PER_PIXEL * max_pixels} are "
        f"used ({MEMORY_PER_PIXEL} for each of at most {max_pixels} pixels); scale it down first"
    )


def _decode(header: ImageHeader, encoded: Pieces, scale: int) -> RGBImage:
    cv2 = opencv()
    # The orientation is applied here, since OpenCV does so for some formats and modes only.
    reduced = {1: 0, 2: cv2.IMREAD_REDUCED_GRAYSCALE_2, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4}
    reduced[8] = cv2.IMREAD_REDUCED_GRAYSCALE_8
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | reduced[scale] if header.rgb else -1
    data = encoded[0] if len(encoded) == 1 else b"".join(encoded)
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise MediaError(f"the {header.format} cannot be decoded: {str(error).strip().splitlines()[-1]}") from error
    if decoded is None or decoded.size == 0:
        other = "" if header.format == "JPEG" else f"; or this OpenCV ({cv2.__version__}) has no decoder for it"
        raise MediaError(f"the {header.format} is damaged or truncated: its data do not make a whole picture{other}")
    width, height = -(-header.width // scale), -(-header.height // scale)
    if decoded.shape[:2] != (height, width):
        raise MediaError(
            f"the {header.format} is damaged: its header says {width}×{height} pixels, "
            f"it holds {decoded.shape[1]}×{decoded.shape[0]}"
        )
    return to_rgb(decoded, blue_first=not header.rgb, transparent_grey=header.transparent_grey)


def _check_the_end(header: ImageHeader, pixels: RGBImage, scale: int) -> None:
    """Raises where a file without its end lacks data, too: then what is decoded depends on what stands after them."""
    cv2 = opencv()
    try:
        again = _decode(header, header.other_end or (), scale)
    except MediaError:
        again = None
    if again is None or cv2.norm(pixels, again, cv2.NORM_INF) != 0:
        raise MediaError(f"the {header.format} is truncated: its end marker is missing")


def _turn_upright(image: RGBImage, orientation: int) -> RGBImage:
    """Undoes the EXIF orientation (TIFF 6.0, tag 274): transpose first, then mirror."""
    if orientation >= 5:
        image = opencv().transpose(image)
    mirror = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return image if mirror is None else opencv().flip(image, mirror, image)  # in place


def _write(path: str | os.PathLike[str], image: RGBImage, suffix: str, parameters: tuple[int, ...]) -> None:
    data = _encode(image, suffix, parameters)
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error


def _encode(image: RGBImage, suffix: str, parameters: tuple[int, ...]) -> bytes:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(f"a picture to write is uint8 (H, W, 3), got {image.dtype} {image.shape}")
    cv2 = opencv()
    swapped = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(suffix, swapped, list(parameters))
    if not done:
        raise InputError(f"OpenCV cannot encode a picture of the shape {image.shape} as {suffix}")
    return bytes(data.tobytes())
