"""Frames of a camera through OpenCV, one after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from runtime.errors import MediaError, TooLargeError
from runtime.media.frames import reduced
from runtime.media.pictures import RGBImage, opencv


class Camera:
    """An opened camera: `frames` watches it, `picture` decodes the frame that it stands at.

    Args:
        number: of the camera, from 0, as OpenCV counts them.
        seconds: how long it is watched.
        pixels: of one frame at most, width times height.

    Raises:
        MediaError: it cannot be opened.
    """

    def __init__(self, number: int, seconds: float, pixels: int) -> None:
        self._cv2: Any = opencv()
        self._name, self._seconds, self._pixels = f"camera {number}", seconds, pixels
        try:
            self._camera = self._cv2.VideoCapture(number, self._cv2.CAP_ANY)
        except self._cv2.error as error:
            raise MediaError(f"{self._name} cannot be opened: {str(error).strip().splitlines()[-1]}") from error
        if not self._camera.isOpened():
            raise MediaError(f"{self._name} cannot be opened: no such camera, or another program has it")

    def frames(self) -> Iterator[tuple[int, float]]:
        """Watches the camera: the number of each frame, and the seconds since it was begun.

        The clock is used, and not the camera's own times, which many cameras do not give.
        """
        start, index = time.monotonic(), 0
        while self._grab():
            elapsed = time.monotonic() - start
            if elapsed > self._seconds:
                return
            yield index, elapsed
            index += 1

    def picture(self, shorter: int | None) -> RGBImage | None:
        """The frame that `frames` stands at, made smaller as `reduced` does it; None if it cannot be decoded.

        Raises:
            TooLargeError: it has more pixels than allowed.
        """
        try:
            done, image = self._camera.retrieve()
        except self._cv2.error:
            return None
        if not done or image is None or image.ndim != 3 or image.size == 0:
            return None
        height, width = image.shape[:2]
        if width * height > self._pixels:
            raise TooLargeError(
                f"the frames of {self._name} are {width}×{height} pixels, at most {self._pixels} are read"
            )
        return self._cv2.cvtColor(reduced(image, shorter), self._cv2.COLOR_BGR2RGB)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Lets the camera go."""
        self._camera.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _grab(self) -> bool:
        try:
            return bool(self._camera.grab())
        except self._cv2.error:
            return False
