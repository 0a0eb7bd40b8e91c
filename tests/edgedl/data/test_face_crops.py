"""Crops for training: made by the pipeline's own detector and crop, once, and again when anything changed."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from edgedl.data.samples import FaceDataset, FaceSample
from edgedl.data.sources import FolderSource
from edgedl.data.synthetic_faces import SyntheticFaces
from edgedl.data.unreadable import Unreadable
from edgedl.tasks.age.data.face_crops import chosen_face, face_crops
from runtime.detection import Looks
from runtime.errors import InputError, MediaError
from runtime.faces import Detection, MarginCrop

SIDE = 12
CROP = MarginCrop(0.0)


def face(x1: float, y1: float, x2: float, y2: float, score: float = 0.9) -> Detection:
    return Detection(np.array([x1, y1, x2, y2], np.float32), score, np.zeros((6, 2), np.float32))


class StandIn:
    """A pipeline that finds what it is told to, and counts."""

    def __init__(
        self, *faces: Detection, detector: str = "d" * 64, look_again: float = 2.5, close_enough: float = 0.2
    ) -> None:
        self.faces = list(faces)
        self.looked = 0
        variants = {"fp32": SimpleNamespace(sha256=detector)}
        models = {"faces": SimpleNamespace(variants=variants)}
        self.bundle = SimpleNamespace(manifest=SimpleNamespace(models=models))
        looks = Looks(look_again=look_again, frame=0.5, overview=192, close_up=96, close_enough=close_enough)
        self.settings = SimpleNamespace(looks=looks)

    def find(self, image, smallest=-1.0):
        self.looked += 1
        return self.faces


def pictures(folder: Path, count: int = 3, side: int = 24) -> FaceDataset:
    """Picture i is grey level 10·i, but for a white square from (6, 6) to (18, 18)."""
    folder.mkdir(exist_ok=True)
    for index in range(count):
        image = np.full((side, side, 3), 10 * index, np.uint8)
        image[6:18, 6:18] = 255
        cv2.imwrite(str(folder / f"{index}.png"), image)
    source = FolderSource(folder)
    return FaceDataset("made up", tuple(FaceSample(f"{i}.png", 30.0 + i, source, f"{i}.png") for i in range(count)))


@pytest.fixture
def dataset(tmp_path) -> FaceDataset:
    return pictures(tmp_path / "set")


def test_a_found_face_is_cut_out_and_the_whole_picture_is_kept(dataset):
    crops = face_crops(dataset, StandIn(face(6, 6, 18, 18)), CROP, SIDE, cache=None)
    assert crops.pipeline.shape == crops.whole.shape == (3, SIDE, SIDE, 3)
    assert (crops.pipeline == 255).all()
    assert crops.whole[:, 0, 0, 0].tolist() == [0, 10, 20], "in the order of the data set"
    assert crops.found.all()


def test_without_a_face_the_whole_picture_is_judged(dataset):
    crops = face_crops(dataset, StandIn(), CROP, SIDE, cache=None)
    assert not crops.found.any()
    np.testing.assert_array_equal(crops.pipeline, crops.whole)


def test_shrinking_averages_areas(tmp_path):
    """24 to 12 pixels: each is the mean of four, so the square's edge is sharp and nothing aliases."""
    chance = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    (tmp_path / "set").mkdir()
    cv2.imwrite(str(tmp_path / "set" / "a.png"), chance[..., ::-1])
    source = FolderSource(tmp_path / "set")
    one = FaceDataset("made up", (FaceSample("a.png", 1.0, source, "a.png"),))
    crops = face_crops(one, StandIn(), CROP, SIDE, cache=None)
    means = chance.reshape(12, 2, 12, 2, 3).mean(axis=(1, 3))
    assert np.abs(crops.whole[0] - means).max() <= 0.5


def test_progress_is_told(dataset):
    told = []
    face_crops(dataset, StandIn(), CROP, SIDE, cache=None, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_the_cache_saves_the_work(dataset, tmp_path):
    pipeline = StandIn(face(6, 6, 18, 18))
    first = face_crops(dataset, pipeline, CROP, SIDE, cache=tmp_path / "cache")
    again = face_crops(dataset, pipeline, CROP, SIDE, cache=tmp_path / "cache")
    assert pipeline.looked == 3
    for name in ("pipeline", "whole", "found"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert len(list((tmp_path / "cache").iterdir())) == 1


def newer(dataset: FaceDataset) -> FaceDataset:
    """The same names; the second picture was replaced, which the folder's own time does not show."""
    file = dataset[1].source.path / "1.png"
    before = file.parent.stat()
    file.write_bytes(file.read_bytes() + b"\0")
    os.utime(file.parent, ns=(before.st_atime_ns, before.st_mtime_ns))
    return dataset


def without_last(dataset: FaceDataset) -> FaceDataset:
    return FaceDataset(dataset.name, dataset.samples[:-1])


CHANGES = {
    "detector": ({"pipeline": StandIn(face(6, 6, 18, 18), detector="e" * 64)}, None),
    "second look": ({"pipeline": StandIn(face(6, 6, 18, 18), look_again=0)}, None),
    "when it is left out": ({"pipeline": StandIn(face(6, 6, 18, 18), close_enough=0)}, None),
    "margin": ({"crop": MarginCrop(0.4)}, None),
    "side": ({"side": SIDE + 1}, None),
    "a picture": ({}, newer),
    "fewer pictures": ({}, without_last),
}


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_changes_the_crops_misses_the_cache(dataset, tmp_path, what):
    changed, change = CHANGES[what]
    given = {"pipeline": StandIn(face(6, 6, 18, 18)), "crop": CROP, "side": SIDE, "cache": tmp_path / "cache"}
    face_crops(dataset, **given)
    given |= changed
    given["pipeline"].looked = 0
    second = change(dataset) if change else dataset
    face_crops(second, **given)
    assert given["pipeline"].looked == len(second)
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize("other", [{"seed": 1}, {"size": 48}], ids=str)
def test_other_painted_faces_miss_the_cache(tmp_path, other):
    options = {"seed": 0, "size": 32} | {"n": 4}
    pipeline = StandIn()
    for given in (options, options, options | other):
        face_crops(SyntheticFaces(**given), pipeline, CROP, SIDE, cache=tmp_path / "cache")
    assert pipeline.looked == 8


@pytest.mark.parametrize("damage", ["empty", "half", "one byte", "no zip", "another npz"])
def test_a_damaged_cache_is_made_again(dataset, tmp_path, caplog, damage):
    pipeline = StandIn(face(6, 6, 18, 18))
    first = face_crops(dataset, pipeline, CROP, SIDE, cache=tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    content = file.read_bytes()
    if damage == "another npz":
        with file.open("wb") as stream:
            np.savez(stream, other=np.zeros(3))
    else:
        middle = len(content) // 3
        flipped = content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]
        file.write_bytes({"empty": b"", "half": content[: len(content) // 2], "no zip": b"x" * 99}.get(damage, flipped))
    with caplog.at_level(logging.WARNING):
        again = face_crops(dataset, pipeline, CROP, SIDE, cache=tmp_path / "cache")
    assert "are damaged" in caplog.text
    assert pipeline.looked == 6
    np.testing.assert_array_equal(first.pipeline, again.pipeline)
    assert file.read_bytes() == content


def test_an_interrupted_writing_leaves_nothing(dataset, tmp_path, monkeypatch):
    def interrupted(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        face_crops(dataset, StandIn(), CROP, SIDE, cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_picture_that_cannot_be_read_is_named(dataset, tmp_path):
    (tmp_path / "set" / "1.png").unlink()
    with pytest.raises(InputError, match=r"1\.png"):
        face_crops(dataset, StandIn(), CROP, SIDE, cache=None)


def test_pictures_that_cannot_be_read_are_left_out(tmp_path):
    dataset = pictures(tmp_path / "set", 9)
    for number in (0, 3, 4, 8):
        (tmp_path / "set" / f"{number}.png").write_bytes(b"damaged")
    unreadable = Unreadable(dataset.name, len(dataset), 0.5)
    pipeline = StandIn(face(6, 6, 18, 18))
    crops = face_crops(dataset, pipeline, CROP, SIDE, cache=None, unreadable=unreadable)
    assert crops.rows.tolist() == [1, 2, 5, 6, 7]
    assert crops.whole[:, 0, 0, 0].tolist() == [10, 20, 50, 60, 70], "each row is its own picture"
    assert dataset.ages[crops.rows].tolist() == [31, 32, 35, 36, 37]
    assert len(crops) == len(crops.pipeline) == len(crops.found) == 5
    assert pipeline.looked == 5
    assert unreadable.names == ("0.png", "3.png", "4.png", "8.png")


def test_of_cached_crops_the_same_pictures_are_missing(tmp_path):
    dataset = pictures(tmp_path / "set")
    (tmp_path / "set" / "1.png").write_bytes(b"damaged")
    pipeline = StandIn(face(6, 6, 18, 18))
    for _ in range(2):
        unreadable = Unreadable(dataset.name, len(dataset), 0.5)
        crops = face_crops(dataset, pipeline, CROP, SIDE, cache=tmp_path / "cache", unreadable=unreadable)
        assert crops.rows.tolist() == [0, 2]
        assert unreadable.to_json() == {"count": 1, "names": ["1.png"]}
    assert pipeline.looked == 2, "the second time nothing is made anew"


def test_a_picture_that_can_be_read_by_now_is_made_up_for(tmp_path, monkeypatch):
    """The same file, another decoder: nothing about the file has changed."""
    dataset = pictures(tmp_path / "set")
    image = FaceDataset.image

    def old_decoder(self, index):
        if index == 1:
            raise MediaError("the PNG is of a kind that this version has no decoder for")
        return image(self, index)

    monkeypatch.setattr(FaceDataset, "image", old_decoder)
    unreadable = Unreadable(dataset.name, len(dataset), 0.5)
    face_crops(dataset, StandIn(), CROP, SIDE, cache=tmp_path / "cache", unreadable=unreadable)
    monkeypatch.setattr(FaceDataset, "image", image)
    again = Unreadable(dataset.name, len(dataset), 0.5)
    crops = face_crops(dataset, StandIn(), CROP, SIDE, cache=tmp_path / "cache", unreadable=again)
    assert (unreadable.count, again.count) == (1, 0)
    assert crops.rows.tolist() == [0, 1, 2]


def test_a_set_without_a_picture_gives_no_crops(tmp_path):
    dataset = pictures(tmp_path / "set")
    for number in range(3):
        (tmp_path / "set" / f"{number}.png").write_bytes(b"")
    unreadable = Unreadable(dataset.name, len(dataset), 1)
    for _ in range(2):
        crops = face_crops(dataset, StandIn(), CROP, SIDE, cache=tmp_path / "cache", unreadable=unreadable)
        assert len(crops) == 0
    with pytest.raises(InputError, match=r"none of the faces can be read: 0\.png \(the input is empty\)"):
        unreadable.check({"faces": len(crops)})


BOXES = (face(0, 0, 10, 10, 0.99), face(20, 20, 60, 60, 0.6), face(70, 0, 95, 30, 0.8))


@pytest.mark.parametrize(
    ("box", "chosen"),
    [
        (None, 1),  # the largest, not the surest
        ((68.0, 2.0, 90.0, 30.0), 2),
        ((1.0, 1.0, 12.0, 12.0), 0),
        ((200.0, 200.0, 220.0, 220.0), None),  # none of them is the face that the sample is about
    ],
    ids=["largest", "at the box", "at another box", "none at the box"],
)
def test_the_face_that_a_sample_is_about(box, chosen):
    sample = SimpleNamespace(box=box)
    found = chosen_face(StandIn(*BOXES), np.zeros((100, 100, 3), np.uint8), sample)
    assert found is (None if chosen is None else BOXES[chosen])


def test_no_face_is_chosen_where_none_was_found():
    assert chosen_face(StandIn(), np.zeros((9, 9, 3), np.uint8), SimpleNamespace(box=None)) is None
