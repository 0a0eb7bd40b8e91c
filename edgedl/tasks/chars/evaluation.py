"""Judges a chars bundle on text: nats per character through ONNX Runtime, beside a trigram model. Needs no torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedl.tasks.chars.data.texts import Text
from edgedl.tasks.chars.ngram import fit_ngram
from edgedl.training.progress import Progress
from exporters.quantize.judge import SPLITS, Judge, Part, judge_of_splits
from runtime.characters import UNKNOWN
from runtime.errors import InputError
from runtime.pipelines.chars import ANSWER, PIECE, CharsPipeline

QUANTIZED: dict[Part, int] = {"calibrate": 4_000, "choose": 10_000, "judge": 50_000}
"""Characters of the parts that `edgedl quantize` calibrates, chooses and judges with, at most."""

ORDERS = {"trigram": 3, "5-gram": 5}
"""What a model is compared with, and how many characters each sees, the next one included."""


def evaluate_text(pipeline: CharsPipeline, text: Text, split: str, progress: Progress | None = None) -> dict[str, Any]:
    """Reads a part of a text with the bundle and notes what each character was given before it came.

    The state begins with zeros and one character before the part (the bundle's beginning where there is none), and is
    carried through the part. Where the part is not all of the text, n-gram models are fitted on the text's training
    part and judged on the very same characters.

    Args:
        pipeline: the bundle.
        text: the text.
        split: ``train``, ``val``, ``test`` or ``all``.
        progress: told how many characters are done.

    Returns:
        {"n", "dataset", "split", "metrics": {"nats_per_character", "accuracy"}, "unknown"}, with "trigram" and
        "5-gram" where they can be fitted, and of the embedded text "grammar", what its own grammar needs. "unknown" is
        the share of characters that the bundle does not know: which of them it was is not counted.

    Raises:
        InputError: there is no such part.
    """
    start, stop = text.bounds(split)
    tokens = pipeline.characters.encode(text.content[start:stop])
    before = pipeline.characters.encode(text.content[max(0, start - 16) : start] or pipeline.settings.beginning)
    nats, right = judge(pipeline, np.concatenate([before[-1:], tokens]), progress)
    result: dict[str, Any] = {
        "n": len(tokens),
        "dataset": text.name,
        "split": split,
        "metrics": {"nats_per_character": float(nats.mean()), "accuracy": float(right.mean())},
        "unknown": float((tokens == UNKNOWN).mean()),
    }
    if split in ("val", "test"):
        training = pipeline.characters.encode(text.part("train"))
        size = len(pipeline.characters)
        for name, order in ORDERS.items():
            if float(size) ** order < 2.0**62:
                result[name] = fit_ngram(training, size, order).nats(tokens, before)
    if text.told is not None:
        result["grammar"] = text.told.nats(start, stop) / len(tokens)
    trained_on = pipeline.bundle.manifest.provenance.get("data", {})
    if split in ("train", "all") and isinstance(trained_on, dict) and trained_on.get("sha256") == text.sha256:
        result["note"] = "this bundle has learnt from a part of this text; --split test is what it has not seen"
    return result


def judge_text(text: Text, most: int | None = None) -> Judge[CharsPipeline]:
    """Nats per character on parts of a text, for `edgedl quantize`.

    Raises:
        InputError: a part of the text is empty.
    """

    def measure(pipeline: CharsPipeline, split: str, first: int) -> float:
        nats, _ = judge(pipeline, pipeline.characters.encode(text.part(split)[: first + 1]))
        return float(nats.mean())

    sizes: dict[Part, int] = {part: min(QUANTIZED[part], len(text.part(split)) - 1) for part, split in SPLITS.items()}
    sizes["judge"] = min(sizes["judge"], most or sizes["judge"])
    if min(sizes.values()) < 1:
        raise InputError(f"{text.name} is too short to be parted into what calibrates, chooses and judges")
    return judge_of_splits(
        text.name, "nats_per_character", sizes, CharsPipeline, measure, unit="nat", lower_is_better=True
    )


def judge(
    pipeline: CharsPipeline, tokens: NDArray[np.int64], progress: Progress | None = None
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """−log p of every token after the first, (n − 1,) in nats, and whether it was the likeliest."""
    stream = pipeline.engine.stream()
    nats, right = np.empty(len(tokens) - 1), np.empty(len(tokens) - 1, np.bool_)
    for start in range(0, len(nats), PIECE):
        stop = min(start + PIECE, len(nats))
        expected = stream.step(tokens[None, start:stop])[ANSWER][0]  # (T, V)
        follows = tokens[start + 1 : stop + 1]
        nats[start:stop] = -expected[np.arange(stop - start), follows].astype(np.float64)
        right[start:stop] = expected.argmax(axis=1) == follows
        if progress is not None:
            progress(stop, len(nats))
    return nats, right
