"""Videos whose frames carry their number in their pixels, so that a test can read back which frame it was given."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np

os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder would introduce itself on standard error

BITS = 12
SIZE = (192, 128)
"""Width and height of the frames, in pixels."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How PyAV writes a video: container, encoder, pixels, options of the encoder."""

    container: str
    encoder: str
    pixels: str = "yuv420p"
    options: Mapping[str, str] = field(default_factory=dict)
    interlaced: bool = False
    size: tuple[int, int] = SIZE


X264 = {"crf": "12", "preset": "ultrafast"}
TWO_B_FRAMES = {"crf": "12", "preset": "veryfast", "bf": "2", "x264-params": "b-adapt=0:keyint=12"}
X265 = {"crf": "12", "preset": "ultrafast", "x265-params": "log-level=none"}
VPX = {"deadline": "realtime", "cpu-used": "8", "crf": "12", "b": "1M"}
AV1 = {"preset": "8", "crf": "10"}
Q2 = {"qmin": "2", "qmax": "2"}
PAL = (720, 576)

# By file suffix.
CODECS = {
    ".avi": Kind("avi", "mjpeg", "yuvj420p", Q2),
    ".mp4": Kind("mp4", "mpeg4", options=Q2),
    ".webm": Kind("webm", "libvpx", options=VPX),
    ".mkv": Kind("matroska", "mjpeg", "yuvj420p", Q2),
}

KINDS = {
    "H.264 in MP4": Kind("mp4", "libx264", options=X264),
    "H.264 with B-frames in MP4": Kind("mp4", "libx264", options=TWO_B_FRAMES),
    "H.264 with B-frames in AVI": Kind("avi", "libx264", options=TWO_B_FRAMES),
    "H.264 4:2:2 10 bit in Matroska": Kind("matroska", "libx264", "yuv422p10le", X264),
    "H.264 4:4:4 in QuickTime": Kind("mov", "libx264", "yuv444p", X264),
    "H.264 in FLV": Kind("flv", "libx264", options=X264),
    "H.264 interlaced in MPEG-TS": Kind("mpegts", "libx264", options=X264, interlaced=True),
    "HEVC in MPEG-TS": Kind("mpegts", "libx265", options=X265),
    "HEVC 10 bit in MP4": Kind("mp4", "libx265", "yuv420p10le", X265),
    "VP8 in WebM": Kind("webm", "libvpx", options=VPX),
    "VP9 in WebM": Kind("webm", "libvpx-vp9", options=VPX),
    "VP9 4:4:4 in Matroska": Kind("matroska", "libvpx-vp9", "yuv444p", VPX),
    "AV1 in MP4": Kind("mp4", "libsvtav1", options=AV1),
    "AV1 10 bit in Matroska": Kind("matroska", "libsvtav1", "yuv420p10le", AV1),
    "MPEG-1 in MPEG": Kind("mpeg", "mpeg1video", options=Q2),
    "MPEG-2 interlaced in MPEG": Kind("mpeg", "mpeg2video", options=Q2, interlaced=True),
    "MPEG-2 interlaced 4:2:2 in MPEG-TS": Kind("mpegts", "mpeg2video", "yuv422p", Q2, interlaced=True),
    "MPEG-2 in no container": Kind("mpeg2video", "mpeg2video", options=Q2),
    "MPEG-4 with B-frames in AVI": Kind("avi", "mpeg4", options=Q2 | {"bf": "2"}),
    "MPEG-4 interlaced in AVI": Kind("avi", "mpeg4", options=Q2, interlaced=True),
    "H.263 in 3GP": Kind("3gp", "h263", options=Q2, size=(176, 144)),
    "Motion JPEG 4:4:4 in AVI": Kind("avi", "mjpeg", "yuvj444p", Q2),
    "Motion JPEG in QuickTime": Kind("mov", "mjpeg", "yuvj422p", Q2),
    "DV, which is interlaced, in AVI": Kind("avi", "dvvideo", interlaced=True, size=PAL),
    "DV, which is interlaced, in no container": Kind("dv", "dvvideo", interlaced=True, size=PAL),
    "FFV1 in Matroska": Kind("matroska", "ffv1", "yuv444p10le"),
    "ProRes in QuickTime": Kind("mov", "prores_ks", "yuv422p10le"),
    "ProRes interlaced in QuickTime": Kind("mov", "prores_ks", "yuv422p10le", interlaced=True),
    "Flash video": Kind("flv", "flv", options=Q2),
    "WMV in ASF": Kind("asf", "wmv2", options=Q2),
    "HuffYUV in AVI": Kind("avi", "huffyuv", "rgb24"),
    "raw pixels in AVI": Kind("avi", "rawvideo", "bgr24"),
}
"""Everything that PyAV's wheel can write and that people have."""


def numbered(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A frame (H, W, 3): the number in binary as black and white columns, a red band below and a blue one above."""
    width, height = size
    frame = np.zeros((height, width, 3), np.uint8)
    for bit in range(BITS):
        if number >> bit & 1:
            frame[:, bit * width // BITS : (bit + 1) * width // BITS] = 255
    frame[: height // 8] = (0, 0, 255)
    frame[-(height // 8) :] = (255, 0, 0)
    return frame


def number_of(frame: np.ndarray) -> int:
    """The number that `numbered` drew, after coding and scaling."""
    height, width = frame.shape[:2]
    row = frame[height * 3 // 8 : height * 5 // 8].mean((0, 2))
    return sum(1 << bit for bit in range(BITS) if row[round((bit + 0.5) * width / BITS)] > 127)


@contextmanager
def scheduled_as_before() -> Iterator[None]:
    """Takes back the real-time priority that SVT-AV1 gives to the thread that calls it, when it runs as root.

    Children inherit it. Two such processes that wait for others by spinning keep two cores for ever.
    """
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


def encode(
    kind: Kind,
    frames: Iterable[np.ndarray | av.VideoFrame],
    *,
    rate: float = 25.0,
    times: Iterable[int] | None = None,
    muxer: Mapping[str, str] | None = None,
) -> bytes:
    """A video of frames (H, W, 3).

    Args:
        kind: container and encoder.
        frames: all of one size; frames that PyAV has decoded keep what they say of themselves, e.g. interlacing.
        rate: frames a second.
        times: when each frame is shown, in milliseconds; None: by the rate.
        muxer: options of the container.
    """
    file = io.BytesIO()
    exact = Fraction(rate).limit_denominator(100_000)
    with (
        scheduled_as_before(),
        av.open(file, "w", format=kind.container, options=dict(muxer or {})) as output,
    ):
        stream = output.add_stream(kind.encoder, rate=exact, options=dict(kind.options))
        context = stream.codec_context
        stream.pix_fmt = kind.pixels
        if times is not None:
            context.time_base = Fraction(1, 1000)
        if kind.interlaced:
            context.flags |= av.codec.context.Flags.interlaced_dct | av.codec.context.Flags.interlaced_me
            context.field_order = 2  # AV_FIELD_TT
        moments = iter(times) if times is not None else None
        pictures = iter(frames)
        first = next(pictures)
        stream.height, stream.width = first.shape[:2] if isinstance(first, np.ndarray) else (first.height, first.width)
        for pixels in chain([first], pictures):
            frame = pixels if isinstance(pixels, av.VideoFrame) else av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame = frame.reformat(format=kind.pixels)
            if moments is not None:
                frame.pts, frame.time_base = next(moments), Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


def film(kind: Kind, count: int, **options: object) -> bytes:
    """A video of `count` numbered frames."""
    return encode(kind, (numbered(number, kind.size) for number in range(count)), **options)  # type: ignore[arg-type]


def write_video(path: Path, count: int, *, size: tuple[int, int] = SIZE, rate: float = 25.0) -> Path:
    """Writes `count` numbered frames; the suffix chooses container and codec."""
    frames = (numbered(number, size) for number in range(count))
    path.write_bytes(encode(CODECS[path.suffix], frames, rate=rate))
    return path


def promise(path: Path, frames: int) -> Path:
    """Writes another number of frames into the two headers of an AVI (avih dwTotalFrames, strh dwLength)."""
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"avih", 8 + 16), (b"strh", 8 + 32)):
        place = data.index(mark) + offset
        data[place : place + 4] = struct.pack("<I", frames)
    path.write_bytes(data)
    return path


def shown_by(data: bytes, matrix: tuple[int, int, int, int]) -> bytes:
    """An MP4 with another display matrix a, b, c, d (ISO/IEC 14496-12, tkhd, 16.16 fixed point), as phones write it."""
    place = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    return data[:place] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[place + 36 :]


def index_first(data: bytes) -> bytes:
    """An MP4 with its index before its samples, as it is made for the web: cut, it can be read as far as it goes."""
    samples, index = data.index(b"mdat") - 4, data.index(b"moov") - 4
    box = bytearray(data[index:])
    place = box.index(b"stco") + 8
    (count,) = struct.unpack_from(">I", box, place)
    for k in range(count):
        (offset,) = struct.unpack_from(">I", box, place + 4 + 4 * k)
        struct.pack_into(">I", box, place + 4 + 4 * k, offset + len(box))
    return data[:samples] + bytes(box) + data[samples:index]
