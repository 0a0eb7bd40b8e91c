"""What a file is that was given as a data set and is no zip: for a message that says how to go on."""

from __future__ import annotations

from pathlib import Path

from runtime.errors import InputError

_UNPACK = "edgedl reads folders and zip files: unpack it and give the folder"

# Offset and first bytes -> what the file is, and what to do.
_KINDS: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\x1f\x8b", "is compressed with gzip (a .tar.gz, perhaps)", _UNPACK),
    (0, b"BZh", "is compressed with bzip2 (a .tar.bz2, perhaps)", _UNPACK),
    (0, b"\xfd7zXZ\0", "is compressed with xz (a .tar.xz, perhaps)", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "is compressed with Zstandard (a .tar.zst, perhaps)", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "is a 7z archive", _UNPACK),
    (0, b"Rar!\x1a\x07", "is a RAR archive", _UNPACK),
    (257, b"ustar", "is a tar archive", _UNPACK),
    (0, b"version https://git-lfs", "is a pointer of Git LFS, not the file itself", "fetch it with `git lfs pull`"),
)
_ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_HEAD = 512


def not_a_zip(path: Path) -> str:
    """Why a file that has no zip's list of contents cannot be read as a data set.

    Raises:
        InputError: it cannot be opened.
    """
    try:
        if not path.is_file():
            return f"{path} is neither a file nor a folder; expected a folder or a zip file"
        size = path.stat().st_size
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    if not head:
        return f"{path} is an empty file; expected a folder or a zip file"
    if head.startswith(_ZIP):
        return (
            f"{path} is a zip file that is not whole: it has {size:,} bytes, and the list of its contents, which is at"
            " a zip's end, is missing; the download or the copy broke off: fetch it again"
        )
    if b"<html" in head.lower() or b"<!doctype html" in head.lower():
        return f"{path} is a web page, not a data set; the download was refused or needs a login: fetch it again"
    for offset, mark, what, mend in _KINDS:
        if head.startswith(mark, offset):
            return f"{path} {what}; {mend}"
    return (
        f"{path} is a file but not a zip; expected the folder or the zip that holds the whole data set"
        f" (of {path.name}, that would be {path.parent})"
    )
