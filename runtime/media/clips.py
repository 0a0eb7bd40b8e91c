"""Clips: frames out of videos, photos, folders of pictures, arrays and cameras, always RGB, uint8, upright.

A video is decoded as a stream: of the frames that are not taken none is kept, and those that are taken are made smaller
at once. What the header of a video says about its length is a hint; what counts is what can be decoded.
"""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError, MediaError, MissingExtraError, TooLargeError
from runtime.media.animations import ANIMATED, AnimatedWebP, Animation, animation
from runtime.media.cameras import Camera
from runtime.media.clip import ClipSource, Frames
from runtime.media.containers import HEADER_BYTES, MXF, container
from runtime.media.folders import pictures_of
from runtime.media.frames import FrameSampling, VideoLimits, check_clip_size, reduced
from runtime.media.objects import foreign_array, foreign_bytes
from runtime.media.pictures import MAX_BYTES, MAX_PIXELS, Picture, RGBImage, read_picture
from runtime.media.video import Video
from runtime.npy import load_npy

__all__ = [
    "CAMERA_SECONDS",
    "VIDEO_SUFFIXES",
    "FrameSampling",
    "Frames",
    "VideoLimits",
    "read_frames",
]

VIDEO_SUFFIXES = frozenset(
    (".3gp", ".asf", ".avi", ".dv", ".flv", ".m2ts", ".m2v", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts",
     ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv")
)  # fmt: skip
"""How video files are usually called; what a file is, its first bytes say."""

CAMERA_SECONDS = 4.0
"""How long a camera is watched where its name does not say."""

_CAMERA = re.compile(r"camera:(\d{1,3})(?::(\d{1,4}(?:\.\d{1,3})?))?")

Taken = list[tuple[int, int, float, RGBImage]]
"""Frames that were taken: place among the whole frames, number among all, seconds, pixels (H, W, 3)."""


def read_frames(
    source: ClipSource,
    sampling: FrameSampling,
    *,
    shorter: int | None = None,
    limits: VideoLimits = VideoLimits(),  # noqa: B008 - frozen
    max_pixels: int = MAX_PIXELS,
) -> Frames:
    """Reads the frames of a clip that `sampling` takes.

    A video that breaks off is no error as long as one frame can be decoded: what is there is the clip, and the note
    says so. With ``even`` the number of frames that the header promises is tried first; if one of the frames so chosen
    does not lie in its own part of what really decoded, the video is gone through once more with the true number.

    Args:
        source: a video or picture file, or its bytes; a folder, whose pictures are the frames in natural order
            ("frame2.png" before "frame10.png"); several pictures (paths, bytes or arrays) that somebody has chosen as
            the frames, so that ``every`` takes them all as long as there are no more than `most`; an array
            (T, H, W, 3) or any array that `read_image` takes, also as a npy file; an open file, an image of Pillow or a
            tensor, see `runtime.media.objects`; "camera:0", or "camera:0:10" for ten
            seconds of it (even: the frames at the middles of n equal stretches of the time; every: one frame in n,
            until there are `most` or the time is over).
        sampling: which frames are taken. A picture is a clip of one frame.
        shorter: a frame whose shorter side is longer than this is reduced by a whole factor, see `reduced`; None leaves
            every frame as it is.
        limits: what a video may cost.
        max_pixels: of one picture, width times height.

    Returns:
        The frames taken, at least one.

    Raises:
        MediaError: missing, neither video nor picture, damaged so that no frame can be decoded, or pictures of
            different sizes.
        TooLargeError: more bytes, pixels, frames or seconds than allowed, also for a video that does not end.
        MissingExtraError: OpenCV is needed and not installed.
    """
    array = source if isinstance(source, np.ndarray) else foreign_array(source)
    if array is not None:
        return _from_array(array, sampling, shorter, max_pixels)
    if isinstance(source, Picture):
        return _from_pictures([source], sampling, shorter, max_pixels)
    if isinstance(source, bytes | bytearray | memoryview):
        return _from_bytes(bytes(source), sampling, shorter, limits, max_pixels)
    if isinstance(source, str) and (camera := _CAMERA.fullmatch(source)):
        return _from_camera(camera, sampling, shorter, limits)
    if isinstance(source, str | os.PathLike):
        return _from_path(Path(source), sampling, shorter, limits, max_pixels)
    if isinstance(source, Sequence):
        return _from_pictures(source, sampling.of_chosen, shorter, max_pixels)
    data = foreign_bytes(source, max(limits.bytes, MAX_BYTES))
    if data is None:
        raise InputError(
            "a clip is a path, bytes, an open file, an array, a tensor, an image of Pillow or several pictures, got "
            f"{type(source).__name__}"
        )
    return _from_bytes(data, sampling, shorter, limits, max_pixels)


def _from_array(array: NDArray[Any], sampling: FrameSampling, shorter: int | None, max_pixels: int) -> Frames:
    if array.ndim != 4:
        return _from_pictures([array], sampling, shorter, max_pixels)
    if array.dtype != np.uint8 or array.shape[3] != 3 or 0 in array.shape:
        raise MediaError(f"a clip is uint8 (T, H, W, 3) with at least one frame, got {array.dtype} {array.shape}")
    return _from_pictures(array, sampling, shorter, max_pixels)


def _from_bytes(
    data: bytes, sampling: FrameSampling, shorter: int | None, limits: VideoLimits, max_pixels: int
) -> Frames:
    kind = container(data)
    if kind is None:
        if (found := animation(data)) is not None:
            return _from_animation(found, sampling, shorter, limits)
        if not data.startswith(b"\x93NUMPY"):
            return _from_pictures([data], sampling, shorter, max_pixels)
        try:
            return _from_array(load_npy(data), sampling, shorter, max_pixels)
        except ValueError as error:
            raise MediaError(f"the npy file cannot be read: {error}") from error
    _check_bytes(len(data), limits, "the video")
    return _from_video(io.BytesIO(data), kind, f"the video ({kind})", sampling, shorter, limits)


def _from_path(
    path: Path, sampling: FrameSampling, shorter: int | None, limits: VideoLimits, max_pixels: int
) -> Frames:
    try:
        if path.is_dir():
            return _from_pictures(pictures_of(path), sampling, shorter, max_pixels)
        if path.exists() and not path.is_file():
            raise MediaError(f"{path}: not a file")  # a pipe would block, a device never end
        file = path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise MediaError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    with file:
        head = file.read(HEADER_BYTES)
        size = os.fstat(file.fileno()).st_size
        if (kind := container(head)) is not None:
            _check_bytes(size, limits, str(path))
            return _from_video(file, kind, str(path), sampling, shorter, limits)
        if head.startswith(ANIMATED) and size <= MAX_BYTES and (found := animation(head + file.read())) is not None:
            return _from_animation(found, sampling, shorter, limits)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        if head.startswith(MXF):
            raise MediaError(f"{path}: MXF is not read; convert it to MP4 first")
        raise MediaError(
            f"{path}: not a video, whatever its name says (it {f'begins with {head[:8]!r}' if head else 'is empty'})"
        )
    if head.startswith(b"\x93NUMPY"):
        try:
            return _from_array(np.load(path, mmap_mode="r", allow_pickle=False), sampling, shorter, max_pixels)
        except (OSError, ValueError, EOFError) as error:
            raise MediaError(f"{path}: the npy file cannot be read: {error}") from error
    return _from_pictures([path], sampling, shorter, max_pixels)


def _check_bytes(size: int, limits: VideoLimits, name: str) -> None:
    if size > limits.bytes:
        raise TooLargeError(f"{name} has {size} bytes, at most {limits.bytes} are read")


def _from_pictures(
    pictures: Sequence[Any] | NDArray[np.uint8], sampling: FrameSampling, shorter: int | None, max_pixels: int
) -> Frames:
    """Pictures as the frames of one clip; those that are not taken are not read."""
    if len(pictures) == 0:
        raise MediaError("a clip of no pictures; give at least one")
    indices = sampling.indices(len(pictures))
    taken: list[RGBImage] = []
    note = None
    for index in indices:
        try:
            picture = read_picture(pictures[index], max_pixels=max_pixels)
            image, note = reduced(picture.pixels, shorter), note or picture.note
        except InputError as error:
            if len(pictures) == 1:
                raise
            raise type(error)(f"picture {index + 1} of the clip: {error}") from error
        if not taken:
            check_clip_size(image.shape, len(indices))
        elif image.shape != taken[0].shape:
            raise MediaError(
                f"picture {index + 1} of the clip is {image.shape[1]}×{image.shape[0]} pixels, "
                f"the first {taken[0].shape[1]}×{taken[0].shape[0]}; the frames of one clip have one size"
            )
        taken.append(image)
    times = (0.0,) if len(pictures) == 1 else (None,) * len(indices)
    return Frames(np.stack(taken), tuple(indices), times, note)


def _from_video(
    file: BinaryIO,
    kind: str,
    name: str,
    sampling: FrameSampling,
    shorter: int | None,
    limits: VideoLimits,
    pictures: int = 0,
) -> Frames:
    deadline = time.monotonic() + limits.seconds

    def opened() -> Video:
        file.seek(0)
        return Video(file, kind, limits, deadline, name, pictures)

    return _sampled(opened, sampling, shorter, limits)


def _from_animation(found: Animation, sampling: FrameSampling, shorter: int | None, limits: VideoLimits) -> Frames:
    """The pictures of an animation; the first one alone, with a note, where what shows them is not installed."""
    name = f"the {found.kind}"
    if found.kind == "WebP":
        deadline = time.monotonic() + limits.seconds
        return _sampled(lambda: AnimatedWebP(found, limits, deadline, name), sampling, shorter, limits)
    try:
        return _from_video(io.BytesIO(found.data), found.kind, name, sampling, shorter, limits, found.pictures)
    except MissingExtraError as error:
        first = _from_pictures([found.data], sampling, shorter, limits.pixels)
        return replace(first, note=f"only the first of {found.pictures} pictures was looked at: {error}")


def _sampled(
    opened: Callable[[], Video | AnimatedWebP], sampling: FrameSampling, shorter: int | None, limits: VideoLimits
) -> Frames:
    with opened() as video:
        promised = video.promised
        if sampling.kind == "every":
            taken, count = _thinned(video, sampling, shorter)
        else:
            hoped = sampling.indices(promised) if promised is not None and promised <= limits.frames else []
            taken, count = _chosen(video, hoped, shorter)
        if count == 0:
            raise video.failure()
        note = video.note()
    if sampling.kind == "even" and not _each_in_its_part([place for place, *_ in taken], sampling, count):
        with opened() as video:
            taken, _ = _chosen(video, sampling.indices(count), shorter, stop=True)
            if not taken:  # threads may find other frames of a damaged video whole the next time
                raise video.failure()
    return _clip(taken, note)


def _from_camera(camera: re.Match[str], sampling: FrameSampling, shorter: int | None, limits: VideoLimits) -> Frames:
    span = float(camera[2] or CAMERA_SECONDS)
    taken: Taken = []
    with Camera(int(camera[1]), span, limits.pixels) as opened:
        for index, elapsed in opened.frames():
            if len(taken) == sampling.largest:
                break
            due = (
                elapsed >= (2 * len(taken) + 1) * span / (2 * sampling.n)
                if sampling.kind == "even"
                else index % sampling.n == 0
            )
            if due and (image := opened.picture(shorter)) is not None:
                _keep(taken, index, index, elapsed, image, sampling.largest)
    if not taken:
        raise MediaError(f"camera {camera[1]} gave no frame within {span:g} seconds")
    return _clip(taken, None)


def _chosen(
    video: Video | AnimatedWebP, wanted: list[int], shorter: int | None, *, stop: bool = False
) -> tuple[Taken, int]:
    """The whole frames in the wanted places; and how many whole frames the video has (not with `stop`)."""
    taken: Taken = []
    count = 0
    for place, (index, seconds) in enumerate(video.frames()):
        count = place + 1
        if len(taken) == len(wanted):
            if stop:
                break
        elif place == wanted[len(taken)]:
            _keep(taken, place, index, seconds, video.picture(shorter), len(wanted))
    return taken, count


def _thinned(video: Video | AnimatedWebP, sampling: FrameSampling, shorter: int | None) -> tuple[Taken, int]:
    """One whole frame in n; where they become too many every other one is let go: the length need not be known."""
    taken: Taken = []
    step, count = sampling.n, 0
    for place, (index, seconds) in enumerate(video.frames()):
        count = place + 1
        if place % step == 0 and len(taken) == sampling.largest:
            step *= 2
            taken = [frame for frame in taken if frame[0] % step == 0]
        if place % step == 0:
            _keep(taken, place, index, seconds, video.picture(shorter), sampling.largest)
    return taken, count


def _keep(taken: Taken, place: int, index: int, seconds: float, image: RGBImage, most: int) -> None:
    if not taken:
        check_clip_size(image.shape, most)
    taken.append((place, index, seconds, image))


def _each_in_its_part(indices: list[int], sampling: FrameSampling, count: int) -> bool:
    """Whether the middle of frame i of n lies in part i of the clip; of at most n frames, whether all are there."""
    if count <= sampling.n:
        return len(indices) == count
    return len(indices) == sampling.n and all(
        2 * i * count <= (2 * index + 1) * sampling.n < 2 * (i + 1) * count for i, index in enumerate(indices)
    )


def _clip(taken: Taken, note: str | None) -> Frames:
    _, indices, seconds, pixels = zip(*taken, strict=True)
    return Frames(np.stack(pixels), indices, tuple(round(value, 3) for value in seconds), note)
