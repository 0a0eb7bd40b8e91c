"""Videos whose frames carry their number in their pixels, so that a test can read back which frame it was given."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from runtime.media.pictures import opencv

BITS = 12
SIZE = (192, 128)
"""Width and height of the frames, in pixels."""

# By file suffix: encoders that every build of OpenCV for Python has.
CODECS = {".avi": "MJPG", ".mp4": "mp4v", ".webm": "VP80", ".mkv": "MJPG"}


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


def write_video(path: Path, count: int, *, size: tuple[int, int] = SIZE, rate: float = 25.0) -> Path:
    """Writes `count` numbered frames; the suffix chooses container and codec."""
    cv2 = opencv()
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*CODECS[path.suffix]), rate, size)
    assert writer.isOpened(), f"this OpenCV cannot write {path.suffix}"
    for number in range(count):
        writer.write(np.ascontiguousarray(numbered(number, size)[:, :, ::-1]))
    writer.release()
    return path


def promise(path: Path, frames: int) -> Path:
    """Writes another number of frames into the two headers of an AVI (avih dwTotalFrames, strh dwLength)."""
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"avih", 8 + 16), (b"strh", 8 + 32)):
        place = data.index(mark) + offset
        data[place : place + 4] = struct.pack("<I", frames)
    path.write_bytes(data)
    return path


def turn(path: Path, quarter_turns: int) -> Path:
    """Turns an MP4 clockwise by its header alone, as phones do (ISO 14496-12, tkhd matrix, 16.16 fixed point)."""
    one = 1 << 16
    a, b, c, d = {1: (0, one, -one, 0), 2: (-one, 0, 0, -one), 3: (0, -one, one, 0)}[quarter_turns]
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path
