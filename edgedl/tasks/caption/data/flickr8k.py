"""Flickr8k: 8,091 photos with five captions each (Hodosh, Young, Hockenmaier 2013).

As published: ``Flickr8k.token.txt`` holds ``img.jpg#0<TAB>caption`` a line, ``Flickr_8k.trainImages.txt``,
``….devImages.txt`` and ``….testImages.txt`` a photo's name a line; the photos lie in ``Flicker8k_Dataset``. dev is
called val here. The original's captions name one photo that does not exist, and 91 photos are on none of the lists.

As Kaggle has it: ``captions.txt``, a CSV table with the header ``image,caption``, beside the folder ``Images``, and no
lists: a tenth of the photos is validation, by their names (see `edgedl.data.splits`).
"""

from __future__ import annotations

from edgedl.data.sources import Source
from edgedl.tasks.caption.data.captioned_clips import CaptionDataset
from edgedl.tasks.caption.data.photo_lists import lists_of, load_list

NAME = "flickr8k"
EXPECTED = (
    "Flickr8k.token.txt with lines img.jpg#0<TAB>caption, Flickr_8k.{train,dev,test}Images.txt and the photos, or"
    " captions.txt with the header image,caption and the photos"
)


def recognises(source: Source) -> bool:
    """Whether a list of such captions is there."""
    return bool(lists_of(NAME, source))


def load(source: Source) -> CaptionDataset:
    """Read captions and lists.

    Raises:
        InputError: no captions are there, or none of their photos, or the table is broken.
    """
    return load_list(NAME, source, EXPECTED)
