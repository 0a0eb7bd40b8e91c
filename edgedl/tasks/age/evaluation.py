"""Judges an age bundle on faces of known age: the pipeline as deployed, or the network alone. Needs no torch."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedl.data.samples import FaceDataset
from edgedl.tasks.age.data.face_crops import chosen_face
from runtime.pipelines.age import AgePipeline
from runtime.threads import default_threads

BAND = 10
"""Width in years of the bands of the MAE per age."""

LAST_BAND = 80
CLOSE = 5.0
"""CS@5 is the share of errors of at most so many years."""


def age_metrics(predicted: NDArray[np.floating[Any]], ages: NDArray[np.floating[Any]]) -> dict[str, float]:
    """MAE in years and CS@5 as a fraction, of (n,) predictions and true ages."""
    errors = np.abs(np.asarray(predicted, np.float64) - np.asarray(ages, np.float64))
    return {"MAE": float(errors.mean()), "CS@5": float((errors <= CLOSE).mean())}


def error_by_age(
    predicted: NDArray[np.floating[Any]], ages: NDArray[np.floating[Any]]
) -> dict[str, dict[str, float | int]]:
    """MAE, bias (mean of predicted minus true) and count per ten years of true age: {"0-9": …, …, "80+": …}."""
    errors = np.asarray(predicted, np.float64) - np.asarray(ages, np.float64)
    bands = np.minimum(np.floor_divide(ages, BAND).astype(np.int64) * BAND, LAST_BAND)
    table: dict[str, dict[str, float | int]] = {}
    for band in np.unique(bands):
        inside = errors[bands == band]
        label = f"{band}+" if band == LAST_BAND else f"{band}-{band + BAND - 1}"
        table[label] = {"MAE": float(np.abs(inside).mean()), "bias": float(inside.mean()), "n": len(inside)}
    return table


def evaluate_ages(pipeline: AgePipeline, dataset: FaceDataset, *, aligned: bool) -> dict[str, Any]:
    """Predicts every face of a data set.

    Args:
        pipeline: the bundle; open it with one thread per model, the pictures run side by side.
        dataset: the faces.
        aligned: the network alone, on each picture as it is. Otherwise the whole pipeline, and a picture in which no
            face is found is counted and judged as a whole, as DEX does.

    Returns:
        {"n", "dataset", "mode", "metrics": {"MAE", "CS@5"}, "not_found", "by_age": {band: {"MAE", "bias", "n"}}}

    Raises:
        InputError: a picture cannot be read.
    """

    def one(index: int) -> tuple[float, bool]:
        image = dataset.image(index)
        face = None if aligned else chosen_face(pipeline, image, dataset[index])
        crop = image if face is None else pipeline.settings.crop(image, face)
        return float(pipeline.ages([crop])[0]["age"]), face is not None

    with ThreadPoolExecutor(default_threads()) as pool:
        answers = list(pool.map(one, range(len(dataset))))
    predicted = np.array([age for age, _ in answers])
    result: dict[str, Any] = {
        "n": len(dataset),
        "dataset": dataset.name,
        "mode": "aligned faces, network alone" if aligned else "whole pipeline",
        "metrics": age_metrics(predicted, dataset.ages),
    }
    if not aligned:
        result["not_found"] = sum(not found for _, found in answers)
    result["by_age"] = error_by_age(predicted, dataset.ages)
    return result
