"""Faces as a format's reader finds them: what can be used, and why the rest cannot."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from edgedl.data.samples import FaceDataset, FaceSample, with_split
from edgedl.data.sources import Source
from runtime.errors import InputError

OLDEST = 120
"""Years. The oldest person whose age was proven reached 122; the oldest in any of these sets is 116."""

MISSING = "the picture is not there"


class FaceGathering:
    """Collects the faces of a data set, and counts what is left out under its reason.

    Args:
        name: of the data set.
        source: where its files lie.
        expected: what the files look like, after "expected".
    """

    def __init__(self, name: str, source: Source, expected: str) -> None:
        self.name, self.source, self.expected = name, source, expected
        self._present = frozenset(source.names())
        self._samples: dict[str, FaceSample] = {}
        self._contradicted: set[str] = set()
        self._skipped: dict[str, int] = {}
        self._missing: list[str] = []

    def skip(self, reason: str) -> None:
        """One more entry left out for this reason."""
        self._skipped[reason] = self._skipped.get(reason, 0) + 1

    def add(self, sample: FaceSample) -> None:
        """One more face, unless its age cannot be, its picture is not there, or it was there before."""
        known = self._samples.get(sample.name)
        if not 0 <= sample.age <= OLDEST:
            self.skip(f"the age is outside 0 to {OLDEST}")
        elif sample.member not in self._present:
            self._missing.append(sample.member)
        elif known is None:
            self._samples[sample.name] = sample
        else:
            self.skip("the same picture again")
            if known.age != sample.age:
                self._contradicted.add(sample.name)

    def dataset(self, notes: Iterable[str], *, held_out_by: Literal["name", "subject"] | None = None) -> FaceDataset:
        """The faces that can be used.

        Args:
            notes: how ages and splits are meant.
            held_out_by: what decides which tenth is validation, see `with_split`; None: the samples say it themselves.

        Raises:
            InputError: there is none.
        """
        for name in self._contradicted:
            del self._samples[name]
            self.skip("the same picture has two ages")
        if self._missing:
            self._skipped[MISSING] = len(self._missing)
        if not self._samples:
            raise InputError(self._nothing())
        samples = tuple(self._samples.values())
        if held_out_by is not None:
            samples = with_split(samples, by=held_out_by)
        return FaceDataset(self.name, samples, self._skipped, tuple(notes))

    def _nothing(self) -> str:
        """Why no face is left."""
        path, found = self.source.path, f"expected {self.expected}"
        if not self._skipped:
            return f"the tables of {self.name} in {path} name no picture; {found}: copy the data set again"
        if len(self._skipped) == 1 and self._missing:
            return (
                f"{path} holds the labels of {self.name} but not the pictures: {len(self._missing):,} are named, such"
                f" as {self._missing[0]}, and none is there; {found}: put the pictures there"
            )
        reasons = ", ".join(f"{reason} ({count:,})" for reason, count in self._skipped.items())
        return f"{path} holds no face of {self.name} that can be used: {reasons}; {found}"
