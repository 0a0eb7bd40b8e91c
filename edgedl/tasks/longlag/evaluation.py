"""Judges a bundle for long time lags on fresh sequences: how many are wrong, and the loss beside a constant's."""

from __future__ import annotations

from typing import Any, cast, get_args

import numpy as np

from edgedl.tasks.longlag.data import COPIED, PROBLEMS, Array, LagSequences, Split, draw_sequences, right_rows
from exporters.quantize.judge import Judge, Part, judge_of_splits
from runtime.errors import BundleError, InputError
from runtime.pipelines.tensors import TensorPipeline

SEQUENCES = 2560
"""As in Hochreiter and Schmidhuber 1997."""
AT_ONCE = 256
JUDGED = 1000


def judge_longlag(most: int | None = None) -> Judge[TensorPipeline]:
    """The share of sequences that are right by the rule of `right_rows`, for `edgedl quantize`."""

    def measure(pipeline: TensorPipeline, split: str, first: int) -> float:
        result = evaluate_longlag(pipeline, split, first)
        return 1 - float(result["metrics"]["wrong"]) / int(result["n"])

    sizes: dict[Part, int] = {"calibrate": 100, "choose": 300, "judge": most or JUDGED}
    return judge_of_splits("longlag", "right", sizes, TensorPipeline, measure)


def evaluate_longlag(pipeline: TensorPipeline, split: str, sequences: int = SEQUENCES) -> dict[str, Any]:
    """Lets the bundle's own graph answer sequences that neither training nor validation has seen.

    Args:
        pipeline: the bundle.
        split: ``test``, or ``val`` and ``train`` for others.
        sequences: how many; of digits no more than the part has, but for ``train``, which is drawn as in training.

    Returns:
        {"n", "dataset", "split", "metrics", "length"}. The metric ``wrong`` counts sequences by the rule of
        `right_rows`. Of ``adding`` it stands beside "MSE" and "MSE_constant", both of .5 + (X1 + X2)/4 as in the paper;
        of the others beside "accuracy" (of ``copy`` that of the ten symbols), "nats" and "nats_constant", what the best
        constant answer would have.

    Raises:
        InputError: there is no such split.
        BundleError: the bundle is none of long time lags.
    """
    if split not in get_args(Split):
        raise InputError(f"there is no split {split!r} of long time lags; there is {', '.join(get_args(Split))}")
    problem, length = _settings(pipeline)
    drawn = draw_sequences(problem, sequences, length=length, split=cast(Split, split), part=-1 % 2**32)
    answers = answer(pipeline, problem, drawn)
    loss = "MSE" if problem == "adding" else "nats"
    return {
        "n": len(drawn),
        "dataset": f"longlag-{problem}",
        "split": split,
        "metrics": {
            "wrong": int((~right_rows(problem, answers, drawn.targets)).sum()),
            **_measures(problem, answers, drawn.targets),
            f"{loss}_constant": PROBLEMS[problem].constant(length),
        },
        "length": length,
    }


def answer(pipeline: TensorPipeline, problem: str, drawn: LagSequences) -> Array:
    """The bundle's answers: of ``adding`` (n,) on the scale of the targets, of the others probabilities."""
    carried = "sum" if problem == "adding" else "probabilities"
    names = [spec.name for spec in pipeline.engine.spec.inputs]
    parts = []
    for start in range(0, len(drawn), AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        given = dict(zip(names, (drawn.inputs[rows], drawn.lengths[rows]), strict=False))
        parts.append(pipeline.engine.run(given)[carried])
    answers: Array = np.concatenate(parts)
    return 0.5 + answers / 4 if problem == "adding" else answers


def _measures(problem: str, answers: Array, targets: Array) -> dict[str, float]:
    if problem == "adding":
        return {"MSE": float(np.square(answers.astype(np.float64) - targets).mean())}
    likely = np.take_along_axis(answers.astype(np.float64), targets[..., None], axis=-1)[..., 0]
    found, wanted = answers.argmax(axis=-1), targets
    if PROBLEMS[problem].every_step:
        found, wanted = found[:, -COPIED:], wanted[:, -COPIED:]
    return {
        "accuracy": float((found == wanted).mean()),
        "nats": float(-np.log(np.maximum(likely, np.finfo(np.float32).tiny)).mean()),
    }


def _settings(pipeline: TensorPipeline) -> tuple[str, int]:
    """Problem and T of a bundle."""
    settings, where = pipeline.bundle.manifest.pipeline, pipeline.bundle.path
    problem, length = settings.get("problem"), settings.get("length")
    if problem not in PROBLEMS or type(length) is not int:
        raise BundleError(
            f"{where}: a bundle of long time lags names its problem ({', '.join(PROBLEMS)}) and its length, a whole "
            f"number; found {dict(settings)}"
        )
    return str(problem), length
