"""The interval that goes with an age: between which ages people of each true age are predicted, read the other way.

The network's distribution tells how sure it is, not how often it is right. A calibrated bundle carries a table in its
manifest instead, and what a caller in any language does with it fits in two lines::

    low  = interp(age, table.most, table.years)
    high = interp(age, table.least, table.years)

`edgedl.tasks.age.intervals` makes the table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from runtime.errors import BundleError
from runtime.fields import Fields, integer, kind_of, mapping_of, number, text

UNCALIBRATED = (
    "The range is what the network itself gives 80 % to. It was not calibrated: far fewer than 80 of 100 true ages may "
    "lie in such ranges."
)
"""What is said where a bundle has no calibrated interval."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """How intervals did on faces that did not make them.

    Attributes:
        coverage: share of the true ages that lie inside.
        width: mean, in years.
        n: faces.
    """

    coverage: float
    width: float
    n: int

    def to_json(self) -> dict[str, float | int]:
        """What the manifest says."""
        return {"coverage": round(self.coverage, 4), "width": round(self.width, 2), "n": self.n}


@dataclass(frozen=True, slots=True)
class Measured:
    """The faces that an interval was calibrated on, and how it did, see `edgedl.tasks.age.intervals.calibrate`.

    Attributes:
        dataset: their data set.
        split: the part of it.
        all: over all of them.
        by_age: for each ten years of true age.
    """

    dataset: str
    split: str
    all: Coverage
    by_age: Mapping[str, Coverage]


@dataclass(frozen=True, slots=True)
class Interval:
    """A calibrated interval.

    Attributes:
        level: share of the true ages that is to lie inside.
        years: (Y,) true ages, ascending.
        least: (Y,) the predictions for people of each of these ages lie above this, in years, ascending ...
        most: (Y,) ... and below this.
        measured: how it did.
    """

    level: float
    years: tuple[float, ...]
    least: tuple[float, ...]
    most: tuple[float, ...]
    measured: Measured

    def ends(self, age: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The youngest and the oldest true age that fit predicted ages of any shape, in years.

        The predicted age itself lies between them: an answer that excludes itself would only puzzle.
        """
        predicted = np.asarray(age, np.float64)
        low, high = (np.interp(predicted, curve, self.years) for curve in (self.most, self.least))
        return np.minimum(low, predicted), np.maximum(high, predicted)

    @property
    def chance(self) -> float:
        """Standard deviation of the share of all true ages inside, had as many other faces calibrated it."""
        return math.sqrt(self.level * (1 - self.level) / max(self.measured.all.n, 1))

    def told(self) -> str:
        """What it promises, in a sentence for people."""
        where = self.measured
        chance = float(f"{100 * self.chance:.1g}")  # one digit, and never with an exponent
        return (
            f"The range holds {100 * self.level:g} ± {chance:g} % of the true ages on faces like those "
            f"that it was calibrated on ({where.all.n:,} of {where.dataset})."
        )

    def to_json(self) -> dict[str, Any]:
        """What the manifest says."""
        where = self.measured
        return {
            "level": self.level,
            "years": list(self.years),
            "least": list(self.least),
            "most": list(self.most),
            "measured": {
                "dataset": where.dataset,
                "split": where.split,
                **where.all.to_json(),
                "by_age": {band: found.to_json() for band, found in where.by_age.items()},
            },
        }


def parse_interval(value: Any, where: str = "pipeline.interval") -> Interval:
    """Reads what `Interval.to_json` gives.

    Raises:
        BundleError: a key is missing or of the wrong type, the level is no share, or the curves cannot be.
    """
    part = Fields(value, where)
    interval = Interval(
        level=part.take("level", number),
        years=part.take("years", _ascending),
        least=part.take("least", _ascending),
        most=part.take("most", _ascending),
        measured=part.take("measured", _measured),
    )
    part.finish()
    if not 0 < interval.level < 1:
        raise BundleError(f"manifest.json: {where}.level is {interval.level:g}, expected a share between 0 and 1")
    if len({len(interval.years), len(interval.least), len(interval.most)}) > 1:
        raise BundleError(f"manifest.json: {where}: years, least and most differ in their length")
    if any(least > most for least, most in zip(interval.least, interval.most, strict=True)):
        raise BundleError(f"manifest.json: {where}: least is above most")
    return interval


def _measured(value: Any, where: str) -> Measured:
    part = Fields(value, where)
    measured = Measured(
        dataset=part.take("dataset", text),
        split=part.take("split", text),
        all=_take_coverage(part),
        by_age=part.take("by_age", mapping_of(_coverage), default={}),
    )
    part.finish()
    return measured


def _coverage(value: Any, where: str) -> Coverage:
    part = Fields(value, where)
    found = _take_coverage(part)
    part.finish()
    return found


def _take_coverage(part: Fields) -> Coverage:
    return Coverage(part.take("coverage", number), part.take("width", number), part.take("n", integer))


def _ascending(value: Any, where: str) -> tuple[float, ...]:
    """At least two numbers that ascend; predictions may lie below 0, true ages do not."""
    if not isinstance(value, list) or len(value) < 2:
        raise BundleError(f"manifest.json: {where} is {kind_of(value)}, expected a list of at least two ages")
    for index, item in enumerate(value):
        if isinstance(item, bool) or not isinstance(item, int | float) or not math.isfinite(item):
            raise BundleError(f"manifest.json: {where}[{index}] is {kind_of(item)}, expected a finite number")
    if any(after <= before for before, after in pairwise(value)):
        raise BundleError(f"manifest.json: {where} does not ascend")
    return tuple(map(float, value))
