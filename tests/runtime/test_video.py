"""Videos of every kind, colour, orientation and timing. Their frames carry their number."""

from __future__ import annotations

import io
import os
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from runtime.errors import MediaError
from runtime.media.clip import Frames
from runtime.media.clips import read_frames
from runtime.media.frames import FrameSampling, reduced
from runtime.media.pictures import encode_jpeg
from tests.videos import KINDS, SIZE, VPX, X264, Kind, encode, film, number_of, numbered, shown_by

ALL = FrameSampling.every(1, most=64)
COUNT = 14
H264, FFV1, MJPEG = KINDS["H.264 in MP4"], Kind("matroska", "ffv1", "yuv444p"), Kind("avi", "mjpeg", "yuvj444p")


def numbers(frames: Frames) -> list[int]:
    return [number_of(frame) for frame in frames.pixels]


@pytest.mark.parametrize("name", KINDS)
def test_each_frame_is_the_one_that_was_encoded(name: str) -> None:
    kind = KINDS[name]
    data = film(kind, COUNT)
    assert os.sched_getscheduler(0) == os.SCHED_OTHER, "an encoder that takes all processors would stop the other tests"
    with av.open(io.BytesIO(data)) as file:
        assert {frame.interlaced_frame for frame in file.decode(video=0)} == {kind.interlaced}, "the test's own file"
    frames = read_frames(data, ALL, shorter=144)
    assert numbers(frames) == list(frames.indices) == list(range(COUNT))
    np.testing.assert_allclose(frames.seconds, np.arange(COUNT) / 25, atol=0.0015)  # FLV counts milliseconds
    assert frames.note is None
    expected = np.stack([reduced(numbered(number, kind.size), 144) for number in range(COUNT)])
    assert np.abs(frames.pixels.astype(int) - expected).mean() < 6
    middles = FrameSampling.even(4)
    assert numbers(read_frames(data, middles)) == middles.indices(COUNT) == [1, 5, 8, 12]


def test_theora() -> None:
    frames = read_frames(Path(__file__).with_name("theora.ogv"), ALL)
    assert numbers(frames) == list(range(COUNT))
    np.testing.assert_allclose(frames.seconds, np.arange(COUNT) / 25, atol=0.001)


def test_interlaced_frames_without_loss() -> None:
    with av.open(io.BytesIO(film(KINDS["MPEG-2 interlaced 4:2:2 in MPEG-TS"], COUNT))) as file:
        frames = list(file.decode(video=0))
    data = encode(Kind("avi", "ffv1", "yuv422p"), frames)
    with av.open(io.BytesIO(data)) as file:
        assert all(frame.interlaced_frame for frame in file.decode(video=0))
    found = read_frames(data, ALL)
    assert numbers(found) == list(range(COUNT))
    np.testing.assert_array_equal(found.pixels, [frame.to_ndarray(format="rgb24") for frame in frames])


def yuv_to_rgb(planes: np.ndarray, kr: float, kb: float, *, full: bool) -> np.ndarray:
    """ITU-T H.273, equations of 8.3: planes (3, H, W), 8 bits -> RGB (H, W, 3)."""
    y, cb, cr = planes.astype(float)
    y, chroma = (y / 255, 255) if full else ((y - 16) / 219, 224)
    cb, cr = (cb - 128) / chroma, (cr - 128) / chroma
    red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    return (np.stack([red, green, blue], axis=-1) * 255).clip(0, 255)


@pytest.mark.parametrize(
    ("space", "kr", "kb"),
    [(5, 0.299, 0.114), (6, 0.299, 0.114), (1, 0.2126, 0.0722), (9, 0.2627, 0.0593), (2, 0.299, 0.114)],
    ids=["BT.470 BG", "BT.601", "BT.709", "BT.2020", "not stated"],
)  # fmt: skip
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
def test_colours_are_those_that_the_stream_states(space: int, kr: float, kb: float, full: bool) -> None:
    planes = np.random.default_rng(3).integers(40, 216, (3, 8, 12), np.uint8).repeat(8, 1).repeat(8, 2)
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = *planes.shape[1:], "yuv444p"
        stream.codec_context.colorspace, stream.codec_context.color_range = space, 2 if full else 1
        frame = av.VideoFrame.from_ndarray(planes, "yuv444p")
        frame.colorspace, frame.color_range = space, 2 if full else 1
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    found = read_frames(file.getvalue(), ALL).pixels[0]
    assert np.abs(found - yuv_to_rgb(planes, kr, kb, full=full)).max() <= 2


# The eight ways to hold a picture: where the matrix a, b, c, d (ISO/IEC 14496-12, 6.2.2) sends each pixel.
ORIENTATIONS = {
    "upright": (1, 0, 0, 1),
    "mirrored": (-1, 0, 0, 1),
    "upside down": (-1, 0, 0, -1),
    "upside down, mirrored": (1, 0, 0, -1),
    "a quarter to the right": (0, 1, -1, 0),
    "a quarter to the left": (0, -1, 1, 0),
    "rows for columns": (0, 1, 1, 0),
    "rows for columns, upside down": (0, -1, -1, 0),
    "larger pixels": (2, 0, 0, 1),
}


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_the_display_matrix(name: str) -> None:
    a, b, c, d = ORIENTATIONS[name]
    data = film(H264, 3)
    plain = read_frames(data, ALL).pixels
    x, y = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    across, down = (np.sign(p) * x + np.sign(q) * y for p, q in ((a, c), (b, d)))
    across, down = across - across.min(), down - down.min()
    expected = np.zeros((3, down.max() + 1, across.max() + 1, 3), np.uint8)
    expected[:, down, across] = plain
    np.testing.assert_array_equal(read_frames(shown_by(data, ORIENTATIONS[name]), ALL).pixels, expected)


def test_turned_frames_are_reduced_upright() -> None:
    data = shown_by(film(H264, 3), (0, 1, -1, 0))
    whole, small = read_frames(data, ALL).pixels, read_frames(data, ALL, shorter=70).pixels
    assert small.shape == (3, 96, 64, 3)
    np.testing.assert_array_equal(small, [reduced(frame, 70) for frame in whole])


@pytest.mark.parametrize("container", ["matroska", "mp4", "mov", "mpegts", "webm", "avi"])
def test_variable_rates(container: str) -> None:
    """The first frames follow fast, the others slowly: the header's rate promises frames that never were."""
    times = [40 * number for number in range(10)] + [400 + 200 * number for number in range(20)]
    encoder, options = {"webm": ("libvpx", VPX), "avi": ("ffv1", {})}.get(container, ("libx264", X264))
    data = encode(Kind(container, encoder, options=options), map(numbered, range(30)), times=times)
    frames = read_frames(data, ALL)
    assert numbers(frames) == list(range(30))
    np.testing.assert_allclose(frames.seconds, np.array(times) / 1000, atol=0.001)
    assert frames.note is None
    assert numbers(read_frames(data, FrameSampling.even(5))) == FrameSampling.even(5).indices(30)


@pytest.mark.parametrize("container", ["matroska", "mp4", "avi"])
@pytest.mark.parametrize("rate", [Fraction(1, 20), Fraction(30_000, 1001), Fraction(100_000)], ids=str)
def test_rates(container: str, rate: Fraction) -> None:
    data = film(Kind(container, "libx264" if container == "mp4" else "ffv1"), 10, rate=float(rate))
    if container == "avi":  # scale and rate in its header, where FFmpeg writes no more than 600 frames a second
        place = data.index(b"strh") + 8 + 20
        data = data[:place] + struct.pack("<II", rate.denominator, rate.numerator) + data[place + 8 :]
    frames = read_frames(data, ALL)
    assert numbers(frames) == list(range(10))
    np.testing.assert_allclose(frames.seconds, np.arange(10) / float(rate), atol=0.0015)
    assert frames.note is None


@pytest.mark.parametrize("container", ["mpegts", "matroska", "mp4", "flv"])
def test_times_are_counted_from_the_first_frame(container: str) -> None:
    data = film(Kind(container, "libx264", options=X264), 10, times=[100_000 + 40 * number for number in range(10)])
    with av.open(io.BytesIO(data)) as file:
        start = next(file.decode(video=0)).time
    assert start is not None
    assert start >= 100 or container == "flv"
    frames = read_frames(data, ALL)
    np.testing.assert_allclose(frames.seconds, np.arange(10) / 25, atol=0.0015)
    assert frames.note is None


def test_an_edit_list_shows_a_part() -> None:
    """What lies before the edit is decoded and not shown (ISO/IEC 14496-12, 8.6.6)."""
    data = bytearray(film(H264, 30))
    with av.open(io.BytesIO(bytes(data))) as file:
        (stream,) = file.streams.video
        assert stream.time_base
        step = int(1 / 25 / stream.time_base)
    place = data.index(b"elst") + 4 + 4
    assert struct.unpack_from(">I", data, place) == (1,)
    struct.pack_into(">Ii", data, place + 4, 18 * 40, 12 * step)  # milliseconds of the film, and where it begins
    frames = read_frames(bytes(data), ALL)
    assert numbers(frames) == list(range(12, 30))
    assert frames.indices == tuple(range(18))
    np.testing.assert_allclose(frames.seconds, np.arange(18) / 25, atol=0.001)
    assert frames.note is None


@pytest.mark.parametrize("size", [(319, 241), (1, 1), (3, 2), (17, 200)])
@pytest.mark.parametrize("kind", [FFV1, MJPEG], ids=["FFV1", "Motion JPEG"])
def test_odd_sizes(kind: Kind, size: tuple[int, int]) -> None:
    pictures = np.random.default_rng(1).integers(60, 200, (4, 1, 1, 3), np.uint8).repeat(size[1], 1).repeat(size[0], 2)
    frames = read_frames(encode(kind, pictures), ALL)
    assert frames.pixels.shape == pictures.shape
    assert np.abs(frames.pixels.astype(int) - pictures).max() <= 4


def test_a_title_that_is_no_text() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as output:
        output.metadata["title"] = "ABCDABCD"
        stream = output.add_stream("mpeg4", rate=25)
        stream.width, stream.height = SIZE
        output.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(5), "rgb24")))
        output.mux(stream.encode(None))
    data = file.getvalue()
    assert b"ABCDABCD" in data
    assert numbers(read_frames(data.replace(b"ABCDABCD", b"\xff\xfe\xc0\x80\xf8\xed\xa0\x80"), ALL)) == [5]


def test_pixels_that_are_not_square_are_left_as_they_are() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as output:
        stream = output.add_stream("mpeg4", rate=25)
        stream.width, stream.height = SIZE
        stream.codec_context.sample_aspect_ratio = Fraction(16, 11)
        output.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(5), "rgb24")))
        output.mux(stream.encode(None))
    assert read_frames(file.getvalue(), ALL).pixels.shape == (1, SIZE[1], SIZE[0], 3)


def joined(*streams: tuple[str, list[np.ndarray]], container: str = "matroska", covers: int = 0) -> bytes:
    """Several video streams in one file, the first `covers` of them cover pictures; and a stream of silence."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        sound = output.add_stream("aac", rate=44100)
        videos = [output.add_stream(codec, rate=25) for codec, _ in streams]
        for number, (stream, (_, pictures)) in enumerate(zip(videos, streams, strict=True)):
            stream.height, stream.width = pictures[0].shape[:2]
            stream.pix_fmt = "yuvj420p" if stream.codec.name == "mjpeg" else "yuv420p"
            stream.disposition = av.stream.Disposition.attached_pic if number < covers else 0
        for stream, (_, pictures) in zip(videos, streams, strict=True):
            for picture in pictures:
                frame = av.VideoFrame.from_ndarray(picture, "rgb24")
                output.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
            output.mux(stream.encode(None))
        silence = av.AudioFrame(format="fltp", layout="mono", samples=1024)
        silence.sample_rate = 44100
        for plane in silence.planes:
            plane.update(bytes(plane.buffer_size))
        for number in range(100):  # longer than the video, which is no fault
            silence.pts = 1024 * number
            output.mux(sound.encode(silence))
        output.mux(sound.encode(None))
    return file.getvalue()


SMALL = [numbered(number + 100, (96, 64)) for number in range(8)]
LARGE = [numbered(number) for number in range(8)]


@pytest.mark.parametrize("container", ["matroska", "mp4", "mpegts"])
@pytest.mark.parametrize("large_first", [False, True], ids=["small first", "large first"])
def test_of_several_video_streams_the_default_one_is_taken_else_the_largest(container: str, large_first: bool) -> None:
    streams = [("mpeg4", LARGE), ("mpeg4", SMALL)] if large_first else [("mpeg4", SMALL), ("mpeg4", LARGE)]
    frames = read_frames(joined(*streams, container=container), ALL)
    small = container == "mp4" and not large_first  # of an MP4 the first stream is the default one
    assert numbers(frames) == list(range(100, 108) if small else range(8))
    assert frames.note is None


def test_a_cover_picture_is_no_video() -> None:
    cover = ("mjpeg", [numbered(77, (480, 480))])
    assert numbers(read_frames(joined(cover, ("mpeg4", SMALL), container="mp4", covers=1), ALL)) == list(
        range(100, 108)
    )
    with pytest.raises(MediaError, match=r"is MP4 without a video; it holds a cover picture, audio"):
        read_frames(joined(cover, container="mp4", covers=1), ALL)
    with pytest.raises(MediaError, match=r"is Matroska without a video; it holds audio"):
        read_frames(joined(), ALL)


def test_frames_of_other_sizes_are_scaled_to_the_first() -> None:
    """As FFmpeg's command line does it. Of a transport stream whose parts do not join, frames at the seam are lost."""
    first = film(Kind("mpegts", "mpeg2video", size=(384, 256), options={"g": "1"}), 8)
    second = encode(Kind("mpegts", "mpeg2video", options={"g": "1"}), [numbered(number) for number in range(8, 16)])
    frames = read_frames(first + second, ALL)
    assert frames.pixels.shape[1:] == (256, 384, 3)
    assert {*range(6), *range(9, 16)} <= {*numbers(frames)} <= {*range(16)}
    assert numbers(frames) == sorted(numbers(frames))
    assert "different sizes (384×256, 192×128 pixels) and are scaled to the first" in str(frames.note)


ENCRYPTED = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "0" * 32, "encryption_kid": "1" * 32}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (film(H264, 3, muxer=ENCRYPTED), r"\(MP4\) is encrypted \(MP4 with H264\); decrypt it first"),
        (film(H264, 3).replace(b"avc1", b"zz99"), r"is MP4 with a video of a kind that PyAV [\d.]+ has no decoder for"),
        (film(H264, 3)[:-200], r"is damaged or truncated: it begins like MP4, but cannot be read"),
        (film(Kind("matroska", "mpeg4"), 1)[:600], r"\(Matroska\) holds no frame \(Matroska with MPEG4\)"),
    ],
    ids=["encrypted", "no decoder", "no index", "no frame"],
)  # fmt: skip
def test_what_cannot_be_decoded_is_named(data: bytes, words: str) -> None:
    with pytest.raises(MediaError, match=words):
        read_frames(data, ALL)


def test_a_frame_that_holds_a_photo_is_upright_too() -> None:
    """FFmpeg gives the orientation in a Motion JPEG's EXIF as side data of a kind that PyAV does not know."""
    exif = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x112, 3, 1, 6, 0, 0)
    jpeg = encode_jpeg(numbered(3))
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    file = io.BytesIO()
    with av.open(file, "w", format="avi") as output:
        stream = output.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuvj420p"
        packet = av.Packet(jpeg[:2] + segment + jpeg[2:])
        packet.stream, packet.pts, packet.dts, packet.time_base = stream, 0, 0, Fraction(1, 25)
        output.mux(packet)
    upright = read_frames(jpeg[:2] + segment + jpeg[2:], ALL).pixels
    found = read_frames(file.getvalue(), ALL).pixels
    assert found.shape == upright.shape == (1, SIZE[0], SIZE[1], 3)
    assert np.abs(found.astype(int) - upright).mean() < 2
