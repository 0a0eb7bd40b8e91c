"""UTKFace: faces whose labels are in the file name (Zhang, Song, Qi 2017).

``[age]_[gender]_[race]_[date&time].jpg.chip.jpg`` for the aligned and cropped faces (folder ``UTKFace``), ``….jpg`` for
the pictures in the wild (folders ``part1`` … ``part3``). Gender 0 is male: the opposite of IMDB-WIKI. Some names of the
original are malformed. One that lacks a label is left out and counted, because nothing tells which of the labels is
missing; one whose three labels are complete and only the time stamp is odd is used.
"""

from __future__ import annotations

import re

from edgedl.data import names
from edgedl.data.samples import FaceDataset, FaceSample
from edgedl.data.sources import Source
from edgedl.tasks.age.data.face_gathering import OLDEST, FaceGathering

NAME = "utkface"
EXPECTED = "images named age_gender_race_datetime.jpg.chip.jpg or ….jpg, e.g. 26_0_2_20170104023102422.jpg.chip.jpg"
GENDERS = ("male", "female")
RACES = ("White", "Black", "Asian", "Indian", "other")

_ALIKE = re.compile(r"\d{1,3}_\d_\d_\d{8,}[^_]*", re.IGNORECASE)
_REGULAR_STAMP = re.compile(r"\d{17}(\.jpg)?\.(jpg|chip\.jpg)")


def recognises(source: Source) -> bool:
    """Whether most images carry UTKFace's labels."""
    return names.mostly(source, _ALIKE)


def load(source: Source) -> FaceDataset:
    """Read the labels from the names.

    Raises:
        InputError: no image is named like UTKFace's.
    """
    names.require(source, _ALIKE, EXPECTED)
    gathering = FaceGathering(NAME, source, EXPECTED)
    odd_stamps = 0
    for member, name in names.pictures(source):
        labels = parse(name)
        if isinstance(labels, str):
            gathering.skip(labels)
        else:
            age, gender, race = labels
            odd_stamps += not _REGULAR_STAMP.fullmatch(name.split("_", 3)[3])
            attributes = {"gender": GENDERS[gender], "race": RACES[race]}
            gathering.add(FaceSample(name, float(age), source, member, attributes=attributes))
    notes = ["ages are the authors' estimates in whole years; validation is a tenth by file name"]
    if odd_stamps:
        notes.append(f"{odd_stamps} names have complete labels and an odd time stamp; they are used")
    return gathering.dataset(notes, held_out_by="name")


def parse(name: str) -> tuple[int, int, int] | str:
    """The labels in a file name.

    Args:
        name: base name, e.g. "26_0_2_20170104023102422.jpg.chip.jpg".

    Returns:
        (age in years, gender, race), or the reason why the name cannot be used.
    """
    fields = name.split(".", 1)[0].split("_")
    if len(fields) != 4:
        return f"the name has {len(fields)} fields instead of age, gender, race and time"
    if not all(field.isascii() and field.isdigit() for field in fields[:3]):
        return "the name's age, gender or race is not a number"
    age, gender, race = (int(field) for field in fields[:3])
    if age > OLDEST:
        return f"the name's age is over {OLDEST}"
    if gender >= len(GENDERS):
        return "the name's gender is neither 0 nor 1"
    if race >= len(RACES):
        return "the name's race is not 0 to 4"
    return age, gender, race
