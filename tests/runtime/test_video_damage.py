"""Videos that are cut, damaged or forged. What was not decoded whole is never shown, and nothing else is, either."""

from __future__ import annotations

import io
import re
from pathlib import Path

import av
import numpy as np
import pytest

from runtime.child import run_python
from runtime.errors import InputError, MediaError
from runtime.media.clip import Frames
from runtime.media.clips import VideoLimits, read_frames
from runtime.media.frames import FrameSampling
from runtime.media.pictures import encode_jpeg, read_image
from tests.videos import (
    CODECS,
    KINDS,
    Q2,
    TWO_B_FRAMES,
    X264,
    Kind,
    film,
    index_first,
    number_of,
    write_video,
)

ALL = FrameSampling.every(1, most=64)
EVEN = FrameSampling.even(4)
COUNT = 40
GOP = {"g": "10"}


def numbers(frames: Frames) -> list[int]:
    return [number_of(frame) for frame in frames.pixels]


CUT = {
    "MP4": (index_first(film(Kind("mp4", "libx264", options=X264 | GOP), COUNT)), r"promises 40 frames, \d+ could"),
    "AVI": (film(CODECS[".avi"], COUNT), r"promises 40 frames, \d+ could be decoded"),
    "MPEG-4 in AVI": (film(Kind("avi", "mpeg4", options=Q2), COUNT), r"promises 40 frames, \d+ could be decoded"),
    "Matroska": (film(Kind("matroska", "libx264", options=X264), COUNT), r"promises 1\.6 seconds, [01]\.\d could be"),
    "WebM": (film(CODECS[".webm"], COUNT), r"promises 1\.6 seconds, [01]\.\d could be decoded"),
    "FLV": (film(KINDS["H.264 in FLV"], COUNT), r"promises 1\.6 seconds, [01]\.\d could be decoded"),
    "MPEG-TS": (film(KINDS["H.264 interlaced in MPEG-TS"], COUNT), None),
    "MPEG": (film(KINDS["MPEG-2 interlaced in MPEG"], COUNT), None),
}


@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("share", [0.6, 0.7, 0.85])
def test_of_a_video_that_breaks_off_what_is_left_is_the_clip(name: str, share: float) -> None:
    data, note = CUT[name]
    assert read_frames(data, ALL).note is None
    cut = data[: int(len(data) * share)]
    frames = read_frames(cut, ALL)
    count = len(frames.indices)
    assert numbers(frames) == list(frames.indices) == list(range(count))
    assert 8 < count < COUNT
    assert note is None or re.search(note, str(frames.note))
    even = numbers(read_frames(cut, EVEN))
    assert [4 * number // count for number in even] == [0, 1, 2, 3], "each in its own quarter"


DAMAGED = {
    "H.264": Kind("mp4", "libx264", options=X264 | GOP),
    "H.264 with B-frames": Kind("mp4", "libx264", options=TWO_B_FRAMES),
    "H.264 interlaced": Kind("mpegts", "libx264", options=X264 | GOP, interlaced=True),
    "MPEG-2 interlaced": Kind("mpeg", "mpeg2video", options=Q2 | GOP, interlaced=True),
    "MPEG-4 with B-frames": Kind("avi", "mpeg4", options=Q2 | GOP | {"bf": "2"}),
    "PNG": Kind("mov", "png", "rgb24"),
    "DNxHD": Kind("mov", "dnxhd", "yuv422p", {"profile": "dnxhr_hq"}, size=(256, 128)),
}
"""Codecs whose decoders notice that bytes in the middle were overwritten; those of HEVC, AV1, VP9, VP8, Theora, FFV1
and Motion JPEG often do not."""


def overwritten(data: bytes, start: float, size: int, seed: int) -> bytes:
    place = int(len(data) * start)
    return data[:place] + np.random.default_rng(seed).bytes(size) + data[place + size :]


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_frames_are_left_out_and_said_so(name: str) -> None:
    """And those that are predicted from them: what is shown is what was encoded."""
    kind = DAMAGED[name]
    data = film(kind, COUNT)
    whole = read_frames(data, ALL)
    noted = 0
    for seed in range(6):
        try:
            frames = read_frames(overwritten(data, 0.3 + 0.08 * seed, max(60, len(data) // 200), seed), ALL)
        except MediaError:
            continue
        noted += "left out: damaged, or predicted from a damaged one" in str(frames.note)
        moments = {moment: place for place, moment in enumerate(whole.seconds)}
        for pixels, moment in zip(frames.pixels, frames.seconds, strict=True):
            if kind.container == "avi":  # without times of its own; a frame that was lost moves all behind it
                assert np.abs(whole.pixels[number_of(pixels)].astype(int) - pixels).mean() < 4
            elif moment in moments:
                assert np.abs(whole.pixels[moments[moment]].astype(int) - pixels).mean() < 4
    assert noted >= 2


@pytest.mark.parametrize(("codec", "options"), [("mpeg2video", Q2), ("libx264", X264)], ids=["MPEG-2", "H.264"])
@pytest.mark.parametrize("interlaced", [False, True], ids=["progressive", "interlaced"])
def test_lost_packets_of_a_transport_stream(codec: str, options: dict[str, str], interlaced: bool) -> None:
    data = film(Kind("mpegts", codec, options=options | GOP, interlaced=interlaced), COUNT)
    whole = dict(zip(read_frames(data, ALL).seconds, read_frames(data, ALL).pixels, strict=True))
    for first in range(10, len(data) // 188 - 10, 3):
        frames = read_frames(data[: first * 188] + data[(first + 1) * 188 :], ALL)
        assert "left out" in str(frames.note) or len(frames.pixels) == COUNT
        for pixels, moment in zip(frames.pixels, frames.seconds, strict=True):
            assert np.abs(whole[moment].astype(int) - pixels).mean() < 4


def test_even_frames_are_those_of_the_whole_ones() -> None:
    data = film(DAMAGED["H.264"], COUNT)
    with av.open(io.BytesIO(data)) as file:
        places = [packet.pos for packet in file.demux(video=0) if packet.pos is not None]
    damaged = bytearray(data)
    for number in (12, 25):  # of groups of ten frames: 12 to 19 and 25 to 29 are lost
        damaged[places[number] + 4 : places[number] + 40] = bytes(36)
    frames = read_frames(bytes(damaged), ALL)
    left = [*range(12), *range(20, 25), *range(30, 40)]
    assert numbers(frames) == list(frames.indices) == left
    assert "13 of 40 frames are left out" in str(frames.note)
    even = read_frames(bytes(damaged), EVEN)
    assert numbers(even) == list(even.indices) == [left[place] for place in EVEN.indices(len(left))]


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.interlaced])
def test_no_frame_shows_another_picture(name: str) -> None:
    """Interlaced frames came out of an OpenCV as memory of whatever was decoded before them."""
    photo = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
    for _ in range(3):
        read_image(encode_jpeg(photo))
        frames = read_frames(film(KINDS[name], 6), EVEN, shorter=144)
        assert numbers(frames) == [0, 2, 3, 5]
        flat = frames.pixels[0][60:80].astype(int)  # the number 0 is black
        assert flat.max() < 40


FORGED = """
import hashlib, os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # with threads, which frames are whole is a matter of time
from pathlib import Path
from runtime.errors import InputError
from runtime.media.clips import FrameSampling, VideoLimits, read_frames
for path in sorted(Path(sys.argv[1]).iterdir()):
    try: frames = read_frames(path.read_bytes(), FrameSampling.every(1, most=64), limits=VideoLimits(seconds=20))
    except InputError as error: print(path.name, type(error).__name__)
    else: print(path.name, *(hashlib.sha256(pixels.tobytes()).hexdigest()[:12] for pixels in frames.pixels))
"""


def test_pictures_are_made_of_the_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever lies in memory that was freed, damaged files give the same frames: none of it gets into them."""
    for number, (name, kind) in enumerate((DAMAGED | KINDS).items()):
        if kind.size[0] < 400:
            data = film(kind, 12)
            for seed in range(2):
                forged = overwritten(data, 0.4 + 0.2 * seed, max(40, len(data) // 100), number + seed)
                (tmp_path / f"{name} {seed}").write_bytes(forged)
    answers = []
    for filling in ("0", "165", "90"):  # glibc fills what is freed and what is new with it
        monkeypatch.setenv("MALLOC_PERTURB_", filling)
        answers.append(run_python(FORGED, str(tmp_path)))
    assert answers[0].stderr == ""
    assert len(answers[0].stdout.splitlines()) == len(list(tmp_path.iterdir()))
    assert answers[0].stdout == answers[1].stdout == answers[2].stdout


@pytest.mark.parametrize("suffix", CODECS)
def test_damaged_videos_raise_nothing_but_media_errors(tmp_path: Path, suffix: str) -> None:
    data = write_video(tmp_path / f"clip{suffix}", 30).read_bytes()
    rng = np.random.default_rng(5)
    outcomes = set()
    for case in range(60):
        damaged = bytearray(data)
        if case % 2:
            damaged = damaged[: rng.integers(1, len(data))]
        for _ in range(rng.integers(1, 20)):
            place = rng.integers(0, len(damaged) if case % 3 else min(600, len(damaged)))
            value = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.integers(256)])
            damaged[place : place + rng.choice([1, 1, 4])] = bytes([value]) * rng.choice([0, 1, 1, 4])
        try:
            frames = read_frames(bytes(damaged), EVEN, limits=VideoLimits(seconds=10))
        except InputError:
            outcomes.add("refused")
        else:
            outcomes.add("read")
            assert frames.pixels.ndim == 4
            assert 1 <= len(frames.pixels) == len(frames.indices) <= 4
            assert list(frames.seconds) == sorted(frames.seconds, key=lambda second: second or 0.0)
    assert outcomes == {"refused", "read"}
