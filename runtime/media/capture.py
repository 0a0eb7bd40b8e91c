"""Frames out of a video file or a camera, one after the other, through OpenCV; never more than one in memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from runtime.errors import MediaError, TooLargeError
from runtime.media.frames import reduced
from runtime.media.pictures import RGBImage, opencv
from runtime.threads import default_threads

DECODING_THREADS = 4
"""More do not help much, and each holds frames of its own."""

_OPEN_SECONDS = 10
_STALL_SECONDS = 10


@dataclass(frozen=True, slots=True)
class VideoLimits:
    """What one video may cost.

    Attributes:
        seconds: of decoding.
        frames: that are decoded, whether they are taken or not.
        pixels: of one frame, width times height.
        bytes: of the file.
    """

    seconds: float = 300.0
    frames: int = 500_000
    pixels: int = 10_000_000
    bytes: int = 4 << 30


class Capture:
    """An opened video: `frames` goes through it, `picture` decodes the one that it stands at.

    Raises:
        MediaError: it cannot be opened.
        TooLargeError: its frames have more pixels than allowed.
    """

    def __init__(self, source: str | int, limits: VideoLimits, deadline: float, name: str) -> None:
        self.cv2: Any = opencv()
        self.limits, self.deadline, self.name = limits, deadline, name
        cv2 = self.cv2
        if isinstance(source, str):
            options = [
                cv2.CAP_PROP_N_THREADS, min(DECODING_THREADS, default_threads()),
                cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _OPEN_SECONDS * 1000,
                cv2.CAP_PROP_READ_TIMEOUT_MSEC, _STALL_SECONDS * 1000,
            ]  # fmt: skip
            arguments: tuple[Any, ...] = (source, cv2.CAP_FFMPEG, options)
            if cv2.CAP_FFMPEG not in cv2.videoio_registry.getBackends():
                arguments = (source, cv2.CAP_ANY)
        else:
            arguments = (source, cv2.CAP_ANY)
        try:
            self._video = cv2.VideoCapture(*arguments)
        except cv2.error as error:
            raise MediaError(f"{name} cannot be opened: {str(error).strip().splitlines()[-1]}") from error
        if not self._video.isOpened():
            raise MediaError(
                f"{name} cannot be opened: no such camera, or another program has it"
                if isinstance(source, int)
                else f"{name} is damaged or truncated, or of a kind that this OpenCV ({cv2.__version__}) cannot decode"
            )
        self._video.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)  # phones turn the picture in the header, not in the frames
        self._check_pixels(self._get(cv2.CAP_PROP_FRAME_WIDTH), self._get(cv2.CAP_PROP_FRAME_HEIGHT))

    @property
    def promised(self) -> int | None:
        """The number of frames that the header promises or implies; often wrong. None where there is none.

        OpenCV before 5 ends there, even where more frames follow.
        """
        count = self._get(self.cv2.CAP_PROP_FRAME_COUNT)
        return int(count) if 0 < count < 2**53 else None

    def frames(self) -> Iterator[tuple[int, float]]:
        """Goes through the video: the number of each frame and its time in seconds after the first.

        Raises:
            TooLargeError: the limit of frames or of time is reached.
        """
        rate = self._get(self.cv2.CAP_PROP_FPS)
        step = 1 / rate if 0.01 < rate < 1000 else 0.04
        first = before = 0.0
        index = 0
        while self._grab():
            if index >= self.limits.frames:
                raise TooLargeError(
                    f"{self.name} has more than {self.limits.frames} frames; cut a piece out of it first"
                )
            seconds = self._get(self.cv2.CAP_PROP_POS_MSEC) / 1000
            if index == 0:
                first = seconds
            # Some frames carry no time, which reads as 0.
            elapsed = seconds - first if index == 0 or before < seconds - first else before + step
            yield index, elapsed
            before, index = elapsed, index + 1

    def picture(self, shorter: int | None) -> RGBImage | None:
        """The frame that `frames` stands at, made smaller as `reduced` does it; None if it cannot be decoded."""
        try:
            done, image = self._video.retrieve()
        except self.cv2.error:
            return None
        if not done or image is None or image.ndim != 3 or image.size == 0:
            return None
        self._check_pixels(image.shape[1], image.shape[0])
        return self.cv2.cvtColor(reduced(image, shorter), self.cv2.COLOR_BGR2RGB)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Lets the file or the camera go."""
        self._video.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _grab(self) -> bool:
        if time.monotonic() > self.deadline:
            raise TooLargeError(
                f"{self.name} is not decoded after {self.limits.seconds:g} seconds; "
                "cut a piece out of it first, or scale it down"
            )
        try:
            return bool(self._video.grab())
        except self.cv2.error:
            return False

    def _get(self, name: int) -> float:
        return float(self._video.get(name))

    def _check_pixels(self, width: float, height: float) -> None:
        if width * height > self.limits.pixels:
            raise TooLargeError(
                f"the frames of {self.name} are {width:.0f}×{height:.0f} pixels, at most {self.limits.pixels} are "
                "read; scale it down first"
            )
