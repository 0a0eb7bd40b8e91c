"""AgeDB: 16,488 pictures of 568 well-known people (Moschoglou et al. 2017), named ``0_MariaCallas_35_f.jpg``.

The fields are a number, the person, the age and the gender (m or f). A person's name may itself hold an underscore, so
the number is read from the left, age and gender from the right.
"""

from __future__ import annotations

import re

from edgedl.data import names
from edgedl.data.samples import FaceDataset, FaceSample
from edgedl.data.sources import Source
from edgedl.tasks.age.data.face_gathering import FaceGathering

NAME = "agedb"
EXPECTED = "images named number_Person_age_gender.jpg, e.g. 0_MariaCallas_35_f.jpg"
GENDERS = {"m": "male", "f": "female"}

_PATTERN = re.compile(r"(\d+)_(.*[^\d_].*)_(\d{1,3})_([mf])\.(?:jpe?g|png|bmp)", re.IGNORECASE)


def recognises(source: Source) -> bool:
    """Whether most images are named like AgeDB's."""
    return names.mostly(source, _PATTERN)


def load(source: Source) -> FaceDataset:
    """Read person, age and gender from the names.

    Raises:
        InputError: no image is named like AgeDB's.
    """
    names.require(source, _PATTERN, EXPECTED)
    gathering = FaceGathering(NAME, source, EXPECTED)
    for member, name in names.pictures(source):
        match = _PATTERN.fullmatch(name)
        if match is None:
            gathering.skip("the name is not number, person, age, gender")
        else:
            attributes = {"gender": GENDERS[match[4].lower()]}
            gathering.add(FaceSample(name, float(match[3]), source, member, subject=match[2], attributes=attributes))
    notes = ("ages are real, in whole years; validation is a tenth of the people",)
    return gathering.dataset(notes, held_out_by="subject")
