"""A video stream decoded by FFmpeg (PyAV) within limits of memory and time, out of one file and nothing else."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

from runtime.errors import InputError, MediaError, MissingExtraError, TooLargeError
from runtime.media.containers import DEMUXERS
from runtime.media.frames import VideoLimits
from runtime.media.mp4 import check_tables
from runtime.memory import return_large_blocks
from runtime.threads import default_threads

if TYPE_CHECKING:
    from av.video.format import VideoFormat
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

DECODING_THREADS = 4
"""More do not help much, and each holds frames of its own."""

DECODING_BYTES = 440_000_000
"""What the frames may take that a decoder holds at once."""

# Frames that a decoder may keep to predict others from: ISO/IEC 14496-10 A.3.1, 23008-2 A.4.2, 8 slots of VP9 and AV1.
_REFERENCES = {"h264": 16, "hevc": 16, "vvc": 16, "vp9": 8, "av1": 8}
_FEW_REFERENCES = 3
_FRAMES_PER_THREAD = 4  # measured: what a thread holds, in frames, is 1 (H.264) to 4.5 (CineForm)
_MOST_WAITING = 4
_MOST_FLAGS = 64


@cache
def pyav() -> ModuleType:
    """Imports PyAV.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("av", "video") from error
    return_large_blocks()
    return av


class Decoded(NamedTuple):
    """What came of a packet: a frame, or None if it could not be decoded."""

    frame: VideoFrame | None
    corrupt: bool = True
    key: bool = False


class Decoder:
    """An opened file and the decoder of its video stream.

    Args:
        file: the whole file, seekable.
        kind: a key of `DEMUXERS`.
        limits: what decoding may cost.
        deadline: when decoding has to be done, on `time.monotonic`.
        name: of the file, for messages.

    Attributes:
        kind: as given.
        container: PyAV's.
        stream: the one that is decoded.
        most_waiting: how many frames may be held back.
        begin: when the first packet of the stream is shown, in seconds; None before.
        ends: stream -> when its last packet so far ends, in seconds.
        encrypted: whether a packet was.
        broken: whether the file could not be read to its end.

    Raises:
        MediaError: it holds no video that can be decoded.
        TooLargeError: its frames are larger than allowed, or its tables promise too much.
        MissingExtraError: PyAV is not installed.
    """

    def __init__(self, file: BinaryIO, kind: str, limits: VideoLimits, deadline: float, name: str) -> None:
        self._av = av = pyav()
        self.kind, self._limits, self._deadline, self._name = kind, limits, deadline, name
        if kind == "MP4":
            check_tables(file, name)
            file.seek(0)
        self._reader = _Reader(file, deadline)
        # The decoder may make a frame that is beyond the limit, so that it can be refused by its size.
        options = {"max_pixels": str(2 * limits.pixels), "err_detect": "crccheck"}
        # PyAV 18 has to be told not to mind text of the metadata that is no UTF-8; 19 does not, and takes no such word.
        text = {"metadata_errors": "replace"} if av.__version__.startswith("18.") else {}
        try:
            self.container = av.open(self._reader, format=DEMUXERS[kind], options=options, io_open=_nothing, **text)
        except av.FFmpegError as error:
            self._check_time()
            raise MediaError(f"{name} is damaged or truncated: it begins like {kind}, but cannot be read") from error
        self._checked: set[tuple[int, int, str | None]] = set()
        self._flags: dict[int | None, tuple[bool, bool]] = {}  # time of a packet -> whether it is corrupt, a key frame
        try:
            self.stream = self._choose_stream()
            self.most_waiting = self._prepare(options)
        except InputError:
            self.container.close()
            raise
        self.begin: float | None = None
        self.ends = {self.stream.index: 0.0}
        self.encrypted = self.broken = False

    @property
    def codec(self) -> str:
        """The codec's name, for messages."""
        return str(self.stream.codec.canonical_name).upper()

    def close(self) -> None:
        """Lets the file and the decoder go."""
        del self.stream
        self.container.close()

    def decoded(self) -> Iterator[Decoded]:
        """All that the decoder gives, in the order in which it is shown.

        Raises:
            TooLargeError: the time is over, or a frame is too large.
        """
        corrupt = False
        try:
            for packet in self.container.demux():
                self._check_time()
                self._note_times(packet)
                if packet.stream is not self.stream:
                    continue
                # Of a transport stream the packet before the one that was hurt is marked.
                self._flags[_time_of(packet)] = packet.is_corrupt or corrupt, packet.is_keyframe
                corrupt = packet.is_corrupt
                if len(self._flags) > _MOST_FLAGS:
                    del self._flags[next(iter(self._flags))]
                if packet.has_sidedata("encryption_info"):
                    self.encrypted = True
                    yield Decoded(None)
                    continue
                try:
                    frames = self.stream.decode(packet)
                except self._av.FFmpegError:
                    yield Decoded(None)
                    continue
                for frame in frames:
                    yield self._judged(frame)
        except (self._av.FFmpegError, IndexError):  # IndexError: of a stream that came up on the way
            self.broken = True
        self._check_time()

    def _judged(self, frame: VideoFrame) -> Decoded:
        """Whether a frame is whole and predicted from none, by the word of the decoder and of the demuxer."""
        seen = (frame.width, frame.height, frame.format.name)
        if seen not in self._checked:
            self._room(frame.width, frame.height, frame.format)
            self._checked.add(seen)
        corrupt, key = self._flags.pop(_time_of(frame), (False, False))
        return Decoded(frame, frame.is_corrupt or corrupt, frame.key_frame and (key or self.stream.codec.intra_only))

    def _note_times(self, packet: Any) -> None:
        if packet.pts is None:
            return
        unit, index = float(packet.time_base), packet.stream.index
        end = (packet.pts + (packet.duration or 0)) * unit
        self.ends[index] = max(end, self.ends.get(index, end))
        if packet.stream is self.stream:
            self.begin = packet.pts * unit if self.begin is None else min(self.begin, packet.pts * unit)

    def _choose_stream(self) -> VideoStream:
        """The video stream that FFmpeg's command line takes: the default one, else that with the most pixels."""
        kinds = self._av.stream.Disposition
        streams = [
            stream
            for stream in self.container.streams.video
            if not stream.disposition & (kinds.attached_pic | kinds.timed_thumbnails)
        ]
        if not streams:
            held = sorted({"a cover picture" if s.type == "video" else s.type for s in self.container.streams})
            raise MediaError(f"{self._name} is {self.kind} without a video; it holds {', '.join(held) or 'nothing'}")
        known = [stream for stream in streams if stream.codec_context is not None]
        if not known:
            raise MediaError(
                f"{self._name} is {self.kind} with a video of a kind that PyAV {self._av.__version__} has no decoder "
                "for; convert it to H.264 first"
            )
        best = max(known, key=lambda s: s.width * s.height + 5_000_000 * bool(s.disposition & kinds.default))
        return cast("VideoStream", best)

    def _prepare(self, options: dict[str, str]) -> int:
        """Sets the decoder up; gives the number of frames for which there is still room."""
        context = self.stream.codec_context
        room = self._room(context.width, context.height, context.format)
        context.options = options
        context.thread_type = "AUTO"
        context.thread_count = max(1, min(DECODING_THREADS, default_threads(), room // _FRAMES_PER_THREAD))
        return max(0, min(_MOST_WAITING, room - context.thread_count * _FRAMES_PER_THREAD))

    def _room(self, width: int, height: int, pixels: VideoFormat | None) -> int:
        """How many frames of a size and format there may be beyond those that others are predicted from.

        Raises:
            TooLargeError: not even one.
        """
        if width * height > self._limits.pixels:
            raise TooLargeError(
                f"the frames of {self._name} are {width}×{height} pixels, at most {self._limits.pixels} are read; "
                "scale it down first"
            )
        bits = pixels.padded_bits_per_pixel if pixels else 24
        size = max(1, width * height * bits // 8)
        codec = self.stream.codec
        references = 1 if codec.intra_only else _REFERENCES.get(codec.canonical_name, _FEW_REFERENCES)
        room = DECODING_BYTES // size - references
        if room < 1:
            raise TooLargeError(
                f"the frames of {self._name} are {width}×{height} pixels of {bits} bits ({self.codec}): decoding takes "
                f"up to {(references + 1) * size} bytes, at most {DECODING_BYTES} are spent; scale it down first"
            )
        return room

    def _check_time(self) -> None:
        if self._reader.late or time.monotonic() > self._deadline:
            raise TooLargeError(
                f"{self._name} is not decoded after {self._limits.seconds:g} seconds; "
                "cut a piece out of it first, or scale it down"
            )


class _Reader:
    """What the demuxer reads: one file without a name. It ends when the time is up, so no search in it is endless."""

    def __init__(self, file: BinaryIO, deadline: float) -> None:
        self._file, self._deadline = file, deadline
        self.late = False

    def read(self, size: int) -> bytes:
        self.late = self.late or time.monotonic() > self._deadline
        try:
            return b"" if self.late else self._file.read(size)
        except OSError:
            return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError):
            return -1

    def tell(self) -> int:
        return self._file.tell()


def _nothing(*_: Any) -> BinaryIO:
    """What every other file is that a container names."""
    return io.BytesIO()


def _time_of(item: Any) -> int | None:
    """What a frame has in common with the packet that it came from."""
    return item.dts if item.pts is None else item.pts  # type: ignore[no-any-return]
