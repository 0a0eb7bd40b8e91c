"""Flickr30k: 31,783 photos with five captions each (Young, Lai, Hodosh, Hockenmaier 2014).

``results_20130124.token`` holds ``img.jpg#0<TAB>caption`` a line, as Flickr8k's. Kaggle's copy has ``results.csv`` with
the header ``image_name| comment_number| comment`` instead; one of its rows lacks the second bar and is read all the
same. There are no lists of splits: a tenth of the photos is validation, by their names. Karpathy's splits come with
``dataset_flickr30k.json``, see `edgedl.tasks.caption.data.karpathy`.
"""

from __future__ import annotations

from edgedl.data.sources import Source
from edgedl.tasks.caption.data.captioned_clips import CaptionDataset
from edgedl.tasks.caption.data.photo_lists import lists_of, load_list

NAME = "flickr30k"
EXPECTED = (
    "results_20130124.token with lines img.jpg#0<TAB>caption, or results.csv with the header"
    " image_name| comment_number| comment, and the photos"
)


def recognises(source: Source) -> bool:
    """Whether a list of such captions is there."""
    return bool(lists_of(NAME, source))


def load(source: Source) -> CaptionDataset:
    """Read the captions.

    Raises:
        InputError: no captions are there, or none of their photos, or the table is broken.
    """
    return load_list(NAME, source, EXPECTED)
