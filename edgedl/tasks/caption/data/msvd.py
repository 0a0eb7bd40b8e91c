"""MSVD: 1,970 video clips with about 40 English captions each (Chen and Dolan 2011), as text or as a table.

Text: ``<id>_<start>_<end> caption`` a line, comments after ``#``. Table (CSV): VideoID, Start, End, WorkerID, Source,
AnnotationTime, Language, Description, many languages; only English is read. A clip is ``<id>_<start>_<end>.avi``, or
``vid12.avi`` where ``youtube_mapping.txt`` (``<id>_<start>_<end> vid12``) lies beside.

Splits after Venugopalan et al. 2015: the clips 1 to 1200 are training, 1201 to 1300 validation, the rest test. Their
numbers are those of ``youtube_mapping.txt``; it numbers the names in the order of their bytes, so without it the
same is done with the names in the captions, if they are the whole 1,970, whether or not their files are there.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable

from edgedl.data.sources import Source
from edgedl.data.tables import decode, records
from edgedl.tasks.caption.data.annotations import Gathering, candidates, lines, mostly, numbered_lines
from edgedl.tasks.caption.data.captioned_clips import CaptionDataset
from edgedl.tasks.caption.data.media_files import MediaFiles
from runtime.errors import InputError
from runtime.media.clips import VIDEO_SUFFIXES

NAME = "msvd"
EXPECTED = (
    "AllVideoDescriptions.txt with lines <id>_<start>_<end> caption, or a table with VideoID,Start,End,…,Description,"
    " and the clips <id>_<start>_<end>.avi"
)
COLUMNS = ("VideoID", "Start", "End", "Language", "Description")
CLIPS = 1970
LAST_TRAINING, LAST_VALIDATION = 1200, 1300

_CLIP = r"\S+_\d+_\d+"
_LINE = re.compile(rf"({_CLIP})\s+(\S.*)")
_MAPPING = re.compile(rf"({_CLIP})\s+vid(\d+)")


def recognises(source: Source) -> bool:
    """Whether a file of such captions is there."""
    return bool(_texts(source) or _tables(source))


def load(source: Source) -> CaptionDataset:
    """Read the captions: the text, or the table where there is no text.

    Raises:
        InputError: no captions are there, or none of their clips, or the table is broken.
    """
    texts, tables = _texts(source), _tables(source)
    if not texts and not tables:
        raise InputError(f"{source.path} holds no captions of MSVD; expected {EXPECTED}; give the folder of both")
    gathering = Gathering()
    notes = []
    if texts:
        _read_text(source, texts[0], gathering)
        notes += [f"captions of {texts[0]}, not of {tables[0]}"] if tables else []
    else:
        _read_table(source, tables[0], gathering)
    numbers = _mapping(source)
    if not numbers and len(gathering.captions) == CLIPS:
        numbers = numbered(gathering.captions)
    elif not numbers:
        notes.append(f"the captions name {len(gathering.captions):,} clips, not {CLIPS:,}: no published splits")
    clips = MediaFiles(source, VIDEO_SUFFIXES, by_stem=True)
    for clip in gathering.captions:
        own = clips.find(clip)
        gathering.locate(clip, own or (clips.find(f"vid{numbers[clip]}") if clip in numbers else ()))
    gathering.assign((clip, split_of(number)) for clip, number in numbers.items())
    return gathering.dataset(NAME, source, notes)


def numbered(clips: Iterable[str]) -> dict[str, int]:
    """The numbers of clips, from 1, in the order of their names' bytes."""
    return {clip: number for number, clip in enumerate(sorted(set(clips), key=str.encode), 1)}


def split_of(number: int) -> str:
    """The split of a clip by its number, from 1."""
    if number <= LAST_TRAINING:
        return "train"
    return "val" if number <= LAST_VALIDATION else "test"


def _texts(source: Source) -> tuple[str, ...]:
    def looks_right(head: bytes) -> bool:
        found = [line for line in lines(head) if not line.startswith("#")]
        return mostly(_LINE.fullmatch(line) is not None and not _MAPPING.fullmatch(line) for line in found)

    return candidates(source, {".txt"}, looks_right)


def _tables(source: Source) -> tuple[str, ...]:
    def looks_right(head: bytes) -> bool:
        header = next(csv.reader([next(lines(head), "")]), [])
        return set(COLUMNS) <= {name.strip() for name in header}

    return candidates(source, {".csv"}, looks_right)


def _read_text(source: Source, member: str, gathering: Gathering) -> None:
    for number, line in numbered_lines(source.read(member)):
        parts = _LINE.fullmatch(line)
        place = f"{member}, line {number}"
        if parts is not None and not line.startswith("#"):
            gathering.add(parts[1], parts[2], place)
        elif not line.startswith("#"):
            gathering.skip("the line is not <id>_<start>_<end> caption", place)


def _read_table(source: Source, member: str, gathering: Gathering) -> None:
    # Not strict: a worker's single quote is no reason to lose 120,000 captions.
    rows = records(decode(source.read(member)), f"{member} in {source.path}", strict=False)
    _, header = next(rows)
    places = [header.index(column) for column in COLUMNS]
    for number, fields in rows:
        place = f"{member}, line {number}"
        if len(fields) <= max(places):
            gathering.skip("the row has too few columns", place)
            continue
        video, start, end, language, caption = (fields[column] for column in places)
        if language.lower() != "english":
            gathering.skip("the caption is not English")
        elif not (video and start.isdecimal() and end.isdecimal()) or video.startswith("#"):
            gathering.skip("the row has no video and times (a spreadsheet writes #NAME?)", place)
        else:
            gathering.add(f"{video}_{start}_{end}", caption, place)


def _mapping(source: Source) -> dict[str, int]:
    """The authors' numbers of the clips; empty where there is no such file.

    Raises:
        InputError: a clip has two numbers, or a number two clips.
    """
    found = candidates(
        source, {".txt"}, lambda head: mostly(_MAPPING.fullmatch(line) is not None for line in lines(head))
    )
    numbers: dict[str, int] = {}
    clips: dict[int, str] = {}
    for member in found[:1]:
        for line_number, line in numbered_lines(source.read(member)):
            row = _MAPPING.fullmatch(line)
            if row is None:
                continue
            clip, number = row[1], int(row[2])
            if numbers.setdefault(clip, number) != number or clips.setdefault(number, clip) != clip:
                raise InputError(
                    f"{member} in {source.path}, line {line_number}: {line!r} gives a clip a second number, or a number"
                    " a second clip; expected one number for each clip: copy the file here again"
                )
    return numbers
