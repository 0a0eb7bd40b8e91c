"""COCO captions: photos with five captions each (Chen et al. 2015), and whatever else is written like them.

``annotations/captions_train2017.json`` and the like: {"images": [{"id", "file_name", …}], "annotations": [{"image_id",
"caption", …}]}; the photos lie in folders of any name. A file's split is in its name; the test split has no captions.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from edgedl.data.names import IMAGE_SUFFIXES
from edgedl.data.sources import Source
from edgedl.tasks.caption.data.annotations import Gathering, candidates, json_object
from edgedl.tasks.caption.data.captioned_clips import CaptionDataset
from edgedl.tasks.caption.data.media_files import MediaFiles, split_in_name
from runtime.errors import InputError

NAME = "coco-captions"
EXPECTED = "annotations/captions_train2017.json, captions_val2017.json, … with images and annotations, and the photos"


def recognises(source: Source) -> bool:
    """Whether a file of such captions is there."""
    return bool(_captions(source))


def load(source: Source) -> CaptionDataset:
    """Read the annotation files.

    Raises:
        InputError: no captions are there, or none of their photos, or a file is damaged.
    """
    found = _captions(source)
    if not found:
        raise InputError(f"{source.path} holds no captions of COCO; expected {EXPECTED}; give the folder of both")
    gathering, files = Gathering(), MediaFiles(source, IMAGE_SUFFIXES)
    for member in found:
        document = json_object(source, member, ("images", "annotations"))
        split = split_in_name(PurePosixPath(member).name)
        photos = _photos(document["images"], files, split, gathering)
        before = set(gathering.captions)
        for annotation in document["annotations"]:
            photo = photos.get(_id(annotation.get("image_id")))
            if photo is None:
                gathering.skip("the annotation belongs to no photo of its file")
            elif photo in before:
                gathering.skip("the photo has captions in another file already")
            else:
                gathering.add(photo, annotation.get("caption"))
        if split is not None:
            gathering.assign((photo, split) for photo in set(photos.values()) - before)
    return gathering.dataset(NAME, source)


def _captions(source: Source) -> tuple[str, ...]:
    """The annotation files with captions; COCO's other ones (instances, key points) begin alike."""
    found = candidates(source, {".json"}, _looks_right)
    named = tuple(member for member in found if "caption" in PurePosixPath(member).name.lower())
    return named or tuple(member for member in found if b'"caption"' in source.read(member))


def _looks_right(head: bytes) -> bool:
    return b'"video_id"' not in head and (b'"file_name"' in head or b'"image_id"' in head)


def _photos(
    images: list[dict[str, Any]], files: MediaFiles, split: str | None, gathering: Gathering
) -> dict[str | None, str]:
    """The file of each photo by its id; its name where there is no such file, or where several differ."""
    names: dict[str, str] = {}
    several: set[str] = set()
    for image in images:
        number, name = _id(image.get("id")), image.get("file_name")
        if number is None or not isinstance(name, str) or not name:
            gathering.skip("the photo's entry lacks id or file_name")
        elif names.setdefault(number, name) != name:
            several.add(number)
    photos: dict[str | None, str] = {}
    for number, name in names.items():
        if number in several:
            gathering.skip("photos of several names have the same id", number)
            continue
        found = files.find(name, split)
        photos[number] = found[0] if len(found) == 1 else name
        gathering.locate(photos[number], found)
    return photos


def _id(value: object) -> str | None:
    """An id as a text that tells 1, "1" and true apart, which Python does not; None for what is no id."""
    return repr(value) if isinstance(value, int | str) else None
