"""What judges a variant: the metric of a task, through its pipeline, on three parts of the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from runtime.bundle import Bundle
from runtime.pipelines import Pipeline

Part = Literal["calibrate", "choose", "judge"]
"""Ranges of activations are taken from the first part, candidates chosen on the second. The third judges nothing but
the candidate that was chosen. No sample is in two of them."""


P = TypeVar("P", bound=Pipeline)


@dataclass(frozen=True, slots=True)
class Judge(Generic[P]):
    """The metric of a task and the data that it is measured on.

    Attributes:
        dataset: Where the samples are from.
        metric: One of those that `edgedl evaluate` gives, e.g. ``MAE``.
        unit: Of the metric; ``fraction`` where it has none.
        lower_is_better: Whether a smaller value is the better one.
        sizes: How many samples each part has.
        pipeline: Of the task.
        measure: The metric of a pipeline on a part, of its first so many samples where a number is given.
    """

    dataset: str
    metric: str
    unit: str
    lower_is_better: bool
    sizes: Mapping[Part, int]
    pipeline: type[P]
    measure: Callable[[P, Part, int | None], float]

    def open(self, bundle: Bundle, variant: str | None) -> P:
        """Opens a bundle with one thread, in one variant; models that lack it are taken in ``fp32``."""
        return self.pipeline.open(bundle, threads=1, variant=variant)

    def drop(self, before: float, after: float) -> float:
        """By how much the metric became worse; negative where it became better."""
        return after - before if self.lower_is_better else before - after

    def is_vacuous(self, before: float, allowed: float) -> bool:
        """Whether no answers at all could miss the budget: a metric that is best when large cannot fall below 0."""
        return not self.lower_is_better and before <= allowed


SPLITS: Mapping[Part, str] = {"calibrate": "train", "choose": "val", "judge": "test"}


def judge_of_splits(
    dataset: str,
    metric: str,
    sizes: Mapping[Part, int],
    pipeline: type[P],
    measure: Callable[[P, str, int], float],
    *,
    unit: str = "fraction",
    lower_is_better: bool = False,
) -> Judge[P]:
    """A judge on data with the splits train, val and test.

    Args:
        dataset: Its name.
        metric: Of the task.
        sizes: How many samples of each part are used.
        pipeline: Of the task.
        measure: The metric of a pipeline on the first so many samples of a split.
        unit: Of the metric.
        lower_is_better: Whether a smaller value is the better one.
    """

    def on_part(opened: P, part: Part, first: int | None) -> float:
        return measure(opened, SPLITS[part], sizes[part] if first is None else min(first, sizes[part]))

    return Judge(dataset, metric, unit, lower_is_better, sizes, pipeline, on_part)


AnyJudge = Judge[Any]
"""A judge of some pipeline; who only passes it on need not know which."""
