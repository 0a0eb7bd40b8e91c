"""Annotation files inside a source: what the caption formats have in common.

A line that cannot be used is left out and counted under its reason, because every one of these sets has some; a file
that cannot be read at all is an error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from edgedl.data.names import count
from edgedl.data.sources import Source
from edgedl.data.splits import held_out
from edgedl.tasks.caption.data.captioned_clips import SPLITS, CaptionDataset, CaptionedClip
from edgedl.tasks.caption.data.vocabulary import tokenise
from runtime.errors import InputError

HEAD = 1 << 16
"""So many bytes of a file are looked at to recognise it."""

MOST_CANDIDATES = 50
"""So many files are looked at, those nearest to the root first."""


class Gathering:
    """Captions as they come out of annotation files, by the key of their clip, and what had to be left out."""

    def __init__(self) -> None:
        self.captions: dict[str, list[str]] = {}
        self.skipped: dict[str, int] = {}

    def add(self, key: str, caption: object) -> None:
        """One more caption; one that is no text or has no word is counted and left out."""
        if not isinstance(caption, str):
            self.skip("the caption is no text")
        elif "\ufffd" in caption:
            self.skip("the caption is not UTF-8 text")
        elif not tokenise(caption):
            self.skip("the caption has no word")
        else:
            self.captions.setdefault(key, []).append(" ".join(caption.split()))

    def skip(self, reason: str) -> None:
        """One more entry left out for this reason."""
        count(self.skipped, reason)

    def dataset(
        self,
        name: str,
        source: Source,
        members: Mapping[str, str],
        splits: Mapping[str, str],
        notes: Iterable[str] = (),
    ) -> CaptionDataset:
        """The captions whose clips are there.

        Args:
            name: of the data set.
            source: where the clips lie.
            members: the file of each clip's key.
            splits: the split of each clip's key. Clips that it leaves out are in no split; where it is empty, a tenth
                of the clips becomes validation, by name.
            notes: how captions and splits are meant.

        Raises:
            InputError: no clip with a caption is there.
        """
        present = [key for key in self.captions if key in members]
        if not present:
            named = f"{len(self.captions):,} clips such as {next(iter(self.captions))}" if self.captions else "no clip"
            raise InputError(
                f"the captions in {source.path} name {named}, and no such file lies there; expected the photos or"
                " videos in the same folder or zip, at any depth: put them there"
            )
        for _ in range(len(self.captions) - len(present)):
            self.skip("the captions name a clip that is not there")
        notes = list(notes)
        if not splits:
            validation = held_out(present)
            splits = {key: "val" if key in validation else "train" for key in present}
            notes.append("there are no lists of splits: validation is a tenth by name")
        clips = [
            CaptionedClip(key, tuple(self.captions[key]), source, members[key], splits.get(key)) for key in present
        ]
        return CaptionDataset(name, tuple(clips), self.skipped, tuple(notes))


def candidates(source: Source, suffixes: Collection[str], looks_right: Callable[[bytes], bool]) -> tuple[str, ...]:
    """The files with one of these suffixes whose first bytes look right, those nearest to the root first."""
    named = [member for member in source.names() if PurePosixPath(member).suffix.lower() in suffixes]
    named.sort(key=lambda member: (member.count("/"), member))
    return tuple(member for member in named[:MOST_CANDIDATES] if looks_right(source.head(member, HEAD)))


def media_by_name(source: Source, suffixes: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The members with one of these suffixes by their base names; those of one name in their sorted order."""
    found: dict[str, tuple[str, ...]] = {}
    for member in source.names():
        path = PurePosixPath(member)
        if path.suffix.lower() in suffixes:
            found[path.name] = (*found.get(path.name, ()), member)
    return found


def media_by_stem(source: Source, suffixes: Collection[str]) -> dict[str, str]:
    """The first member of each base name, by the name without its suffix."""
    return {PurePosixPath(name).stem: members[0] for name, members in media_by_name(source, suffixes).items()}


def text(data: bytes) -> str:
    """UTF-8, whatever is not UTF-8 replaced by U+FFFD; a mark at the beginning is dropped."""
    return data.decode("utf-8-sig", errors="replace")


def lines(data: bytes) -> Iterator[str]:
    """The lines of a text, blanks around them removed, empty ones left out."""
    # Not splitlines(), which also splits at separators that people paste into captions.
    return filter(None, map(str.strip, text(data).split("\n")))


def mostly(found: Iterable[bool]) -> bool:
    """Whether more than half of them, and at least one, are true."""
    votes = list(found)
    return sum(votes) * 2 > len(votes)


def json_object(source: Source, member: str, lists: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """Reads a JSON file whose lists of objects matter.

    Args:
        source: where it lies.
        member: its name there.
        lists: keys that must be there, each with a list of objects; entries that are no objects come as empty ones.

    Raises:
        InputError: it is not JSON or lacks a list.
    """
    try:
        document = json.loads(source.read(member).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{member} in {source.path} is not JSON: {error}; copy it here again") from error
    found = {}
    for key in lists:
        entries = document.get(key) if isinstance(document, dict) else None
        if not isinstance(entries, list):
            have = ", ".join(map(str, document)) if isinstance(document, dict) else type(document).__name__
            raise InputError(f"{member} in {source.path} holds {have[:200]}; expected also a list {key!r}")
        found[key] = [entry if isinstance(entry, dict) else {} for entry in entries]
    return found


def split_in_name(member: str) -> str | None:
    """The split that a file's name speaks of, e.g. "val" in captions_val2017.json; None where there is none or two."""
    stem = PurePosixPath(member).stem.lower()
    named = [split for split in SPLITS if split in stem]
    return named[0] if len(named) == 1 else None
