"""The 1,797 handwritten digits of scikit-learn (Alpaydin and Kaynak 1998): 8×8 pixels, 17 levels, 13 writers.

Each was a bitmap of 32×32 points, normalised in size; a pixel counts the points set in a block of 4×4. A fifth is the
test part, split off before anything else is done with the data. Of the rest a tenth is for validation: it chooses the
epoch that is kept.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError, MissingExtraError

NAME = "sklearn-digits"
CLASSES = 10
SIDE = 8
LEVELS = 16

SPLITS = ("train", "val", "test", "all")
Split = Literal["train", "val", "test", "all"]
TEST, VALIDATION = 5, 10
"""One in so many of each class is for test, and one in so many of the others of that class for validation."""


@dataclass(frozen=True, slots=True, eq=False)
class Digits:
    """A part of the digits.

    Attributes:
        pixels: (n, 8, 8, 3) uint8, bright ink on black, R = G = B: what a bundle takes.
        labels: (n,) int64, which digit each is.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


def embedded_digits(split: str) -> Digits:
    """A part of the embedded digits, in their own order.

    Args:
        split: ``train``, ``val``, ``test`` or ``all``.

    Raises:
        InputError: there is no such part.
        MissingExtraError: scikit-learn is not installed.
    """
    if split not in SPLITS:
        raise InputError(f"the embedded digits have no part {split!r}; there is {', '.join(SPLITS)}")
    levels, labels = _load()
    rows = np.arange(len(labels)) if split == "all" else split_rows(labels)[split]
    grey = (levels[rows] * 255 + LEVELS // 2) // LEVELS
    return Digits(np.repeat(grey[..., None], 3, axis=3).astype(np.uint8), labels[rows])


def split_rows(labels: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Stratified parts, the same everywhere and forever: decided class by class by SHA-256 of the rows' numbers.

    Args:
        labels: (n,).

    Returns:
        Rows of ``train``, ``val`` and ``test``, ascending; every row is in one of them.
    """
    parts: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for label in np.unique(labels):
        rows = sorted(np.flatnonzero(labels == label).tolist(), key=_order)
        test = round(len(rows) / TEST)
        validation = round((len(rows) - test) / VALIDATION)
        parts["test"] += rows[:test]
        parts["val"] += rows[test : test + validation]
        parts["train"] += rows[test + validation :]
    return {name: np.array(sorted(rows), np.int64) for name, rows in parts.items()}


def _order(row: int) -> bytes:
    return hashlib.sha256(f"digit-{row:04d}".encode()).digest()


@cache
def _load() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Levels 0 … 16 (n, 8, 8) and labels (n,)."""
    try:
        from sklearn.datasets import load_digits  # lazily: only this data needs it
    except ModuleNotFoundError as error:
        raise MissingExtraError("scikit-learn", "train") from error
    loaded = load_digits()
    levels, labels = loaded.images.astype(np.int64), loaded.target.astype(np.int64)
    for array in (levels, labels):
        array.flags.writeable = False  # everybody gets the same ones
    return levels, labels
