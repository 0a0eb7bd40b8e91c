"""``edgedl predict`` with a bundle that describes clips."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest

from edgedl.cli import predict
from runtime.errors import MissingExtraError
from runtime.media import decoder
from runtime.media.pictures import read_image, write_png
from tests.captions import SCORES, caption_of, write_caption_bundle
from tests.videos import write_video


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_caption_bundle(tmp_path_factory.mktemp("bundles") / "caption.edge").path


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder of two videos, and below it one of three pictures of rising brightness."""
    folder = tmp_path / "clips"
    (folder / "frames").mkdir(parents=True)
    write_video(folder / "a.mp4", 20)
    write_video(folder / "b.avi", 8)
    for number, level in ((1, 10), (2, 100), (10, 250)):
        write_png(folder / "frames" / f"{number}.png", np.full((20, 30, 3), level, np.uint8))
    return folder


def test_a_video_as_text(edgedl, bundle, clips):
    result = edgedl("predict", bundle, clips / "a.mp4")
    word = result.out.split("\n")[1].split()[1]
    assert result.out.splitlines() == [
        str(clips / "a.mp4"),
        f"   -0.25  {word} picture",
        f"   -0.50  {word} scene",
        f"   -1.12  {word} view",
        "  4 frames: 0.1, 0.3, 0.5, 0.7 s",
    ]


def test_a_folder_is_one_clip_and_a_pattern_many(edgedl, bundle, clips):
    document = edgedl("predict", bundle, clips / "frames", clips / "frames" / "*.png", "--json").document
    captions = [(Path(item["input"]).name, item["caption"]) for item in document["results"]]
    assert captions == [
        ("frames", caption_of(120)),
        ("1.png", caption_of(10)),
        ("10.png", caption_of(250)),
        ("2.png", caption_of(100)),
    ]
    assert document["results"][0]["frames"] == [{"index": index, "seconds": None} for index in range(3)]
    assert document["results"][0]["alternatives"][0] == {"caption": caption_of(120, 1), "score": SCORES[1]}
    assert "  3 frames: number 0, 1, 2\n" in edgedl("predict", bundle, clips / "frames").out
    assert "frames" not in edgedl("predict", bundle, clips / "frames" / "1.png").out.splitlines()[-1]


def test_of_ten_thousand_pictures_those_are_read_that_are_looked_at(edgedl, bundle, clips, tmp_path):
    real = (clips / "frames" / "2.png").read_bytes()
    folder = tmp_path / "many"
    folder.mkdir()
    looked_at = {1250, 3750, 6250, 8750}
    for index in range(10_000):
        (folder / f"{index}.png").write_bytes(real if index in looked_at else b"")
    (result,) = edgedl("predict", bundle, folder, "--json").document["results"]
    assert result["caption"] == caption_of(100)
    assert {frame["index"] for frame in result["frames"]} == looked_at


def test_a_folder_of_videos_is_told_about_patterns(edgedl, bundle, clips):
    for path in (clips / "frames").iterdir():
        path.unlink()
    result = edgedl("predict", bundle, clips)
    assert result.status == 2
    assert "several videos are named by a pattern" in result.err
    document = edgedl("predict", bundle, clips / "*.*", "--json").document
    assert [Path(item["input"]).name for item in document["results"]] == ["a.mp4", "b.avi"]


def test_broken_videos_are_reported_and_the_others_done(edgedl, bundle, clips):
    (clips / "bad.mp4").write_bytes((clips / "a.mp4").read_bytes()[:300])
    result = edgedl("predict", bundle, clips / "bad.mp4", clips / "none.mp4", clips / "b.avi", "camera:99", "--json")
    assert result.status == 2
    errors = [item.get("error", {}).get("type") for item in result.document["results"]]
    assert errors == ["MediaError", "MediaError", None, "MediaError"]
    assert "camera 99 cannot be opened" in result.err


def test_without_pyav_the_extra_is_named(edgedl, bundle, clips, monkeypatch):
    def missing():
        raise MissingExtraError("av", "video")

    monkeypatch.setattr(decoder, "pyav", missing)
    result = edgedl("predict", bundle, clips / "frames" / "2.png", clips / "a.mp4")
    assert result.status == 2
    assert result.out.startswith(str(clips / "frames" / "2.png"))
    assert "av is not installed; it is part of an extra: pip install 'edgedl[video]'" in result.err
    assert "Traceback" not in result.err


def test_what_is_left_of_a_video_and_a_note(edgedl, bundle, clips):
    path = write_video(clips / "long.avi", 40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    assert "  note: the header promises 40 frames" in edgedl("predict", bundle, path).out


@pytest.mark.parametrize("name", ["a.mp4", "frames/2.png"])
def test_standard_input(edgedl, bundle, clips, name, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((clips / name).read_bytes())))
    (piped,) = edgedl("predict", bundle, "-", "--json").document["results"]
    (named,) = edgedl("predict", bundle, clips / name, "--json").document["results"]
    assert piped == {**named, "input": "-"}


def test_standard_input_that_does_not_end(edgedl, bundle, monkeypatch):
    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer) -> int:
            return len(buffer)

    monkeypatch.setattr(predict, "MOST_STANDARD_INPUT", 1 << 20)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Endless())))
    result = edgedl("predict", bundle, "-")
    assert result.status == 2
    assert "more than 1048576 bytes on standard input" in result.err


def test_the_sheet_shows_the_frames_of_the_answer(edgedl, bundle, clips, tmp_path, monkeypatch):
    from runtime.pipelines.caption import CaptionPipeline

    reads = []
    read = CaptionPipeline.read

    def counted(self, source, **limits):
        reads.append(source)
        return read(self, source, **limits)

    monkeypatch.setattr(CaptionPipeline, "read", counted)
    document = edgedl(
        "predict", bundle, clips / "a.mp4", clips / "frames", "--save", tmp_path / "out", "--json"
    ).document
    saved = [Path(item["saved"]) for item in document["results"]]
    assert [path.name for path in saved] == ["a-caption.jpg", "frames-caption.jpg"]
    assert all(min(read_image(path).shape[:2]) > 50 for path in saved)
    assert sum(isinstance(source, str) for source in reads) == 2, "each clip is read once"
