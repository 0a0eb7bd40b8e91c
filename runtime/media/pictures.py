"""Pictures from files, bytes and arrays: always RGB, always uint8, always the right way up.

OpenCV is imported on first use, and only to decode; ``.npy`` files and arrays need numpy alone.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError, MediaError, MissingExtraError, TooLargeError
from runtime.media.headers import ImageHeader, read_header
from runtime.npy import load_npy

MAX_PIXELS = 50_000_000  # 50 megapixels: 150 MB of RGB
MAX_BYTES = 32 << 20

RGBImage = NDArray[np.uint8]
"""A picture, uint8 RGB (H, W, 3)."""


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


def read_image(
    source: str | os.PathLike[str] | bytes | bytearray | memoryview | NDArray[Any],
    *,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
) -> RGBImage:
    """Reads a picture.

    The EXIF orientation is applied. Grey becomes RGB; 16 bits become 8, rounded; what is transparent is laid over
    white; of an animation the first picture is taken. The size is read from the header before anything is decoded.

    Args:
        source: a JPEG, PNG, WebP, BMP, GIF or npy file, its bytes, or an array (H, W), (H, W, 1), (H, W, 3) or
            (H, W, 4) of uint8 or uint16, channels in the order RGB(A).
        max_pixels: width times height at most.
        max_bytes: length of the file at most.

    Returns:
        uint8 RGB (H, W, 3), contiguous.

    Raises:
        MediaError: missing, not a picture, damaged or truncated.
        TooLargeError: more bytes or pixels than allowed.
        MissingExtraError: OpenCV is needed and not installed.
    """
    if isinstance(source, np.ndarray):
        _check_pixels(source, max_pixels)
        return _to_rgb(source)
    data = _read_bytes(source, max_bytes)
    if data.startswith(b"\x93NUMPY"):
        try:
            array = load_npy(data)
        except ValueError as error:
            raise MediaError(f"the npy file cannot be read: {error}") from error
        _check_pixels(array, max_pixels)
        return _to_rgb(array)
    header = read_header(data)
    if header.width * header.height > max_pixels:
        raise TooLargeError(
            f"the {header.format} is {header.width}×{header.height} pixels, at most {max_pixels} are read; "
            "scale it down first"
        )
    return _turn_upright(_decode(data, header), header.orientation)


def write_png(path: str | os.PathLike[str], image: RGBImage) -> None:
    """Writes uint8 RGB (H, W, 3) without loss."""
    _write(path, image, ".png", ())


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
        raise InputError(f"a picture is a path, bytes or an array, got {type(source).__name__}")
    path = Path(source)
    try:
        if path.exists() and not path.is_file():
            raise MediaError(f"{path}: not a file")  # a folder, or a pipe that would block
        with path.open("rb") as stream:
            data = stream.read(max_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise MediaError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > max_bytes:
        raise TooLargeError(f"{path}: more than {max_bytes} bytes")
    return data


def _decode(data: bytes, header: ImageHeader) -> RGBImage:
    cv2 = opencv()
    # The orientation is applied here, since OpenCV does so for some formats and modes only. A BMP's fourth channel
    # is padding that is mostly zero, and JPEG has none: both are read as plain colour.
    plain = header.format in ("JPEG", "BMP")
    # Decoded as RGB where OpenCV can (4.11 and newer): a swap afterwards needs a second picture's memory.
    colour = getattr(cv2, "IMREAD_COLOR_RGB", cv2.IMREAD_COLOR)
    flags = colour | cv2.IMREAD_IGNORE_ORIENTATION if plain else cv2.IMREAD_UNCHANGED
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise MediaError(f"the {header.format} cannot be decoded: {str(error).strip().splitlines()[-1]}") from error
    if decoded is None or decoded.size == 0:
        raise MediaError(
            f"the {header.format} is damaged, or of a kind that this OpenCV ({cv2.__version__}) has no decoder for"
        )
    if decoded.shape[:2] != (header.height, header.width):
        raise MediaError(
            f"the {header.format} is damaged: its header says {header.width}×{header.height} pixels, "
            f"it holds {decoded.shape[1]}×{decoded.shape[0]}"
        )
    if decoded.ndim == 3 and not (plain and colour != cv2.IMREAD_COLOR):
        # Not numpy's `[..., ::-1]`: on two megapixels OpenCV's own swap takes 0.3 ms, that one 30.
        code = cv2.COLOR_BGRA2RGBA if decoded.shape[2] == 4 else cv2.COLOR_BGR2RGB
        decoded = cv2.cvtColor(decoded, code)
    elif header.transparent_grey is not None:
        decoded[decoded == header.transparent_grey] = np.iinfo(decoded.dtype).max  # laid over white
    return _to_rgb(decoded)


def _check_pixels(array: NDArray[Any], max_pixels: int) -> None:
    if array.ndim >= 2 and array.shape[0] * array.shape[1] > max_pixels:
        raise TooLargeError(f"the array is {array.shape[1]}×{array.shape[0]} pixels, at most {max_pixels} are read")


def _to_rgb(array: NDArray[Any]) -> RGBImage:
    """Any of the array forms that `read_image` lists, to uint8 (H, W, 3)."""
    if array.dtype not in (np.uint8, np.uint16):
        raise MediaError(f"a picture's values are uint8 (or uint16), got {array.dtype}; scale and convert them first")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise MediaError(f"a picture is (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {array.shape}")
    if array.dtype == np.uint16:
        array = ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 = 257 * 255
    if array.shape[2] == 4:
        colour, alpha = array[:, :, :3].astype(np.uint32), array[:, :, 3:].astype(np.uint32)
        array = ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    elif array.shape[2] == 1:
        array = np.repeat(array, 3, axis=2)
    return np.ascontiguousarray(array)


def _turn_upright(image: RGBImage, orientation: int) -> RGBImage:
    """Undoes the EXIF orientation (TIFF 6.0, tag 274): transpose first, then mirror."""
    if orientation >= 5:
        image = opencv().transpose(image)
    if orientation in (3, 4, 7, 8):
        image = opencv().flip(image, 0)
    if orientation in (2, 3, 6, 7):
        image = opencv().flip(image, 1)
    return image


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
