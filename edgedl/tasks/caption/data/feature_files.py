"""The features of one view of a data set's clips on disk: written clip by clip, taken up after an interruption.

=================  ==========================================================================
file               content
=================  ==========================================================================
``VIEW.float16``   (ΣT, P, F) float16, the frames of all clips one after the other
``VIEW.counts``    (clips,) int64, frames of each clip; its presence says that both are whole
``VIEW.partial``   the features while they grow
``VIEW.written``   the counts while they grow; an entry vouches for its features
=================  ==========================================================================
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

Features = NDArray[np.float16]
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FeatureFile:
    """Where the features of one view lie.

    Attributes:
        folder: holds the files.
        view: their name.
        places: P, of a frame.
        features: F, of a place.
    """

    folder: Path
    view: str
    places: int
    features: int

    @property
    def frame_bytes(self) -> int:
        """What a frame takes."""
        return self.places * self.features * np.dtype(np.float16).itemsize

    def read(self, clips: int) -> tuple[Features, Counts] | None:
        """The features (ΣT, P, F) as a memory map and the counts (clips,); None where they are not whole."""
        path, data = self._path("counts"), self._path("float16")
        if not path.is_file():
            return None
        counts = np.fromfile(path, np.int64)
        frames = int(counts.sum())
        size = data.stat().st_size if data.is_file() else 0
        if len(counts) != clips or frames == 0 or size != frames * self.frame_bytes:
            log.warning("the features %s are damaged and are computed again", data)
            self.discard()
            return None
        return np.memmap(data, np.float16, "r", shape=(frames, self.places, self.features)), counts

    def written(self) -> Counts:
        """The counts of the clips that an interrupted run left whole."""
        path, data = self._path("written"), self._path("partial")
        if not (path.is_file() and data.is_file()):
            return np.zeros(0, np.int64)
        counts = np.frombuffer(_whole_entries(path.read_bytes()), np.int64)
        whole = np.cumsum(counts) * self.frame_bytes <= data.stat().st_size
        return counts[: int(whole.sum())]

    @contextmanager
    def growing(self, clips: int) -> Iterator[FeatureWriter]:
        """Opens the files behind their first clips; what stands after those is cut off. Left as it is on an error."""
        counts = self.written()[:clips]
        path, data = self._path("written"), self._path("partial")
        with data.open("ab") as features_file, path.open("ab") as counts_file:
            features_file.truncate(int(counts.sum()) * self.frame_bytes)
            counts_file.truncate(counts.nbytes)
            yield FeatureWriter(features_file, counts_file)
            for file in (features_file, counts_file):
                file.flush()
                os.fsync(file.fileno())
        data.replace(self._path("float16"))
        path.replace(self._path("counts"))

    def discard(self) -> None:
        """Deletes all of it."""
        for kind in ("counts", "float16", "written", "partial"):
            self._path(kind).unlink(missing_ok=True)

    def _path(self, kind: str) -> Path:
        return self.folder / f"{self.view}.{kind}"


@dataclass(frozen=True, slots=True)
class FeatureWriter:
    """The two open files of a view."""

    features: BinaryIO
    counts: BinaryIO

    def append(self, clips: Sequence[Features]) -> None:
        """Adds the features (T, P, F) of the next clips."""
        for clip in clips:
            self.features.write(clip.tobytes())
        self.features.flush()
        self.counts.write(np.array([len(clip) for clip in clips], np.int64).tobytes())
        self.counts.flush()


def _whole_entries(data: bytes) -> bytes:
    return data[: len(data) // 8 * 8]
