"""What of a folder is a picture: readable ones are taken, others are named, everything else is passed over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.errors import MediaError
from runtime.media.folders import PICTURE_SUFFIXES, list_pictures, natural_order, pictures_of
from runtime.media.foreign import FOREIGN_SUFFIXES
from runtime.media.pictures import read_image
from tests.pictures import DECODES_GIF, PICTURES, RGB, encode

JPEG = PICTURES["jpeg"]
HEIC = b"\0\0\0\x1cftypheic" + bytes(40)
TAKEN = {
    "a.jpg": JPEG, "b.gif": PICTURES["gif"], "c.jfif": JPEG, "d.JPG": JPEG, "e.jpe": JPEG, "f.pjpeg": JPEG,
    "g.Png": PICTURES["png"], "h.apng": PICTURES["png animated"], "i.webp": PICTURES["webp"], "j.bmp": PICTURES["bmp"],
    "k.dib": PICTURES["bmp"], "l": JPEG, "m.tif": JPEG, "n.wrong.jpeg": b"", "o\nline.jpg": JPEG,
}  # fmt: skip
NAMED = {
    "p.tif": encode(RGB, "TIFF"), "q.TIFF": b"", "r.heic": HEIC, "s.avif": b"\0\0\0\x1cftypavif", "t.svg": b"<svg/>",
    "u.dng": b"II*\0", "v.psd": b"8BPS", "w.jp2": b"\0\0\0\x0cjP  \r\n", "x.jxl": b"\xff\x0a",
}  # fmt: skip
PASSED = {
    "._a.jpg": b"\0\5\x16\7", ".hidden.jpg": JPEG, ".DS_Store": b"\0\0\0\1Bud1", "Thumbs.db": b"\xd0\xcf\x11\xe0",
    "desktop.ini": b"[x]", "labels.txt": b"a", "README": b"text", "clip.mp4": b"\0\0\0\x18ftypisom", "empty": b"",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in (TAKEN | NAMED | PASSED).items():
        (tmp_path / name).write_bytes(data)
    for name in ("sub", "sub.jpg"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "inner.jpg").write_bytes(JPEG)
    return tmp_path


def test_a_folder_as_people_have_it(folder: Path) -> None:
    listed = list_pictures(folder)
    assert [path.name for path in listed.pictures] == list(TAKEN)
    assert [path.name for path, _ in listed.skipped] == list(NAMED)
    assert pictures_of(folder) == list(listed.pictures)
    reasons = {path.name: reason for path, reason in listed.skipped}
    assert "TIFF" in reasons["p.tif"]
    assert reasons["q.TIFF"] == "the input is empty"
    assert "HEIC" in reasons["r.heic"]


def test_what_is_listed_is_what_can_be_read(folder: Path) -> None:
    listed = list_pictures(folder)
    for path in listed.pictures:
        if path.name != "n.wrong.jpeg" and (
            DECODES_GIF or path.suffix != ".gif"
        ):  # named like a picture: reading it gives the reason
            assert read_image(path).shape == (48, 64, 3)
    for path, reason in listed.skipped:
        with pytest.raises(MediaError) as error:
            read_image(path)
        assert str(error.value).startswith(reason)
    assert not PICTURE_SUFFIXES & FOREIGN_SUFFIXES


def test_links_and_special_files(folder: Path) -> None:
    (folder / "w1.jpg").symlink_to(folder / "a.jpg")
    (folder / "w2.jpg").symlink_to(folder / "nowhere")
    (folder / "w3.jpg").symlink_to(folder / "sub")
    (folder / "w4").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "w5.jpg")
    listed = list_pictures(folder)
    assert "w1.jpg" in [path.name for path in listed.pictures]
    skipped = {path.name: reason for path, reason in listed.skipped}
    assert skipped["w2.jpg"] == "a link that leads nowhere"
    assert skipped["w5.jpg"] == "not a file"
    assert not {"w3.jpg", "w4"} & {*skipped, *(path.name for path in listed.pictures)}


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes on POSIX only")
def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.jpg")).write_bytes(JPEG)
    (path,) = pictures_of(tmp_path)
    assert read_image(path).shape == (48, 64, 3)


def test_a_folder_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"a folder without pictures; several videos are named by a pattern"):
        list_pictures(tmp_path)
    for name in ("a.tif", "b.heic", "c.svg", "d.psd"):
        (tmp_path / name).write_bytes(b"?")
    with pytest.raises(
        MediaError, match=r"without pictures that are read \(a.tif, b.heic, c.svg and 1 more cannot be\)"
    ):
        list_pictures(tmp_path)
    with pytest.raises(MediaError, match="No such file"):
        list_pictures(tmp_path / "none")


def test_numbers_in_names_are_sorted_by_their_value() -> None:
    names = ["10.jpg", "9.jpg", "a2.jpg", "a10.jpg", "B1.jpg", "1.jpg"]
    assert sorted(names, key=natural_order) == ["1.jpg", "9.jpg", "10.jpg", "a2.jpg", "a10.jpg", "B1.jpg"]
