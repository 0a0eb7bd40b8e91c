"""Which frames of a clip are looked at, what a video may cost, and what was read of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from runtime.errors import BundleError, InputError, TooLargeError
from runtime.media.pictures import RGBImage, opencv

MOST_FRAMES = 256
"""More frames of a clip than this are never taken."""

MAX_CLIP_BYTES = 64 << 20
"""All frames of a clip together, as they are kept in memory. A graph that looks at them holds five times as much again,
because it turns levels into float32: so a clip costs at most about 400 MB."""


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


@dataclass(frozen=True, slots=True)
class FrameSampling:
    """Which frames of a clip are taken; the same clip always gives the same frames.

    ``even``: the middles of `n` equal parts, frame (2i + 1)·count // 2n of `count`; all frames of a clip that has no
    more than `n`. ``every``: one in `n`, beginning with the first; where that gives more than `most`, one in 2n, 4n …

    Attributes:
        kind: "even" or "every".
        n: how many frames (even), or the step (every).
        most: most frames taken (every); None with even.
    """

    kind: str
    n: int
    most: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("even", "every"):
            raise InputError(f"frame sampling is 'even' or 'every', got {self.kind!r}")
        if (self.most is None) != (self.kind == "even"):
            raise InputError("frame sampling 'every' has n and most, 'even' has n only")
        if type(self.n) is not int or self.n < 1 or (self.kind == "even" and self.n > MOST_FRAMES):
            limit = f"1 to {MOST_FRAMES}" if self.kind == "even" else "at least 1"
            raise InputError(f"frame sampling: n is {self.n!r}, expected a whole number, {limit}")
        if self.most is not None and (type(self.most) is not int or not 1 <= self.most <= MOST_FRAMES):
            raise InputError(f"frame sampling: most is {self.most!r}, expected a whole number, 1 to {MOST_FRAMES}")

    @classmethod
    def even(cls, n: int) -> Self:
        """`n` frames, evenly spread."""
        return cls("even", n)

    @classmethod
    def every(cls, n: int, *, most: int = 32) -> Self:
        """One frame in `n`, at most `most`."""
        return cls("every", n, most)

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Reads {"kind": "even", "n": 8} or {"kind": "every", "n": 10, "most": 32}.

        Raises:
            BundleError: a key is missing or unknown, or a value does not fit.
        """
        keys = {"even": {"kind", "n"}, "every": {"kind", "n", "most"}}
        kind = data.get("kind") if isinstance(data, Mapping) else None
        if not isinstance(kind, str) or set(data) != keys.get(kind):
            raise BundleError(
                f"frame sampling is {data!r:.120}, expected {{'kind': 'even', 'n': 8}} or "
                "{'kind': 'every', 'n': 10, 'most': 32}"
            )
        try:
            return cls(**data)
        except InputError as error:
            raise BundleError(str(error)) from error

    def to_json(self) -> dict[str, Any]:
        """The form that `from_json` reads."""
        return {"kind": self.kind, "n": self.n} | ({} if self.most is None else {"most": self.most})

    @property
    def largest(self) -> int:
        """Most frames that a clip gives."""
        return self.n if self.most is None else self.most

    @property
    def of_chosen(self) -> FrameSampling:
        """How to sample frames that somebody has chosen already: as many, but ``every`` does not skip them again."""
        return self if self.most is None else FrameSampling("every", 1, self.most)

    def indices(self, count: int) -> list[int]:
        """The frames that are taken of a clip of `count` frames, rising."""
        if self.most is None:
            return (
                list(range(count)) if count <= self.n else [(2 * i + 1) * count // (2 * self.n) for i in range(self.n)]
            )
        step = self.n
        while -(-count // step) > self.most:
            step *= 2
        return list(range(0, count, step))


def reduced(image: RGBImage, shorter: int | None) -> RGBImage:
    """A picture (H, W, 3) made smaller by a whole factor, if its shorter side is longer than `shorter` pixels.

    The smallest factor that does it is taken, so at least half of `shorter` is left. A pixel is the mean of a
    square; what the factor leaves over at the edges (less than a square) is cut off, half of it on each side.
    """
    height, width = image.shape[:2]
    if shorter is None or min(height, width) <= shorter:
        return image
    factor = -(-min(height, width) // shorter)
    rows, columns = height // factor, width // factor
    top, left = (height - rows * factor) // 2, (width - columns * factor) // 2
    cv2 = opencv()
    whole = image[top : top + rows * factor, left : left + columns * factor]
    return cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA)  # type: ignore[no-any-return]


def check_clip_size(shape: tuple[int, ...], count: int) -> None:
    """Refuses a clip before its frames fill the memory.

    Raises:
        TooLargeError: `count` frames of the shape (H, W, 3) are more than `MAX_CLIP_BYTES`.
    """
    size = count * int(np.prod(shape, dtype=np.int64))
    if size > MAX_CLIP_BYTES:
        raise TooLargeError(
            f"{count} frames of {shape[1]}×{shape[0]} pixels take {size} bytes, at most {MAX_CLIP_BYTES} are kept; "
            "scale the clip down first"
        )
