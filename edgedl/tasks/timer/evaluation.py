"""Judges a timer's bundle on fresh sequences: exact pulses, squared error, and that of always saying 0. No torch."""

from __future__ import annotations

from typing import Any, cast, get_args

import numpy as np

from edgedl.tasks.timer.data import NAME, SCALE, Split, draw_sequences, exact_pulses, find_pulses
from exporters.quantize.judge import Judge, Part, judge_of_splits
from runtime.errors import BundleError, InputError
from runtime.pipelines.tensors import TensorPipeline

SEQUENCES = 500
"""For scale 10 some 2,500 whole pulses."""


def judge_timer(most: int | None = None) -> Judge[TensorPipeline]:
    """The share of whole pulses that are timed exactly, for `edgedl quantize`."""

    def measure(pipeline: TensorPipeline, split: str, first: int) -> float:
        value: float = evaluate_timer(pipeline, split, first)["metrics"]["exact"]
        return value

    sizes: dict[Part, int] = {"calibrate": 100, "choose": 200, "judge": most or SEQUENCES}
    return judge_of_splits(NAME, "exact", sizes, TensorPipeline, measure)


def evaluate_timer(pipeline: TensorPipeline, split: str, sequences: int = SEQUENCES) -> dict[str, Any]:
    """Lets the bundle's own graph answer sequences from the first step, with all of its state zero.

    Args:
        pipeline: the bundle.
        split: ``test``, or ``val`` and ``train`` for other sequences from the distribution of training.
        sequences: how many, of twelve scales each.

    Returns:
        {"n", "dataset", "split", "metrics": {"exact", "exact_restarted", "MSE", "MSE_always_0"}, "pulses": {…}};
        ``exact`` is the share of whole pulses timed exactly, ``exact_restarted`` that of those that the next start, or
        the sequence's end, cut short.

    Raises:
        InputError: there is no such split.
        BundleError: the bundle is none of a timer.
    """
    if split not in get_args(Split):
        raise InputError(f"there is no split {split!r} of timer sequences; there is {', '.join(get_args(Split))}")
    scale = pipeline.bundle.manifest.pipeline.get("scale", SCALE)
    if not isinstance(scale, int):
        raise BundleError(f"{pipeline.bundle.path}: the timer's scale is a whole number of steps, found {scale!r}")
    drawn = draw_sequences(sequences, scale=scale, split=cast(Split, split), part=-1 % 2**32)
    answers = answer(pipeline, drawn.inputs)
    pulses = find_pulses(drawn.inputs, scale)
    exact, whole = exact_pulses(answers, drawn.targets, pulses), pulses.complete
    error = np.square(answers.astype(np.float64) - drawn.targets)
    return {
        "n": len(drawn),
        "dataset": NAME,
        "split": split,
        "metrics": {
            "exact": float(exact[whole].mean()),
            "exact_restarted": float(exact[~whole].mean()),
            "MSE": float(error.mean()),
            "MSE_always_0": float(np.square(drawn.targets.astype(np.float64)).mean()),
        },
        "pulses": {"whole": int(whole.sum()), "cut short": int((~whole).sum()), "steps": int(drawn.targets.size)},
    }


def answer(pipeline: TensorPipeline, inputs: np.ndarray) -> np.ndarray:
    """The answers (n, T) of a bundle to inputs (n, T, 2), from a state of zeros."""
    stream = pipeline.engine.stream()
    answers: np.ndarray = stream.step({"u": inputs})["answer"]
    return answers
