from __future__ import annotations

import pytest

from edgedl.tasks.age.data.formats import FORMATS, open_faces
from runtime.errors import InputError

UTK = "26_1_2_20170104023102422.jpg.chip.jpg"


def test_an_unknown_folder_lists_what_was_looked_for(layout) -> None:
    with pytest.raises(InputError) as caught:
        open_faces(layout(["a.jpg", "b.jpg", "c/d.jpg", "e.jpg"]))
    message = str(caught.value)
    assert "it holds 4 files such as a.jpg, b.jpg, c/d.jpg" in message
    assert all(f"  {module.NAME}: {module.EXPECTED}" in message for module in FORMATS)


def test_an_empty_folder_is_said_to_be_empty(layout, tmp_path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="it is empty"):
        open_faces(empty)


def test_two_formats_at_once_are_not_guessed(layout) -> None:
    path = layout([UTK], {"fairface_label_val.csv": b"file,age,gender,race,service_test\n"})
    with pytest.raises(InputError, match=r"could be any of utkface, fairface: say which with --format"):
        open_faces(path)
    assert open_faces(path, "utkface").name == "utkface"
    with pytest.raises(InputError, match=r"the tables of fairface in .* name no picture"):
        open_faces(path, "fairface")


def test_a_few_other_pictures_do_not_hide_the_format(layout) -> None:
    assert open_faces(layout([UTK, UTK.replace("26", "27"), "logo.png"])).name == "utkface"
    with pytest.raises(InputError, match="no face data set"):
        open_faces(layout([UTK, "x.png", "y.png"], root="other"))


def test_a_format_that_does_not_exist_is_named(layout) -> None:
    with pytest.raises(
        InputError, match="called 'imdb'; there are: utkface, imdb-wiki, appa-real, fgnet, agedb, fairface"
    ):
        open_faces(layout([UTK]), "imdb")
