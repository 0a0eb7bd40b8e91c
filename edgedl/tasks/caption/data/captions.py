"""Caption data sets in their own on-disk formats, recognised from their contents."""

from __future__ import annotations

import os
from types import ModuleType

from edgedl.data import recognition
from edgedl.data.sources import open_source
from edgedl.tasks.caption.data import coco_captions, flickr8k, flickr30k, karpathy, msr_vtt, msvd
from edgedl.tasks.caption.data.captioned_clips import CaptionDataset as CaptionDataset
from edgedl.tasks.caption.data.captioned_clips import CaptionedClip as CaptionedClip

FORMATS: tuple[ModuleType, ...] = (flickr8k, flickr30k, karpathy, coco_captions, msvd, msr_vtt)


def open_captions(path: str | os.PathLike[str], format: str | None = None) -> CaptionDataset:  # noqa: A002 - the user's word
    """Open a caption data set in its own on-disk format.

    Args:
        path: the folder or the zip that holds annotations and photos or videos; a zip is read in place.
        format: "flickr8k", "flickr30k", "karpathy", "coco-captions", "msvd" or "msr-vtt"; None recognises it from the
            contents.

    Raises:
        InputError: nothing is there, it is none of the formats or could be several, it is not the format asked for, or
            its photos or videos are missing.
    """
    captions: CaptionDataset = recognition.load(open_source(path), FORMATS, "caption", format)
    return captions
