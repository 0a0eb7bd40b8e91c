from __future__ import annotations

import pytest

from edgedl.data.sources import open_source
from edgedl.tasks.age.data import agedb, fgnet
from edgedl.tasks.age.data.formats import open_faces
from runtime.errors import InputError


def test_fgnet_names_hold_person_and_age(layout) -> None:
    names = ["images/001A02.jpg", "images/001A43a.jpg", "images/001A43b.jpg", "images/082A69.JPG", "images/079A00.jpg"]
    faces = open_faces(layout([*names, "images/readme.jpg"], {"points/001a02.pts": b"version: 1"}))
    assert faces.name == "fgnet"
    assert {s.name: (s.subject, s.age) for s in faces} == {
        "001A02.jpg": ("001", 2),
        "001A43a.jpg": ("001", 43),
        "001A43b.jpg": ("001", 43),
        "082A69.JPG": ("082", 69),
        "079A00.jpg": ("079", 0),
    }
    assert faces.skipped == {"the name is not person, A, age": 1}


def test_agedb_names_hold_number_person_age_and_gender(layout) -> None:
    names = [
        "0_MariaCallas_35_f.jpg",
        "1000_StephenHawking_1_m.jpg",
        "12_Mary_Ann_Evans_60_f.jpg",
        "9_Louis14th_76_m.jpg",
    ]
    faces = open_faces(layout([*(f"AgeDB/{n}" for n in names), "AgeDB/12_35_f.jpg", "AgeDB/1_X_35_x.jpg"]))
    assert faces.name == "agedb"
    assert {(s.subject, s.age, s.attributes["gender"]) for s in faces} == {
        ("MariaCallas", 35, "female"),
        ("StephenHawking", 1, "male"),
        ("Mary_Ann_Evans", 60, "female"),
        ("Louis14th", 76, "male"),
    }
    assert faces.skipped == {"the name is not number, person, age, gender": 2}


@pytest.mark.parametrize(
    "names",
    [
        pytest.param([f"{p:03d}A{a:02d}.jpg" for p in range(1, 31) for a in (3, 18, 44)], id="fgnet"),
        pytest.param(
            [f"{p * 10 + a}_Person{chr(65 + p)}_{a}_m.jpg" for p in range(26) for a in (3, 18, 44)], id="agedb"
        ),
    ],
)
def test_validation_is_a_tenth_of_the_people(layout, names: list[str]) -> None:
    faces = open_faces(layout(names))
    train, val = ({s.subject for s in faces.split(part)} for part in ("train", "val"))
    assert not train & val
    assert len(val) == 3
    assert len(faces.split("val")) == 9


@pytest.mark.parametrize("module", [fgnet, agedb], ids=lambda m: m.NAME)
def test_other_names_are_refused(layout, module) -> None:
    with pytest.raises(InputError, match=r"holds 1 images such as x\.png; expected images named"):
        module.load(open_source(layout(["x.png"])))
    with pytest.raises(InputError, match="holds no image file; expected images named"):
        module.load(open_source(layout([], {"x.txt": b""}, root="other")))
