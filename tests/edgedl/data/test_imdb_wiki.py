from __future__ import annotations

import math
import subprocess
import sys
from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedl.data.sources import open_source
from edgedl.tasks.age.data import imdb_wiki
from edgedl.tasks.age.data.formats import open_faces
from edgedl.tasks.age.data.imdb_wiki import age_on_1_july
from runtime.errors import InputError
from tests.edgedl.data.mats import MATLAB_2000, NAMES, cell, mat, record, serial

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(("name", "age"), NAMES.items(), ids=str)
def test_the_age_is_that_on_1_july(name: str, age: int) -> None:
    entry = record(name)
    assert age_on_1_july(entry["dob"], entry["photo_taken"]) == age


@pytest.mark.parametrize(
    ("born", "age"), [((1950, 6, 30), 50), ((1950, 7, 1), 50), ((1950, 7, 2), 49), ((1952, 2, 29), 48)], ids=str
)
def test_the_day_that_decides(born: tuple[int, int, int], age: int) -> None:
    assert age_on_1_july(serial(*born), 2000) == age


def test_matlab_counts_days_from_the_year_0() -> None:
    assert age_on_1_july(MATLAB_2000, 2010) == 10  # born 2000-01-01
    assert (
        age_on_1_july(MATLAB_2000 - 1, 2010) == 10
    )  # 1999-12-31: had the offset been wrong, one of these would differ
    assert age_on_1_july(serial(2000, 7, 2) + 0.75, 2010) == 9  # with a time of day


@given(st.dates(), st.integers(1, 2100))
def test_any_date_gives_the_difference_of_years_or_one_less(born: date, year: int) -> None:
    age = age_on_1_july(born.toordinal() + 366, year)
    assert age is not None
    assert year - born.year - age in (0, 1)


@pytest.mark.parametrize(("dob", "taken"), [(NAN, 2000), (0.0, 2000), (366.0, 2000), (1e12, 2000), (730486, NAN)])
def test_what_is_no_date_has_no_age(dob: float, taken: float) -> None:
    assert age_on_1_july(dob, taken) is None


def test_wiki_is_read_and_filtered(layout) -> None:
    good = [record(name, gender=g) for name, g in zip(NAMES, (1.0, 0.0, NAN), strict=True)]
    bad = [
        record("200001_1950-01-01_2000.jpg", face_score=-INF),
        record("200002_1950-01-01_2000.jpg", face_score=INF),
        record("200003_1950-01-01_2000.jpg", face_score=0.99),
        record("200004_1950-01-01_2000.jpg", second_face_score=1.1),
        record("200005_1990-01-01_1980.jpg"),
        record("200006_1800-01-01_1901.jpg"),
        record("200007_1950-01-01_2000.jpg", dob=10),
        record("200008_1950-01-01_2000.jpg"),  # the picture is not there
        good[0],
    ]
    edges = [record("300001_1900-01-01_2000.jpg", face_score=1.0), record("300002_2000-01-01_2000.jpg")]
    pictures = [f"wiki/{r['full_path']}" for r in good + bad[:7] + edges]
    faces = open_faces(layout(pictures, {"wiki/wiki.mat": mat(good + bad + edges)}))
    assert faces.name == "imdb-wiki"
    assert [s.age for s in faces] == [28, 59, 41, 100, 0]
    assert [s.attributes.get("gender") for s in faces][:3] == ["male", "female", None]
    assert faces.samples[0].subject == "Person of 100002"
    assert faces.samples[0].box == (0, 0, 6, 4)  # the whole picture of 6×4, from MATLAB's 1 … 6 and 1 … 4
    assert faces.image(0).shape == (4, 6, 3)
    assert faces.skipped == {
        "no face was found": 2,
        "the face's score is under 1": 1,
        "there is a second face": 1,
        "the age is outside 0 to 100": 2,
        "the date of birth or the year of the photo is no date": 1,
        "the picture is not there": 1,
        "the same picture again": 1,
    }


def test_one_picture_is_enough(layout) -> None:
    entry = record("10000217_1981-05-05_2009.jpg", face_location=(2.0, 1.0, 5.0, 3.0))
    faces = open_faces(layout([entry["full_path"]], {"wiki.mat": mat([entry])}))
    assert [(s.age, s.box) for s in faces] == [(28, (1, 0, 5, 3))]


def test_imdb_tells_people_apart_by_number(layout) -> None:
    records = [
        {
            "full_path": f"{p:02d}/nm{p:07d}_rm{i}_1950-1-2_{2000 + i}.jpg",
            "dob": serial(1950, 1, 2),
            "photo_taken": 2000 + i,
        }
        for p in range(20)
        for i in range(3)
    ]
    celebrities = np.array([[p + 1 for p in range(20) for _ in range(3)]], float)
    names = cell([f"Celebrity {p}" for p in range(20)])
    content = mat(records, "imdb", celeb_id=celebrities, celeb_names=names)
    faces = open_faces(layout([f"imdb_crop/{r['full_path']}" for r in records], {"imdb_crop/imdb.mat": content}))
    train, val = ({s.subject for s in faces.split(part)} for part in ("train", "val"))
    assert (len(train), len(val), train & val) == (18, 2, set())
    assert len(faces) == 60
    # face_location speaks of the picture before it was cropped.
    assert all(s.box is None for s in faces)


def test_a_struct_of_another_kind_is_refused(layout) -> None:
    entry = record("10000217_1981-05-05_2009.jpg")
    cases = {
        "lacks": (mat([entry]).replace(b"second_face_score", b"second_face_scoop"), "lacks second_face_score"),
        "variable": (mat([entry], "other"), "holds other; expected one struct called 'wiki'"),
        "text": (b"name,age\n" * 40, "cannot be read as a MATLAB file"),
        "short": (mat([entry])[:300], "cannot be read as a MATLAB file"),
        "empty": (b"", "cannot be read as a MATLAB file"),
    }
    for name, (content, message) in cases.items():
        with pytest.raises(InputError, match=message):
            open_faces(layout([], {"wiki.mat": content}, root=name))
    with pytest.raises(InputError, match=r"neither imdb\.mat nor wiki\.mat"):
        imdb_wiki.load(open_source(layout(["a.png"], root="none")))


def test_the_data_need_neither_torch_nor_scipy() -> None:
    code = (
        "import pkgutil, importlib, sys, edgedl.data\n"
        "for m in pkgutil.iter_modules(edgedl.data.__path__): importlib.import_module('edgedl.data.' + m.name)\n"
        "bad = {'torch', 'scipy', 'onnx', 'lightning', 'matplotlib', 'onnxruntime'} & set(sys.modules)\n"
        "sys.exit(f'imported {bad}' if bad else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
