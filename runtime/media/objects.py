"""Pictures of other libraries: file objects, images of Pillow, tensors of torch and other arrays.

None of these libraries is imported here. A program that hands over one of their objects has imported it already.
"""

from __future__ import annotations

import sys
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError, MediaError, TooLargeError

CHANNELS = (1, 3, 4)


@runtime_checkable
class FileObject(Protocol):
    """A file that is open for reading bytes."""

    def read(self, size: int = -1, /) -> Any:
        """At most so many bytes."""


@runtime_checkable
class ArrayObject(Protocol):
    """What numpy can make an array of, such as a tensor."""

    def __array__(self) -> NDArray[Any]: ...


class PillowImage(Protocol):
    """An image of Pillow."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        ...

    def tobytes(self) -> bytes:
        """The pixels."""
        ...

    def getexif(self) -> Any:
        """The tags."""
        ...


Foreign = FileObject | ArrayObject | PillowImage


def foreign_bytes(source: object, max_bytes: int) -> bytes | None:
    """All that a file object holds from where it stands; None for everything else.

    Raises:
        InputError: it gives text, or cannot be read.
        TooLargeError: it has more bytes.
    """
    if not isinstance(source, FileObject):
        return None
    try:
        data = source.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        raise InputError(f"the file object cannot be read: {error}") from error
    if not isinstance(data, bytes):
        raise InputError(f"the file object gives {type(data).__name__}, expected bytes; open the file with mode 'rb'")
    if len(data) > max_bytes:
        raise TooLargeError(f"the file object has more than {max_bytes} bytes")
    return data


def foreign_array(source: object) -> NDArray[Any] | None:
    """The pixels of an image of Pillow or of a tensor, channels last; None for everything else.

    An image of Pillow is turned upright as its EXIF orientation says. A tensor (…, C, H, W) becomes (…, H, W, C), and
    its floating-point numbers are levels from 0 to 1, as torchvision has them.

    Raises:
        InputError: there is no array of it here, or its numbers are no levels.
        MediaError: the image's file is damaged.
    """
    pillow = sys.modules.get("PIL.Image")
    if pillow is not None and isinstance(source, pillow.Image):
        return _of_pillow(source)
    if isinstance(source, np.ndarray) or not isinstance(source, ArrayObject):
        return None
    try:
        array = np.asarray(source)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"no array can be made of this {type(source).__name__}: {str(error).splitlines()[0]} "
            "Give tensor.detach().cpu() as uint8 or float32"
        ) from error
    if array.ndim >= 3 and array.shape[-3] in CHANNELS and array.shape[-1] not in CHANNELS:
        array = np.moveaxis(array, -3, -1)
    if array.dtype.kind != "f":
        return array
    if array.size and not (array.min() >= 0 and array.max() <= 1):
        raise InputError(
            f"a floating-point picture has levels from 0 to 1, this one has {array.min():g} to {array.max():g}; "
            "undo its normalisation first"
        )
    return np.rint(array.astype(np.float32) * 255).astype(np.uint8)


def _of_pillow(image: Any) -> NDArray[Any]:
    from PIL import ImageOps

    if image.mode in ("F", "I"):
        raise InputError(f"the levels of a Pillow image of mode {image.mode} have no fixed range; convert it to RGB")
    try:
        upright = ImageOps.exif_transpose(image)  # its file is decoded now, if it was not before
        if upright.mode in ("L", "RGB", "RGBA", "I;16") and "transparency" not in upright.info:
            return np.asarray(upright)
        if upright.mode == "La":  # it has no way to RGBA of its own
            upright = upright.convert("LA")
        transparent = upright.mode in ("LA", "PA", "RGBa") or "transparency" in upright.info
        return np.asarray(upright.convert("RGBA" if transparent else "RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise MediaError(f"Pillow cannot decode its image: {error}") from error
