"""Whether what a service is asked today is like what it was asked before.

Of each answer a few numbers are noted. The last ones are compared with those of the sample that was kept, by the
distance of Kolmogorov and Smirnov: the largest difference between the shares that lie below a value. It needs no bins
and no idea of the numbers; 0 is alike, 1 is apart. By chance alone, 256 numbers and 1,000 of the same kind are more
than 0.12 apart once in a hundred times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Numbers = Mapping[str, tuple[float, ...]]
"""By what they are of: ``bytes`` of the input, ``found`` (how many faces), ``age``, ``score``, ``probability``, and
``mean`` of a graph's outputs."""

LEAST = 32
"""Of each side; fewer say nothing."""

_NAMES = ("age", "score", "probability")


def telling_numbers(size: int, result: Mapping[str, Any]) -> Numbers:
    """The numbers of one answer.

    Args:
        size: Bytes of the input.
        result: The pipeline's answer.
    """
    numbers: dict[str, tuple[float, ...]] = {"bytes": (float(size),)}
    found = result.get("faces")
    rows = found if isinstance(found, list) else [result]
    if isinstance(found, list):
        numbers["found"] = (float(len(found)),)
    for name in _NAMES:
        values = tuple(float(row[name]) for row in rows if isinstance(row.get(name), int | float))
        if values:
            numbers[name] = values
    outputs = result.get("outputs")
    if isinstance(outputs, Mapping):
        arrays = (np.asarray(value) for value in outputs.values())
        means = tuple(float(array.mean()) for array in arrays if array.size and array.dtype.kind in "fiub")
        numbers["mean"] = tuple(mean for mean in means if np.isfinite(mean))
    return numbers


def distances(recent: Sequence[Numbers], kept: Sequence[Numbers]) -> dict[str, float]:
    """The distance of the last answers from the kept ones, by what the numbers are of."""
    found = {}
    for name in dict.fromkeys(name for numbers in recent for name in numbers):
        here, there = (
            np.sort([value for numbers in side for value in numbers.get(name, ())]) for side in (recent, kept)
        )
        if min(len(here), len(there)) >= LEAST:
            found[name] = distance(here, there)
    return found


def distance(first: Any, second: Any) -> float:
    """The statistic of Kolmogorov and Smirnov for two sorted samples."""
    places = np.concatenate([first, second])
    below = [np.searchsorted(sample, places, side="right") / len(sample) for sample in (first, second)]
    return float(np.abs(below[0] - below[1]).max())
