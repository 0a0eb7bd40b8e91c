"""Judges a caption bundle on clips that people have described: the pipeline as deployed, search and all. No torch."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgedl.data.parts import three_parts
from edgedl.data.spreading import Elsewhere, answered, pieces_of
from edgedl.data.unreadable import MAX_SHARE, Unreadable
from edgedl.tasks.caption.data.bouncing_digits import ABSENT, BouncingDigits
from edgedl.tasks.caption.data.captions import CaptionDataset, open_captions
from edgedl.tasks.caption.metrics import caption_metrics, exact_sentences, import_scorers
from edgedl.training.progress import Progress
from exporters.quantize.judge import Judge, Part
from runtime.errors import InputError, MissingExtraError
from runtime.pipelines.caption import CaptionPipeline

log = logging.getLogger(__name__)

CLIPS_AT_ONCE = 64
"""That one thread reads before it captions them: of so many, those of one size share a run of the graph."""

HELD_BYTES = 64 << 20
"""Frames that one thread holds, at most; a single clip may be larger."""

EXAMPLES = 5

JUDGED = 500
"""Clips that judge a variant, at most; a caption takes far longer than an age."""

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
    pipeline: CaptionPipeline,
    data: str | PathLike[str] | None,
    split: str | None,
    progress: Progress | None = None,
    *,
    format: str | None = None,  # noqa: A002 - the user's word
    max_unreadable: float = MAX_SHARE,
    elsewhere: Elsewhere[CaptionPipeline] | None = None,
) -> dict[str, Any]:
    """Judges a bundle on a data set, by default on the validation clips of the embedded one.

    Args:
        pipeline: the bundle; open it with one thread, the clips run side by side.
        data: a folder or zip in the data set's own format; None: the bouncing digits.
        split: a part of the data; None: all of it, of the embedded data those of validation.
        progress: told how many clips are done.
        format: of the data; None recognises it.
        max_unreadable: the share of the clips that may be left out because they cannot be read.
        elsewhere: see `evaluate_captions`.

    Returns:
        What `evaluate_captions` gives, "skipped" and "unreadable"; of the embedded data "by_digits", the share of exact
        sentences for clips of one digit and of two. Without pycocoevalcap the embedded data are judged by exact
        sentences alone.

    Raises:
        InputError: the data cannot be read.
        MissingExtraError: a package for reading the data is missing; with `data`, pycocoevalcap.
    """
    if data is not None:
        import_scorers()  # what is missing shows before the work is done
        dataset = open_captions(data, format)
        log.info("%s", dataset.summary())
        part = dataset.split(split or "all")
        unreadable = Unreadable(dataset.name, len(part), max_unreadable)
        result = evaluate_captions(pipeline, part, unreadable=unreadable, progress=progress, elsewhere=elsewhere)[0]
        return {**result, "skipped": dict(dataset.skipped), "unreadable": unreadable.to_json()}
    digits = BouncingDigits().split(split or "val")
    result, said = evaluate_captions(
        pipeline, digits, scored=_scorers_are_there(), progress=progress, elsewhere=elsewhere
    )
    return {**result, "by_digits": exact_by_digits(said, digits)}


def judge_captions(dataset: BouncingDigits | CaptionDataset, most: int | None = None) -> Judge[CaptionPipeline]:
    """How good the captions of three parts of a data set are, for `edgedl quantize`; what training has not seen judges.

    Of the embedded data the metric is the share of exact sentences, of others CIDEr-D.

    Raises:
        InputError: there are too few clips.
        MissingExtraError: with other data than the embedded ones, pycocoevalcap is not installed.
    """
    embedded = isinstance(dataset, BouncingDigits)
    if not embedded:
        import_scorers()
    clips, held_out = range(len(dataset)), set(dataset.held_out())
    rows = three_parts(
        [dataset.clip_name(clip) for clip in clips], [clip in held_out for clip in clips], most or JUDGED
    )
    parts = {part: dataset.take(chosen) for part, chosen in rows.items()}
    metric = "accuracy" if embedded else "CIDEr-D"

    def measure(pipeline: CaptionPipeline, part: Part, first: int | None) -> float:
        taken = parts[part].take(range(len(parts[part]))[:first])
        unreadable = Unreadable(taken.name, len(taken))
        value: float = evaluate_captions(pipeline, taken, scored=not embedded, unreadable=unreadable)[0]["metrics"][
            metric
        ]
        return value

    sizes = {part: len(chosen) for part, chosen in rows.items()}
    unit = "fraction" if embedded else "tenth of a mean cosine"
    return Judge(dataset.name, metric, unit, False, sizes, CaptionPipeline, measure)


def evaluate_captions(
    pipeline: CaptionPipeline,
    dataset: DescribedClips,
    *,
    scored: bool = True,
    unreadable: Unreadable | None = None,
    progress: Progress | None = None,
    elsewhere: Elsewhere[CaptionPipeline] | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Captions every clip of a data set.

    Args:
        pipeline: the bundle.
        dataset: the clips.
        scored: compute what needs pycocoevalcap, see `edgedl.tasks.caption.metrics`.
        unreadable: takes what cannot be read; None: every clip must be readable.
        progress: told how many clips are done.
        elsewhere: processes that answer; None: threads of this one. The figures are the same bit for bit.

    Returns:
        {"n", "references", "dataset", "metrics", "not_computed": {metric: why}, "examples": [{"clip", "caption",
        "reference"}]}, and the caption of each clip that can be read.

    Raises:
        InputError: there is no clip, or too many cannot be read.
    """
    captions = captions_of(pipeline, dataset, progress, unreadable, elsewhere)
    rows, said = list(captions), list(captions.values())
    truth = [dataset.captions(row) for row in rows]
    if scored:
        judged = caption_metrics(said, truth)
        values, not_computed = judged.values, judged.not_computed
    else:
        values = {"accuracy": exact_sentences(said, truth)}
        not_computed = dict.fromkeys(BY_SCORERS, str(MissingExtraError("pycocoevalcap", "eval")))
    shown = sorted({(2 * i + 1) * len(said) // (2 * EXAMPLES) for i in range(EXAMPLES)})
    examples = [{"clip": dataset.clip_name(rows[i]), "caption": said[i], "reference": truth[i][0]} for i in shown]
    result = {
        "n": len(said),
        "references": sum(map(len, truth)),
        "dataset": dataset.name,
        "metrics": values,
        "not_computed": not_computed,
        "examples": examples,
    }
    return result, said


def captions_of(
    pipeline: CaptionPipeline,
    dataset: DescribedClips,
    progress: Progress | None = None,
    unreadable: Unreadable | None = None,
    elsewhere: Elsewhere[CaptionPipeline] | None = None,
) -> dict[int, str]:
    """The best caption of each clip that can be read, by the clip's number.

    Several threads, or the processes `elsewhere`, read and caption, each a stretch of the clips at a time.

    Raises:
        InputError: too many clips cannot be read, or all.
    """
    if unreadable is None:
        unreadable = Unreadable(dataset.name, len(dataset), share=0)
    said: dict[int, str] = {}
    stretches = pieces_of(len(dataset), CLIPS_AT_ONCE)
    answers = answered(pipeline, partial(_describe, dataset), stretches, elsewhere)
    for stretch, captions in zip(stretches, answers, strict=True):
        for row, caption in zip(stretch, captions, strict=True):
            text = unreadable.attempt(dataset.clip_name(row), partial(_as_read, caption))
            if text is not None:
                said[row] = text
        if progress is not None:
            progress(stretch.stop, len(dataset))
    unreadable.check({f"clips of {dataset.name}": len(said)})
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


def _describe(dataset: DescribedClips, pipeline: CaptionPipeline, stretch: range) -> list[list[str]]:
    """Of each clip its caption, or nothing and why it cannot be read."""
    told: dict[int, list[str]] = {}
    for clips in _held(pipeline, dataset, stretch, told):
        answers = pipeline.captions(list(clips.values()))
        told |= {row: [captions[0].text] for row, captions in zip(clips, answers, strict=True)}
    return [told[row] for row in stretch]


def _as_read(told: list[str]) -> str:
    """A caption, or the error that came instead."""
    if len(told) > 1:
        raise InputError(told[1])
    return told[0]


def _held(
    pipeline: CaptionPipeline, dataset: DescribedClips, stretch: range, told: dict[int, list[str]]
) -> Iterator[dict[int, NDArray[np.uint8]]]:
    """The clips' frames by number, as the pipeline samples them, as many together as may be held; else what is told."""
    clips: dict[int, NDArray[np.uint8]] = {}
    for index in stretch:
        try:
            clips[index] = pipeline.read(dataset.media(index)).pixels
        except InputError as error:
            told[index] = ["", str(error)]
        if sum(clip.nbytes for clip in clips.values()) >= HELD_BYTES:
            yield clips
            clips = {}
    if clips:
        yield clips


def _scorers_are_there() -> bool:
    try:
        import_scorers()
    except MissingExtraError:
        return False
    return True
