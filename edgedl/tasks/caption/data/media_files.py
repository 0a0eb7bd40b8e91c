"""Finding the photo or video that an annotation names, and never another one."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import PurePosixPath

from edgedl.data.members import clean
from edgedl.data.sources import Source

_SPLIT = re.compile(r"(?<![a-z])(train|val|valid|validation|dev|test)(?![a-z])", re.IGNORECASE)
_ALIASES = {"valid": "val", "validation": "val", "dev": "val"}


class MediaFiles:
    """The photos or videos of a source by their names.

    Args:
        source: where they lie.
        suffixes: of the files, in lower case.
        by_stem: annotations name the files without their suffix.
    """

    def __init__(self, source: Source, suffixes: Collection[str], *, by_stem: bool = False) -> None:
        self.source, self.by_stem = source, by_stem
        self._members: dict[str, list[str]] = {}
        for member in source.names():
            path = PurePosixPath(member)
            if path.suffix.lower() in suffixes:
                self._members.setdefault(path.stem if by_stem else path.name, []).append(member)

    def find(self, name: str, split: str | None = None) -> tuple[str, ...]:
        """The files that a name may mean.

        A name is compared letter by letter. One with folders means a file at the end of whose path it stands; where
        there is none, COCO's names of 2014, which repeat the folder (``val2014/COCO_val2014_….jpg``), are found in any
        other. A file in a folder of another split is not meant, and files with the same bytes are one.

        Args:
            name: a file's name, perhaps with folders before it.
            split: "train", "val" or "test", where the annotation belongs to one.

        Returns:
            Members of the source: none, one, or several that differ, so that nobody knows which one is meant.
        """
        wanted = PurePosixPath(clean(name))
        named = self._members.get(wanted.name, [])
        found = [m for m in named if PurePosixPath(m).parent.parts[-len(wanted.parts) + 1 :] == wanted.parent.parts]
        if len(wanted.parts) == 1 or (not found and wanted.name.startswith(f"COCO_{wanted.parent.name}_")):
            found = named
        if split is not None:
            found = [member for member in found if split_of_folders(member) in (split, None)]
            found = [member for member in found if split_of_folders(member) == split] or found
        different: list[str] = []
        for member in found:
            if not any(self.source.same(member, other) for other in different):
                different.append(member)
        return tuple(different)


def split_in_name(name: str) -> str | None:
    """The split that a name speaks of, e.g. "val" in captions_val2017.json; None where there is none or several."""
    spoken = {_ALIASES.get(word.lower(), word.lower()) for word in _SPLIT.findall(name)}
    return spoken.pop() if len(spoken) == 1 else None


def split_of_folders(member: str) -> str | None:
    """The split that a member's folders speak of, the innermost first."""
    spoken = (split_in_name(folder) for folder in reversed(PurePosixPath(member).parent.parts))
    return next((split for split in spoken if split is not None), None)
