"""What `edgedl serve --record` has kept: photos as they came, each beside the answer that was given.

The ages are answers and not the truth. So an evaluation tells how far a bundle answers from the one that was served,
and a quantised variant is held to what the served one said. Photos without a face are left out, and so are those with
several, because a sample is about one face.
"""

from __future__ import annotations

import json
import re
from pathlib import PurePosixPath
from typing import Any

from edgedl.data import names
from edgedl.data.samples import FaceDataset, FaceSample
from edgedl.data.sources import Source
from edgedl.tasks.age.data.face_gathering import FaceGathering

NAME = "recorded"
EXPECTED = "pictures KEY.jpg beside their answers KEY.json, as `edgedl serve --record` keeps them"

_ANSWER = re.compile(r"[0-9a-f]{16}\.json")
_PICTURE = re.compile(r"[0-9a-f]{16}\.(jpg|png|webp|bmp)")


def recognises(source: Source) -> bool:
    """Whether most pictures are called by keys."""
    return names.mostly(source, _PICTURE)


def load(source: Source) -> FaceDataset:
    """Reads the answers beside the photos.

    Raises:
        InputError: there are none.
    """
    names.require(source, _PICTURE, EXPECTED)
    gathering = FaceGathering(NAME, source, EXPECTED)
    members = set(source.names())
    for member, name in names.pictures(source):
        answer = str(PurePosixPath(member).with_suffix(".json"))
        found = _faces(source, answer) if answer in members else None
        if found is None:
            gathering.skip("there is no answer of an age bundle beside the photo")
        elif len(found) != 1:
            gathering.skip("the answer has no face" if not found else "the answer has several faces")
        else:
            gathering.add(FaceSample(name, found[0][0], source, member, box=found[0][1]))
    notes = ["ages are what the served bundle has answered; validation is a tenth by file name"]
    return gathering.dataset(notes, held_out_by="name")


def _faces(source: Source, member: str) -> list[tuple[float, tuple[float, float, float, float]]] | None:
    """Ages and boxes of an answer; None where it is none."""
    try:
        faces: list[dict[str, Any]] = json.loads(source.read(member))["result"]["faces"]
        return [(float(face["age"]), tuple(map(float, face["box"]))) for face in faces]  # type: ignore[misc]
    except (ValueError, KeyError, TypeError):
        return None
