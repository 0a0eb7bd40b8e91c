"""Judges a caption bundle on clips that people have described: the pipeline as deployed, search and all. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgedl.tasks.caption.data.bouncing_digits import ABSENT, BouncingDigits
from edgedl.tasks.caption.data.captions import open_captions
from edgedl.tasks.caption.metrics import caption_metrics, exact_sentences, import_scorers
from edgedl.training.progress import Progress
from runtime.errors import InputError, MissingExtraError
from runtime.pipelines.caption import CaptionPipeline
from runtime.threads import default_threads

CLIPS_AT_ONCE = 64
"""That one thread reads before it captions them: of so many, those of one size share a run of the graph."""

HELD_BYTES = 64 << 20
"""Frames that one thread holds, at most; a single clip may be larger."""

EXAMPLES = 5

BY_SCORERS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr-D", "METEOR")


class DescribedClips(Protocol):
    """What captions are judged on."""

    @property
    def name(self) -> str:
        """The data set."""
        ...

    def __len__(self) -> int:
        """How many clips there are."""
        ...

    def clip_name(self, index: int) -> str:
        """The clip's name in the data set."""
        ...

    def captions(self, index: int) -> tuple[str, ...]:
        """Everything that was said of a clip, at least one sentence."""
        ...

    def media(self, index: int) -> Path | bytes | NDArray[np.uint8]:
        """The clip as a captioning pipeline takes it: which of its frames count is the bundle's to choose."""
        ...


def evaluate_bundle(
    pipeline: CaptionPipeline, data: str | PathLike[str] | None, split: str | None, progress: Progress | None = None
) -> dict[str, Any]:
    """Judges a bundle on a data set, by default on the validation clips of the embedded one.

    Args:
        pipeline: the bundle; open it with one thread, the clips run side by side.
        data: a folder or zip in the data set's own format; None: the bouncing digits.
        split: a part of the data; None: all of it, of the embedded data those of validation.
        progress: told how many clips are done.

    Returns:
        What `evaluate_captions` gives, and "skipped"; of the embedded data "by_digits", the share of exact sentences
        for clips of one digit and of two. Without pycocoevalcap the embedded data are judged by exact sentences alone.

    Raises:
        InputError: the data cannot be read.
        MissingExtraError: a package for reading the data is missing; with `data`, pycocoevalcap.
    """
    if data is not None:
        import_scorers()  # what is missing shows before the work is done
        dataset = open_captions(data)
        result = evaluate_captions(pipeline, dataset.split(split or "all"), progress=progress)[0]
        return {**result, "skipped": dict(dataset.skipped)}
    digits = BouncingDigits().split(split or "val")
    result, said = evaluate_captions(pipeline, digits, scored=_scorers_are_there(), progress=progress)
    return {**result, "by_digits": exact_by_digits(said, digits)}


def evaluate_captions(
    pipeline: CaptionPipeline, dataset: DescribedClips, *, scored: bool = True, progress: Progress | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Captions every clip of a data set.

    Args:
        pipeline: the bundle.
        dataset: the clips.
        scored: compute what needs pycocoevalcap, see `edgedl.tasks.caption.metrics`.
        progress: told how many clips are done.

    Returns:
        {"n", "dataset", "metrics", "not_computed": {metric: why}, "examples": [{"clip", "caption", "reference"}]}, and
        the caption of each clip.

    Raises:
        InputError: there is no clip, or one cannot be read.
    """
    said = captions_of(pipeline, dataset, progress)
    truth = [dataset.captions(index) for index in range(len(dataset))]
    if scored:
        judged = caption_metrics(said, truth)
        values, not_computed = judged.values, judged.not_computed
    else:
        values = {"accuracy": exact_sentences(said, truth)}
        not_computed = dict.fromkeys(BY_SCORERS, str(MissingExtraError("pycocoevalcap", "eval")))
    shown = sorted({(2 * i + 1) * len(said) // (2 * EXAMPLES) for i in range(EXAMPLES)})
    examples = [{"clip": dataset.clip_name(i), "caption": said[i], "reference": truth[i][0]} for i in shown]
    result = {
        "n": len(said),
        "dataset": dataset.name,
        "metrics": values,
        "not_computed": not_computed,
        "examples": examples,
    }
    return result, said


def captions_of(pipeline: CaptionPipeline, dataset: DescribedClips, progress: Progress | None = None) -> list[str]:
    """The best caption of each clip. Several threads read and caption, each a stretch of the clips at a time.

    Raises:
        InputError: a clip cannot be read.
    """
    stretches = [range(i, min(i + CLIPS_AT_ONCE, len(dataset))) for i in range(0, len(dataset), CLIPS_AT_ONCE)]

    def describe(stretch: range) -> list[str]:
        held = _held(pipeline, dataset, stretch)
        return [captions[0].text for clips in held for captions in pipeline.captions(clips)]

    said: list[str] = []
    with ThreadPoolExecutor(default_threads()) as pool:
        for captions in pool.map(describe, stretches):
            said += captions
            if progress is not None:
                progress(len(said), len(dataset))
    return said


def exact_by_digits(said: Sequence[str], digits: BouncingDigits) -> dict[str, Mapping[str, float | int]]:
    """Exact sentences of clips with one digit and with two: {"one": {"accuracy", "n"}, "two": …}, where there are."""
    counts = (digits.digits() != ABSENT).sum(axis=1)
    table: dict[str, Mapping[str, float | int]] = {}
    for name, count in (("one", 1), ("two", 2)):
        rows = np.flatnonzero(counts == count).tolist()
        if rows:
            accuracy = exact_sentences([said[i] for i in rows], [digits.captions(i) for i in rows])
            table[name] = {"accuracy": accuracy, "n": len(rows)}
    return table


def _held(pipeline: CaptionPipeline, dataset: DescribedClips, stretch: range) -> Iterator[list[NDArray[np.uint8]]]:
    """The clips' frames as the pipeline samples them, as many together as may be held."""
    clips: list[NDArray[np.uint8]] = []
    for index in stretch:
        try:
            clips.append(pipeline.read(dataset.media(index)).pixels)
        except InputError as error:
            raise type(error)(f"{dataset.clip_name(index)} of {dataset.name}: {error}") from error
        if sum(clip.nbytes for clip in clips) >= HELD_BYTES:
            yield clips
            clips = []
    if clips:
        yield clips


def _scorers_are_there() -> bool:
    try:
        import_scorers()
    except MissingExtraError:
        return False
    return True
