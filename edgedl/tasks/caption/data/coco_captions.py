"""COCO captions: photos with five captions each (Chen et al. 2015), and whatever else is written like them.

``annotations/captions_train2017.json`` and the like: {"images": [{"id", "file_name", …}], "annotations": [{"image_id",
"caption", …}]}; the photos lie in folders of any name. A file's split is in its name; the test split has no captions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from edgedl.data.names import IMAGE_SUFFIXES
from edgedl.data.sources import Source
from edgedl.tasks.caption.data.annotations import Gathering, candidates, json_object, media_by_name, split_in_name
from edgedl.tasks.caption.data.captioned_clips import CaptionDataset
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
    gathering = Gathering()
    splits: dict[str, str] = {}
    members = media_by_name(source, IMAGE_SUFFIXES)
    for member in found:
        document = json_object(source, member, ("images", "annotations"))
        split = split_in_name(member)
        photos = _photos(document["images"], members, split, gathering)
        before = set(gathering.captions)
        for annotation in document["annotations"]:
            number = annotation.get("image_id")
            photo = photos.get(number) if isinstance(number, int | str) else None
            if photo is None:
                gathering.skip("the annotation belongs to no photo of its file")
            elif photo in before:
                gathering.skip("the photo has captions in another file already")
            else:
                gathering.add(photo, annotation.get("caption"))
        if split is not None:
            splits |= dict.fromkeys(set(photos.values()) - before, split)
    present = {member: member for found_at in members.values() for member in found_at}
    return gathering.dataset(NAME, source, present, splits)


def _captions(source: Source) -> tuple[str, ...]:
    """The annotation files with captions; COCO's other ones (instances, key points) begin alike."""
    found = candidates(source, {".json"}, _looks_right)
    named = tuple(member for member in found if "caption" in PurePosixPath(member).name.lower())
    return named or tuple(member for member in found if b'"caption"' in source.read(member))


def _looks_right(head: bytes) -> bool:
    return b'"video_id"' not in head and (b'"file_name"' in head or b'"image_id"' in head)


def _photos(
    images: list[dict[str, object]], members: Mapping[str, Sequence[str]], split: str | None, gathering: Gathering
) -> dict[object, str]:
    """The file of each photo by its number; the name alone where there is no such file."""
    photos: dict[object, str] = {}
    for image in images:
        number, file = image.get("id"), image.get("file_name")
        if isinstance(number, int | str) and isinstance(file, str) and file:
            found = members.get(PurePosixPath(file).name, (file,))
            photos[number] = max(found, key=lambda member: (f"/{member}".endswith(f"/{file}"), (split or "") in member))
        else:
            gathering.skip("the photo's entry lacks id or file_name")
    return photos
