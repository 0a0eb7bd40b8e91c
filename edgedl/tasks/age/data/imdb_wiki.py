"""IMDB-WIKI: 523,051 faces from IMDb and Wikipedia, labels in a MATLAB file (Rothe, Timofte, Van Gool 2015).

``imdb.mat`` or ``wiki.mat`` holds one struct of that name with, per picture: dob (date of birth, MATLAB's serial day),
photo_taken (year), full_path, gender (0 female, 1 male, NaN unknown), name, face_location (x1 y1 x2 y2, from 1,
inclusive), face_score (infinite where no face was found) and second_face_score (NaN where there is no second face);
IMDb's also celeb_names and celeb_id.

The age is the whole years from the date of birth to 1 July of the year of the photo, since only that year is known.
Left out are, as the authors recommend, pictures without a face, with a score under 1 or with a second face, and ages
outside 0 … 100. The sets ``imdb_crop`` and ``wiki_crop`` hold faces already cut out, while their face_location still
speaks of the original picture: their samples have no box.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from edgedl.data.members import clean
from edgedl.data.samples import Attribute, FaceDataset, FaceSample
from edgedl.data.sources import Source, parent
from edgedl.tasks.age.data.face_gathering import FaceGathering
from edgedl.tasks.age.data.matlab import read_variables
from runtime.errors import InputError

NAME = "imdb-wiki"
EXPECTED = "imdb.mat or wiki.mat beside the folders 00 … 99"
FIELDS = ("dob", "photo_taken", "full_path", "gender", "name", "face_location", "face_score", "second_face_score")
CELEBRITY = "celeb_id"
MINIMUM_SCORE = 1.0
OLDEST = 100
GENDERS = {0.0: "female", 1.0: "male"}

_MATLAB_DAYS = 366  # MATLAB's day 1 is 1 January of the year 0, Python's is 1 January of the year 1


@dataclass(frozen=True, slots=True)
class Record:
    """One picture's entry, as the struct has it."""

    full_path: str
    dob: float
    photo_taken: float
    gender: float
    name: str
    face_location: tuple[float, float, float, float]
    face_score: float
    second_face_score: float
    celeb_id: int | None = None


def recognises(source: Source) -> bool:
    """Whether one of the two MATLAB files is there."""
    return bool(_tables(source))


def load(source: Source) -> FaceDataset:
    """Read the MATLAB files and filter.

    Raises:
        InputError: neither file is there, or one does not hold its struct.
    """
    found = _tables(source)
    if not found:
        raise InputError(
            f"{source.path} holds neither imdb.mat nor wiki.mat; expected {EXPECTED}; give the folder of the .mat file"
        )
    gathering = FaceGathering(NAME, source, EXPECTED)
    for member in found:
        cropped = PurePosixPath(member).parent.name.endswith("_crop") or source.path.stem.endswith("_crop")
        for record in read_records(source, member):
            if record is None:
                gathering.skip("a field of the entry is not of its kind")
                continue
            age = age_on_1_july(record.dob, record.photo_taken)
            if age is None:
                gathering.skip("the date of birth or the year of the photo is no date")
            elif (reason := refusal(record, age)) is not None:
                gathering.skip(reason)
            else:
                picture = clean(parent(member) + record.full_path)
                gathering.add(_sample(source, picture, record, age, cropped))
    notes = (
        "an age is the whole years from the date of birth to 1 July of the photo's year",
        "validation is a tenth of the people",
    )
    return gathering.dataset(notes, held_out_by="subject")


def age_on_1_july(dob: float, photo_taken: float) -> int | None:
    """Whole years from a date of birth to 1 July of a year, both inclusive: born on 1 July, the birthday counts.

    Args:
        dob: MATLAB's serial day.
        photo_taken: year.

    Returns:
        Years, negative for a photo from before the birth; None where either is no date.
    """
    if not (math.isfinite(dob) and math.isfinite(photo_taken)):
        return None
    try:
        born = date.fromordinal(math.floor(dob) - _MATLAB_DAYS)
    except (ValueError, OverflowError):
        return None
    return int(photo_taken) - born.year - ((born.month, born.day) > (7, 1))


def refusal(record: Record, age: int) -> str | None:
    """Why a picture is not used, or None."""
    if not math.isfinite(record.face_score):
        return "no face was found"
    if record.face_score < MINIMUM_SCORE:
        return f"the face's score is under {MINIMUM_SCORE:g}"
    if not math.isnan(record.second_face_score):
        return "there is a second face"
    if not 0 <= age <= OLDEST:
        return f"the age is outside 0 to {OLDEST}"
    return None


def read_records(source: Source, member: str) -> list[Record | None]:
    """The struct of a MATLAB file, a record per picture; None where a field is not what it should be.

    Raises:
        InputError: the file is damaged, of another kind, or its struct lacks a field.
    """
    struct = _struct(source, member)
    lacking = [field for field in FIELDS if field not in struct]
    if lacking:
        raise InputError(
            f"the struct in {member} of {source.path} lacks {', '.join(lacking)}; it has {', '.join(sorted(struct))}"
        )
    columns = {field: _column(struct[field]) for field in (*FIELDS, CELEBRITY) if field in struct}
    lengths = {field: len(column) for field, column in columns.items()}
    if len(set(lengths.values())) != 1:
        raise InputError(f"the fields of the struct in {member} of {source.path} differ in length: {lengths}")
    return [_record(dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True)]


def _record(row: Mapping[str, Any]) -> Record | None:
    try:
        x1, y1, x2, y2 = map(float, np.ravel(row["face_location"]))
        return Record(
            full_path=_text(row["full_path"]),
            dob=float(row["dob"]),
            photo_taken=float(row["photo_taken"]),
            gender=float(row["gender"]),
            name=_text(row["name"]),
            face_location=(x1, y1, x2, y2),
            face_score=float(row["face_score"]),
            second_face_score=float(row["second_face_score"]),
            celeb_id=int(row[CELEBRITY]) if CELEBRITY in row else None,
        )
    except (TypeError, ValueError, OverflowError):  # text or a list where a number belongs
        return None


def _sample(source: Source, picture: str, record: Record, age: int, cropped: bool) -> FaceSample:
    attributes: dict[str, Attribute] = {"face_score": record.face_score}
    if record.gender in GENDERS:
        attributes["gender"] = GENDERS[record.gender]
    x1, y1, x2, y2 = record.face_location
    # From 1 and inclusive on both sides to edges from 0: the whole of a picture of width w is 1 … w there, 0 … w here.
    box = None if cropped else (x1 - 1, y1 - 1, x2, y2)
    subject = f"celebrity {record.celeb_id}" if record.celeb_id is not None else record.name or None
    return FaceSample(picture, float(age), source, picture, subject=subject, box=box, attributes=attributes)


def _struct(source: Source, member: str) -> Mapping[str, Any]:
    variable = PurePosixPath(member).stem
    try:
        variables = read_variables(source.read(member), (*FIELDS, CELEBRITY))
    except ValueError as error:
        raise InputError(
            f"{member} in {source.path} cannot be read as a MATLAB file (up to v7): {error}; copy it here again"
        ) from error
    struct = variables.get(variable)
    if not isinstance(struct, Mapping):
        have = ", ".join(sorted(filter(None, variables))) or "nothing"
        raise InputError(f"{member} in {source.path} holds {have}; expected one struct called {variable!r}")
    return struct


def _column(values: Any) -> list[Any]:
    """A field's entries; none where it is of another kind."""
    if isinstance(values, np.ndarray):
        return list(values.tolist())
    return values if isinstance(values, list) else []


def _text(value: Any) -> str:
    """A cell's text; an empty cell comes as an empty array."""
    return value if isinstance(value, str) else ""


def _tables(source: Source) -> tuple[str, ...]:
    return tuple(member for member in source.names() if PurePosixPath(member).name in ("imdb.mat", "wiki.mat"))
