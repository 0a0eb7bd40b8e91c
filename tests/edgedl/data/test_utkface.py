from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedl.data.sources import open_source
from edgedl.tasks.age.data import utkface
from edgedl.tasks.age.data.formats import open_faces
from runtime.errors import InputError

GOOD = [
    "100_0_0_20170112213500903.jpg.chip.jpg",
    "26_1_2_20170104023102422.jpg.chip.jpg",
    "1_1_4_20161219140623097.jpg.chip.jpg",
]
ODD = ["14_0_3_2017011022340900.jpg.chip.jpg", "55_0_1_20170116232725357jpg.chip.jpg"]
# The names of the original that lack the race, and other damage, each with its reason.
BAD = {
    "39_1_20170116174525125.jpg.chip.jpg": "3 fields",
    "61_1_20170109142408075.jpg.chip.jpg": "3 fields",
    "53__0_20170116184028385.jpg": "not a number",
    "121_0_0_20170112213500903.jpg": "over 120",
    "20_2_0_20170112213500904.jpg": "neither 0 nor 1",
    "20_3_0_20170112213500905.jpg": "neither 0 nor 1",
    "20_0_5_20170112213500906.jpg": "not 0 to 4",
    "face.jpg": "1 fields",
}


@pytest.mark.parametrize("prefix", ["UTKFace/", "", "archive/UTKFace/"], ids=["as packed", "flat", "deeper"])
def test_labels_come_from_the_names(layout, prefix: str) -> None:
    faces = open_faces(layout([prefix + name for name in (*GOOD, *ODD, *BAD)]))
    assert faces.name == "utkface"
    found = {s.name: (s.age, s.attributes["gender"], s.attributes["race"]) for s in faces}
    assert found == {
        GOOD[0]: (100, "male", "White"),
        GOOD[1]: (26, "female", "Asian"),
        GOOD[2]: (1, "female", "other"),
        ODD[0]: (14, "male", "Indian"),
        ODD[1]: (55, "male", "Black"),
    }
    assert sum(faces.skipped.values()) == len(BAD)
    assert sorted(faces.skipped.values()) == [1, 1, 1, 1, 2, 2]
    assert "2 names have complete labels and an odd time stamp" in " ".join(faces.notes)
    assert faces.image(0).shape == (4, 6, 3)
    assert len(faces.split("val")) == 1


@pytest.mark.parametrize("name", list(BAD))
def test_every_bad_name_has_its_reason(name: str) -> None:
    assert BAD[name] in str(utkface.parse(name))


def test_the_pictures_in_the_wild_lie_in_parts(layout) -> None:
    faces = open_faces(layout(["part1/26_1_2_20170104023102422.jpg", "part2/8_0_0_20170104023102423.jpg"]))
    assert sorted(s.age for s in faces) == [8, 26]
    assert all(s.box is None and s.subject is None for s in faces)


def test_a_name_that_occurs_twice_counts_once(layout) -> None:
    faces = open_faces(layout([f"UTKFace/{GOOD[0]}", f"crop_part1/{GOOD[0]}", f"crop_part1/{GOOD[1]}"]))
    assert len(faces) == 2
    assert faces.skipped == {"the same picture again": 1}


def test_a_split_is_the_same_in_a_folder_and_a_zip(layout) -> None:
    names = [f"{i}_0_0_201701122135009{i:02d}.jpg.chip.jpg" for i in range(40)]
    faces = open_faces(layout([f"UTKFace/{name}" for name in names]))
    # The four smallest of the forty, computed with the command sha256sum.
    assert sorted(s.age for s in faces.split("val")) == [3, 6, 10, 16]


@given(st.integers(0, 120), st.integers(0, 1), st.integers(0, 4), st.integers(10**16, 10**17 - 1))
def test_every_good_name_is_read(age: int, gender: int, race: int, stamp: int) -> None:
    assert utkface.parse(f"{age}_{gender}_{race}_{stamp}.jpg.chip.jpg") == (age, gender, race)


@given(st.text(alphabet="0123456789_.jpgchi²٣ -", max_size=30))
def test_any_name_gives_labels_in_range_or_a_reason(name: str) -> None:
    labels = utkface.parse(name)
    if not isinstance(labels, str):
        age, gender, race = labels
        assert 0 <= age <= 120
        assert gender in (0, 1)
        assert 0 <= race <= 4


def test_another_folder_is_refused_with_what_was_found(layout) -> None:
    source = open_source(layout(["holiday.png"]))
    with pytest.raises(InputError, match=r"holds 1 images such as holiday\.png; expected images named age_gender_race"):
        utkface.load(source)


@pytest.mark.data
def test_the_research_data(shared_data) -> None:
    faces = open_faces(shared_data / "utkface-train.zip")
    assert faces.name == "utkface"
    assert len(faces) == 18_983 - 3
    assert dict(faces.skipped) == {"the name has 3 fields instead of age, gender, race and time": 3}
    assert any(note.startswith("4 names have complete labels") for note in faces.notes)
    assert (faces.ages.min(), faces.ages.max()) == (1, 115)
    assert len(faces.split("val")) == 1898
    # Always the median: ANCHORS' 14.85 was on another fifth.
    median = float(np.median(faces.split("train").ages))
    assert abs(float(np.abs(faces.split("val").ages - median).mean()) - 14.85) < 0.7
    image = faces.image(0)
    assert image.shape == (200, 200, 3)
    assert image.std() > 10
