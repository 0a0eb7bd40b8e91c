"""Captions with Karpathy's splits (Karpathy and Fei-Fei 2015), which most papers on captions report.

``dataset_flickr8k.json``, ``dataset_flickr30k.json`` or ``dataset_coco.json``: {"images": [{"filename", "filepath" (of
COCO, the photo's folder), "split", "sentences": [{"raw", "tokens"}, …]}, …], "dataset"}; the photos lie in folders of
any name. COCO's split "restval", photos of its validation part that are left over, is learnt from, as it is by custom.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from edgedl.data.names import IMAGE_SUFFIXES
from edgedl.data.sources import Source
from edgedl.tasks.caption.data.annotations import Gathering, candidates, json_object
from edgedl.tasks.caption.data.captioned_clips import CaptionDataset
from edgedl.tasks.caption.data.media_files import MediaFiles
from runtime.errors import InputError

NAME = "karpathy"
EXPECTED = (
    "dataset_flickr8k.json, dataset_flickr30k.json or dataset_coco.json with images that have filename, split and"
    " sentences, and the photos"
)
_KNOWN = re.compile(r"dataset_(flickr8k|flickr30k|coco)\.json$")
SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}


def recognises(source: Source) -> bool:
    """Whether a file of such captions is there."""
    return bool(_captions(source))


def load(source: Source) -> CaptionDataset:
    """Read the file.

    Raises:
        InputError: there is no such file, there are several, none of its photos is there, or it is damaged.
    """
    found = _captions(source)
    if not found:
        raise InputError(
            f"{source.path} holds no captions of Karpathy's JSON; expected {EXPECTED}; give the folder of both"
        )
    if len(found) > 1:
        raise InputError(f"{source.path} holds {', '.join(found)}; expected one of them: give a folder with one")
    gathering, photos = Gathering(), MediaFiles(source, IMAGE_SUFFIXES)
    assigned = []
    for number, image in enumerate(json_object(source, found[0], ("images",))["images"]):
        place, name = f"{found[0]}, images[{number}]", _name(image)
        if name is None:
            gathering.skip("the photo's entry lacks filename", place)
            continue
        for caption in _sentences(image):
            gathering.add(name, caption, place)
        if name in gathering.captions:
            gathering.locate(name, photos.find(name))
            split = image.get("split")
            if isinstance(split, str) and split in SPLITS:
                assigned.append((name, SPLITS[split]))
            else:
                gathering.skip("the photo's split is none of train, restval, val, test; it is in no split", place)
    gathering.assign(assigned)
    known = _KNOWN.search(found[0])
    return gathering.dataset(f"{NAME}-{known[1]}" if known else NAME, source)


def _captions(source: Source) -> tuple[str, ...]:
    return candidates(
        source, {".json"}, lambda head: b'"sentences"' in head and b'"filename"' in head and b'"video_id"' not in head
    )


def _name(image: Mapping[str, Any]) -> str | None:
    folder, name = image.get("filepath", ""), image.get("filename")
    if not (isinstance(folder, str) and isinstance(name, str) and name):
        return None
    return f"{folder.rstrip('/')}/{name}" if folder else name


def _sentences(image: Mapping[str, Any]) -> Iterator[object]:
    """The captions as written; the words of one that is there only as such."""
    sentences = image.get("sentences")
    for sentence in sentences if isinstance(sentences, list) else ():
        found = sentence if isinstance(sentence, dict) else {}
        tokens = found.get("tokens")
        words = " ".join(map(str, tokens)) if isinstance(tokens, list) else None
        yield found.get("raw", words)
