"""Every face format with what goes wrong in practice: pictures that are missing, tables that are damaged, odd ages."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import savemat

from edgedl.data.samples import FaceSample
from edgedl.data.sources import FolderSource, open_source
from edgedl.tasks.age.data import appa_real, fairface
from edgedl.tasks.age.data.face_gathering import FaceGathering
from edgedl.tasks.age.data.formats import open_faces
from runtime.errors import InputError
from tests.edgedl.data.mats import NAMES, cell, mat, record

FAIR = "file,age,gender,race,service_test\n"
APPA = "file_name,apparent_age_avg,apparent_age_std,real_age\n"
IMDB = [record(name) for name in NAMES]


def fair(*rows: str) -> dict[str, bytes]:
    return {"fairface_label_train.csv": (FAIR + "".join(f"{row}\n" for row in rows)).encode()}


def appa(*rows: str) -> dict[str, bytes]:
    return {"gt_avg_train.csv": (APPA + "".join(f"{row}\n" for row in rows)).encode()}


# Tables without their pictures, and without anything

LABELS = {
    "imdb-wiki": ({"wiki.mat": mat(IMDB)}, "3 are named, such as 10/10000217_1981-05-05_2009.jpg"),
    "fairface": (fair("train/1.jpg,20-29,Male,White,True"), "1 are named, such as train/1.jpg"),
    "appa-real": (appa("1.jpg,20.5,1,21"), "1 are named, such as train/1.jpg_face.jpg"),
}


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("prefix", ["", "archive/"], ids=["flat", "nested"])
def test_labels_without_pictures_are_refused_as_such(layout, name: str, prefix: str) -> None:
    files, named = LABELS[name]
    path = layout([], {prefix + file: content for file, content in files.items()})
    with pytest.raises(InputError) as caught:
        open_faces(path)
    start, _, end = named.partition("such as ")
    message = str(caught.value)
    assert (
        f"holds the labels of {name} but not the pictures: {start}such as {prefix}{end}, and none is there" in message
    )
    assert message.endswith(": put the pictures there")


@pytest.mark.parametrize(
    ("files", "pictures", "skipped"),
    [
        (LABELS["imdb-wiki"][0], [IMDB[0]["full_path"]], 2),
        (fair("train/1.jpg,20-29,Male,White,True", "train/2.jpg,20-29,Male,White,True"), ["train/1.jpg"], 1),
        (appa("1.jpg,20.5,1,21", "2.jpg,20.5,1,21"), ["train/1.jpg_face.jpg", "train/2.jpg"], 1),
    ],
    ids=["imdb-wiki", "fairface", "appa-real"],
)
def test_some_missing_pictures_are_counted(layout, files: dict[str, bytes], pictures: list[str], skipped: int) -> None:
    faces = open_faces(layout(pictures, files))
    assert len(faces) == 1
    assert faces.skipped == {"the picture is not there": skipped}
    assert faces.image(0).shape == (4, 6, 3)


@pytest.mark.parametrize("files", [fair(), appa()], ids=["fairface", "appa-real"])
def test_an_empty_table_is_refused(layout, files: dict[str, bytes]) -> None:
    with pytest.raises(InputError, match=r"the tables of .* name no picture; expected tables .*: copy"):
        open_faces(layout(["train/1.jpg"], files))


@pytest.mark.parametrize(
    ("files", "pictures", "reasons"),
    [
        (fair("1.jpg,9-Mar,Male,A,True", "2.jpg,20-29,?,A,True", "3.jpg,20-29,Male,A,True"), ["1.jpg", "2.jpg"],
         "the age group '9-Mar' is none of the nine (1), the gender is neither Male nor Female (1), the picture is not"
         " there (1)"),
        (appa("1.jpg,?,1,21", "2.jpg,150,1,150"), ["train/1.jpg_face.jpg", "train/2.jpg_face.jpg"],
         "an age in the table is not a number (1), the age is outside 0 to 120 (1)"),
        ({"wiki.mat": mat([record("1_1950-01-01_2000.jpg", face_score=0.5)])}, [],
         "the face's score is under 1 (1)"),
    ],
    ids=["fairface", "appa-real", "imdb-wiki"],
)  # fmt: skip
def test_where_nothing_is_left_the_reasons_are_told(layout, files, pictures: list[str], reasons: str) -> None:
    with pytest.raises(InputError) as caught:
        open_faces(layout(pictures, files))
    assert f"that can be used: {reasons}; expected" in str(caught.value)


@pytest.mark.parametrize(
    "names",
    [["39_1_20170116174525125.jpg.chip.jpg", "x.jpg"], ["1A02.jpg"], ["12_35_f.jpg"]],
    ids=["utkface", "fgnet", "agedb"],
)
def test_malformed_names_alone_are_no_data_set(layout, names: list[str]) -> None:
    with pytest.raises(InputError, match="is no face data set that edgedl knows; it holds"):
        open_faces(layout(names))


# Ages


@pytest.mark.parametrize(
    ("age", "reason"),
    [
        ("-1", "the age is outside 0 to 120"),
        ("121", "the age is outside 0 to 120"),
        ("1e400", "an age in the table is not a number"),
        ("nan", "an age in the table is not a number"),
        ("", "an age in the table is not a number"),
        ("forty", "an age in the table is not a number"),
    ],
)
def test_appa_real_ages_that_cannot_be(layout, age: str, reason: str) -> None:
    pictures = [f"train/{number}.jpg_face.jpg" for number in range(2)]
    faces = open_faces(layout(pictures, appa(f"0.jpg,20,1,{age}", "1.jpg,20.5,1,120")))
    assert [sample.age for sample in faces] == [120]
    assert faces.skipped == {reason: 1}


def test_agedb_ages_that_cannot_be(layout) -> None:
    faces = open_faces(layout(["0_A_35_f.jpg", "1_B_121_m.jpg", "2_C_120_m.jpg", "3_D_0_m.jpg"]))
    assert sorted(sample.age for sample in faces) == [0, 35, 120]
    assert faces.skipped == {"the age is outside 0 to 120": 1}


@pytest.mark.parametrize(
    ("files", "pictures"),
    [
        (appa("1.jpg,20,1,20", "1.jpg,30,1,30", "2.jpg,40,1,40", "2.jpg,40,1,40"),
         ["train/1.jpg_face.jpg", "train/2.jpg_face.jpg"]),
        (fair(*(f"{name},Male,A,True" for name in ("1.jpg,20-29", "./1.jpg,30-39", "2.jpg,40-49", "2.jpg,40-49"))),
         ["1.jpg", "2.jpg"]),
        ({"wiki.mat": mat([record("1_1950-01-01_2000.jpg"), record("1_1950-01-01_2000.jpg", dob=720000),
                           record("2_1960-01-01_2000.jpg"), record("2_1960-01-01_2000.jpg")])},
         ["1_/1_1950-01-01_2000.jpg", "2_/2_1960-01-01_2000.jpg"]),
    ],
    ids=["appa-real", "fairface", "imdb-wiki"],
)  # fmt: skip
def test_a_picture_with_two_ages_has_none(layout, files: dict[str, bytes], pictures: list[str]) -> None:
    faces = open_faces(layout(pictures, files))
    assert [sample.name.rpartition("/")[2][0] for sample in faces] == ["2"]
    assert faces.skipped == {"the same picture again": 2, "the same picture has two ages": 1}


ages = st.floats(-5, 130) | st.sampled_from([0.0, 120.0, float("nan"), float("inf")])


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from([10.0, 20.0]) | ages), max_size=8))
def test_every_face_has_one_age_that_can_be(tmp_path_factory, found: list[tuple[str, float]]) -> None:
    folder = tmp_path_factory.getbasetemp() / "three-faces"
    folder.mkdir(exist_ok=True)
    for name in "abc":
        (folder / name).write_bytes(b"")
    source = FolderSource(folder)
    gathering = FaceGathering("some", source, "pictures")
    for name, age in found:
        gathering.add(FaceSample(name, age, source, name))
    usable: dict[str, set[float]] = {}
    for name, age in found:
        if 0 <= age <= 120 and name != "d":
            usable.setdefault(name, set()).add(age)
    expected = {name: values.pop() for name, values in usable.items() if len(values) == 1}
    if expected:
        faces = gathering.dataset(())
        assert {sample.name: sample.age for sample in faces} == expected
    else:
        with pytest.raises(InputError):
            gathering.dataset(())


# Damaged tables


WRITTEN: dict[str, Callable[[str], bytes]] = {
    "a mark at the beginning": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "CR LF": lambda text: text.replace("\n", "\r\n").encode(),
    "CR": lambda text: text.replace("\n", "\r").encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "empty lines": lambda text: text.replace("\n", "\n\n").encode(),
    "one more column": lambda text: text.replace("\n", ",more\n").encode(),
    "quotes": lambda text: text.replace("East Asian", '"East ""A"", Asian"').encode(),
    "backslashes": lambda text: text.replace("train/", "train\\").encode(),
}


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
def test_a_table_is_read_however_it_was_saved(layout, written: Callable[[str], bytes]) -> None:
    text = FAIR + "train/1.jpg,50-59,Male,East Asian,True\ntrain/2.jpg,0-2,Female,Indian,False\n"
    faces = open_faces(layout(["train/1.jpg", "train/2.jpg"], {"fairface_label_train.csv": written(text)}))
    assert [(sample.age, sample.attributes["gender"]) for sample in faces] == [(54.5, "male"), (1, "female")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (FAIR.replace(",", ";"), r"has the columns file;age;gender;race;service_test; expected also file, age, gender"),
        (
            "train/1.jpg,50-59,Male,White,True\n",
            r"has the columns train/1\.jpg, 50-59, Male, .*; expected also file, age",
        ),
        (
            FAIR + 'train/1.jpg,50-59,Male,"White,True\n' + "train/2.jpg,50-59,Male,White,True\n" * 50,
            "line 2: this is not CSV",
        ),
        (FAIR + 'train/1.jpg,50-59,Male,"White" x,True\n', "line 2: this is not CSV"),
        ("<html>404</html>", "has the columns <html>404</html>; expected also file"),
    ],
    ids=["semicolons", "no header", "an open quote", "a quote that is not doubled", "html"],
)
def test_a_damaged_table_is_named_with_its_line(layout, content: str, message: str) -> None:
    path = layout(["train/1.jpg"], {"fairface_label_train.csv": content.encode()})
    with pytest.raises(InputError, match=rf"fairface_label_train\.csv in .*{message}"):
        open_faces(path)


@pytest.mark.parametrize("module", [appa_real, fairface], ids=lambda module: module.NAME)
def test_a_table_that_breaks_off_loses_its_last_row_only(layout, module) -> None:
    whole, pictures = {
        "appa-real": (appa("1.jpg,20,1,20", "2.jpg,30,1,31"), ["train/1.jpg_face.jpg", "train/2.jpg_face.jpg"]),
        "fairface": (fair("1.jpg,20-29,Male,A,True", "2.jpg,30-39,Female,A,True"), ["1.jpg", "2.jpg"]),
    }[module.NAME]
    ((name, content),) = whole.items()
    cut = content.rindex(b"2.jpg") + 7
    faces = module.load(open_source(layout(pictures, {name: content[:cut]})))
    assert [sample.name.rpartition("/")[2] for sample in faces] == ["1.jpg"]
    assert sum(faces.skipped.values()) == 1


# MATLAB


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"dob": [1.0, 2.0]}, "differ in length: .*'dob': 2"),
        ({"full_path": "text"}, "differ in length: .*'full_path': 0"),
        ({"gender": cell(["male", "male", "female"])}, r"can be used: a field of the entry is not of its kind \(3\)"),
        ({"face_location": cell([[[1.0, 1, 6, 4]], [[1.0, 1]], "1 1 6 4"])}, None),
    ],
    ids=["a short column", "text for a cell", "text for numbers", "boxes that are none"],
)
def test_fields_of_another_kind_are_refused_or_counted(layout, more: dict[str, object], message: str | None) -> None:
    path = layout([r["full_path"] for r in IMDB], {"wiki.mat": mat(IMDB, **more)})
    if message is not None:
        with pytest.raises(InputError, match=message):
            open_faces(path)
        return
    faces = open_faces(path)
    assert faces.samples[0].age == 28
    assert faces.skipped == {"a field of the entry is not of its kind": 2}


def test_a_struct_array_and_a_table_alone_are_not_the_struct(layout) -> None:
    buffer = io.BytesIO()
    savemat(buffer, {"wiki": [[1.0, 2.0]], "other": "text"})
    with pytest.raises(InputError, match="holds other, wiki; expected one struct called 'wiki'"):
        open_faces(layout([], {"wiki.mat": buffer.getvalue()}))
