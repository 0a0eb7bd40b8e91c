"""Flickr8k: 8,091 photos with five captions each (Hodosh, Young, Hockenmaier 2013); Flickr30k's captions alike.

``Flickr8k.token.txt`` holds ``img.jpg#0<TAB>caption`` a line, ``Flickr_8k.trainImages.txt``, ``….devImages.txt`` and
``….testImages.txt`` a photo's name a line; the photos lie in ``Flicker8k_Dataset``. dev is called val here. The
original's captions name one photo that does not exist, and 91 photos are on none of the lists.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from edgedl.data.names import IMAGE_SUFFIXES
from edgedl.data.sources import Source
from edgedl.tasks.caption.data.annotations import Gathering, candidates, lines, media_by_name, mostly, split_in_name
from edgedl.tasks.caption.data.captioned_clips import CaptionDataset
from runtime.errors import InputError

NAME = "flickr8k"
EXPECTED = "Flickr8k.token.txt with lines img.jpg#0<TAB>caption, Flickr_8k.{train,dev,test}Images.txt and the photos"

_LINE = re.compile(r"([^\t]+)#(\d+)\t(.*)")


def recognises(source: Source) -> bool:
    """Whether a file of such captions is there."""
    return bool(_captions(source))


def load(source: Source) -> CaptionDataset:
    """Read captions and lists.

    Raises:
        InputError: no captions are there, or none of their photos.
    """
    found = _captions(source)
    if not found:
        raise InputError(f"{source.path} holds no captions of Flickr8k; expected {EXPECTED}; give the folder of both")
    gathering = Gathering()
    for line in lines(source.read(found[0])):
        parts = _LINE.fullmatch(line)
        if parts is None:
            gathering.skip("the line is not img.jpg#number<TAB>caption")
        else:
            gathering.add(parts[1], parts[3])
    members = {name: found_at[0] for name, found_at in media_by_name(source, IMAGE_SUFFIXES).items()}
    splits = _splits(source, gathering)
    notes = [f"captions of {found[0]}"] if len(found) > 1 else []
    loose = sum(key in members and key not in splits for key in gathering.captions) if splits else 0
    if loose:
        notes.append(f"{loose:,} photos are on none of the lists and so in no split")
    return gathering.dataset(NAME, source, members, splits, notes)


def _captions(source: Source) -> tuple[str, ...]:
    """The files of captions, the plain one before the lemmatised one."""
    found = candidates(source, {".txt", ".token"}, _looks_right)
    return tuple(sorted(found, key=lambda member: "lemma" in PurePosixPath(member).name.lower()))


def _looks_right(head: bytes) -> bool:
    return mostly(_LINE.fullmatch(line) is not None for line in lines(head))


def _splits(source: Source, gathering: Gathering) -> dict[str, str]:
    """The split of each photo by its list; one on two lists is rather tested than learnt from."""
    lists: dict[str, list[str]] = {"test": [], "val": [], "train": []}
    for member in source.names():
        name = PurePosixPath(member).name.lower()
        split = "val" if "dev" in name else split_in_name(name)
        if name.endswith("images.txt") and split is not None:
            lists[split].append(member)
    splits: dict[str, str] = {}
    for split, members in lists.items():
        for photo in (photo for member in members for photo in lines(source.read(member))):
            if photo not in gathering.captions:
                gathering.skip("a list of a split names a photo that has no caption")
            elif splits.setdefault(photo, split) != split:
                gathering.skip(f"a photo on two lists stays in {splits[photo]}")
    return splits
