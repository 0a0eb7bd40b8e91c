"""Which samples are validation, where a data set does not say so itself.

The rule: a tenth, decided by SHA-256 of a key, so that it depends neither on the order of the files nor on a random
generator nor on the machine, and most decisions stay when samples are added. The key is the file's name; where one
person has many pictures (FG-NET, AgeDB, IMDB-WIKI) it is the person, because a network that has seen somebody at 30 is
not tested by that person at 31.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Protocol

from runtime.errors import InputError


def held_out(keys: Iterable[str]) -> frozenset[str]:
    """The tenth of the distinct keys that is validation.

    Args:
        keys: names of files or of people, repeated as often as they like.

    Returns:
        The ``round(n / 10)`` keys with the smallest SHA-256 out of n distinct ones; at least one from two on, so that a
        small set can be tried out.
    """
    # A lone surrogate, which a table may hold, is no reason to fail.
    distinct = sorted(set(keys), key=lambda key: hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest())
    count = round(len(distinct) / 10)
    if count == 0 and len(distinct) >= 2:
        count = 1
    return frozenset(distinct[:count])


def set_apart(keys: Iterable[str], share: float, purpose: str) -> frozenset[str]:
    """Keys for a purpose of their own, decided by SHA-256 like the validation's, but in an order of their own.

    Args:
        keys: names of files or of people, repeated as often as they like.
        share: of the distinct keys, from 0 to below 1.
        purpose: decides the order, so that two purposes take different keys.
    """
    distinct = sorted(
        set(keys), key=lambda key: hashlib.sha256(f"{purpose} {key}".encode("utf-8", "surrogatepass")).digest()
    )
    return frozenset(distinct[: round(len(distinct) * share)])


class Splittable(Protocol):
    """A data set with splits."""

    @property
    def name(self) -> str:
        """The data set."""
        ...

    @property
    def splits(self) -> tuple[str, ...]:
        """Those that hold at least one sample."""
        ...


def require_training_parts(dataset: Splittable) -> None:
    """Refuses a data set that has nothing to learn from, or nothing to choose the best epoch by.

    Raises:
        InputError: it lacks the split "train" or "val".
    """
    lacking = [f"no split {split!r}" for split in ("train", "val") if split not in dataset.splits]
    if lacking:
        raise InputError(
            f"the data set {dataset.name} has {' and '.join(lacking)}; it has: {', '.join((*dataset.splits, 'all'))};"
            " training needs both (where a set has no lists of splits, a tenth of at least two is validation)"
        )
