"""Flickr8k and COCO as they lie on disk, as a folder and as a zip."""

from __future__ import annotations

import numpy as np
import pytest

from edgedl.tasks.caption.data.captions import open_captions
from runtime.errors import InputError
from runtime.media.frames import FrameSampling
from tests.caption_sets import FLICKR, FLICKR_PHOTOS, coco, jpeg, of


def test_flickr8k(layout) -> None:
    dataset = open_captions(layout([], FLICKR | FLICKR_PHOTOS))
    assert dataset.name == "flickr8k"
    assert of(dataset) == {
        "1_a.jpg": ("test", ("A child in a pink dress .", "A girl going into a building .")),
        "2_b.jpg": ("val", ("A black dog",)),
        "3_c.jpg": ("test", ("Two men , one hat .",)),
        "4_d.jpg": (None, ("On none of the lists .",)),
        "5_e.jpg": ("train", ("Two dogs",)),
    }
    assert dataset.skipped == {
        "the line is not img.jpg#number<TAB>caption": 1,
        "the caption has no word": 1,
        "the caption is not UTF-8 text": 1,
        "the captions name a clip that is not there": 1,
        "a list of a split names a photo that has no caption": 1,
        "a clip in two splits stays in test": 1,
    }
    assert "the caption has no word: the first is Flickr8k.token.txt, line 9" in dataset.notes
    assert "flickr8k: 5 clips with 6 captions (1 train, 1 val, 2 test, 1 in no split)" in dataset.summary()


def test_a_photo_is_a_clip_of_one_frame(layout) -> None:
    dataset = open_captions(layout([], FLICKR | FLICKR_PHOTOS))
    frames = dataset.frames(2)
    assert frames.shape == (1, 6, 8, 3)
    assert frames.dtype == np.uint8
    assert abs(int(frames.mean()) - 80) <= 2
    assert dataset.sampled(FrameSampling.even(8), shorter=3).frames(2).shape == (1, 3, 4, 3)


def test_splits_have_the_names_that_people_know(layout) -> None:
    dataset = open_captions(layout([], FLICKR | FLICKR_PHOTOS))
    assert [dataset.split(name).clip_name(0) for name in ("dev", "val", "test")] == ["2_b.jpg", "2_b.jpg", "1_a.jpg"]
    assert len(dataset.split("all")) == len(dataset) == 5
    assert dataset.split("val").captions(0) == ("A black dog",)
    with pytest.raises(InputError, match="no split 'validation'; it has: train, val, test, all"):
        dataset.split("validation")


def test_without_lists_a_tenth_is_validation(layout) -> None:
    names = [f"{i}.jpg" for i in range(20)]
    captions = "".join(f"{name}#0\ta dog\n" for name in names).encode()
    dataset = open_captions(layout([], {"results.token": captions} | dict.fromkeys(names, jpeg(0))))
    assert (len(dataset.split("train")), len(dataset.split("val"))) == (18, 2)
    assert dataset.notes == ("there are no lists of splits: validation is a tenth by name",)


INSTANCES = coco({9: "000000000009.jpg"}, []).replace(
    b'"annotations": []', b'"annotations": [{"image_id": 9, "bbox": []}]'
)


def test_coco(layout) -> None:
    files = {
        "annotations/captions_train2017.json": coco(
            {9: "000000000009.jpg", 25: "000000000025.jpg", 30: "000000000030.jpg"},
            [
                (9, "Closeup of bins of food.\n"),
                (25, "A giraffe"),
                (9, "A meal"),
                (30, "lost"),
                (77, "whose?"),
                ([9], "whose?"),
                (25, None),
            ],
        ),
        "annotations/captions_val2017.json": coco(
            {139: "000000000139.jpg"}, [(139, "A woman stands in the dining area")]
        ),
        "annotations/instances_train2017.json": INSTANCES,
        "train2017/000000000009.jpg": jpeg(10),
        "train2017/000000000025.jpg": jpeg(20),
        "val2017/000000000139.jpg": jpeg(30),
    }
    dataset = open_captions(layout([], files))
    assert dataset.name == "coco-captions"
    assert of(dataset) == {
        "train2017/000000000009.jpg": ("train", ("Closeup of bins of food.", "A meal")),
        "train2017/000000000025.jpg": ("train", ("A giraffe",)),
        "val2017/000000000139.jpg": ("val", ("A woman stands in the dining area",)),
    }
    assert dataset.skipped == {
        "the annotation belongs to no photo of its file": 2,
        "the caption is no text": 1,
        "the captions name a clip that is not there": 1,
    }
    assert abs(int(dataset.split("val").frames(0).mean()) - 30) <= 2


def test_coco_photos_of_one_name_stay_apart(layout) -> None:
    files = {
        "captions_val.json": coco({1: "1.jpg"}, [(1, "a cat")]),
        "captions_train.json": coco({1: "1.jpg", 2: "deep/2.jpg"}, [(1, "a dog"), (2, "a cow")]),
        "train/1.jpg": jpeg(10),
        "val/1.jpg": jpeg(20),
        "shallow/2.jpg": jpeg(30),
        "train/deep/2.jpg": jpeg(40),
    }
    assert of(open_captions(layout([], files))) == {
        "train/1.jpg": ("train", ("a dog",)),
        "train/deep/2.jpg": ("train", ("a cow",)),
        "val/1.jpg": ("val", ("a cat",)),
    }


def test_captions_like_cocos_under_another_name(layout) -> None:
    files = {
        "labels.json": coco({1: "1.jpg", 2: "2.jpg"}, [(1, "a cat"), (2, "a dog")]),
        "1.jpg": jpeg(1),
        "2.jpg": jpeg(2),
    }
    assert len(open_captions(layout([], files)).split("val")) == 1
    with pytest.raises(InputError, match="no caption data set"):
        open_captions(layout([], {"instances_train2017.json": INSTANCES}, root="other"))
