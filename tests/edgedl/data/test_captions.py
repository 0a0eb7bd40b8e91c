"""Opening caption data sets: recognition, refusals, and what holds for every format."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedl.data.sources import open_source
from edgedl.tasks.caption.data import coco_captions, flickr8k, msr_vtt
from edgedl.tasks.caption.data.captions import FORMATS, open_captions
from runtime.errors import InputError
from runtime.media.frames import FrameSampling
from tests.caption_sets import FLICKR, FLICKR_CAPTIONS, FLICKR_PHOTOS, coco, jpeg


def test_an_unknown_folder_lists_what_was_looked_for(layout) -> None:
    with pytest.raises(InputError) as caught:
        open_captions(layout(["a.jpg", "b.jpg"]))
    assert "is no caption data set that edgedl knows; it holds 2 files such as a.jpg, b.jpg" in str(caught.value)
    assert all(f"  {module.NAME}: {module.EXPECTED}" in str(caught.value) for module in FORMATS)
    with pytest.raises(InputError, match="called 'coco'; there are: flickr8k, flickr30k, karpathy, coco-captions"):
        open_captions(layout(["a.jpg"]), "coco")


@pytest.mark.parametrize("module", FORMATS, ids=lambda module: module.NAME)
def test_a_format_that_was_asked_for_and_is_not_there(module, layout) -> None:
    with pytest.raises(InputError, match=r"holds no captions of .*; expected .*; give the folder of both"):
        open_captions(layout(["a.jpg"], {"notes.txt": b"x", "x.json": b"{}", "x.csv": b"a,b\n"}), module.NAME)


def test_captions_without_their_photos_are_refused(layout) -> None:
    with pytest.raises(
        InputError, match=r"name 6 clips such as 1_a\.jpg, and no such file lies there; .*: put them there"
    ):
        open_captions(layout([], FLICKR))
    with pytest.raises(InputError, match=r"name no clip: the caption has no word \(1\)"):
        flickr8k.load(open_source(layout([], {"x.token": b"1.jpg#0\t.\n", "1.jpg": jpeg(1)}, root="empty")))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"video_id": ', "is not JSON: .*; copy it here again"),
        (b'{"video_id": 1, "videos": []}', "holds video_id, videos; expected also a list 'sentences'"),
        (b'["video_id"]', "holds list; expected also a list 'videos'"),
        (b'{"video_id": "\xff"}', "is not JSON"),
    ],
    ids=["cut off", "a list is missing", "another document", "not text"],
)
def test_a_damaged_json_is_named(layout, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=rf"data\.json in .* {message}"):
        msr_vtt.load(open_source(layout([], {"data.json": content})))


def test_two_formats_at_once_are_not_guessed(layout) -> None:
    path = layout([], FLICKR | FLICKR_PHOTOS | {"captions_val.json": coco({1: "1_a.jpg"}, [(1, "a cat")])})
    with pytest.raises(InputError, match="could be any of flickr8k, coco-captions: say which with --format"):
        open_captions(path)
    assert len(open_captions(path, "coco-captions")) == 1
    assert coco_captions.recognises(open_source(path))


def test_a_data_set_travels_between_processes(layout) -> None:
    dataset = open_captions(layout([], FLICKR | FLICKR_PHOTOS))
    again = pickle.loads(pickle.dumps(dataset))
    assert again.summary() == dataset.summary()
    np.testing.assert_array_equal(again.frames(1), dataset.frames(1))


@given(st.lists(st.binary(max_size=40) | st.sampled_from(FLICKR_CAPTIONS.splitlines()), max_size=12))
def test_any_other_lines_leave_the_good_ones_alone(
    tmp_path_factory: pytest.TempPathFactory, found: list[bytes]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any-lines"
    folder.mkdir(exist_ok=True)
    (folder / "1_a.jpg").write_bytes(b"")
    # Good lines are the majority whatever the others hold, or the file is none of this format.
    (folder / "x.token.txt").write_bytes(b"\n".join([b"1_a.jpg#0\ta dog"] * 500 + found))
    dataset = flickr8k.load(open_source(folder))
    kept = dataset.captions(0)
    assert kept[:500] == ("a dog",) * 500
    own = [line for line in found for part in line.split(b"\n") if part.strip().startswith(b"1_a.jpg#")]
    assert len(kept) <= 500 + len(own)
    assert len(dataset) == 1


@pytest.mark.data
def test_the_research_data(shared_data) -> None:
    dataset = open_captions(shared_data / "flickr8k-traindev.zip")
    assert dataset.name == "flickr8k"
    assert [len(dataset.split(name)) for name in ("train", "dev")] == [6000, 1000]
    assert dataset.skipped == {"the captions name a clip that is not there": 2}
    assert all(len(clip.captions) == 5 for clip in dataset.clips)
    assert dataset.frames(5).shape == (1, 224, 224, 3)


def test_the_identity_changes_with_what_the_frames_depend_on(layout) -> None:
    path = layout([], {**FLICKR, **FLICKR_PHOTOS})
    photos = open_captions(path)
    assert photos.identity == open_captions(path).identity
    assert photos.identity == replace(photos, notes=("said otherwise",)).identity
    others = [
        photos.split("train"),
        photos.sampled(FrameSampling.even(4)),
        photos.sampled(FrameSampling.every(8)),
        photos.sampled(photos.sampling, shorter=448),
        replace(photos, clips=photos.clips[::-1]),
    ]
    assert len({photos.identity, *(other.identity for other in others)}) == 1 + len(others)
    before = photos.identity
    file = path if path.is_file() else path / "Flicker8k_Dataset" / "1_a.jpg"
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 10**9))
    assert photos.identity != before
