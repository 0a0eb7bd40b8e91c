"""Judges a bundle that stores and recalls on fresh sequences, near and far, beside always saying 0. No torch."""

from __future__ import annotations

from typing import Any, cast, get_args

import numpy as np

from edgedl.tasks.gradients.data import NAME, STEPS, Split, draw_sequences
from exporters.quantize.judge import Judge, Part, judge_of_splits
from runtime.errors import BundleError, InputError
from runtime.pipelines.tensors import TensorPipeline

SEQUENCES = 1000
"""With 60 steps some 8,700 recalls."""
FAR = 5 / 6
"""From this share of a sequence's steps on, what is asked is far back."""


def judge_recall(most: int | None = None) -> Judge[TensorPipeline]:
    """The squared error of what is asked, for `edgedl quantize`."""

    def measure(pipeline: TensorPipeline, split: str, first: int) -> float:
        value: float = evaluate_recall(pipeline, split, first)["metrics"]["MSE"]
        return value

    sizes: dict[Part, int] = {"calibrate": 100, "choose": 300, "judge": most or SEQUENCES}
    return judge_of_splits(NAME, "MSE", sizes, TensorPipeline, measure, unit="squared", lower_is_better=True)


def evaluate_recall(pipeline: TensorPipeline, split: str, sequences: int = SEQUENCES) -> dict[str, Any]:
    """Lets the bundle's own graph answer sequences from the first step, with all of its state zero.

    Args:
        pipeline: the bundle.
        split: ``test``, or ``val`` and ``train`` for other sequences from the distribution of training.
        sequences: how many, as long as those of training.

    Returns:
        {"n", "dataset", "split", "metrics": {"MSE", "MSE_far", "MSE_unasked", "MSE_always_0"}, "recalls": {…}};
        ``MSE`` is of the steps that recall, ``MSE_far`` of those whose value lies five sixths of the sequence or more
        behind, ``MSE_unasked`` of all other steps, ``MSE_always_0`` of saying 0 where ``MSE`` is measured.

    Raises:
        InputError: there is no such split.
        BundleError: the bundle is none of this task.
    """
    if split not in get_args(Split):
        raise InputError(f"there is no split {split!r} of {NAME} sequences; there is {', '.join(get_args(Split))}")
    steps = pipeline.bundle.manifest.pipeline.get("steps", STEPS)
    if not isinstance(steps, int):
        raise BundleError(f"{pipeline.bundle.path}: a sequence has a whole number of steps, found {steps!r}")
    drawn = draw_sequences(sequences, steps=steps, split=cast(Split, split), part=-1 % 2**32)
    answers = answer(pipeline, drawn.inputs).astype(np.float64)
    error, asked = np.square(answers - drawn.targets), drawn.asked
    far = asked & (drawn.lag >= FAR * steps)
    return {
        "n": len(drawn),
        "dataset": NAME,
        "split": split,
        "metrics": {
            "MSE": float(error[asked].mean()),
            "MSE_far": float(error[far].mean()),
            "MSE_unasked": float(error[~asked].mean()),
            "MSE_always_0": float(np.square(drawn.targets[asked].astype(np.float64)).mean()),
        },
        "recalls": {"all": int(asked.sum()), "far": int(far.sum()), "steps": int(asked.size)},
    }


def answer(pipeline: TensorPipeline, inputs: np.ndarray) -> np.ndarray:
    """The answers (n, T) of a bundle to inputs (n, T, 3), from a state of zeros."""
    answers: np.ndarray = pipeline.engine.stream().step({"u": inputs})["answer"]
    return answers
