"""Clips of every kind. The frames of the videos carry their number, so what was taken is read from the pixels."""

from __future__ import annotations

import os
import stat
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.child import run_python
from runtime.errors import InputError, MediaError, TooLargeError
from runtime.media import capture as capture_module
from runtime.media import clips as video
from runtime.media.clips import VideoLimits, read_frames
from runtime.media.containers import container
from runtime.media.frames import FrameSampling, reduced
from runtime.media.pictures import opencv, write_png
from tests.videos import CODECS, SIZE, number_of, numbered, promise, turn, write_video

EVEN = FrameSampling.even(4)
COUNT, RATE = 50, 25.0
MIDDLES = [6, 18, 31, 43]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("videos")
    return {suffix: write_video(folder / f"clip{suffix}", COUNT, rate=RATE) for suffix in CODECS}


@pytest.fixture
def avi(videos: dict[str, Path], tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    copy = tmp_path / "clip.avi"
    copy.write_bytes(videos[".avi"].read_bytes())
    return copy


def numbers(pixels: np.ndarray) -> list[int]:
    return [number_of(frame) for frame in pixels]


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize("form", ["path", "text", "bytes"])
def test_the_frames_in_the_middle_of_equal_parts(videos: dict[str, Path], suffix: str, form: str) -> None:
    path = videos[suffix]
    source = {"path": path, "text": str(path), "bytes": path.read_bytes()}[form]
    frames = read_frames(source, EVEN)
    assert frames.pixels.shape == (4, SIZE[1], SIZE[0], 3)
    assert frames.pixels.dtype == np.uint8
    assert numbers(frames.pixels) == list(frames.indices) == MIDDLES
    np.testing.assert_allclose(frames.seconds, np.array(MIDDLES) / RATE, atol=0.002)
    assert frames.note is None
    red, blue = frames.pixels[0, 4, 5].astype(int), frames.pixels[0, -4, 5].astype(int)
    assert blue[0] > red[0] + 100, "the band below is red"
    assert red[2] > blue[2] + 100, "the band above is blue"


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize("most", [1, 3, 5, 32])
def test_one_frame_in_n(videos: dict[str, Path], suffix: str, most: int) -> None:
    sampling = FrameSampling.every(6, most=most)
    frames = read_frames(videos[suffix], sampling)
    assert numbers(frames.pixels) == list(frames.indices) == sampling.indices(COUNT)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9])
def test_short_videos(tmp_path: Path, count: int) -> None:
    frames = read_frames(write_video(tmp_path / "short.avi", count), EVEN)
    assert numbers(frames.pixels) == list(frames.indices) == EVEN.indices(count)


@pytest.mark.parametrize(
    ("promised", "expected", "noted"),
    [
        (0, MIDDLES, False),
        (10, MIDDLES, False),
        (1_000, MIDDLES, True),
        (1_000_000_000, MIDDLES, True),
        (47, [5, 17, 29, 41], False),  # the middles of 47: each still lies in its quarter of the 50
        (52, [6, 19, 32, 45], False),
    ],
)
def test_what_the_header_promises_is_only_a_hint(avi: Path, promised: int, expected: list[int], noted: bool) -> None:
    frames = read_frames(promise(avi, promised), EVEN)
    if promised == 10 and int(opencv().__version__.split(".")[0]) < 5:
        expected = EVEN.indices(10)  # older versions decode no further than the header says
    assert numbers(frames.pixels) == list(frames.indices) == expected
    assert (frames.note is not None) == noted
    if noted:
        assert f"promises {promised} frames, 50 could be decoded" in str(frames.note)


def test_a_video_that_breaks_off_is_what_is_left_of_it(avi: Path) -> None:
    data = avi.read_bytes()
    avi.write_bytes(data[: len(data) * 2 // 3])
    frames = read_frames(avi, EVEN)
    assert "promises 50 frames" in str(frames.note)
    count = int(str(frames.note).split("frames, ")[1].split()[0])
    assert 25 < count < 40
    assert numbers(frames.pixels) == list(frames.indices) == EVEN.indices(count)


def test_a_frame_that_cannot_be_decoded_is_stood_in_for_by_the_next(
    videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = capture_module.Capture.picture
    asked = []

    def sometimes(self: Any, shorter: int | None) -> Any:
        asked.append(picture(self, shorter))
        return None if len(asked) in (1, 2) else asked[-1]

    monkeypatch.setattr(capture_module.Capture, "picture", sometimes)
    frames = read_frames(videos[".avi"], EVEN)
    assert numbers(frames.pixels) == list(frames.indices) == [8, *MIDDLES[1:]]


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_videos_that_a_phone_turned_are_upright(tmp_path: Path, turns: int) -> None:
    path = write_video(tmp_path / "turned.mp4", 3)
    plain = read_frames(path, EVEN).pixels
    turned = read_frames(turn(path, turns), EVEN).pixels
    np.testing.assert_array_equal(turned, np.rot90(plain, -turns, axes=(1, 2)))


def test_frames_are_reduced_at_once(tmp_path: Path) -> None:
    path = write_video(tmp_path / "big.avi", 6, size=(640, 352))
    whole, small = read_frames(path, EVEN), read_frames(path, EVEN, shorter=100)
    assert small.pixels.shape == (4, 88, 160, 3)
    np.testing.assert_array_equal(small.pixels, [reduced(frame, 100) for frame in whole.pixels])


def test_photos_arrays_and_npy_files(tmp_path: Path) -> None:
    photo = numbered(7)
    write_png(tmp_path / "photo.png", photo)
    for source in (tmp_path / "photo.png", (tmp_path / "photo.png").read_bytes(), photo, [photo]):
        frames = read_frames(source, EVEN)
        assert (frames.indices, frames.seconds) == ((0,), (0.0,))
        np.testing.assert_array_equal(frames.pixels, photo[None])
    clip = np.stack([numbered(number) for number in range(20)])
    np.save(tmp_path / "clip.npy", clip)
    for source in (clip, tmp_path / "clip.npy", (tmp_path / "clip.npy").read_bytes(), list(clip)):
        frames = read_frames(source, EVEN, shorter=64)
        assert numbers(frames.pixels) == list(frames.indices) == [2, 7, 12, 17]
        assert frames.seconds == (None,) * 4
        assert frames.pixels.shape == (4, 64, 96, 3)


def test_chosen_frames_are_not_skipped_again() -> None:
    pictures = [numbered(number) for number in range(9)]
    assert read_frames(pictures, FrameSampling.every(10, most=16)).indices == tuple(range(9))
    assert read_frames(pictures, FrameSampling.every(10, most=4)).indices == (0, 4, 8)
    assert read_frames(np.stack(pictures), FrameSampling.every(10, most=16)).indices == (0,)
    assert read_frames(pictures, EVEN).indices == tuple(EVEN.indices(9))


def test_a_folder_is_a_clip_in_natural_order(tmp_path: Path) -> None:
    for number in range(12):
        write_png(tmp_path / f"frame{number}.png", numbered(number))
    (tmp_path / "readme.txt").write_text("not a picture")
    frames = read_frames(tmp_path, FrameSampling.every(2, most=8))
    assert numbers(frames.pixels) == list(frames.indices) == [0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"RIFF\0\0\0\0AVI LIST", "AVI"),
        (b"RIFF\0\0\0\0WEBPVP8 ", None),
        (b"\0\0\0\x18ftypisom", "MP4"),
        (b"\0\0\0\x18ftypqt  ", "MP4"),
        (b"\0\0\0\x18ftypheic", None),
        (b"\0\0\0\x18ftypavif", None),
        (b"\0\0\0\x08wide\0\0", "MP4"),
        (b"\x1a\x45\xdf\xa3", "Matroska"),
        (b"\0\0\x01\xba", "MPEG"),
        ((b"\x47" + bytes(187)) * 3, "MPEG-TS"),
        ((b"1234\x47" + bytes(187)) * 3, "MPEG-TS"),
        ((b"\x47" + bytes(187)) * 2 + bytes(188), None),
        (b"GIF89a", None),
        (b"", None),
        (b"#EXTM3U\n", None),
        (b"ffconcat version 1.0\n", None),
    ],
)
def test_containers_are_known_by_their_first_bytes(head: bytes, kind: str | None) -> None:
    assert container(head) == kind


def test_a_text_that_names_other_files_never_reaches_the_decoder(avi: Path, tmp_path: Path) -> None:
    """FFmpeg would follow it: a playlist that is sent in as a video must not read the server's files."""
    import cv2

    playlist = tmp_path / "list.mp4"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{avi}\n#EXT-X-ENDLIST\n")
    for source in (playlist, playlist.read_bytes()):
        with pytest.raises(MediaError, match="begins with b'#EXTM3U"):
            read_frames(source, EVEN)
    concat = tmp_path / "list.ffconcat"
    concat.write_text("ffconcat version 1.0\nfile clip.avi\n")
    assert cv2.VideoCapture(str(concat)).isOpened(), "the decoder itself would follow this one"
    for source in (concat, concat.read_bytes()):
        with pytest.raises(MediaError, match="begins with b'ffconcat"):
            read_frames(source, EVEN)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("empty.mp4", b"", "not a video, whatever its name says .it is empty"),
        ("text.avi", b"hello, world", "begins with b'hello, w'"),
        ("empty", b"", "is empty"),
        ("rubbish", b"\x01\x02\x03\x04", "not an image"),
        ("head.mp4", b"\0\0\0\x18ftypisom\0\0\0\0isommp41", "damaged or truncated"),
        ("head.avi", b"RIFF\xff\xff\xff\xffAVI LIST", "damaged"),
        ("head.webm", b"\x1a\x45\xdf\xa3" + bytes(100), "damaged"),
        ("none.npy", b"\x93NUMPY\1\0", "npy file cannot be read"),
    ],
)
def test_what_is_no_clip(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(MediaError, match=words):
        read_frames(tmp_path / name, EVEN)
    with pytest.raises(MediaError):
        read_frames(data, EVEN)


def test_sources_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="No such file"):
        read_frames(tmp_path / "none.avi", EVEN)
    with pytest.raises(MediaError, match="a folder without pictures"):
        read_frames(tmp_path, EVEN)
    with pytest.raises(MediaError, match="picture 2 of the clip is 10×20 pixels, the first 192×128"):
        read_frames([numbered(0), np.zeros((20, 10, 3), np.uint8)], EVEN)
    with pytest.raises(MediaError, match=r"uint8 \(T, H, W, 3\) with at least one frame, got float32"):
        read_frames(np.zeros((2, 4, 4, 3), np.float32), EVEN)
    with pytest.raises(MediaError, match="at least one"):
        read_frames([], EVEN)
    with pytest.raises(InputError, match="got int"):
        read_frames(7, EVEN)  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".webm"])
def test_damaged_videos_raise_nothing_but_media_errors(videos: dict[str, Path], suffix: str) -> None:
    data = videos[suffix].read_bytes()
    rng = np.random.default_rng(5)
    outcomes = set()
    for case in range(40):
        damaged = bytearray(data)
        if case % 2:
            damaged = damaged[: rng.integers(1, len(data))]
        for place in rng.integers(0, len(damaged) if case % 3 else min(600, len(damaged)), rng.integers(1, 60)):
            damaged[place] = rng.integers(0, 256)
        try:
            frames = read_frames(bytes(damaged), EVEN, limits=VideoLimits(seconds=10))
        except InputError:
            outcomes.add("refused")
        else:
            outcomes.add("read")
            assert frames.pixels.ndim == 4
            assert 1 <= len(frames.pixels) == len(frames.indices) <= 4
    assert outcomes == {"refused", "read"}


def test_limits(videos: dict[str, Path]) -> None:
    path = videos[".avi"]
    for source in (path, path.read_bytes()):
        for sampling in (EVEN, FrameSampling.every(10)):
            with pytest.raises(TooLargeError, match="has more than 49 frames"):
                read_frames(source, sampling, limits=VideoLimits(frames=49))
            assert read_frames(source, sampling, limits=VideoLimits(frames=50)).note is None
            with pytest.raises(TooLargeError, match="192×128 pixels, at most 24575 are read"):
                read_frames(source, sampling, limits=VideoLimits(pixels=192 * 128 - 1))
            with pytest.raises(TooLargeError, match="is not decoded after 0 seconds"):
                read_frames(source, sampling, limits=VideoLimits(seconds=0))
            with pytest.raises(TooLargeError, match=r"bytes, at most 100 are read"):
                read_frames(source, sampling, limits=VideoLimits(bytes=100))


def test_a_video_that_never_ends_stops_in_time(avi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture_module.Capture, "_grab", endless_grab(capture_module.Capture._grab))
    start = time.monotonic()
    with pytest.raises(TooLargeError, match=r"not decoded after 0\.3 seconds"):
        read_frames(avi, FrameSampling.every(1, most=4), limits=VideoLimits(seconds=0.3))
    assert time.monotonic() - start < 5


def endless_grab(grab: Any) -> Any:
    def again(self: Any) -> bool:
        if not grab(self):
            self._video.set(self.cv2.CAP_PROP_POS_FRAMES, 0)
        return True

    return again


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.avi")
    start = time.monotonic()
    with pytest.raises(MediaError, match="not a file"):
        read_frames(tmp_path / "pipe.avi", EVEN)
    assert time.monotonic() - start < 1


def test_the_temporary_file_is_private_and_goes(
    videos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delattr(os, "memfd_create", raising=False)
    modes = []
    open_it = video.Capture

    def watched(file: str, *arguments: Any) -> Any:
        modes.append((Path(file).parent, stat.S_IMODE(Path(file).stat().st_mode)))
        return open_it(file, *arguments)

    monkeypatch.setattr(video, "Capture", watched)
    data = videos[".mp4"].read_bytes()
    read_frames(data, EVEN)
    with pytest.raises(TooLargeError):
        read_frames(data, EVEN, limits=VideoLimits(frames=3))
    with pytest.raises(MediaError):
        read_frames(data[:400], EVEN)
    assert modes == [(tmp_path, 0o600)] * 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="files in memory are Linux's")
def test_bytes_are_decoded_where_nothing_can_be_written(
    videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refused)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for suffix in CODECS:
        assert numbers(read_frames(videos[suffix].read_bytes(), EVEN).pixels) == MIDDLES
    with pytest.raises(MediaError):
        read_frames(videos[".mp4"].read_bytes()[:400], EVEN)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before, "every handle is closed again"


def test_several_threads_read_at_once(videos: dict[str, Path]) -> None:
    answers: dict[str, list[int]] = {}

    def read(suffix: str) -> None:
        answers[suffix] = numbers(read_frames(videos[suffix].read_bytes(), EVEN).pixels)

    threads = [threading.Thread(target=read, args=(suffix,)) for suffix in CODECS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == dict.fromkeys(CODECS, MIDDLES)


def test_the_decoder_keeps_quiet(avi: Path, tmp_path: Path) -> None:
    """What it has to say is in the error; on standard error it would stand between the lines of a progress bar."""
    data = bytearray(avi.read_bytes())
    data[len(data) // 2 : len(data) * 3 // 4] = bytes(len(data) * 3 // 4 - len(data) // 2)
    avi.write_bytes(data)
    (tmp_path / "head.mp4").write_bytes(b"\0\0\0\x18ftypisom\0\0\0\0isommp41")
    script = (
        "import sys\n"
        "from runtime.errors import InputError\n"
        "from runtime.media.clips import FrameSampling, read_frames\n"
        "for name in (*sys.argv[1:], 'camera:77'):\n"
        "    try: read_frames(name, FrameSampling.even(4))\n"
        "    except InputError as error: print(error)\n"
    )
    done = run_python(script, str(avi), str(tmp_path / "head.mp4"))
    assert done.returncode == 0
    assert "head.mp4 is damaged" in done.stdout
    assert "camera 77 cannot be opened" in done.stdout
    assert done.stderr == ""


class StandInCamera:
    """What `cv2.VideoCapture` offers, with a frame every `pause` seconds, for ever."""

    pause = 0.004

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.number = -1
        self.released = False

    def isOpened(self) -> bool:
        return True

    def set(self, *_: Any) -> bool:
        return False

    def get(self, _: int) -> float:
        return 0.0

    def grab(self) -> bool:
        time.sleep(self.pause)
        self.number += 1
        return True

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, np.ascontiguousarray(numbered(self.number)[:, :, ::-1])

    def release(self) -> None:
        self.released = True


def test_a_camera_is_watched_for_the_time_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    cameras: list[StandInCamera] = []

    def opened(*arguments: Any) -> StandInCamera:
        cameras.append(StandInCamera(*arguments))
        return cameras[-1]

    monkeypatch.setattr(cv2, "VideoCapture", opened)
    frames = read_frames("camera:3:0.4", EVEN)
    assert cameras[0].arguments[0] == 3
    assert cameras[0].released
    assert numbers(frames.pixels) == list(frames.indices)
    # Each of them at or after the middle of its tenth of a second.
    assert np.all(np.array(frames.seconds) >= [0.05, 0.15, 0.25, 0.35])
    assert len(set(frames.indices)) == 4
    every = read_frames("camera:3:5", FrameSampling.every(3, most=4))
    assert numbers(every.pixels) == list(every.indices) == [0, 3, 6, 9]
    assert len(cameras) == 2


@pytest.mark.data
def test_real_videos(shared_data: Path) -> None:
    paths = sorted((shared_data / "videos").glob("*.avi"))
    assert len(paths) == 2
    for path in paths:
        frames = read_frames(path, FrameSampling.even(8), shorter=448)
        assert frames.pixels.shape == (8, 240, 320, 3)
        assert frames.note is None
        assert np.all(np.diff([second for second in frames.seconds if second is not None]) > 0.3)
