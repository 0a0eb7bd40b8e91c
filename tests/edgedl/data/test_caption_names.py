"""A caption never moves to another photo or video, whatever their names have in common."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedl.data.splits import held_out
from edgedl.tasks.caption.data import coco_captions, flickr8k, karpathy, msr_vtt, msvd
from edgedl.tasks.caption.data.captions import open_captions
from edgedl.tasks.caption.data.media_files import MediaFiles, split_in_name
from runtime.errors import InputError
from tests.caption_sets import coco, of


@dataclass(frozen=True)
class Memory:
    """A source whose files are in memory."""

    files: Mapping[str, bytes]
    path: Path = Path("memory")

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self.files))

    def read(self, member: str) -> bytes:
        return self.files[member]

    def head(self, member: str, size: int) -> bytes:
        return self.files[member][:size]

    def same(self, member: str, other: str) -> bool:
        return self.files[member] == self.files[other]

    def file(self, member: str) -> Path:
        return self.path / member


folders = st.sampled_from(["a/", "A/", "b/", "train/", "val/", "01/", "1/"])
stems = st.sampled_from(["1", "01", "001", "a", "A", "x.y", "COCO_a_1", "train"])
photos = st.builds("{}{}{}".format, folders, stems, st.sampled_from([".jpg", ".JPG", ".png", ".jpeg"]))
"""Paths of photos, which differ in the folder, in case, in leading zeros or in the suffix only."""

videos = st.builds("{}{}{}".format, folders, stems, st.sampled_from([".mp4", ".avi", ".MP4"]))
contents = st.integers(0, 2)
"""What a photo shows: few, so that some are copies of each other."""

Shown = dict[str, int]


def said(content: int) -> str:
    return f"photo {content}"


def hold(load: Callable[[Any], Any], files: Mapping[str, bytes]) -> set[str]:
    """Reads a data set and compares each caption with its photo; gives the files that have captions."""
    source = Memory(files)
    try:
        dataset = load(source)
    except InputError:
        return set()
    for clip in dataset.clips:
        assert set(clip.captions) == {said(int(source.read(clip.member)))}, clip
    assert not {c.member for c in dataset.clips if c.split == "val"} & {
        c.member for c in dataset.clips if c.split == "train"
    }
    return {clip.member for clip in dataset.clips}


def stored(shown: Shown) -> dict[str, bytes]:
    return {path: str(content).encode() for path, content in shown.items()}


@settings(max_examples=200)
@given(
    st.dictionaries(photos, contents, min_size=1, max_size=8), st.dictionaries(photos, contents, max_size=6), st.data()
)
def test_flickr(shown: Shown, others: Shown, data: st.DataObject) -> None:
    """Names without folders, each of one photo; other photos may have the same."""
    by_name = {PurePosixPath(path).name: path for path in shown}
    lines = [
        f"{name}#{data.draw(st.integers(0, 2))}\t{said(shown[path])}" for name, path in by_name.items() for _ in "12"
    ]
    present = stored({**others, **{path: shown[path] for path in by_name.values()}})
    found = hold(flickr8k.load, present | {"x.token": "\n".join(lines).encode()})
    names = [PurePosixPath(path).name for path in present]
    assert found >= {path for name, path in by_name.items() if names.count(name) == 1}, "what is unique is found"


@settings(max_examples=200)
@given(
    st.dictionaries(photos, contents, min_size=1, max_size=8), st.dictionaries(photos, contents, max_size=6), st.data()
)
def test_karpathy(shown: Shown, others: Shown, data: st.DataObject) -> None:
    """Names with folders; some photos are missing, and others, which nobody described, are there."""
    images = []
    for path, content in shown.items():
        folder, _, name = path.partition("/")
        entry = {"filename": name, "filepath": folder, "split": data.draw(st.sampled_from(list(karpathy.SPLITS)))}
        images += [{**entry, "sentences": [{"raw": said(content)}]}] * data.draw(st.integers(1, 2))
    there = data.draw(st.sets(st.sampled_from(sorted(shown))))
    present = stored({**{p: c for p, c in others.items() if p not in shown}, **{p: shown[p] for p in there}})
    assert hold(karpathy.load, present | {"d.json": json.dumps({"images": images}).encode()}) == there


ids = st.sampled_from([0, 1, "1", "01", True, 1.0, None, -1])


@settings(max_examples=200)
@given(
    st.dictionaries(photos, contents, min_size=1, max_size=6), st.dictionaries(photos, contents, max_size=4), st.data()
)
def test_coco(shown: Shown, others: Shown, data: st.DataObject) -> None:
    """Ids that occur twice, and some that Python takes for equal."""
    numbered = [(data.draw(ids), path) for path in shown for _ in range(data.draw(st.integers(1, 2)))]
    document = {
        "images": [{"id": number, "file_name": path} for number, path in numbered],
        "annotations": [{"image_id": number, "caption": said(shown[path])} for number, path in numbered],
    }
    there = data.draw(st.sets(st.sampled_from(sorted(shown))))
    present = stored({**{p: c for p, c in others.items() if p not in shown}, **{p: shown[p] for p in there}})
    hold(coco_captions.load, present | {"captions.json": json.dumps(document).encode()})


@settings(max_examples=200)
@given(st.dictionaries(photos, contents, min_size=1, max_size=8), st.booleans())
def test_coco_in_two_files(shown: Shown, lost: bool) -> None:
    """The same names and ids in the photos of training and of validation, which lie in folders called so."""
    files = {}
    for split in ("train", "val"):
        own = {path.partition("/")[2]: content for path, content in shown.items() if path.startswith(split)}
        images = [{"id": number, "file_name": name} for number, name in enumerate(own)]
        annotations = [{"image_id": number, "caption": said(content)} for number, content in enumerate(own.values())]
        files[f"captions_{split}2017.json"] = json.dumps({"images": images, "annotations": annotations}).encode()
    present = stored({p: c for p, c in shown.items() if p.startswith(("train", "val"))})
    if lost and present:
        del present[min(present)]
    assert hold(coco_captions.load, present | files) == set(present)


@settings(max_examples=200)
@given(
    st.dictionaries(videos, contents, min_size=1, max_size=8), st.dictionaries(videos, contents, max_size=6), st.data()
)
def test_msr_vtt(shown: Shown, others: Shown, data: st.DataObject) -> None:
    """Ids without a suffix; the same id may be there twice, in two splits, and as two files."""
    by_stem = {PurePosixPath(path).stem: path for path in shown}
    splits = st.sampled_from(["train", "validate", "test"])
    document = {
        "videos": [
            {"video_id": stem, "split": data.draw(splits)}
            for stem in by_stem
            for _ in range(data.draw(st.integers(1, 2)))
        ],
        "sentences": [{"video_id": stem, "caption": said(shown[path])} for stem, path in by_stem.items()],
    }
    present = stored({**others, **{path: shown[path] for path in by_stem.values()}})
    found = hold(msr_vtt.load, present | {"x.json": json.dumps(document).encode()})
    names = [PurePosixPath(path).stem for path in present]
    assert found >= {path for stem, path in by_stem.items() if names.count(stem) == 1}


@settings(max_examples=200)
@given(st.permutations(range(1, 7)), st.data())
def test_msvd_by_number(numbers: list[int], data: st.DataObject) -> None:
    """``vid3.avi`` by the authors' numbers, which may have been written down twice."""
    clips = [f"{name}_1_2" for name in ("a", "A", "b", "01", "1", "x_1_2")]
    shown = {f"vid{number}.avi": data.draw(contents) for number in numbers}
    text = "\n".join(f"{clip} {said(shown[f'vid{number}.avi'])}" for clip, number in zip(clips, numbers, strict=True))
    rows = list(zip(clips, numbers, strict=True)) + data.draw(
        st.lists(st.tuples(st.sampled_from(clips), st.integers(1, 7)), max_size=1)
    )
    mapping = "\n".join(f"{clip} vid{number}" for clip, number in rows)
    files = stored(shown) | {"captions.txt": text.encode(), "youtube_mapping.txt": mapping.encode()}
    if len(dict(rows)) == len(set(rows)) == len({number for _, number in rows}):
        assert hold(msvd.load, files) == set(shown)
    else:
        with pytest.raises(InputError, match="gives a clip a second number, or a number a second clip"):
            msvd.load(Memory(files))


def test_a_name_in_two_folders_is_left_out_and_named(layout) -> None:
    files = {"Images/1.jpg": b"1", "Images/2.jpg": b"2", "small/1.jpg": b"3", "copy/2.jpg": b"2",
             "x.token": b"1.jpg#0\ta dog\n2.jpg#0\ta cat\n"}  # fmt: skip
    dataset = open_captions(layout([], files))
    assert of(dataset) == {"2.jpg": ("train", ("a cat",))}
    assert dataset.skipped == {"files that differ have the clip's name": 1}
    assert "files that differ have the clip's name: the first is Images/1.jpg and small/1.jpg" in dataset.notes
    del files["Images/2.jpg"], files["copy/2.jpg"]
    with pytest.raises(
        InputError, match=r"such as 1\.jpg, and files that differ have the .* \(Images/1\.jpg and small/1\.jpg\)"
    ):
        open_captions(layout([], files | {"x.token": b"1.jpg#0\ta dog\n"}, root="other"))


def test_a_photo_under_two_names_is_in_one_split(layout) -> None:
    files = {
        "Images/1.jpg": b"1",
        "x.token": b"1.jpg#0\ta dog\nImages/1.jpg#0\ta cat\n",
        "a.trainImages.txt": b"1.jpg\n",
        "a.devImages.txt": b"Images/1.jpg\n",
    }
    dataset = open_captions(layout([], files))
    assert of(dataset) == {"1.jpg": ("train", ("a dog",))}
    assert dataset.skipped == {"the clip has captions under another name": 1}
    assert "the first is Images/1.jpg, which is 1.jpg" in dataset.summary()


def test_an_id_of_two_photos_is_left_out(layout) -> None:
    document = json.loads(coco({1: "a.jpg", 2: "b.jpg"}, [(1, "a dog"), (2, "a cat")]))
    document["images"].append({"id": 1, "file_name": "c.jpg"})
    files = {f"{name}.jpg": name.encode() for name in "abc"} | {"captions.json": json.dumps(document).encode()}
    dataset = open_captions(layout([], files))
    assert {name: captions for name, (_, captions) in of(dataset).items()} == {"b.jpg": ("a cat",)}
    assert dataset.skipped == {
        "photos of several names have the same id": 1,
        "the annotation belongs to no photo of its file": 1,
    }


def test_text_that_is_none_is_left_out(layout) -> None:
    """Half a surrogate pair, as in a broken emoji, can stand in JSON; it cannot be written to a file."""
    content = (
        b'{"images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b\\ud800.jpg"}], "annotations": ['
        b'{"image_id": 1, "caption": "a dog \\ud83d"}, {"image_id": 1, "caption": "a dog"},'
        b'{"image_id": 2, "caption": "x"}]}'
    )
    dataset = open_captions(layout([], {"a.jpg": b"", "captions.json": content}))
    assert {name: captions for name, (_, captions) in of(dataset).items()} == {"a.jpg": ("a dog",)}
    assert dataset.skipped == {"the caption is not UTF-8 text": 2}
    assert len(held_out(["a\ud800", "b"])) == 1, "nor does a split fail with it"


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("captions_val2017.json", "val"),
        ("train2014", "train"),
        ("COCO_test", "test"),
        ("dev", "val"),
        ("valid", "val"),
        ("captions_trainval2014.json", None),
        ("train_val.json", None),
        ("contest", None),
        ("latest", None),
        ("evaluation", None),
    ],
)
def test_the_split_that_a_name_speaks_of(name: str, split: str | None) -> None:
    assert split_in_name(name) == split


def test_a_file_is_found_at_the_end_of_its_path() -> None:
    files = MediaFiles(Memory({"x/a/1.jpg": b"1", "b/1.jpg": b"2", "b/2.txt": b""}), {".jpg"})
    assert files.find("a/1.jpg") == files.find("x/a/1.jpg") == files.find("a\\1.jpg") == ("x/a/1.jpg",)
    assert files.find("1.jpg") == ("b/1.jpg", "x/a/1.jpg")
    assert files.find("c/1.jpg") == files.find("1.JPG") == files.find("2.txt") == ()
