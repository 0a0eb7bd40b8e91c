"""Frames out of a video, one after the other; never more than one picture in memory.

A frame that was not decoded whole never becomes a picture. Pixels are as they were coded: frames with pixels that are
not square are not stretched.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

from runtime.errors import MediaError, TooLargeError
from runtime.media.decoder import Decoder, pyav
from runtime.media.frames import VideoLimits, reduced
from runtime.media.orientation import Orientation
from runtime.media.pictures import RGBImage, read_image
from runtime.media.times import Clock

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

_B_FRAME = 3
_WHOLE_SHARE = 0.95
# Containers whose header states a duration and no number of frames. For others FFmpeg estimates it from what is there.
_STATED_DURATION = frozenset(("Matroska", "FLV", "ASF"))
_TRANSPARENT = frozenset(("GIF", "APNG"))


class Video:
    """An opened video: `frames` goes through it, `picture` converts the frame that it stands at.

    Args:
        file: the whole file, seekable.
        kind: a key of `DEMUXERS`.
        limits: what decoding may cost.
        deadline: when decoding has to be done, on `time.monotonic`.
        name: of the file, for messages.
        pictures: how many an animated picture says that it has.

    Raises:
        MediaError: it holds no video that can be decoded.
        TooLargeError: its frames are larger than allowed, or its tables promise too much.
        MissingExtraError: PyAV is not installed.
    """

    def __init__(
        self, file: BinaryIO, kind: str, limits: VideoLimits, deadline: float, name: str, pictures: int = 0
    ) -> None:
        self._decoder = Decoder(file, kind, limits, deadline, name)
        self._kind, self._limits, self._name, self._pictures = kind, limits, name, pictures
        self._reformatter = pyav().video.reformatter.VideoReformatter()
        self._frame: VideoFrame | None = None
        self._orientation: Orientation | None = None
        self._sizes: dict[tuple[int, int], None] = {}  # in the order in which they came
        self._count = self._left_out = 0

    @property
    def promised(self) -> int | None:
        """The number of frames that the header promises or implies; often wrong. None where there is none."""
        stream = self._decoder.stream
        if self._pictures or stream.frames > 0:
            return self._pictures or stream.frames
        seconds = (self._decoder.container.duration or 0) / 1_000_000
        if stream.duration and stream.time_base:
            seconds = float(stream.duration * stream.time_base)
        return round(seconds * float(stream.average_rate or 0)) or None

    def frames(self) -> Iterator[tuple[int, float]]:
        """Goes through the video: the number of each whole frame and its time in seconds after the first.

        After a damaged frame all are left out up to the next key frame, because they are predicted from it. B-frames
        are predicted from the frame behind them, too: they wait until it has come and is whole.

        Raises:
            TooLargeError: the limit of frames, pixels or time is reached.
        """
        stream = self._decoder.stream
        clock = Clock(stream.time_base, stream.average_rate or stream.guessed_rate)
        waiting: list[tuple[int, float, VideoFrame]] = []
        intact = True
        for index, (frame, corrupt, key) in enumerate(self._decoder.decoded()):
            if index >= self._limits.frames:
                raise TooLargeError(
                    f"{self._name} has more than {self._limits.frames} frames; cut a piece out of it first"
                )
            self._count = index + 1
            if frame is not None:
                # AVI has no times of showing, and those that FFmpeg makes up are wrong for B-frames.
                seconds = clock.elapsed(frame.dts if frame.pts is None or self._kind == "AVI" else frame.pts)
                if corrupt:
                    self._left_out += len(waiting)
                    waiting.clear()
            intact = not corrupt and (intact or key)
            if frame is None or not intact:
                self._left_out += 1
                continue
            self._sizes[frame.width, frame.height] = None
            waiting.append((index, seconds, frame))
            if frame.pict_type != _B_FRAME or len(waiting) > self._decoder.most_waiting:
                yield from self._shown(waiting)
        yield from self._shown(waiting)

    def picture(self, shorter: int | None) -> RGBImage:
        """The frame that `frames` stands at, upright, made smaller as `reduced` does it: uint8 RGB (H, W, 3).

        A frame of another size than the first one's is scaled to that, as FFmpeg does it.

        Raises:
            MediaError: its pixels are of a kind that cannot be converted.
        """
        frame = self._frame
        if frame is None:
            raise RuntimeError("there is no frame before `frames` has given one")
        width, height = next(iter(self._sizes))
        target = "rgba" if self._kind in _TRANSPARENT else "rgb24"
        try:
            if self._orientation is None:
                # A frame whose side data was looked at is part of a circle and keeps the decoder's memory with it.
                # This one takes the side data over, and no memory.
                tiny = pyav().video.reformatter.VideoReformatter().reformat(
                    frame, 8, 8, "gray", interpolation="POINT", threads=1
                )  # fmt: skip
                self._orientation = Orientation.of_frame(tiny)
            converted = self._reformatter.reformat(frame, width, height, target, interpolation="BICUBIC", threads=1)
        except pyav().FFmpegError as error:
            raise MediaError(
                f"{self._name} has pixels of the kind {frame.format.name}, which cannot be converted"
            ) from error
        image = read_image(converted.to_ndarray(), max_pixels=width * height)
        return reduced(self._orientation.upright(image), shorter)

    def note(self) -> str | None:
        """What the reader should know of the video, once `frames` has gone through it; None where all is well."""
        whole = self._count - self._left_out
        notes = [breaks_off(whole, self._pictures) if self._pictures else self._shortfall(whole)]
        if self._decoder.broken and notes == [None]:
            notes.append(f"it breaks off after {self._count} frames")
        if self._left_out:
            notes.append(
                f"{self._left_out} of {self._count} frames are left out: damaged, or predicted from a damaged one"
            )
        if len(self._sizes) > 1:
            sizes = ", ".join(f"{width}×{height}" for width, height in self._sizes)
            notes.append(f"its frames have different sizes ({sizes} pixels) and are scaled to the first")
        return "; ".join(filter(None, notes)) or None

    def failure(self) -> MediaError:
        """Why `frames` gave none."""
        holds = f"{self._kind} with {self._decoder.codec}"
        if self._decoder.encrypted:
            return MediaError(f"{self._name} is encrypted ({holds}); decrypt it first")
        if self._count == 0:
            return MediaError(f"{self._name} holds no frame ({holds})")
        # The decoder makes no frame that is far beyond the limit, and does not say why.
        large = "" if self._decoder.stream.width else f", or has more than {self._limits.pixels} pixels"
        return MediaError(f"{self._name} is damaged{large}: no frame of it can be decoded ({holds})")

    def close(self) -> None:
        """Lets the file and the decoder go."""
        self._frame = None
        self._decoder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _shown(self, waiting: list[tuple[int, float, VideoFrame]]) -> Iterator[tuple[int, float]]:
        for index, seconds, self._frame in waiting:
            yield index, seconds
        waiting.clear()

    def _shortfall(self, whole: int) -> str | None:
        """How the packets fall short of the length that the header states; None where they do not, or it does not."""
        stream = self._decoder.stream
        there = self._decoder.ends[stream.index] - (self._decoder.begin or 0.0)
        step = float(1 / stream.average_rate) if stream.average_rate else 0.04
        stated = 0.0
        if self._kind == "AVI":  # the duration that FFmpeg gives is cut to what is there
            stated = stream.frames * step
        elif stream.frames > 0:
            stated = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
        elif self._kind in _STATED_DURATION:  # of all streams together
            stated, there = (self._decoder.container.duration or 0) / 1_000_000, max(self._decoder.ends.values())
        if there >= _WHOLE_SHARE * stated - 1.5 * step:  # the last packet may have no duration
            return None
        promise = f"{stream.frames} frames, {whole}" if stream.frames > 0 else f"{stated:.1f} seconds, {there:.1f}"
        return f"the header promises {promise} could be decoded; the frames are of those"


def breaks_off(count: int, stated: int) -> str | None:
    """The note of an animated picture with fewer pictures than it says; None where all are there."""
    return f"it breaks off: {count} of at least {stated} pictures could be decoded" if count < stated else None
