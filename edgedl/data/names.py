"""File names that carry labels: what UTKFace, FG-NET and AgeDB have in common."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from edgedl.data.sources import Source
from runtime.errors import InputError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})


def pictures(source: Source) -> Iterator[tuple[str, str]]:
    """The image files of a source.

    Yields:
        (member, base name).
    """
    for member in source.names():
        path = PurePosixPath(member)
        if path.suffix.lower() in IMAGE_SUFFIXES:
            yield member, path.name


def mostly(source: Source, pattern: re.Pattern[str]) -> bool:
    """Whether more than half of the image files, and at least one, are named like this."""
    found = [bool(pattern.fullmatch(name)) for _, name in pictures(source)]
    return sum(found) * 2 > len(found)


def require(source: Source, pattern: re.Pattern[str], expected: str) -> None:
    """Refuse a source in which no image file is named like this.

    Raises:
        InputError: says what was found and what was expected.
    """
    names = [name for _, name in pictures(source)]
    if any(pattern.fullmatch(name) for name in names):
        return
    found = f"{len(names):,} images such as {names[0]}" if names else "no image file"
    raise InputError(f"{source.path} holds {found}; expected {expected}; give the folder or zip that holds such files")
