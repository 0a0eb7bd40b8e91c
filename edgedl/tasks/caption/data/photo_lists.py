"""Lists of photos with captions, as Flickr8k, Flickr30k and their copies have them.

=======  =================================================================================
a list   has
=======  =================================================================================
tokens   lines ``img.jpg#0<TAB>caption``
CSV      the header ``image,caption``; a caption with a comma stands in quotes
bars     the header ``image_name| comment_number| comment``; quotes are part of a caption
=======  =================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from edgedl.data.names import IMAGE_SUFFIXES
from edgedl.data.sources import Source
from edgedl.data.tables import decode, records
from edgedl.tasks.caption.data.annotations import Gathering, candidates, lines, mostly, numbered_lines
from edgedl.tasks.caption.data.captioned_clips import CaptionDataset
from edgedl.tasks.caption.data.media_files import MediaFiles
from runtime.errors import InputError

PHOTO, CAPTION, NUMBER = ("image", "image_name"), ("caption", "comment"), "comment_number"
"""Columns of the tables."""

_TOKENS = re.compile(r"([^\t]+)#\d+\t(.*)")
_NUMBERED = re.compile(r"\s*(\d+)\s+(.*)")
_SPLIT_LIST = re.compile(r"(train|dev|val|test)images\.txt$", re.IGNORECASE)
_HEADER = 1 << 12


def lists_of(name: str, source: Source) -> tuple[str, ...]:
    """The lists of "flickr8k" or "flickr30k" in a source, the best one first: tokens, then tables; lemmas last.

    Flickr30k's are called ``results…``, or number the captions.
    """
    tokens = candidates(source, {".txt", ".token"}, _is_tokens)
    tables = candidates(source, {".csv", ".tsv", ".txt"}, lambda head: _columns(head) is not None)
    found = [
        member
        for member in (*tokens, *tables)
        if (name == "flickr30k")
        == (PurePosixPath(member).name.startswith("results") or NUMBER in decode(source.head(member, _HEADER)))
    ]
    return tuple(sorted(found, key=lambda member: "lemma" in PurePosixPath(member).name.lower()))


def load_list(name: str, source: Source, expected: str) -> CaptionDataset:
    """Reads the best list of a data set, and the lists of its splits where there are some.

    Raises:
        InputError: there is no list, one is broken, or none of its photos is there.
    """
    found = lists_of(name, source)
    if not found:
        raise InputError(f"{source.path} holds no captions of {name}; expected {expected}; give the folder of both")
    gathering, photos = Gathering(), MediaFiles(source, IMAGE_SUFFIXES)
    for place, photo, caption in _entries(source, found[0], gathering):
        gathering.add(photo, caption, place)
    for photo in gathering.captions:
        gathering.locate(photo, photos.find(photo))
    gathering.assign(_splits(source, gathering))
    others = f"captions of {found[0]}, not of {', '.join(found[1:])}"
    return gathering.dataset(name, source, [others] if len(found) > 1 else [])


def _entries(source: Source, member: str, gathering: Gathering) -> Iterator[tuple[str, str, str]]:
    """Place, photo and caption of each entry."""
    data = source.read(member)
    table = _columns(data[:_HEADER])
    if table is None:
        for number, line in numbered_lines(data):
            parts = _TOKENS.fullmatch(line)
            if parts is None:
                gathering.skip("the line is not img.jpg#number<TAB>caption", _place(member, number))
            else:
                yield _place(member, number), parts[1], parts[2]
        return
    delimiter, header = table
    photo = next(header.index(name) for name in PHOTO if name in header)
    caption = next(header.index(name) for name in CAPTION if name in header)
    read = _bars(data) if delimiter == "|" else records(decode(data), f"{member} in {source.path}", delimiter)
    next(read)  # the header
    for number, fields in read:
        fields = _mended(fields, header, delimiter)
        if len(fields) != len(header):
            what = "few" if len(fields) < len(header) else "many"
            gathering.skip(f"the row has too {what} columns", _place(member, number))
        else:
            yield _place(member, number), fields[photo].strip(), fields[caption]


def _bars(data: bytes) -> Iterator[tuple[int, list[str]]]:
    return ((number, line.split("|")) for number, line in numbered_lines(data))


def _mended(fields: list[str], header: list[str], delimiter: str) -> list[str]:
    """A row whose last column is the caption: one that is cut by its own commas is joined, and one that lacks the bar
    between number and caption, as Flickr30k's 2199200615.jpg does, is cut there.
    """
    last = len(header) - 1
    if header[last] not in CAPTION:
        return fields
    if len(fields) == last and header[last - 1] == NUMBER and (parts := _NUMBERED.fullmatch(fields[-1])):
        return [*fields[:-1], *parts.groups()]
    joint = delimiter if delimiter == "|" else f"{delimiter} "  # the reader of CSV drops the blank
    return [*fields[:last], joint.join(fields[last:])] if len(fields) > last else fields


def _splits(source: Source, gathering: Gathering) -> Iterator[tuple[str, str]]:
    """Photos with the split whose list they are on."""
    for member in source.names():
        kind = _SPLIT_LIST.search(member)
        if kind is None:
            continue
        split = "val" if kind[1].lower() == "dev" else kind[1].lower()
        for photo in lines(source.read(member)):
            if photo in gathering.captions:
                yield photo, split
            else:
                gathering.skip("a list of a split names a photo that has no caption")


def _is_tokens(head: bytes) -> bool:
    return mostly(_TOKENS.fullmatch(line) is not None for line in lines(head))


def _columns(head: bytes) -> tuple[str, list[str]] | None:
    """Delimiter and columns of a table of photos and captions; None where it is none."""
    first = next(lines(head), "")
    for delimiter in "|,;\t":
        header = [column.strip(' "').lower() for column in first.split(delimiter)]
        if set(PHOTO) & set(header) and set(CAPTION) & set(header):
            return delimiter, header
    return None


def _place(member: str, number: int) -> str:
    return f"{member}, line {number}"
