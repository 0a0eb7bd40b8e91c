"""Judges a digits bundle on digits that are known: accuracy and confusion counts. Needs no torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedl.data.digits import CLASSES, NAME, Digits, embedded_digits
from exporters.quantize.judge import SPLITS, Judge, judge_of_splits
from runtime.pipelines.digits import DigitsPipeline


def confusion(labels: NDArray[np.int64], found: NDArray[np.int64], classes: int = CLASSES) -> NDArray[np.int64]:
    """Counts (classes, classes): how often the row's digit was taken for the column's."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, found), 1)
    return counts


def judge_digits(most: int | None = None) -> Judge[DigitsPipeline]:
    """The accuracy on the embedded digits, for `edgedl quantize`."""

    def measure(pipeline: DigitsPipeline, split: str, first: int) -> float:
        value: float = evaluate_digits(pipeline, split, first)["metrics"]["accuracy"]
        return value

    held = {part: len(embedded_digits(split)) for part, split in SPLITS.items()}
    sizes = held | {"judge": min(held["judge"], most or held["judge"])}
    return judge_of_splits(NAME, "accuracy", sizes, DigitsPipeline, measure)


def evaluate_digits(pipeline: DigitsPipeline, split: str, first: int | None = None) -> dict[str, Any]:
    """Reads the digits of a part with the bundle, in the resolution of the data.

    Args:
        pipeline: the bundle.
        split: ``test``, ``val``, ``train`` or ``all``.
        first: how many of the part; None reads all.

    Returns:
        {"n", "dataset", "split", "metrics": {"accuracy", "nats"}, "confusion": {digit: {digit: count}}}; ``nats`` is
        the mean -log of the probability that the right digit got.

    Raises:
        InputError: there is no such part.
    """
    part = embedded_digits(split)
    if first is not None:
        part = Digits(part.pixels[:first], part.labels[:first])
    answers = pipeline.read(list(part.pixels))
    found = np.array([answer["digit"] for answer in answers])
    probabilities = np.stack([answer["probabilities"] for answer in answers]).astype(np.float64)
    right = probabilities[np.arange(len(part)), part.labels]
    counts = confusion(part.labels, found)
    return {
        "n": len(part),
        "dataset": NAME,
        "split": split,
        "metrics": {
            "accuracy": float((found == part.labels).mean()),
            "nats": float(-np.log(np.maximum(right, np.finfo(np.float32).tiny)).mean()),
        },
        "confusion": {
            str(row): {str(column): int(count) for column, count in enumerate(columns)}
            for row, columns in enumerate(counts)
        },
    }
