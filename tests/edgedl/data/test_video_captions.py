"""MSVD and MSR-VTT as they lie on disk, as a folder and as a zip."""

from __future__ import annotations

import json

import pytest

from edgedl.tasks.caption.data import msvd
from edgedl.tasks.caption.data.captions import open_captions
from runtime.media.frames import FrameSampling
from tests.caption_sets import of
from tests.videos import number_of, write_video


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Twenty numbered frames, 96 × 64."""
    return write_video(tmp_path_factory.mktemp("video") / "v.avi", 20, size=(96, 64)).read_bytes()


MSVD_TEXT = b"""# <Video ID>_<start>_<end> description

mv89psg6zh4_33_46 A bird in a sink keeps getting under the running water.
mv89psg6zh4_33_46 A bird is bathing in a sink.
-4wsuPCjDBc_5_15 a squirrel is eating a peanut in it's shell
zzit5b_-ukg_5_20 a man is slicing
broken line
_0nX-El-ySo_83_93 people are dancing
"""


def test_msvd_as_text(layout, video: bytes) -> None:
    clips = ("mv89psg6zh4_33_46", "-4wsuPCjDBc_5_15", "zzit5b_-ukg_5_20")
    path = layout([], {"AllVideoDescriptions.txt": MSVD_TEXT} | {f"YouTubeClips/{clip}.avi": video for clip in clips})
    dataset = open_captions(path)
    assert dataset.name == "msvd"
    assert of(dataset)["-4wsuPCjDBc_5_15"][1] == ("a squirrel is eating a peanut in it's shell",)
    assert [len(dataset.captions(i)) for i in range(len(dataset))] == [2, 1, 1]
    assert dataset.skipped == {
        "the line is not <id>_<start>_<end> caption": 1,
        "the captions name a clip that is not there": 1,
    }
    assert "the captions name 4 clips, not 1,970: no published splits" in dataset.summary()
    assert [len(dataset.split(split)) for split in ("train", "val")] == [2, 1]


def test_a_video_gives_the_frames_that_are_asked_for(layout, video: bytes) -> None:
    path = layout([], {"AllVideoDescriptions.txt": MSVD_TEXT, "zzit5b_-ukg_5_20.avi": video})
    dataset = open_captions(path)
    frames = dataset.frames(0)
    assert frames.shape == (8, 64, 96, 3)
    # The middles of eight equal parts of twenty frames, (2i + 1)·20 / 16, rounded down.
    assert [number_of(frame) for frame in frames] == [1, 3, 6, 8, 11, 13, 16, 18]
    paper = dataset.sampled(FrameSampling.every(10), shorter=32).frames(0)
    assert paper.shape == (2, 32, 48, 3)
    assert [number_of(frame) for frame in paper] == [0, 10]


def test_msvd_as_a_table(layout, video: bytes) -> None:
    table = (
        "\ufeffVideoID,Start,End,WorkerID,Source,AnnotationTime,Language,Description\n"
        "mv89psg6zh4,33,46,588702,unverified,55,Slovene,Papagaj se umiva pod tekočo vodo v lijaku.\n"
        'mv89psg6zh4,33,46,588702,clean,55,English,"A bird, in a sink."\n'
        "#NAME?,5,15,1,clean,5,English,a squirrel\n"
        "mv89psg6zh4,33,46,588702,clean,55,English\n"
        "zzit5b_-ukg,5,20,2,clean,9,English,a man is slicing\n"
        "zzit5b_-ukg,5,,2,clean,9,English,a man\n"
        "zzit5b_-ukg,5,20,2,clean,9,English,\n"
    ).encode()
    clips = dict.fromkeys(("mv89psg6zh4_33_46.avi", "zzit5b_-ukg_5_20.avi"), video)
    dataset = open_captions(layout([], {"video_corpus.csv": table} | clips))
    assert dataset.name == "msvd"
    assert {name: captions for name, (_, captions) in of(dataset).items()} == {
        "mv89psg6zh4_33_46": ("A bird, in a sink.",),
        "zzit5b_-ukg_5_20": ("a man is slicing",),
    }
    assert dataset.skipped == {
        "the caption is not English": 1,
        "the row has no video and times (a spreadsheet writes #NAME?)": 2,
        "the row has too few columns": 1,
        "the caption has no word": 1,
    }


def test_msvd_with_the_authors_numbers(layout, video: bytes) -> None:
    files = {
        "AllVideoDescriptions.txt": MSVD_TEXT,
        "youtube_mapping.txt": b"-4wsuPCjDBc_5_15 vid1\nmv89psg6zh4_33_46 vid1201\nzzit5b_-ukg_5_20 vid1970\n",
        "video/vid1.avi": video,
        "video/vid1201.avi": video,
        "video/zzit5b_-ukg_5_20.avi": video,
        "video/_0nX-El-ySo_83_93.avi": video,
    }
    dataset = open_captions(layout([], files))
    assert {name: split for name, (split, _) in of(dataset).items()} == {
        "-4wsuPCjDBc_5_15": "train",
        "mv89psg6zh4_33_46": "val",
        "zzit5b_-ukg_5_20": "test",
        "_0nX-El-ySo_83_93": None,
    }


def test_the_whole_of_msvd_has_the_published_splits(layout) -> None:
    names = [f"{i:011d}_{i}_{i + 9}" for i in range(1970)]
    there = {f"{names[i]}.avi": b"" for i in (0, 1199, 1200, 1299, 1300, 1969)}
    text = "".join(f"{name} a dog\n" for name in reversed(names)).encode()
    dataset = open_captions(layout([], {"descriptions.txt": text} | there))
    assert [len(dataset.split(split)) for split in ("train", "val", "test")] == [2, 2, 2]
    assert dataset.split("val").clip_name(0) == names[1299]
    assert dataset.skipped == {"the captions name a clip that is not there": 1964}


def test_msvd_numbers_are_the_authors() -> None:
    # The beginning and the end of the authors' youtube_mapping.txt: vid1, vid2, vid3 and vid1970.
    known = ["-4wsuPCjDBc_5_15", "-7KMZQEsJW4_205_208", "-8y1Q0rA3n8_108_115", "zzit5b_-ukg_5_20"]
    assert list(msvd.numbered(reversed(known))) == known
    assert [msvd.split_of(number) for number in (1, 1200, 1201, 1300, 1301, 1970)] == [
        "train", "train", "val", "val", "test", "test",
    ]  # fmt: skip
    shares = [msvd.split_of(number) for number in range(1, msvd.CLIPS + 1)]
    assert [shares.count(split) for split in ("train", "val", "test")] == [1200, 100, 670]


def vtt(videos: list[dict[str, object]], sentences: list[dict[str, object]]) -> bytes:
    return json.dumps({"info": {}, "videos": videos, "sentences": sentences}).encode()


def test_msr_vtt(layout, video: bytes) -> None:
    files = {
        "train_val_videodatainfo.json": vtt(
            [
                {
                    "category": 9,
                    "url": "…",
                    "video_id": "video0",
                    "start time": 1.0,
                    "end time": 9.0,
                    "split": "train",
                    "id": 0,
                },
                {"video_id": "video1", "split": "validate"},
                {"video_id": "video2", "split": "train"},
                {"video_id": "video3", "split": ["train"]},
            ],
            [
                {"caption": "a car is shown", "video_id": "video0", "sen_id": 0},
                {"caption": "a car is shown", "video_id": "video0", "sen_id": 1},
                {"caption": "in a kitchen", "video_id": "video1", "sen_id": 2},
                {"caption": "gone", "video_id": "video2", "sen_id": 3},
                {"caption": "nobody's", "sen_id": 4},
            ],
        ),
        "test_videodatainfo.json": vtt(
            [{"video_id": "video9", "split": "test"}, {"video_id": "video0", "split": "test"}],
            [{"caption": "a band", "video_id": "video9"}, {"caption": "again", "video_id": "video0"}],
        ),
        "TrainValVideo/video0.mp4": video,
        "TrainValVideo/video1.mp4": video,
        "TestVideo/video9.mp4": video,
    }
    dataset = open_captions(layout([], files))
    assert dataset.name == "msr-vtt"
    # The files are read in the order of their names.
    assert of(dataset) == {
        "video9": ("test", ("a band",)),
        "video0": ("test", ("again",)),
        "video1": ("val", ("in a kitchen",)),
    }
    assert dataset.skipped == {
        "the video has captions in another file already": 2,
        "a clip in two splits stays in test": 1,
        "the sentence lacks its video_id": 1,
        "the captions name a clip that is not there": 1,
    }
    assert dataset.frames(0).shape == (8, 64, 96, 3)
