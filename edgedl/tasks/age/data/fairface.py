"""FairFace: 97,698 faces with an age group each (Kärkkäinen and Joo 2021).

``fairface_label_train.csv`` and ``fairface_label_val.csv`` with the columns file, age, gender, race and service_test;
file is relative to the tables' folder (``train/1.jpg``). Only a group of ages is known: the sample's age is the middle
of the group's whole years (0-2 is 1, 20-29 is 24.5), "more than 70" counts as 70-79, and the group itself stays in the
attribute ``age_group``. An error measured against such ages contains the groups' width. The official splits are kept.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from edgedl.data import tables
from edgedl.data.members import clean
from edgedl.data.samples import Attribute, FaceDataset, FaceSample
from edgedl.data.sources import Source, parent
from edgedl.tasks.age.data.face_gathering import FaceGathering
from runtime.errors import InputError

NAME = "fairface"
EXPECTED = "tables fairface_label_train.csv, fairface_label_val.csv beside the folders train, val"
COLUMNS = ("file", "age", "gender", "race", "service_test")
GROUPS = {
    "0-2": 1.0,
    "3-9": 6.0,
    "10-19": 14.5,
    "20-29": 24.5,
    "30-39": 34.5,
    "40-49": 44.5,
    "50-59": 54.5,
    "60-69": 64.5,
    "more than 70": 74.5,
}
GENDERS = {"Male": "male", "Female": "female"}


def recognises(source: Source) -> bool:
    """Whether one of the tables is there."""
    return bool(_tables(source))


def load(source: Source) -> FaceDataset:
    """Read the tables.

    Raises:
        InputError: no table is there or one lacks a column.
    """
    found = _tables(source)
    if not found:
        raise InputError(
            f"{source.path} holds no fairface_label_*.csv; expected {EXPECTED}; give the folder that holds the tables"
        )
    gathering = FaceGathering(NAME, source, EXPECTED)
    for split, member in found.items():
        for row in tables.rows(source, member, COLUMNS):
            name, group = clean(row["file"]), row["age"]
            if group not in GROUPS:
                # Spreadsheets turn 3-9 and 10-19 into dates; what stood there is not guessed.
                gathering.skip(f"the age group {group!r} is none of the nine")
            elif row["gender"] not in GENDERS:
                gathering.skip("the gender is neither Male nor Female")
            else:
                attributes: dict[str, Attribute] = {
                    "age_group": group,
                    "gender": GENDERS[row["gender"]],
                    "race": row["race"],
                    "service_test": row["service_test"].lower() == "true",
                }
                picture = parent(member) + name
                gathering.add(FaceSample(name, GROUPS[group], source, picture, split=split, attributes=attributes))
    return gathering.dataset(("an age is the middle of its group, more than 70 counts as 70-79; the official splits",))


def _tables(source: Source) -> dict[str, str]:
    """Split to the table's member."""
    found: dict[str, str] = {}
    for member in source.names():
        for split in ("train", "val"):
            if PurePosixPath(member).name == f"fairface_label_{split}.csv":
                found.setdefault(split, member)
    return {split: found[split] for split in ("train", "val") if split in found}
