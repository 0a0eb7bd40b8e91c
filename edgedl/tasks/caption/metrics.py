"""How good captions are: BLEU, ROUGE-L, CIDEr-D and METEOR by pycocoevalcap, and the share of exact sentences.

Candidates and references are cut into words by the toolkit's own tokeniser (`edgedl.tasks.caption.data.vocabulary`),
because the one that pycocoevalcap calls needs Java. Figures therefore differ a little from published ones.

All values are pycocoevalcap's, where papers print a hundred times as much. BLEU, ROUGE-L, METEOR and accuracy are
fractions of 1. CIDEr-D (its ``Cider``, which is the D variant) is ten times a mean of cosines and so could reach 10;
on Flickr8k people have about 0.8 against each other. Its document frequencies are those of the references it is given,
so it compares captioners on one set and not one captioner on two sets.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

from edgedl.tasks.caption.data.vocabulary import tokenise
from runtime.errors import InputError, MissingExtraError

METEOR_SECONDS = 900.0
"""METEOR's Java program is ended after so long; it needs a few seconds to start and a few for a thousand captions."""

Sentences = Mapping[int, list[str]]
"""Tokenised sentences by clip, as pycocoevalcap takes them."""


@dataclass(frozen=True, slots=True)
class CaptionMetrics:
    """Figures of a set of captions.

    Attributes:
        values: BLEU-1 … BLEU-4, ROUGE-L, CIDEr-D, METEOR where it could be computed, and accuracy.
        not_computed: what is missing in them, and why.
    """

    values: dict[str, float]
    not_computed: dict[str, str]


def caption_metrics(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> CaptionMetrics:
    """Judges captions against what people said.

    Args:
        candidates: a caption a clip.
        references: of each clip the captions of people, as written; those without a word are left aside.

    Raises:
        InputError: other numbers of captions and clips, no clip at all, or one without references.
        MissingExtraError: pycocoevalcap is not installed.
    """
    bleu_scorer, rouge_scorer, cider_scorer = import_scorers()
    said, truth = _tokenised(candidates, references)
    bleu, _ = bleu_scorer(4).compute_score(truth, said, verbose=0)
    values = {f"BLEU-{n}": float(value) for n, value in enumerate(bleu, 1)}
    values["ROUGE-L"] = float(rouge_scorer().compute_score(truth, said)[0])
    values["CIDEr-D"] = float(cider_scorer().compute_score(truth, said)[0])
    meteor = _meteor(said, truth)
    not_computed = {}
    if isinstance(meteor, float):
        values["METEOR"] = meteor
    else:
        not_computed["METEOR"] = meteor
    return CaptionMetrics(values | {"accuracy": _accuracy(said, truth)}, not_computed)


def import_scorers() -> tuple[Any, Any, Any]:
    """The classes of pycocoevalcap for BLEU, ROUGE-L and CIDEr-D.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge
    except ImportError as error:
        raise MissingExtraError("pycocoevalcap", "eval") from error
    return Bleu, Rouge, Cider


def exact_sentences(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """The share of captions whose words are those of one of their references; needs no extra.

    Args:
        candidates: a caption a clip.
        references: of each clip the captions of people, as written.

    Raises:
        InputError: other numbers of captions and clips, no clip at all, or one without references.
    """
    return _accuracy(*_tokenised(candidates, references))


def _tokenised(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[Sentences, Sentences]:
    if len(candidates) != len(references) or not candidates:
        raise InputError(
            f"{len(candidates)} captions for {len(references)} clips; expected one for each, and at least one"
        )
    said = {clip: [" ".join(tokenise(caption))] for clip, caption in enumerate(candidates)}
    truth = {}
    for clip, captions in enumerate(references):
        truth[clip] = [" ".join(words) for words in map(tokenise, captions) if words]
        if not truth[clip]:
            raise InputError(
                f"clip {clip} has {len(captions)} references with no word; expected at least one with some"
            )
    return said, truth


def _accuracy(said: Sentences, truth: Sentences) -> float:
    return sum(said[clip][0] in truth[clip] for clip in said) / len(said)


def _meteor(said: Sentences, truth: Sentences) -> float | str:
    """METEOR 1.5, or why it was not computed."""
    if shutil.which("java") is None:
        return "java is not on PATH"
    from pycocoevalcap.meteor.meteor import Meteor

    try:
        judge = Meteor()
    except OSError as error:
        return f"java cannot be started: {error.strerror or error}"
    with ExitStack() as stack:
        stack.callback(_end, judge)
        timer = threading.Timer(METEOR_SECONDS, judge.meteor_p.kill)
        timer.daemon = True
        timer.start()
        stack.callback(timer.cancel)
        try:
            return float(judge.compute_score(truth, said)[0])
        except (ValueError, OSError):  # no number where one was to come, or nobody there to write to
            late = not timer.is_alive()
            judge.meteor_p.kill()
            complaint = judge.meteor_p.stderr.read().decode(errors="replace").strip().splitlines()
            if late:
                return f"java gave no answer within {METEOR_SECONDS:g} s"
            return "java ended without an answer" + (f": {complaint[-1]}" if complaint else "")


def _end(judge: Any) -> None:
    """Ends METEOR's process. Left to itself it would leave pipes open, and hang if its scoring was cut short."""
    if judge.lock.locked():
        judge.lock.release()
    judge.meteor_p.kill()
    judge.meteor_p.wait()
    for pipe in (judge.meteor_p.stdin, judge.meteor_p.stdout, judge.meteor_p.stderr):
        with suppress(OSError):  # what was not yet written cannot be any more
            pipe.close()
