"""IMDB-WIKI's MATLAB files in miniature, written by scipy."""

from __future__ import annotations

import io
import math
from datetime import date
from typing import Any

import numpy as np
from scipy.io import savemat

# MATLAB's own: datenum(2000, 1, 1) is 730486.
MATLAB_2000 = 730486

# From the authors' own page and the names of their files.
NAMES = {"10000217_1981-05-05_2009.jpg": 28, "100012_1948-07-03_2008.jpg": 59, "10002116_1971-05-31_2012.jpg": 41}


def serial(year: int, month: int, day: int) -> int:
    return MATLAB_2000 + (date(year, month, day) - date(2000, 1, 1)).days


def cell(values: list[Any]) -> np.ndarray:
    column = np.empty((1, len(values)), object)
    for i, value in enumerate(values):
        column[0, i] = value
    return column


def mat(records: list[dict[str, Any]], variable: str = "wiki", *, compressed: bool = False, **more: Any) -> bytes:
    """A MATLAB file in the form of the original: a 1×1 struct of row vectors and cells."""
    fields = {
        "dob": [r["dob"] for r in records],
        "photo_taken": np.array([r["photo_taken"] for r in records], np.uint16),
        "full_path": cell([r["full_path"] for r in records]),
        "gender": [r.get("gender", 1.0) for r in records],
        "name": cell([r.get("name", "") for r in records]),
        "face_location": cell([np.array([r.get("face_location", (1.0, 1.0, 6.0, 4.0))]) for r in records]),
        "face_score": [r.get("face_score", 3.0) for r in records],
        "second_face_score": [r.get("second_face_score", math.nan) for r in records],
    } | more
    buffer = io.BytesIO()
    savemat(buffer, {variable: fields}, do_compression=compressed)
    return buffer.getvalue()


def record(name: str, **more: Any) -> dict[str, Any]:
    """From a file name such as 10000217_1981-05-05_2009.jpg."""
    _, born, taken = name.removesuffix(".jpg").split("_")
    dob = date.fromisoformat(born)
    return {
        "full_path": f"{name[:2]}/{name}", "dob": serial(dob.year, dob.month, dob.day), "photo_taken": int(taken),
        "name": f"Person of {name[:6]}", **more,
    }  # fmt: skip
