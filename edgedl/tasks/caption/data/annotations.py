"""Annotation files inside a source: what the caption formats have in common.

A line that cannot be used is left out and counted under its reason, because every one of these sets has some; a file
that cannot be read at all is an error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from edgedl.data.sources import Source
from edgedl.data.splits import held_out
from edgedl.data.tables import decode
from edgedl.tasks.caption.data.captioned_clips import CaptionDataset, CaptionedClip
from edgedl.tasks.caption.data.vocabulary import tokenise
from runtime.errors import InputError

HEAD = 1 << 16
"""So many bytes of a file are looked at to recognise it."""

MOST_CANDIDATES = 50
"""So many files are looked at, those nearest to the root first."""


MISSING = "the captions name a clip that is not there"


class Gathering:
    """Captions as they come out of annotation files, by the key of their clip, and what had to be left out."""

    def __init__(self) -> None:
        self.captions: dict[str, list[str]] = {}
        self.skipped: dict[str, int] = {}
        self.splits: dict[str, str] = {}
        self._members: dict[str, str] = {}
        self._keys: dict[str, str] = {}
        self._without: dict[str, tuple[str, str]] = {}
        self._first: dict[str, str] = {}

    def add(self, key: str, caption: object, place: str = "") -> None:
        """One more caption; one that is no text or has no word is counted and left out."""
        if not isinstance(caption, str):
            self.skip("the caption is no text", place)
        elif not _is_text(key + caption):
            self.skip("the caption is not UTF-8 text", place)
        elif not tokenise(caption):
            self.skip("the caption has no word", place)
        else:
            self.captions.setdefault(key, []).append(" ".join(caption.split()))

    def skip(self, reason: str, place: str = "") -> None:
        """One more entry left out for this reason; of each reason the first place is told."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1
        if place:
            self._first.setdefault(reason, place)

    def assign(self, found: Iterable[tuple[str, str]]) -> None:
        """Takes (key, split) pairs. A clip in two splits is rather tested than learnt from, and that is counted."""
        for key, split in sorted(found, key=lambda pair: ("test", "val", "train").index(pair[1])):
            if self.splits.setdefault(key, split) != split:
                self.skip(f"a clip in two splits stays in {self.splits[key]}")

    def locate(self, key: str, found: Sequence[str]) -> None:
        """Gives a clip's key its file, if there is just one and no other key has it: no clip is in two splits."""
        if len(found) > 1:
            self._without[key] = "files that differ have the clip's name", " and ".join(found)
        elif found and (other := self._keys.setdefault(found[0], key)) != key:
            self._without[key] = "the clip has captions under another name", f"{key}, which is {other}"
        elif found:
            self._members[key] = found[0]

    def dataset(self, name: str, source: Source, notes: Iterable[str] = ()) -> CaptionDataset:
        """The captions whose clips are there.

        Clips that the splits leave out are in none; where there are no splits at all, a tenth of the clips becomes
        validation, by name.

        Args:
            name: of the data set.
            source: where the clips lie.
            notes: how captions and splits are meant.

        Raises:
            InputError: no clip with a caption is there.
        """
        present = [key for key in self.captions if key in self._members]
        lacking = [key for key in self.captions if key not in self._members]
        if not present:
            raise InputError(self._nothing(source, lacking))
        for key in lacking:
            self.skip(*self._without.get(key, (MISSING, "")))
        notes = [*notes, *(f"{reason}: the first is {place}" for reason, place in self._first.items())]
        splits = self.splits
        if not splits:
            validation = held_out(present)
            splits = {key: "val" if key in validation else "train" for key in present}
            notes.append("there are no lists of splits: validation is a tenth by name")
        clips = [
            CaptionedClip(key, tuple(self.captions[key]), source, self._members[key], splits.get(key))
            for key in present
        ]
        return CaptionDataset(name, tuple(clips), self.skipped, tuple(notes))

    def _nothing(self, source: Source, lacking: Sequence[str]) -> str:
        """Why no clip is left."""
        if not lacking:
            reasons = ", ".join(f"{reason} ({count:,})" for reason, count in self.skipped.items())
            return f"the captions in {source.path} name no clip{': ' if reasons else ''}{reasons}"
        named = f"the captions in {source.path} name {len(lacking):,} clips such as {lacking[0]}"
        if lacking[0] in self._without:
            reason, place = self._without[lacking[0]]
            return f"{named}, and {reason} ({place}); give a folder or zip that holds each photo or video once"
        return (
            f"{named}, and no such file lies there; expected the photos or videos in the same folder or zip, at any"
            " depth: put them there"
        )


def candidates(source: Source, suffixes: Collection[str], looks_right: Callable[[bytes], bool]) -> tuple[str, ...]:
    """The files with one of these suffixes whose first bytes look right, those nearest to the root first."""
    named = [member for member in source.names() if PurePosixPath(member).suffix.lower() in suffixes]
    named.sort(key=lambda member: (member.count("/"), member))
    return tuple(member for member in named[:MOST_CANDIDATES] if looks_right(source.head(member, HEAD)))


def lines(data: bytes) -> Iterator[str]:
    """The lines of a text, blanks around them removed, empty ones left out."""
    return (line for _, line in numbered_lines(data))


def numbered_lines(data: bytes) -> Iterator[tuple[int, str]]:
    """The same, each with its number, from 1."""
    # Not splitlines(), which also splits at separators that people paste into captions.
    found = enumerate(map(str.strip, decode(data).split("\n")), start=1)
    return ((number, line) for number, line in found if line)


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
        document = json.loads(decode(source.read(member), "strict"))
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


def _is_text(text: str) -> bool:
    """Whether it is free of U+FFFD, which stands for bytes that are no UTF-8, and of halves of surrogate pairs."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\ufffd" not in text
