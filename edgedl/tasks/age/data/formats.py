"""Recognising a face data set from its contents."""

from __future__ import annotations

import os
from types import ModuleType
from typing import TYPE_CHECKING

from edgedl.data import recognition
from edgedl.data.sources import open_source
from edgedl.tasks.age.data import agedb, appa_real, fairface, fgnet, imdb_wiki, recorded, utkface

if TYPE_CHECKING:
    from edgedl.data.samples import FaceDataset

FORMATS: tuple[ModuleType, ...] = (utkface, imdb_wiki, appa_real, fgnet, agedb, fairface, recorded)


def open_faces(path: str | os.PathLike[str], format: str | None = None) -> FaceDataset:  # noqa: A002 - the user's word
    """Open a face data set in its own on-disk format.

    Args:
        path: the folder or the zip that holds it; a zip is read in place.
        format: "utkface", "imdb-wiki", "appa-real", "fgnet", "agedb", "fairface" or "recorded"; None recognises it
            from the contents.

    Raises:
        InputError: nothing is there, it is none of the formats or could be several, or it is not the format asked for.
    """
    faces: FaceDataset = recognition.load(open_source(path), FORMATS, "face", format)
    return faces
