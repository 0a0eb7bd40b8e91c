"""``edgedl predict`` and pictures as people have them: mixed folders, damaged files, large photos."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.captions import write_caption_bundle
from tests.digits import write_digits_bundle
from tests.pictures import encode

# White paper with ink in the middle: a 1 for the bundle of the tests.
SHEET = np.full((64, 64, 3), 255, np.uint8)
SHEET[24:40, 24:40] = 0
ONE = Image.fromarray(SHEET)
JPEG = encode(ONE, quality=95)
MIXED = {
    "a.jpg": JPEG, "b.gif": encode(ONE, "GIF"), "c.jfif": JPEG, "._a.jpg": b"\0\5\x16\7", "Thumbs.db": b"x",
    "d.tif": encode(ONE, "TIFF"), "e.heic": b"\0\0\0\x1cftypheic" + bytes(40), "notes.txt": b"x",
}  # fmt: skip


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits_bundle(tmp_path_factory.mktemp("bundles") / "digits.edge").path


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name, data in MIXED.items():
        (folder / name).write_bytes(data)
    return folder


def answers(result) -> dict[str, object]:
    return {Path(item["input"]).name: item.get("digit", "error") for item in result.document["results"]}


def test_of_a_mixed_folder_pictures_are_answered_and_what_cannot_be_read_is_named(edgedl, bundle, mixed):
    result = edgedl("predict", bundle, mixed, "--json")
    assert result.status == 0
    assert result.document["ok"] is True
    assert answers(result) == {"a.jpg": 1, "b.gif": 1, "c.jfif": 1}
    skipped = {Path(item["input"]).name: item["reason"] for item in result.document["skipped"]}
    assert list(skipped) == ["d.tif", "e.heic"]
    assert skipped["e.heic"].startswith("the input is a HEIC picture, which is not read; save it as JPEG first")
    assert f"{mixed / 'd.tif'} is left out: the input is a TIFF picture" in result.err
    assert "._a.jpg" not in result.err
    assert "skipped" not in edgedl("predict", bundle, mixed / "a.jpg", "--json").document


def test_a_damaged_picture_of_a_folder_is_reported_and_the_others_answered(edgedl, bundle, mixed):
    (mixed / "f.jpg").write_bytes(JPEG[:-40] + b"\xff\xd9")
    (mixed / "g.png").write_bytes(b"<!doctype html><html>404")
    (mixed / "h.jpeg").write_bytes(b"")
    result = edgedl("predict", bundle, mixed, "--json")
    assert result.status == 2
    assert result.document["ok"] is False
    assert answers(result) == {
        "a.jpg": 1,
        "b.gif": 1,
        "c.jfif": 1,
        "f.jpg": "error",
        "g.png": "error",
        "h.jpeg": "error",
    }
    errors = {Path(item["input"]).name: item["error"] for item in result.document["results"] if "error" in item}
    assert {error["type"] for error in errors.values()} == {"MediaError"}
    assert "the JPEG is damaged or truncated" in errors["f.jpg"]["message"]
    assert "a web page" in errors["g.png"]["message"]
    assert f"edgedl: {mixed / 'h.jpeg'}: the input is empty" in result.err


@pytest.mark.parametrize("names", [(), ("d.tif", "e.heic", "notes.txt")], ids=["empty", "nothing that is read"])
def test_a_folder_without_pictures_is_a_mistake(edgedl, bundle, tmp_path, names):
    for name in names:
        (tmp_path / name).write_bytes(MIXED[name])
    result = edgedl("predict", bundle, tmp_path)
    assert (result.status, result.out) == (2, "")
    assert f"{tmp_path}: a folder without pictures" in result.err
    assert ("d.tif, e.heic cannot be" in result.err) == bool(names)


def test_a_folder_that_is_a_clip_names_what_it_leaves_out(edgedl, tmp_path, mixed):
    captions = write_caption_bundle(tmp_path / "caption.edge").path
    result = edgedl("predict", captions, mixed, "--json")
    assert result.status == 0
    (clip,) = result.document["results"]
    assert [frame["index"] for frame in clip["frames"]] == [0, 1, 2]
    assert [Path(item["input"]).name for item in result.document["skipped"]] == ["d.tif", "e.heic"]
    assert edgedl("predict", captions, mixed / "d.tif", "--json").status == 2


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes on POSIX only")
def test_strange_names(edgedl, bundle, tmp_path):
    names = (b"two\nlines.jpg", b"\xff\xfe.jpg", "Übung 1.JPG".encode(), b"no suffix", b"a'b\"c.jpg")
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(JPEG)
    result = edgedl("predict", bundle, tmp_path, "--json")
    assert result.status == 0
    assert sorted(os.fsencode(Path(item["input"]).name) for item in result.document["results"]) == sorted(names)
    assert edgedl("predict", bundle, tmp_path, "--save", tmp_path / "out").status == 0
    assert len(list((tmp_path / "out").iterdir())) == len(names)


def test_a_note_is_told(edgedl, bundle, tmp_path):
    (tmp_path / "a.jpg").write_bytes(JPEG[:-2])
    (result,) = edgedl("predict", bundle, tmp_path / "a.jpg", "--json").document["results"]
    assert result["digit"] == 1
    assert result["note"] == "the JPEG has no end marker; nothing of the picture is missing"
    assert "  note: the JPEG has no end marker" in edgedl("predict", bundle, tmp_path / "a.jpg").out


def test_the_limit_of_pixels_is_an_option(edgedl, bundle, scale_bundle, tmp_path):
    (tmp_path / "a.jpg").write_bytes(JPEG)
    (tmp_path / "a.png").write_bytes(encode(ONE, "PNG"))
    result = edgedl("predict", bundle, tmp_path, "--max-pixels", 2000, "--json")
    assert result.status == 2
    assert answers(result) == {"a.jpg": 1, "a.png": "error"}, "a JPEG is read at a half of its size"
    assert "the PNG is 64×64 pixels, at most 2000 are read; scale it down first" in result.err
    assert edgedl("predict", bundle, tmp_path, "--max-pixels", 64 * 64).status == 0
    assert "is not a whole number of at least 1" in edgedl("predict", bundle, tmp_path, "--max-pixels", 0).err
    result = edgedl("predict", scale_bundle, tmp_path / "a.jpg", "--max-pixels", 5)
    assert result.status == 2
    assert "--max-pixels: a bundle of the task" in result.err


def test_the_limit_is_an_option_of_the_service(edgedl, bundle, monkeypatch):
    given = []
    monkeypatch.setattr("service.gunicorn.serve", lambda bundles, **settings: given.append(settings) or 0)
    assert edgedl("serve", bundle, "--max-pixels", 12_345).status == 0
    assert edgedl("serve", bundle).status == 0
    assert [settings.get("max_pixels") for settings in given] == [12_345, None]


def test_the_limit_holds_for_clips(edgedl, tmp_path):
    captions = write_caption_bundle(tmp_path / "caption.edge").path
    (tmp_path / "a.png").write_bytes(encode(ONE, "PNG"))
    assert edgedl("predict", captions, tmp_path / "a.png", "--max-pixels", 4096).status == 0
    assert "at most 4095 are read" in edgedl("predict", captions, tmp_path / "a.png", "--max-pixels", 4095).err


def test_a_picture_is_decoded_once_for_its_answer_and_its_drawing(edgedl, bundle, tmp_path, monkeypatch):
    import cv2

    decoded = []
    decode = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda *given: decoded.append(1) or decode(*given))
    (tmp_path / "a.jpg").write_bytes(JPEG)
    assert edgedl("predict", bundle, tmp_path / "a.jpg", "--save", tmp_path / "out").status == 0
    assert len(decoded) == 1
