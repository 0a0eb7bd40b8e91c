from __future__ import annotations

import pytest

from edgedl.data.sources import open_source
from edgedl.tasks.age.data import appa_real, fairface
from edgedl.tasks.age.data.formats import open_faces
from runtime.errors import InputError

APPA = {
    "appa-real-release/gt_avg_train.csv": b"file_name,num_ratings,apparent_age_avg,apparent_age_std,real_age\n"
    b"000000.jpg,36,4.5,2.63709,4\n000001.jpg,44,26.1,4.1,31\n000002.jpg,30,n/a,1.0,7\n000009.jpg,30,9.0,1.0,9\n",
    "appa-real-release/gt_avg_valid.csv": b"file_name,apparent_age_avg,apparent_age_std,real_age\r\n"
    b"004113.jpg,29.95,4.9,29\r\n",
    "appa-real-release/gt_avg_test.csv": b"\xef\xbb\xbffile_name,apparent_age_avg,apparent_age_std,real_age\n"
    b"005613.jpg,57.1,7.5,60\n",
    "appa-real-release/allcategories_train.csv": b"file,gender\n",
}
APPA_PICTURES = [
    f"appa-real-release/{name}{end}"
    for name in ("train/000000", "train/000001", "train/000002", "valid/004113", "test/005613")
    for end in (".jpg", ".jpg_face.jpg")
]
FAIR = {
    "fairface_label_train.csv": b"file,age,gender,race,service_test\n"
    b"train/1.jpg,50-59,Male,East Asian,True\ntrain/2.jpg,0-2,Female,Indian,False\ntrain/3.jpg,3-9,Female,Black,False\n"
    b"train/4.jpg,9-Mar,Male,White,True\ntrain/5.jpg,more than 70,Male,Latino_Hispanic,True\n"
    b"train/6.jpg,20-29,Male,White,True\n",
    "fairface_label_val.csv": b"file,age,gender,race,service_test\nval/1.jpg,10-19,Female,Middle Eastern,False\n",
}
FAIR_PICTURES = [f"train/{i}.jpg" for i in range(1, 6)] + ["val/1.jpg"]


@pytest.mark.parametrize(("target", "ages"), [("real", [4, 31, 29, 60]), ("apparent", [4.5, 26.1, 29.95, 57.1])])
def test_appa_real_has_two_ages_and_its_own_splits(layout, target: str, ages: list[float]) -> None:
    faces = appa_real.load(open_source(layout(APPA_PICTURES, APPA)), target)
    assert [s.age for s in faces] == ages
    assert [s.split for s in faces] == ["train", "train", "val", "test"]
    assert faces.samples[0].attributes == {"real_age": 4, "apparent_age": 4.5, "apparent_age_std": 2.63709}
    assert faces.samples[0].member == "appa-real-release/train/000000.jpg_face.jpg"
    assert faces.image(3).shape == (4, 6, 3)
    assert faces.skipped == {
        "an age in the table is not a number": 1,
        "the picture is not there": 1,
    }


def test_appa_real_is_real_ages_by_default(layout) -> None:
    faces = open_faces(layout(APPA_PICTURES, APPA))
    assert (faces.name, [s.age for s in faces.split("test")]) == ("appa-real", [60])
    with pytest.raises(InputError, match="'real' or 'apparent', not 'guessed'"):
        appa_real.load(open_source(layout(APPA_PICTURES, APPA)), "guessed")


def test_fairface_ages_are_the_middle_of_their_group(layout) -> None:
    faces = open_faces(layout([f"FairFace/{p}" for p in FAIR_PICTURES], {f"FairFace/{k}": v for k, v in FAIR.items()}))
    assert faces.name == "fairface"
    assert {s.name: (s.age, s.attributes["age_group"], s.split) for s in faces} == {
        "train/1.jpg": (54.5, "50-59", "train"),
        "train/2.jpg": (1, "0-2", "train"),
        "train/3.jpg": (6, "3-9", "train"),
        "train/5.jpg": (74.5, "more than 70", "train"),
        "val/1.jpg": (14.5, "10-19", "val"),
    }
    assert faces.samples[0].attributes == {
        "age_group": "50-59", "gender": "male", "race": "East Asian", "service_test": True,
    }  # fmt: skip
    assert faces.skipped == {
        "the age group '9-Mar' is none of the nine": 1,
        "the picture is not there": 1,
    }
    assert len(fairface.GROUPS) == 9


@pytest.mark.parametrize(
    ("module", "table", "content", "message"),
    [
        pytest.param(
            appa_real,
            "gt_avg_train.csv",
            b"file_name,age\n",
            "columns file_name, age; expected also appa",
            id="columns",
        ),
        pytest.param(fairface, "fairface_label_val.csv", b"", r"columns \(none\); expected also file, age", id="empty"),
        pytest.param(fairface, "fairface_label_val.csv", b"\xff\xd8\xff\xe0" * 9, "not a table of text", id="not text"),
        pytest.param(fairface, "labels.csv", b"", "holds no fairface_label", id="another name"),
        pytest.param(appa_real, "gt_avg_all.csv", b"", "holds no gt_avg", id="another part"),
    ],
)
def test_a_wrong_table_says_what_is_missing(layout, module, table: str, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("appa", "apparent_age_avg")):
        module.load(open_source(layout([], {table: content})))
