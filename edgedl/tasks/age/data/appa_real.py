"""APPA-REAL: 7,591 faces with real and apparent ages (Agustsson et al. 2017).

``gt_avg_train.csv``, ``gt_avg_valid.csv`` and ``gt_avg_test.csv`` with the columns file_name, apparent_age_avg,
apparent_age_std and real_age (num_ratings in some copies), beside the folders ``train``, ``valid`` and ``test``. Of
each picture ``X.jpg`` there is a face crop with a margin of 40 %, ``X.jpg_face.jpg``: that one is read. The official
splits are kept ("valid" is called "val" here).
"""

from __future__ import annotations

import math
from pathlib import PurePosixPath

from edgedl.data import tables
from edgedl.data.members import clean
from edgedl.data.samples import FaceDataset, FaceSample
from edgedl.data.sources import Source, parent
from edgedl.tasks.age.data.face_gathering import FaceGathering
from runtime.errors import InputError

NAME = "appa-real"
EXPECTED = "tables gt_avg_train.csv, gt_avg_valid.csv, gt_avg_test.csv beside the folders train, valid, test"
COLUMNS = ("file_name", "apparent_age_avg", "apparent_age_std", "real_age")
SPLITS = {"train": "train", "valid": "val", "test": "test"}


def recognises(source: Source) -> bool:
    """Whether one of the tables is there."""
    return bool(_tables(source))


def load(source: Source, target: str = "real") -> FaceDataset:
    """Read the tables.

    Args:
        source: the folder or zip.
        target: which age is learnt, "real" or "apparent" (the mean of about 38 people's guesses); both are kept in the
            attributes real_age, apparent_age and apparent_age_std.

    Raises:
        InputError: no table is there, one lacks a column, or the target is neither.
    """
    if target not in ("real", "apparent"):
        raise InputError(f"an APPA-REAL age is 'real' or 'apparent', not {target!r}")
    found = _tables(source)
    if not found:
        raise InputError(
            f"{source.path} holds no gt_avg_*.csv; expected {EXPECTED}; give the folder that holds the tables"
        )
    gathering = FaceGathering(NAME, source, EXPECTED)
    for part, member in found.items():
        for row in tables.rows(source, member, COLUMNS):
            name = clean(f"{part}/{row['file_name']}")
            face = f"{parent(member)}{name}_face.jpg"
            try:
                ages = {
                    "real_age": float(row["real_age"]),
                    "apparent_age": float(row["apparent_age_avg"]),
                    "apparent_age_std": float(row["apparent_age_std"]),
                }
            except ValueError:
                ages = {}
            if not ages or not all(map(math.isfinite, ages.values())):
                gathering.skip("an age in the table is not a number")
            else:
                age = ages[f"{target}_age"]
                gathering.add(FaceSample(name, age, source, face, split=SPLITS[part], attributes=ages))
    kind = "real" if target == "real" else "apparent (the mean of the guesses)"
    return gathering.dataset((f"ages are {kind}; the official splits",))


def _tables(source: Source) -> dict[str, str]:
    """Part (train, valid, test) to the table's member."""
    found: dict[str, str] = {}
    for member in source.names():
        name = PurePosixPath(member).name
        part = name.removeprefix("gt_avg_").removesuffix(".csv")
        if name == f"gt_avg_{part}.csv" and part in SPLITS:
            found.setdefault(part, member)
    return {part: found[part] for part in SPLITS if part in found}
