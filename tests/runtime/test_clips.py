"""Clips of every source: which frames are taken, what is refused, and that bytes leave no trace."""

from __future__ import annotations

import gc
import io
import os
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.child import run_python
from runtime.errors import InputError, MediaError, MissingExtraError, TooLargeError
from runtime.media.clips import VideoLimits, read_frames
from runtime.media.containers import MXF, container
from runtime.media.decoder import DECODING_BYTES, Decoder
from runtime.media.frames import FrameSampling, reduced
from runtime.media.pictures import write_png
from runtime.media.video import Video
from tests.videos import CODECS, KINDS, SIZE, Kind, film, number_of, numbered, promise, write_video

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
    assert numbers(frames.pixels) == list(frames.indices) == expected
    assert (frames.note is not None) == noted
    if noted:
        assert f"promises {promised} frames, 50 could be decoded" in str(frames.note)


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
        (b"\0\0\x01\xb3\x0c\0", "MPEG video"),
        (b"\x1f\x07\x00\x3f", "DV"),
        (b"\x1f\x8b\x08\x00", None),
        (MXF, None),
    ],
)
def test_containers_are_known_by_their_first_bytes(head: bytes, kind: str | None) -> None:
    assert container(head) == kind


def test_a_text_that_names_other_files_never_reaches_the_decoder(avi: Path, tmp_path: Path) -> None:
    """FFmpeg would follow it: a playlist that is sent in as a video must not read the server's files."""
    playlist = tmp_path / "list.mp4"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{avi}\n#EXT-X-ENDLIST\n")
    for source in (playlist, playlist.read_bytes()):
        with pytest.raises(MediaError, match="begins with b'#EXTM3U"):
            read_frames(source, EVEN)
    concat = tmp_path / "list.ffconcat"
    concat.write_text("ffconcat version 1.0\nfile clip.avi\n")
    with av.open(str(concat)) as followed:
        assert next(followed.decode(video=0)), "the decoder itself would follow this one"
    for source in (concat, concat.read_bytes()):
        with pytest.raises(MediaError, match="begins with b'ffconcat"):
            read_frames(source, EVEN)


def referring(data: bytes, path: Path) -> bytes:
    """An MP4 whose samples lie in another file (ISO/IEC 14496-12, 8.7.2; QuickTime's alias of absolute paths)."""
    name = str(path).encode()
    alias = bytes(4 + 2 + 2 + 1 + 27 + 2 * 4 + 4 + 1 + 63 + 16 + 2 + 2 + 10 + 4 + 2 + 16)[:150]
    record = alias + struct.pack(">hH", 2, len(name)) + name + bytes(len(name) % 2) + struct.pack(">hH", -1, 0)
    entry = struct.pack(">I4sI", 12 + len(record), b"alis", 0) + record
    old = data.index(b"dref") - 4
    (length,) = struct.unpack_from(">I", data, old)
    box = struct.pack(">I4sII", 16 + len(entry), b"dref", 0, 1) + entry
    grown = len(box) - length
    result = bytearray(data[:old] + box + data[old + length :])
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        place = data.index(kind) - 4
        struct.pack_into(">I", result, place, struct.unpack_from(">I", data, place)[0] + grown)
    return bytes(result)


def test_a_container_that_names_another_file_cannot_open_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "secret.mov"
    secret.write_bytes(film(Kind("mov", "mpeg4"), 5))
    crafted = tmp_path / "crafted.mov"
    whole = secret.read_bytes()
    crafted.write_bytes(referring(whole[: whole.index(b"mdat") - 4] + whole[whole.index(b"moov") - 4 :], secret))
    with av.open(str(crafted), options={"enable_drefs": "1", "use_absolute_path": "1"}) as followed:
        frames = [frame.to_ndarray(format="rgb24") for frame in followed.decode(video=0)]
        assert list(map(number_of, frames)) == list(range(5)), "the decoder itself would follow this one"
    for source in (crafted, crafted.read_bytes()):
        with pytest.raises(MediaError, match="no frame"):
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
        ("film.mxf", MXF + bytes(9), "MXF is not read; convert it to MP4 first"),
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


class Endless(io.RawIOBase):
    """A file that begins like a video and goes on for ever."""

    def __init__(self, begin: bytes, after: bytes) -> None:
        self.data, self.after, self.place = begin, after, 0

    def read(self, size: int = -1) -> bytes:
        while len(self.data) < self.place + size:
            self.data += self.after
        self.place += size
        return self.data[self.place - size : self.place]

    def seek(self, place: int, whence: int = 0) -> int:
        self.place = (0, self.place, 1 << 50)[whence] + place
        return self.place

    def tell(self) -> int:
        return self.place


@pytest.mark.parametrize(
    ("kind", "begin", "after"),
    [
        ("MPEG-TS", b"", b"\x47\x1f\xff\x10" + bytes(184)),  # packets of no programme
        ("MPEG", b"\0\0\x01\xba" + bytes(10), b"\0\0\x01\xbe\0\x10" + bytes(16)),  # padding
        ("Matroska", film(Kind("matroska", "mpeg4"), 3), b"\xec\x81\0"),  # void
        ("DV", b"", film(KINDS["DV, which is interlaced, in no container"], 1)),
    ],
    ids=["transport stream", "padding", "void", "frames"],
)  # fmt: skip
def test_what_never_ends_stops_in_time(kind: str, begin: bytes, after: bytes) -> None:
    start = time.monotonic()
    with pytest.raises((TooLargeError, MediaError)) as caught:  # noqa: PT012
        video = Video(Endless(begin, after), kind, VideoLimits(seconds=0.3), start + 0.3, "it")  # type: ignore[arg-type]
        list(video.frames())
    assert time.monotonic() - start < 5
    if kind != "MPEG":  # the demuxer gives up on it by itself
        assert "it is not decoded after 0.3 seconds" in str(caught.value)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.avi")
    start = time.monotonic()
    with pytest.raises(MediaError, match="not a file"):
        read_frames(tmp_path / "pipe.avi", EVEN)
    assert time.monotonic() - start < 1


BEGINNINGS = [
    b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n" + bytes(8) + b"acTL\0\0\0\2",
    b"RIFF\0\0\0\0WEBPVP8X\n\0\0\0\2", b"RIFF\0\0\0\0AVI ", b"\0\0\0\x18ftypisom", b"\0\0\0\x08moov",
    b"\x1a\x45\xdf\xa3", b"FLV\1", b"OggS", b"\0\0\1\xba", b"\0\0\1\xb3", b"\x1f\x07\0",
]  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(BEGINNINGS), st.binary(max_size=400))
def test_bytes_of_any_kind_are_read_or_refused(begin: bytes, rest: bytes) -> None:
    with suppress(InputError):
        read_frames(begin + rest, EVEN, limits=VideoLimits(seconds=5, pixels=100_000), max_pixels=100_000)


def test_no_frame_is_kept_by_a_circle(videos: dict[str, Path]) -> None:
    """A frame that is kept keeps all memory of the decoder that it came from."""
    gc.collect()
    gc.disable()
    try:
        for path in videos.values():
            frames = read_frames(path, EVEN)
            assert len(frames.pixels) == 4
            kept = [item for item in gc.get_objects() if type(item) in (av.VideoFrame, Video, Decoder)]
            assert all(isinstance(item, av.VideoFrame) and item.width <= 8 for item in kept)
    finally:
        gc.enable()


WRITES_NOTHING = """
import resource, sys
from runtime.media.clips import FrameSampling, read_frames
clips = [open(name, "rb").read() for name in sys.argv[1:]]
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # a single byte written to any file ends the process
for data in clips:
    print(*read_frames(data, FrameSampling.even(4)).indices)
"""


def test_nothing_of_what_was_sent_is_written(videos: dict[str, Path]) -> None:
    done = run_python(WRITES_NOTHING, *map(str, videos.values()))
    assert done.stdout.splitlines() == [" ".join(map(str, MIDDLES))] * len(videos), done.stderr


def test_handles_are_closed(videos: dict[str, Path]) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in videos.values():
        read_frames(path, EVEN)
        with pytest.raises(TooLargeError):
            read_frames(path, EVEN, limits=VideoLimits(frames=3))
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


ONE_BY_ONE = {"x265-params": "log-level=none:pools=none:frame-threads=1:bframes=0"}
"""With several threads x265 now and then gives a film of one frame without a time."""


@pytest.mark.parametrize(
    ("pixels", "codec", "size", "fits"),
    [
        ("yuv420p", "libx264", (3840, 2160), True),
        ("yuv420p10le", "libx265", (3840, 2160), True),
        ("yuv420p", "libx264", (4000, 2500), True),
        ("yuv444p", "libx264", (4000, 2500), False),
        ("yuv420p10le", "libx264", (4000, 2500), False),
        ("gbrp12le", "ffv1", (4000, 2500), True),
    ],
)
def test_the_memory_of_a_decoder_is_bounded_before_it_begins(
    pixels: str, codec: str, size: tuple[int, int], fits: bool
) -> None:
    small = film(Kind("matroska", codec, pixels, ONE_BY_ONE if codec == "libx265" else {}), 1)
    decoder = Decoder(io.BytesIO(small), "Matroska", VideoLimits(), time.monotonic() + 9, "it")
    layout = decoder.stream.codec_context.format
    if fits:
        assert decoder._room(*size, layout) >= 1
    else:
        with pytest.raises(
            TooLargeError, match=rf"24 bits \(H264\): decoding takes up to .* {DECODING_BYTES} are spent"
        ):
            decoder._room(*size, layout)
    decoder.close()


WITHOUT_AV = """
import sys
sys.modules["av"] = None
from runtime.errors import EdgedlError
from runtime.media.clips import FrameSampling, read_frames
for name in sys.argv[1:]:
    try: frames = read_frames(name, FrameSampling.even(4)); print(len(frames.pixels), frames.note)
    except EdgedlError as error: print(type(error).__name__, error)
"""


def test_photos_need_no_pyav(avi: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "photo.png", numbered(7))
    (tmp_path / "still.gif").write_bytes(film(Kind("gif", "gif", "rgb8"), 1))
    (tmp_path / "moving.gif").write_bytes(film(Kind("gif", "gif", "rgb8"), 5))
    names = [str(tmp_path / name) for name in ("photo.png", "still.gif", "moving.gif")]
    missing = str(MissingExtraError("av", "video"))
    assert missing == "av is not installed; it is part of an extra: pip install 'edgedl[video]'"
    assert run_python(WITHOUT_AV, *names, str(avi)).stdout.splitlines() == [
        "1 None",
        "1 None",
        f"1 only the first of 5 pictures was looked at: {missing}",
        f"MissingExtraError {missing}",
    ]


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
