"""Judges an age bundle on faces of known age: the pipeline as deployed, or the network alone. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedl.data.parts import JUDGE, three_parts
from edgedl.data.samples import FaceDataset
from edgedl.data.spreading import Elsewhere, answered, pieces_of
from edgedl.data.unreadable import Unreadable
from edgedl.tasks.age.data.face_crops import chosen_face
from edgedl.tasks.age.intervals import age_bands, coverage
from edgedl.tasks.age.stability import CHANGES, moved
from exporters.quantize.judge import Judge, Part
from runtime.errors import InputError
from runtime.faces import Pixels
from runtime.pipelines.age import AgePipeline

Years = NDArray[np.float64]

TOGETHER = 16
"""Faces that a process is given at a time."""

CLOSE = 5.0
"""CS@5 is the share of errors of at most so many years."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a pipeline answers to the faces of a data set that can be read.

    Attributes:
        rows: (n,) which samples they are, ascending.
        age: (n,) in years.
        low: (n,) lower ends of the intervals.
        high: (n,) upper ends.
        found: (n,) whether a face was found; where none was, the picture was judged as a whole, as DEX does.
        truth: (n,) true ages.
    """

    rows: NDArray[np.int64]
    age: Years
    low: Years
    high: Years
    found: NDArray[np.bool_]
    truth: Years

    def errors(self) -> Years:
        """Predicted minus true, (n,) in years."""
        return self.age - self.truth

    def figures(self) -> dict[str, float]:
        """MAE with its standard error, CS@5, and how many true ages the intervals hold at which mean width."""
        size = np.abs(self.errors())
        held = coverage(self.low, self.high, self.truth)
        return {
            "MAE": float(size.mean()),
            "MAE standard error": standard_error(size),
            "CS@5": float((size <= CLOSE).mean()),
            "coverage": held.coverage,
            "width": held.width,
        }

    def group(self, chosen: NDArray[np.bool_]) -> dict[str, float | int]:
        """The figures of some of the faces: a row of a table."""
        errors = self.errors()[chosen]
        held = coverage(self.low[chosen], self.high[chosen], self.truth[chosen])
        return {
            "MAE": float(np.abs(errors).mean()),
            "standard error": standard_error(np.abs(errors)),
            "bias": float(errors.mean()),
            "coverage": held.coverage,
            "width": held.width,
            "n": len(errors),
        }


def standard_error(values: Years) -> float:
    """Of the mean of (n,) values; infinite for a single one, of which it cannot be told."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("inf")


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


def predict_faces(
    pipeline: AgePipeline,
    dataset: FaceDataset,
    *,
    aligned: bool = False,
    unreadable: Unreadable | None = None,
    change: Callable[[Pixels], Pixels] | None = None,
    elsewhere: Elsewhere[AgePipeline] | None = None,
) -> Predictions:
    """Predicts every face of a data set.

    Args:
        pipeline: the bundle; open it with one thread per model, the pictures run side by side.
        dataset: the faces.
        aligned: the network alone, on each picture as it is, otherwise the whole pipeline.
        unreadable: takes what cannot be read; None: every picture must be readable.
        change: what is done to each picture first.
        elsewhere: processes that answer; None: threads of this one.

    Raises:
        InputError: too many pictures cannot be read, or all.
    """
    if unreadable is None:
        unreadable = Unreadable(dataset.name, len(dataset), share=0)

    pieces = pieces_of(len(dataset), 1 if elsewhere is None else TOGETHER)
    work = partial(_answer_faces, dataset, aligned, change)
    tried: list[list[Any] | None] = []
    for piece, answers in zip(pieces, answered(pipeline, work, pieces, elsewhere), strict=True):
        for index, answer in zip(piece, answers, strict=True):
            tried.append(unreadable.attempt(dataset[index].name, partial(_as_read, answer)))
    rows = np.array([row for row, answer in enumerate(tried) if answer is not None], np.int64)
    unreadable.check({f"faces of {dataset.name}": len(rows)})
    age, low, high, found = (np.array(column) for column in zip(*filter(None, tried), strict=True))
    return Predictions(rows, age, low, high, found.astype(np.bool_), dataset.ages[rows].astype(np.float64))


def _answer_faces(
    dataset: FaceDataset,
    aligned: bool,
    change: Callable[[Pixels], Pixels] | None,
    pipeline: AgePipeline,
    piece: range,
) -> list[list[Any] | str]:
    """Of each face age, low, high and whether it was found, or why its picture cannot be read."""
    answers: list[list[Any] | str] = []
    for index in piece:
        try:
            image = dataset.image(index)
        except InputError as error:
            answers.append(str(error))
            continue
        if change is not None:
            image = change(image)
        face = None if aligned else chosen_face(pipeline, image, dataset[index])
        (answer,) = pipeline.ages([image if face is None else pipeline.settings.crop(image, face)])
        age, low, high = (float(answer[name]) for name in ("age", "low", "high"))
        # As `runtime.pipelines.age.Face` has them.
        answers.append([age, min(low, age), max(high, age), face is not None])
    return answers


def _as_read(answer: list[Any] | str) -> list[Any]:
    """An answer, or the error that came instead."""
    if isinstance(answer, str):
        raise InputError(answer)
    return answer


def evaluate_ages(
    pipeline: AgePipeline,
    dataset: FaceDataset,
    *,
    aligned: bool,
    unreadable: Unreadable | None = None,
    by: Sequence[str] = (),
    against: AgePipeline | None = None,
    stability: bool = False,
    elsewhere: Elsewhere[AgePipeline] | None = None,
) -> dict[str, Any]:
    """Judges a pipeline on every face of a data set.

    Args:
        pipeline: see `predict_faces`.
        dataset: the faces.
        aligned: see `predict_faces`.
        unreadable: see `predict_faces`.
        by: attributes of the data set, e.g. "gender": the figures for each of their values.
        against: another pipeline, which is asked about the same faces; the differences are paired.
        stability: by how much small changes of the pictures move the answers.
        elsewhere: see `predict_faces`; the figures are the same bit for bit.

    Returns:
        {"n", "dataset", "mode", "metrics": {"MAE", "MAE standard error", "CS@5", "coverage", "width"}, "interval",
        "not_found", "by_age": {band: {"MAE", "standard error", "bias", "coverage", "width", "n"}}}, and what was asked
        for: "by_gender" and so on, "against", "stability".

    Raises:
        InputError: too many pictures cannot be read, or all, or the data set does not tell such an attribute.
    """
    check_attributes(dataset, by)
    ask = partial(predict_faces, aligned=aligned, elsewhere=elsewhere)
    found = ask(pipeline, dataset, unreadable=unreadable)
    seen = dataset.take(found.rows.tolist())
    result: dict[str, Any] = {
        "n": len(found.rows),
        "dataset": dataset.name,
        "mode": "aligned faces, network alone" if aligned else "whole pipeline",
        "metrics": found.figures(),
        "interval": pipeline.settings.interval_json(),
    }
    if not aligned:
        result["not_found"] = int((~found.found).sum())
    result["by_age"] = {band: found.group(rows) for band, rows in age_bands(found.truth).items()}
    for name in by:
        values = np.array([str(sample.attributes.get(name, "not told")) for sample in seen])
        result[f"by_{name}"] = {str(value): found.group(values == value) for value in np.unique(values)}
    if against is not None:
        result["against"] = compared(found, ask(against, seen))
    if stability:
        result["stability"] = {
            name: moved(found.age, ask(pipeline, seen, change=change).age) for name, change in CHANGES.items()
        }
    return result


def compared(this: Predictions, other: Predictions) -> dict[str, dict[str, float]]:
    """The figures of two pipelines on the same faces, this minus the other, and the standard error of that difference.

    The difference is paired: what makes a face hard for both does not blur it.
    """
    pairs = [_each(one) for one in (this, other)]
    difference = {name: pairs[0][name] - pairs[1][name] for name in pairs[0]}
    return {
        "this": {name: float(values.mean()) for name, values in pairs[0].items()},
        "other": {name: float(values.mean()) for name, values in pairs[1].items()},
        "difference": {name: float(values.mean()) for name, values in difference.items()},
        "standard error": {name: standard_error(values) for name, values in difference.items()},
    }


def _each(found: Predictions) -> dict[str, Years]:
    """What the figures are means of, for each face (n,)."""
    size = np.abs(found.errors())
    inside = (found.low <= found.truth) & (found.truth <= found.high)
    return {
        "MAE": size,
        "CS@5": (size <= CLOSE).astype(np.float64),
        "coverage": inside.astype(np.float64),
        "width": found.high - found.low,
    }


def check_attributes(dataset: FaceDataset, names: Sequence[str]) -> None:
    """Refuses attributes that no face of the data set has.

    Raises:
        InputError: there is one.
    """
    told = sorted({name for sample in dataset for name in sample.attributes})
    for name in names:
        if name not in told:
            have = f"it tells {', '.join(told)}" if told else "it tells none"
            raise InputError(f"--by {name}: the data set {dataset.name} does not tell the {name} of a face; {have}")
