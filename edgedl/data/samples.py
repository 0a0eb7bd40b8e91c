"""The record that every face data set gives, and the set of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from edgedl.data.splits import held_out
from runtime.errors import InputError
from runtime.media.pictures import read_image

if TYPE_CHECKING:
    from edgedl.data.sources import Source

Attribute = str | int | float | bool


@dataclass(frozen=True, slots=True)
class FaceSample:
    """One picture of one face whose age is known.

    Attributes:
        name: unique in its data set and the same in a folder and in a zip.
        age: years; what kind (real, apparent, a bin's middle) is said by the data set's notes.
        source: where the bytes lie.
        member: the name in the source.
        split: "train", "val" or "test".
        subject: who it is, where the data set tells people apart.
        box: the face in pixels x1, y1, x2, y2, as edges (x2 - x1 is the width); None where the whole picture is
            the face.
        attributes: what else the data set says; gender is always "female" or "male".
    """

    name: str
    age: float
    source: Source
    member: str
    split: str = "train"
    subject: str | None = None
    box: tuple[float, float, float, float] | None = None
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    def read(self) -> bytes:
        """The file's bytes.

        Raises:
            InputError: the file is gone or damaged.
        """
        return self.source.read(self.member)


@dataclass(frozen=True, slots=True)
class FaceDataset:
    """Faces with their ages.

    Attributes:
        name: the data set, e.g. "utkface".
        samples: what can be used.
        skipped: why other files were left out, and how many; empty when nothing was.
        notes: how the ages and splits are meant, one sentence each.
    """

    name: str
    samples: tuple[FaceSample, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[FaceSample]:
        return iter(self.samples)

    def __getitem__(self, index: int) -> FaceSample:
        return self.samples[index]

    @property
    def ages(self) -> NDArray[np.float32]:
        """Years, (n,)."""
        return np.array([sample.age for sample in self.samples], np.float32)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that hold at least one sample, in the order train, val, test."""
        present = {sample.split for sample in self.samples}
        return tuple(name for name in ("train", "val", "test") if name in present)

    def image(self, index: int) -> NDArray[np.uint8]:
        """The picture, decoded.

        Args:
            index: 0 … n-1.

        Returns:
            uint8 RGB, (H, W, 3).

        Raises:
            MediaError: the file is not an image.
            InputError: the file cannot be read.
        """
        return read_image(self.samples[index].read())

    def split(self, name: str) -> Self:
        """The samples of one split.

        Args:
            name: "train", "val" or "test", as far as the data set has them, or "all".

        Raises:
            InputError: the data set has no such split.
        """
        if name == "all":
            return self
        if name not in self.splits:
            have = ", ".join((*self.splits, "all"))
            raise InputError(f"the data set {self.name} has no split {name!r}; it has: {have}")
        return self.take([row for row, sample in enumerate(self.samples) if sample.split == name])

    def take(self, rows: Sequence[int]) -> Self:
        """The samples of some rows, in their order."""
        chosen = copy(self)  # not replace(): a subclass may be made from other things than these fields
        object.__setattr__(chosen, "samples", tuple(self.samples[row] for row in rows))
        return chosen

    def summary(self) -> str:
        """What was read and what was left out, a line each."""
        shares = ", ".join(f"{sum(s.split == name for s in self.samples):,} {name}" for name in self.splits)
        lines = [f"{self.name}: {len(self):,} faces" + (f" ({shares})" if shares else "")]
        lines += [f"  left out {count:,}: {reason}" for reason, count in self.skipped.items()]
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def with_split(samples: Sequence[FaceSample], *, by: str) -> tuple[FaceSample, ...]:
    """Hold out a tenth as validation (see ``edgedl.data.splits``).

    Args:
        samples: in any order.
        by: "name" (each picture for itself) or "subject" (all pictures of a person on one side).
    """
    keys = [(sample.subject or sample.name) if by == "subject" else sample.name for sample in samples]
    validation = held_out(keys)
    return tuple(
        replace(sample, split="val" if key in validation else "train")
        for sample, key in zip(samples, keys, strict=True)
    )
