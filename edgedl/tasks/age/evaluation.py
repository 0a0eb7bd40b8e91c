"""Judges an age bundle on faces of known age: the pipeline as deployed, or the network alone. Needs no torch."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedl.data.parts import JUDGE, three_parts
from edgedl.data.samples import FaceDataset
from edgedl.data.unreadable import Unreadable
from edgedl.tasks.age.data.face_crops import chosen_face
from exporters.quantize.judge import Judge, Part
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


def judge_ages(dataset: FaceDataset, most: int | None = None) -> Judge[AgePipeline]:
    """The MAE of the whole pipeline on three parts of a data set; those held out from training judge.

    Raises:
        InputError: there are too few faces.
    """
    held_out = [sample.split != "train" for sample in dataset]
    rows = three_parts([sample.name for sample in dataset], held_out, most or JUDGE)
    parts = {part: dataset.take(chosen) for part, chosen in rows.items()}

    def measure(pipeline: AgePipeline, part: Part, first: int | None) -> float:
        faces = parts[part].take(range(len(parts[part]))[:first])
        unreadable = Unreadable(faces.name, len(faces))
        value: float = evaluate_ages(pipeline, faces, aligned=False, unreadable=unreadable)["metrics"]["MAE"]
        return value

    sizes = {part: len(faces) for part, faces in parts.items()}
    return Judge(dataset.name, "MAE", "year", True, sizes, AgePipeline, measure)


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


def evaluate_ages(
    pipeline: AgePipeline, dataset: FaceDataset, *, aligned: bool, unreadable: Unreadable | None = None
) -> dict[str, Any]:
    """Predicts every face of a data set.

    Args:
        pipeline: the bundle; open it with one thread per model, the pictures run side by side.
        dataset: the faces.
        aligned: the network alone, on each picture as it is. Otherwise the whole pipeline, and a picture in which no
            face is found is counted and judged as a whole, as DEX does.
        unreadable: takes what cannot be read; None: every picture must be readable.

    Returns:
        {"n", "dataset", "mode", "metrics": {"MAE", "CS@5"}, "not_found", "by_age": {band: {"MAE", "bias", "n"}}}

    Raises:
        InputError: too many pictures cannot be read, or all.
    """
    if unreadable is None:
        unreadable = Unreadable(dataset.name, len(dataset), share=0)

    def one(index: int) -> tuple[float, bool] | None:
        image = unreadable.attempt(dataset[index].name, partial(dataset.image, index))
        if image is None:
            return None
        face = None if aligned else chosen_face(pipeline, image, dataset[index])
        crop = image if face is None else pipeline.settings.crop(image, face)
        return float(pipeline.ages([crop])[0]["age"]), face is not None

    with ThreadPoolExecutor(default_threads()) as pool:
        tried = list(pool.map(one, range(len(dataset))))
    rows = [row for row, answer in enumerate(tried) if answer is not None]
    answers = [answer for answer in tried if answer is not None]
    unreadable.check({f"faces of {dataset.name}": len(rows)})
    predicted, ages = np.array([age for age, _ in answers]), dataset.ages[rows]
    result: dict[str, Any] = {
        "n": len(rows),
        "dataset": dataset.name,
        "mode": "aligned faces, network alone" if aligned else "whole pipeline",
        "metrics": age_metrics(predicted, ages),
    }
    if not aligned:
        result["not_found"] = sum(not found for _, found in answers)
    result["by_age"] = error_by_age(predicted, ages)
    return result
