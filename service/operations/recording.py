"""A bounded sample of what a service is asked and answers, kept on request.

Each input gets a random key, and those with the smallest keys are kept. So every input has the same chance, however
many come, and nothing but the names of the files has to be remembered over a restart. A file lies beside its answer:
``DIR/NAME/KEY.jpg`` and ``DIR/NAME/KEY.json``. Nothing that tells the sender is kept: no header, key, name or time of
day.
"""

from __future__ import annotations

import datetime
import io
import logging
import os
import re
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from runtime.errors import InputError
from runtime.media.containers import container
from runtime.media.headers import picture_type
from service.bundles.background import Background
from service.bundles.served import Served
from service.operations.drift import Numbers, distances, telling_numbers

LOG = logging.getLogger("edgedl.service")

MOST, MOST_BYTES = 1_000, 256 << 20
"""Of a bundle: inputs that are kept, and bytes of them with their answers."""

WAITING = 16
"""Inputs that may wait to be written. Where more come, they are not kept: nobody waits for a disk."""

SHARE = 8
"""An input that would take more than this part of the room is not kept: one video must not drive out all the rest."""

RECENT = 256
"""Answers that are compared with the kept ones."""

_KEY = re.compile(r"([0-9a-f]{16})\.json")
_SUFFIXES = {
    "image/jpeg": ".jpg", "image/png": ".png", "image/webp": ".webp", "image/gif": ".gif", "image/bmp": ".bmp",
    "application/x-npy": ".npy",
}  # fmt: skip
_VIDEOS = {"MP4": ".mp4", "Matroska": ".mkv", "AVI": ".avi", "MPEG-TS": ".ts", "Ogg": ".ogv"}

Inputs = Sequence[bytes] | Mapping[str, NDArray[Any]]
"""What a request brought: files as they came, or arrays by name."""


@dataclass(frozen=True, slots=True)
class Recording:
    """What is kept.

    Attributes:
        folder: Where.
        most: Inputs of each bundle.
        bytes: Of each bundle, with the answers.
    """

    folder: Path
    most: int = MOST
    bytes: int = MOST_BYTES

    def to_json(self) -> dict[str, Any]:
        """What ``GET /v1`` says. Where it lies is nobody's business."""
        return {"inputs": self.most, "bytes": self.bytes}


@dataclass(slots=True)
class Shelf:
    """What is kept of one bundle.

    Attributes:
        folder: Where.
        kept: Bytes and numbers by key.
        recent: Numbers of the last answers, kept or not.
        limit: Keys from this one on are not kept any more.
    """

    folder: Path
    kept: dict[str, tuple[int, Numbers]] = field(default_factory=dict)
    recent: deque[Numbers] = field(default_factory=lambda: deque(maxlen=RECENT))
    limit: str = "g"  # after every digit of a key

    @property
    def bytes(self) -> int:
        """Of all that is kept."""
        return sum(size for size, _ in list(self.kept.values()))


@dataclass(frozen=True, slots=True)
class _Kept:
    """One input and its answer, about to be written."""

    shelf: Shelf
    key: str
    inputs: Inputs
    answer: dict[str, Any]
    numbers: Numbers


class Recorder:
    """Keeps inputs and answers of a service; a thread of its own writes them.

    Args:
        recording: What is kept.

    Raises:
        InputError: The folder cannot be written.
    """

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.shelves: dict[str, Shelf] = {}
        self._waiting: Queue[_Kept] = Queue(WAITING)
        self._failed = False
        folder = recording.folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--record {folder}: no inputs can be kept there: {error.strerror or error}") from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise InputError(f"--record {folder}: no inputs can be kept there: it cannot be written")
        self._thread = Background(self._write_all, "edgedl-record")

    def keep(self, one: Served, inputs: Inputs, options: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Notes an answer, and keeps it with its input where the draw says so. This blocks nobody.

        A clip that came as several files is not kept, and neither is an input that is too large, see `SHARE`.
        """
        size = sum(len(data) for data in inputs) if isinstance(inputs, Sequence) else _array_bytes(inputs)
        numbers = telling_numbers(size, result)
        shelf = self._shelf(one.name)
        shelf.recent.append(numbers)
        key = os.urandom(8).hex()
        several = isinstance(inputs, Sequence) and len(inputs) > 1
        if key >= shelf.limit or several or size > self.recording.bytes // SHARE:
            return
        answer = {
            "name": one.name,
            "version": one.version,
            "digest": one.pipeline.bundle.digest,
            "variant": one.pipeline.variant or "fp32",
            "options": dict(options),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "result": dict(result),
        }
        try:
            self._waiting.put_nowait(_Kept(shelf, key, inputs, answer, numbers))
        except Full:
            LOG.debug("bundle %s: an input was not kept, because %d wait already", one.name, WAITING)

    def drift(self, shelf: Shelf) -> dict[str, float]:
        """How far the last answers of a bundle are from the kept ones, see `service.operations.drift.distances`."""
        return distances(list(shelf.recent), [numbers for _, numbers in list(shelf.kept.values())])

    def flush(self) -> None:
        """Waits until what was noted is written."""
        self._waiting.join()

    def close(self) -> None:
        """Ends the thread; what waits is not kept."""
        self._thread.stop()

    def _shelf(self, name: str) -> Shelf:
        shelf = self.shelves.get(name)
        if shelf is None:
            shelf = self.shelves.setdefault(name, Shelf(self.recording.folder / name))
        return shelf

    def _write_all(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            try:
                one = self._waiting.get(timeout=0.2)
            except Empty:
                continue
            try:
                self._write(one)
            except OSError as error:
                if not self._failed:  # a full disk must not fill the log as well
                    LOG.warning("an input cannot be kept: %s", error)
                self._failed = True
            else:
                self._failed = False
            finally:
                self._waiting.task_done()

    def _write(self, one: _Kept) -> None:
        shelf = one.shelf
        if not shelf.kept:
            self._read(shelf)
        if one.key >= shelf.limit:
            return
        data, suffix = _encoded(one.inputs)
        name = f"{one.key}{suffix}"
        answer = orjson.dumps({**one.answer, "file": name}, option=orjson.OPT_SERIALIZE_NUMPY, default=str)
        if len(data) + len(answer) > self.recording.bytes // SHARE:
            return
        write_private(shelf.folder / name, data)
        write_private(shelf.folder / f"{one.key}.json", answer)  # last: an answer without its input is never seen
        shelf.kept[one.key] = len(data) + len(answer), one.numbers
        self._evict(shelf)

    def _read(self, shelf: Shelf) -> None:
        """What an earlier run of the service has kept."""
        shelf.folder.mkdir(mode=0o700, exist_ok=True)
        for path in sorted(shelf.folder.iterdir()):
            found = _KEY.fullmatch(path.name)
            if found is None:
                continue
            try:
                answer = orjson.loads(path.read_bytes())
                input_size = (shelf.folder / answer["file"]).stat().st_size
                numbers = telling_numbers(input_size, answer["result"])
            except (OSError, ValueError, KeyError, TypeError):
                continue  # somebody else's file, or one that was taken away
            shelf.kept[found[1]] = input_size + path.stat().st_size, numbers
        self._evict(shelf)

    def _evict(self, shelf: Shelf) -> None:
        """Takes away the largest keys until the rest is within the limits."""
        total = shelf.bytes
        while shelf.kept and (len(shelf.kept) > self.recording.most or total > self.recording.bytes):
            key = max(shelf.kept)
            total -= shelf.kept.pop(key)[0]
            shelf.limit = min(shelf.limit, key)
            for path in shelf.folder.glob(f"{key}.*"):
                path.unlink(missing_ok=True)


def write_private(path: Path, data: bytes) -> None:
    """Writes a file that its owner alone may read, atomically."""
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _encoded(inputs: Inputs) -> tuple[bytes, str]:
    """The bytes of a file, and how its name ends."""
    if isinstance(inputs, Mapping):
        stream = io.BytesIO()
        np.savez(stream, **inputs)  # type: ignore[arg-type]  # names of arrays
        return stream.getvalue(), ".npz"
    (data,) = inputs
    kind = picture_type(data)
    if kind is not None:
        return data, _SUFFIXES[kind]
    if data.startswith(b"PK"):
        return data, ".npz"
    return data, _VIDEOS.get(container(data) or "", ".video")


def _array_bytes(arrays: Mapping[str, NDArray[Any]]) -> int:
    return sum(np.asarray(array).nbytes for array in arrays.values())
