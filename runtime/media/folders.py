"""Which files of a folder are pictures: the same rule wherever a folder is read."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.errors import MediaError
from runtime.media.foreign import FOREIGN_SUFFIXES, HEAD_BYTES, name_of
from runtime.media.headers import picture_type

PICTURE_SUFFIXES = frozenset(
    (".apng", ".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".npy", ".pjp", ".pjpeg", ".png", ".webp")
)
"""How pictures are called that are of kinds which are read."""


@dataclass(frozen=True, slots=True)
class PictureFolder:
    """The pictures of a folder in natural order, and those that cannot be read, each with the reason."""

    pictures: tuple[Path, ...]
    skipped: tuple[tuple[Path, str], ...]


def natural_order(name: str) -> tuple[Any, ...]:
    """A key that sorts numbers in names by their value."""
    return tuple((int(part), part) if part.isdecimal() else (-1, part.lower()) for part in re.split(r"(\d+)", name))


def list_pictures(folder: Path) -> PictureFolder:
    """Lists the pictures of a folder; folders in it are not entered, hidden files are none.

    A file is taken for a picture by its suffix. Where that is one of a kind that is not read, or where there is none,
    the first bytes decide: "scan.tif" that holds a JPEG is a picture, too.

    Raises:
        MediaError: it cannot be listed, or holds no picture that is read.
    """
    pictures, skipped = [], []
    try:
        for name in sorted(os.listdir(folder), key=natural_order):  # noqa: PTH208 - names sort faster than paths
            path = folder / name
            suffix = path.suffix.lower()
            named = suffix in PICTURE_SUFFIXES or suffix in FOREIGN_SUFFIXES
            if name.startswith(".") or (suffix and not named) or path.is_dir():
                continue
            if not path.is_file():
                reason: str | None = "a link that leads nowhere" if path.is_symlink() else "not a file"
            else:
                reason = None if suffix in PICTURE_SUFFIXES else _unread(path)
            if reason is None:
                pictures.append(path)
            elif named:
                skipped.append((path, reason))
    except OSError as error:
        raise MediaError(f"{folder}: {error.strerror or error}") from error
    if not pictures:
        unread = f" that are read ({_listed(skipped)} cannot be)" if skipped else ""
        raise MediaError(
            f"{folder}: a folder without pictures{unread}; several videos are named by a pattern like 'folder/*.mp4', "
            "the pictures of folders in it by 'folder/*/*.jpg'"
        )
    return PictureFolder(tuple(pictures), tuple(skipped))


def pictures_of(folder: Path) -> list[Path]:
    """The pictures of a folder, in natural order.

    Raises:
        MediaError: it cannot be listed, or holds no picture that is read.
    """
    return list(list_pictures(folder).pictures)


def _unread(path: Path) -> str | None:
    """Why a file is no picture that is read, by its first bytes; None where it is one."""
    try:
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    except OSError as error:
        return error.strerror or str(error)
    return None if picture_type(head) is not None else name_of(head)


def _listed(skipped: list[tuple[Path, str]]) -> str:
    names = [path.name for path, _ in skipped]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
