"""The record that every caption data set gives, and the set of them. A photo is a clip of one frame."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgedl.data.sources import FolderSource, stamp
from runtime.errors import InputError
from runtime.media.clips import read_frames
from runtime.media.frames import FrameSampling

if TYPE_CHECKING:
    from edgedl.data.sources import Source

SPLITS = ("train", "val", "test")
ALIASES = {"dev": "val"}
"""Other names that people know splits by."""

EIGHT_FRAMES = FrameSampling.even(8)
READER = 2
"""Raised whenever the same file gives other pixels than before: features that were kept are then made anew."""


@dataclass(frozen=True, slots=True)
class CaptionedClip:
    """One photo or video with what people said of it.

    Attributes:
        name: unique in its data set and the same in a folder and in a zip.
        captions: as they were written, at least one; each has a word.
        source: where the bytes lie.
        member: the name in the source.
        split: "train", "val" or "test"; None where the data set's own lists leave the clip out.
    """

    name: str
    captions: tuple[str, ...]
    source: Source
    member: str
    split: str | None = "train"


@dataclass(frozen=True, slots=True)
class CaptionDataset:
    """Photos or videos with their captions.

    Attributes:
        name: the data set, e.g. "flickr8k".
        clips: what can be used.
        skipped: why other entries were left out, and how many; empty when nothing was.
        notes: how the captions and splits are meant, one sentence each.
        sampling: which frames of a video `frames` gives.
        shorter: a frame whose shorter side is longer than this, in pixels, is reduced by a whole factor; None: never.
    """

    name: str
    clips: tuple[CaptionedClip, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    sampling: FrameSampling = EIGHT_FRAMES
    shorter: int | None = None

    def __len__(self) -> int:
        return len(self.clips)

    def clip_name(self, index: int) -> str:
        """The clip's name in the data set."""
        return self.clips[index].name

    def captions(self, index: int) -> tuple[str, ...]:
        """Everything that people said of a clip, as written."""
        return self.clips[index].captions

    def media(self, index: int) -> Path | bytes:
        """What a captioning pipeline takes: the file's path, or its bytes where it lies in a zip.

        Raises:
            InputError: the file cannot be read.
        """
        clip = self.clips[index]
        if isinstance(clip.source, FolderSource):
            return clip.source.file(clip.member)
        return clip.source.read(clip.member)

    def frames(self, index: int) -> NDArray[np.uint8]:
        """The frames that `sampling` takes, decoded.

        Args:
            index: 0 … n-1.

        Returns:
            uint8 RGB, (T, H, W, 3); T is 1 for a photo.

        Raises:
            MediaError: the file is neither photo nor video, or damaged.
            InputError: the file cannot be read.
        """
        return read_frames(self.media(index), self.sampling, shorter=self.shorter).pixels

    @property
    def identity(self) -> str:
        """Changes with everything that `frames` depends on: the clips, their files, and how they are sampled."""
        files = [(clip.name, *stamp(clip.source, clip.member)) for clip in self.clips]
        document = json.dumps([READER, self.name, files, self.sampling.to_json(), self.shorter])
        return hashlib.sha256(document.encode()).hexdigest()

    def sampled(self, sampling: FrameSampling, *, shorter: int | None = None) -> CaptionDataset:
        """The same clips, other frames of them."""
        return replace(self, sampling=sampling, shorter=shorter)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that hold at least one clip, in the order train, val, test."""
        present = {clip.split for clip in self.clips}
        return tuple(name for name in SPLITS if name in present)

    def split(self, name: str) -> CaptionDataset:
        """The clips of one split.

        Args:
            name: "train", "val" (or "dev") or "test", as far as the data set has them, or "all".

        Raises:
            InputError: the data set has no such split.
        """
        if name == "all":
            return self
        wanted = ALIASES.get(name, name)
        if wanted not in self.splits:
            have = ", ".join((*self.splits, "all"))
            raise InputError(f"the data set {self.name} has no split {name!r}; it has: {have}")
        return self.take([row for row, clip in enumerate(self.clips) if clip.split == wanted])

    def take(self, rows: Sequence[int]) -> CaptionDataset:
        """The clips of some rows, in their order."""
        return replace(self, clips=tuple(self.clips[row] for row in rows))

    def held_out(self) -> list[int]:
        """The rows that training does not learn from."""
        return [row for row, clip in enumerate(self.clips) if clip.split != "train"]

    def summary(self) -> str:
        """What was read and what was left out, a line each."""
        shares = [f"{sum(clip.split == name for clip in self.clips):,} {name}" for name in self.splits]
        loose = sum(clip.split is None for clip in self.clips)
        shares += [f"{loose:,} in no split"] if loose else []
        captions = sum(len(clip.captions) for clip in self.clips)
        lines = [f"{self.name}: {len(self):,} clips with {captions:,} captions ({', '.join(shares) or 'none'})"]
        lines += [f"  left out {count:,}: {reason}" for reason, count in self.skipped.items()]
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])
