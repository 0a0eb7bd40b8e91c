"""FG-NET ageing database: 1,002 pictures of 82 people, named ``001A02.jpg``: person 001 at the age of 2.

A letter after the age tells several pictures of one age apart (``001A43b.jpg``). The landmark files beside them are not
read.
"""

from __future__ import annotations

import re

from edgedl.data import names
from edgedl.data.samples import FaceDataset, FaceSample
from edgedl.data.sources import Source
from edgedl.tasks.age.data.face_gathering import FaceGathering

NAME = "fgnet"
EXPECTED = "images named 001A02.jpg (person, A, age, perhaps a letter)"

_PATTERN = re.compile(r"(\d{3})a(\d{2})([a-z]?)\.(?:jpe?g|png|bmp)", re.IGNORECASE)


def recognises(source: Source) -> bool:
    """Whether most images are named like FG-NET's."""
    return names.mostly(source, _PATTERN)


def load(source: Source) -> FaceDataset:
    """Read person and age from the names.

    Raises:
        InputError: no image is named like FG-NET's.
    """
    names.require(source, _PATTERN, EXPECTED)
    gathering = FaceGathering(NAME, source, EXPECTED)
    for member, name in names.pictures(source):
        match = _PATTERN.fullmatch(name)
        if match is None:
            gathering.skip("the name is not person, A, age")
        else:
            gathering.add(FaceSample(name, float(match[2]), source, member, subject=match[1]))
    notes = ("ages are real, in whole years; validation is a tenth of the people",)
    return gathering.dataset(notes, held_out_by="subject")
