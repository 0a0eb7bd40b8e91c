"""Karpathy's JSON of Flickr8k, Flickr30k and COCO."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgedl.tasks.caption.data.captions import open_captions
from runtime.errors import InputError
from tests.caption_sets import coco, jpeg, of

FOUR = {f"Flicker8k_Dataset/{i}.jpg": jpeg(40 * i) for i in range(4)}


def image(filename: object, split: object = "train", *raw: object, **more: object) -> dict[str, Any]:
    """As the original's entries."""
    said = raw or ("A dog runs .",)
    sentences = [
        {"tokens": str(text).lower().split(), "raw": text, "imgid": 0, "sentid": i} for i, text in enumerate(said)
    ]
    return {"sentids": [0], "imgid": 0, "sentences": sentences, "split": split, "filename": filename, **more}


def document(*images: object, dataset: str = "flickr8k") -> bytes:
    return json.dumps({"images": images, "dataset": dataset}).encode()


@pytest.mark.parametrize("name", ["flickr8k", "flickr30k"])
def test_flickr(layout, name: str) -> None:
    images = [
        image(f"{i}.jpg", split, f"A dog {i} .", "A cat") for i, split in enumerate(("train", "val", "test", "restval"))
    ]
    dataset = open_captions(layout([], FOUR | {f"dataset_{name}.json": document(*images, dataset=name)}))
    assert dataset.name == f"karpathy-{name}"
    assert of(dataset) == {
        "0.jpg": ("train", ("A dog 0 .", "A cat")),
        "1.jpg": ("val", ("A dog 1 .", "A cat")),
        "2.jpg": ("test", ("A dog 2 .", "A cat")),
        "3.jpg": ("train", ("A dog 3 .", "A cat")),
    }
    assert abs(int(dataset.split("test").frames(0).mean()) - 80) <= 2


COCO = {
    "train2014/COCO_train2014_000000000009.jpg": ("train", 10),
    "val2014/COCO_val2014_000000000042.jpg": ("val", 20),
    "val2014/COCO_val2014_000000000073.jpg": ("restval", 30),
}
COCO_IMAGES = [image(path.split("/")[1], split, path, filepath=path.split("/")[0]) for path, (split, _) in COCO.items()]


@pytest.mark.parametrize("place", ["", "coco/images/", None], ids=["as published", "deeper", "all in one folder"])
def test_coco(layout, place: str | None) -> None:
    files = {
        (f"images/{path.split('/')[1]}" if place is None else place + path): jpeg(level)
        for path, (_, level) in COCO.items()
    }
    dataset = open_captions(layout([], files | {"dataset_coco.json": document(*COCO_IMAGES, dataset="coco")}))
    assert dataset.name == "karpathy-coco"
    assert {name: split for name, (split, _) in of(dataset).items()} == {
        path: {"restval": "train"}.get(split, split) for path, (split, _) in COCO.items()
    }
    levels = [int(dataset.frames(row).mean()) for row in range(3)]
    assert levels == pytest.approx([COCO[dataset.clip_name(row)][1] for row in range(3)], abs=2)


def test_photos_of_one_name_in_two_folders_stay_apart(layout) -> None:
    images = [image("1.jpg", "train", "first", filepath="a"), image("1.jpg", "val", "second", filepath="b")]
    dataset = open_captions(
        layout([], {"a/1.jpg": jpeg(10), "b/1.jpg": jpeg(20), "dataset_coco.json": document(*images)})
    )
    assert of(dataset) == {"a/1.jpg": ("train", ("first",)), "b/1.jpg": ("val", ("second",))}
    assert [int(dataset.frames(row).mean()) for row in range(2)] == pytest.approx([10, 20], abs=2)


def test_a_photo_of_another_folder_is_not_the_one_that_is_meant(layout) -> None:
    files = {"b/1.jpg": jpeg(10), "dataset_coco.json": document(image("1.jpg", filepath="a"))}
    with pytest.raises(InputError, match=r"name 1 clips such as a/1\.jpg, and no such file lies there"):
        open_captions(layout([], files))


def test_entries_that_cannot_be_used_are_counted(layout) -> None:
    images = [
        image("0.jpg", "val", "A dog ."),
        image("0.jpg", "test", "A cat ."),  # the same photo again
        image("1.jpg", "validation"),
        {"filename": "2.jpg", "split": "train"},
        image("3.jpg", "train", "One .", 5, " . "),
        image("4.jpg"),
        image(7),
        {"filename": "2.jpg", "split": "train", "sentences": [{"tokens": ["a", "bird"]}, "text"]},
        "no entry",
    ]
    dataset = open_captions(layout([], FOUR | {"dataset_flickr8k.json": document(*images)}))
    assert of(dataset) == {
        "0.jpg": ("test", ("A dog .", "A cat .")),
        "1.jpg": (None, ("A dog runs .",)),
        "2.jpg": ("train", ("a bird",)),
        "3.jpg": ("train", ("One .",)),
    }
    assert dataset.skipped == {
        "the photo's split is none of train, restval, val, test; it is in no split": 1,
        "the caption is no text": 2,
        "the caption has no word": 1,
        "the photo's entry lacks filename": 2,
        "a clip in two splits stays in test": 1,
        "the captions name a clip that is not there": 1,
    }
    assert "the photo's entry lacks filename: the first is dataset_flickr8k.json, images[6]" in dataset.notes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (document(image("0.jpg"))[:-20], "is not JSON: .*; copy it here again"),
        (b'{"images": 1, "filename": 1, "sentences": 1}', "expected also a list 'images'"),
        (document({"filename": "0.jpg", "sentences": []}), "name no clip"),
    ],
    ids=["cut off", "no list", "no sentences"],
)
def test_a_damaged_file_is_named(layout, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_captions(layout([], FOUR | {"dataset_flickr8k.json": content}))


def test_of_two_files_one_has_to_be_chosen(layout) -> None:
    files = FOUR | {f"dataset_{name}.json": document(image("0.jpg")) for name in ("coco", "flickr8k")}
    with pytest.raises(InputError, match=r"holds dataset_coco\.json, dataset_flickr8k\.json; expected one of them"):
        open_captions(layout([], files))


def test_beside_another_format_it_has_to_be_asked_for(layout) -> None:
    files = {path: jpeg(level) for path, (_, level) in COCO.items()}
    files |= {
        "dataset_coco.json": document(*COCO_IMAGES, dataset="coco"),
        "annotations/captions_val2014.json": coco({42: "COCO_val2014_000000000042.jpg"}, [(42, "a cat")]),
    }
    path = layout([], files)
    with pytest.raises(InputError, match="could be any of karpathy, coco-captions: say which with --format"):
        open_captions(path)
    assert len(open_captions(path, "karpathy")) == 3
    assert len(open_captions(path, "coco-captions")) == 1
