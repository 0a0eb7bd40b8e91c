"""The files of a folder or a zip: their names as clean text, and what their errors mean."""

from __future__ import annotations

import lzma
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

from runtime.errors import InputError, TooLargeError

MAX_MEMBER_BYTES = 512 * 2**20  # the largest file of any format here, imdb.mat, has a few dozen MiB

# RuntimeError is an encrypted member, NotImplementedError a compression that Python lacks.
ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    OverflowError,
    ValueError,
    RuntimeError,
    NotImplementedError,
)


def clean(name: str) -> str:
    r"""A member's path with forward slashes, composed as in Unicode's NFC.

    Windows' backslashes become slashes, macOS' decomposed accents are composed, and what is no text (a byte of a name
    that is not UTF-8) is written out as ``\udce9``. Names in tables are compared in the same form.
    """
    text = name.replace("\\", "/").encode("utf-8", "backslashreplace").decode()
    parts = [part for part in text.split("/") if part not in ("", ".")]
    return unicodedata.normalize("NFC", "/".join(parts))


def is_data(name: str) -> bool:
    """Whether a clean name is neither hidden, nor macOS' shadow of a file, nor outside the root (``../x``)."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not any(part.startswith(".") or part == "__MACOSX" for part in parts)


def check_size(file: str, size: int) -> None:
    """Refuses a file that is too large to be read as a whole.

    Raises:
        TooLargeError: it has more than `MAX_MEMBER_BYTES`.
    """
    if size > MAX_MEMBER_BYTES:
        raise TooLargeError(f"{file} has {size:,} bytes; at most {MAX_MEMBER_BYTES:,} are read")


@contextmanager
def explained(file: str, mend: str = "") -> Iterator[None]:
    """Turns what goes wrong with a file into an `InputError` that names it, and says how to mend it."""
    try:
        yield
    except ZIP_ERRORS as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"{file} cannot be read: {reason}{mend}") from error
